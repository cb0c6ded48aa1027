//! Accepting connections: bounded in number, in all and for each address, and shaking hands beside
//! each other, so that a slow peer holds up nobody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::handshakes::Handshakes;
use super::security::Security;
use super::server_io::ServerIo;
use crate::tls::{self, Reason, Refusal, Roles};

/// Pause after a failed accept: the usual reason is that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Accepts for ever, at most `limit` connections at a time, of which one address may hold half;
/// the others wait in the kernel. With TLS only peers of `roles` come through. Who is refused is
/// counted in `handshakes`.
pub fn incoming(
    listener: TcpListener,
    security: Security,
    roles: Roles,
    limit: usize,
    handshakes: &Handshakes,
) -> impl tokio_stream::Stream<Item = io::Result<ServerIo>> + use<> {
    let (sender, receiver) = mpsc::channel(1);
    let gate = Gate {
        security,
        roles,
        handshakes: handshakes.clone(),
        limit: Arc::new(Semaphore::new(limit)),
        each: Arc::new(PerAddress::new(limit.div_ceil(2).max(1))),
    };
    tokio::spawn(accept_all(listener, gate, sender));
    ReceiverStream::new(receiver)
}

struct Gate {
    security: Security,
    roles: Roles,
    handshakes: Handshakes,
    limit: Arc<Semaphore>,
    each: Arc<PerAddress>,
}

async fn accept_all(listener: TcpListener, gate: Gate, sender: Sender<io::Result<ServerIo>>) {
    loop {
        let Ok(permit) = gate.limit.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                // An IPv4 peer of a socket for both families is an IPv4 peer.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let _ = stream.set_nodelay(true);
                if gate.admit(stream, address, permit, &sender).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Nobody serves any more.
struct Closed;

impl Gate {
    async fn admit(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
        sender: &Sender<io::Result<ServerIo>>,
    ) -> Result<(), Closed> {
        let Some(share) = self.each.enter(address.ip()) else {
            let text = format!(
                "one address may hold {} connections: give fewer -C there, or end what opens them",
                self.each.limit
            );
            let refusal = Refusal::new(Reason::TooMany, text);
            self.handshakes.refused(Some(address), &refusal);
            return Ok(());
        };
        let slot = Slot {
            _permit: permit,
            _share: share,
        };
        let handshakes = self.handshakes.clone();
        match &self.security {
            Security::Insecure => {
                let io = ServerIo::plain(stream, Some(address), handshakes, slot);
                sender.send(Ok(io)).await.map_err(|_| Closed)
            }
            Security::Mutual(store) => {
                let (material, roles, sender) = (store.current(), self.roles, sender.clone());
                tokio::spawn(async move {
                    match tls::accept(stream, &material, roles, HANDSHAKE_WITHIN).await {
                        Ok((stream, identity)) => {
                            handshakes.accepted();
                            let io =
                                ServerIo::tls(stream, Some(address), identity, handshakes, slot);
                            let _ = sender.send(Ok(io)).await;
                        }
                        Err(refusal) => handshakes.refused(Some(address), &refusal),
                    }
                });
                Ok(())
            }
        }
    }
}

/// A connection's part of the limits, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// How many connections each address holds. It holds as many entries as there are connections.
#[derive(Debug)]
struct PerAddress {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

#[derive(Debug)]
struct Share {
    of: Arc<PerAddress>,
    address: IpAddr,
}

impl PerAddress {
    fn new(limit: usize) -> Self {
        PerAddress {
            limit,
            open: Mutex::default(),
        }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let mut open = self.open.lock();
        let count = open.entry(address).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Share {
            of: self.clone(),
            address,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_its_share_and_gives_it_back() {
        let each = Arc::new(PerAddress::new(2));
        let one: IpAddr = "198.18.0.1".parse().unwrap();
        let other: IpAddr = "198.18.0.2".parse().unwrap();
        let first = each.enter(one).unwrap();
        let _second = each.enter(one).unwrap();
        assert!(each.enter(one).is_none());
        let third = each.enter(other).unwrap();
        drop(first);
        assert!(each.enter(one).is_some());
        drop(third);
        assert!(!each.open.lock().contains_key(&other));
    }
}

//! Accepting connections: bounded in number, in all and for each address, and shaking hands beside
//! each other, so that a slow peer holds up nobody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        let share = match self.each.enter(address.ip(), Instant::now()) {
            Ok(share) => share,
            Err(text) => {
                let refusal = Refusal::new(Reason::TooMany, text);
                self.handshakes.refused(Some(address), &refusal);
                return Ok(());
            }
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

/// How many connections each address holds, and begins in a second: each costs a handshake, which the thread that works on
/// responses has no time for.
#[derive(Debug)]
struct PerAddress {
    limit: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// As many entries as there are connections.
    open: HashMap<IpAddr, usize>,
    /// Begun since then, for a second.
    begun: HashMap<IpAddr, usize>,
    since: Instant,
}

#[derive(Debug)]
struct Share {
    of: Arc<PerAddress>,
    address: IpAddr,
}

impl PerAddress {
    fn new(limit: usize) -> Self {
        let counts = Counts {
            open: HashMap::new(),
            begun: HashMap::new(),
            since: Instant::now(),
        };
        PerAddress {
            limit,
            counts: Mutex::new(counts),
        }
    }

    /// One more connection of an address; or why not, for its operator.
    fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Share, String> {
        let limit = self.limit;
        let counts = &mut *self.counts.lock();
        if now.saturating_duration_since(counts.since) >= Duration::from_secs(1) {
            counts.begun.clear();
            counts.since = now;
        }
        let begun = counts.begun.entry(address).or_insert(0);
        *begun += 1;
        if *begun > limit {
            return Err(format!(
                "one address may begin {limit} connections a second: end what opens them"
            ));
        }
        let count = counts.open.entry(address).or_insert(0);
        if *count >= limit {
            return Err(format!(
                "one address may hold {limit} connections: give fewer -C there, or end what opens them"
            ));
        }
        *count += 1;
        Ok(Share {
            of: self.clone(),
            address,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let open = &mut self.of.counts.lock().open;
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
        let now = Instant::now();
        let second = |count| now + Duration::from_secs(count);
        let first = each.enter(one, now).unwrap();
        let _second = each.enter(one, now).unwrap();
        let held = each.enter(one, second(1)).unwrap_err();
        assert!(held.starts_with("one address may hold 2"), "{held}");
        let third = each.enter(other, second(1)).unwrap();
        drop(first);
        assert!(each.enter(one, second(2)).is_ok());
        drop(third);
        assert!(!each.counts.lock().open.contains_key(&other));
    }

    #[test]
    fn one_address_begins_no_more_than_its_share_in_a_second() {
        let each = Arc::new(PerAddress::new(2));
        let one: IpAddr = "198.18.0.1".parse().unwrap();
        let other: IpAddr = "198.18.0.2".parse().unwrap();
        let now = Instant::now();
        for _ in 0..2 {
            drop(each.enter(one, now).unwrap());
        }
        let begun = each.enter(one, now).unwrap_err();
        assert!(begun.starts_with("one address may begin 2"), "{begun}");
        assert!(each.enter(other, now).is_ok());
        assert!(each.enter(one, now + Duration::from_secs(1)).is_ok());
    }
}

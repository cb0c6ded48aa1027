//! TCP sockets of this host: listed and ended through `sock_diag(7)`.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::model::Socket;
use super::numbers::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, SOCKID};
use millrace_netlink::Netlink;
use millrace_netlink::message::{Attributes, address as ip, u8_at};

/// Every state.
const ALL_STATES: u32 = u32::MAX;
/// Where `struct inet_diag_sockid` lies in `struct inet_diag_msg`.
const ID_AT: usize = 4;

/// All TCP sockets, IPv4 first.
pub(super) fn list(netlink: &mut Netlink) -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let fixed = request(family, &[0; SOCKID]);
        let dumped = netlink.dump(SOCK_DIAG_BY_FAMILY, &fixed, &Attributes::new(), socket);
        all.extend(dumped.map_err(explain)?);
    }
    Ok(all)
}

/// Ends a connection: its application sees an error, and a reset goes to the other end, by the
/// rules that are in place.
pub(super) fn destroy(netlink: &mut Netlink, socket: &Socket) -> io::Result<()> {
    let Some((family, id)) = socket.id.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let fixed = request(*family, id);
    match netlink.change(SOCK_DESTROY, 0, &fixed, &Attributes::new()) {
        // That connection is gone: see `Kernel::end_connection`.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        other => other.map_err(explain),
    }
}

/// What a kernel without a part of `sock_diag(7)` says, in words that help.
fn explain(error: io::Error) -> io::Error {
    let advice = match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => {
            "the kernel has no tcp_diag: run `modprobe tcp_diag`, or use a kernel with \
             CONFIG_INET_DIAG"
        }
        Some(Errno::OPNOTSUPP) => {
            "this kernel, or its module tcp_diag, was built without CONFIG_INET_DIAG_DESTROY"
        }
        Some(_) | None => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {advice}"))
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, id: &[u8]) -> Vec<u8> {
    let mut fixed = vec![family, IPPROTO_TCP, 0, 0];
    fixed.extend(ALL_STATES.to_ne_bytes());
    fixed.extend(id);
    fixed
}

fn socket(body: &[u8]) -> Option<Socket> {
    let family = u8_at(body, 0)?;
    let id = body.get(ID_AT..ID_AT + SOCKID)?;
    let port = |at: usize| Some(u16::from_be_bytes(*id.get(at..)?.first_chunk()?));
    let length = if family == AF_INET { 4 } else { 16 };
    // A socket of IPv6 may speak IPv4 (RFC 4291, 2.5.5.2).
    let address = |at: usize| Some(ip(id.get(at..at + length)?)?.to_canonical());
    let end = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let mut own_id = vec![family];
    own_id.extend(id);
    Some(Socket {
        state: u8_at(body, 1)?,
        local: end(address(4)?, port(0)?),
        remote: end(address(20)?, port(2)?),
        id: own_id,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::kernel::model::{ESTABLISHED, LISTEN};
    use proptest::prelude::*;

    #[test]
    fn a_connection_is_seen_from_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let sockets = list(&mut Netlink::sock_diag().unwrap()).unwrap();
        let at = |state, local, remote: Option<SocketAddr>| {
            sockets.iter().any(|it| {
                it.state == state && it.local == local && remote.is_none_or(|r| r == it.remote)
            })
        };
        let own = client.local_addr().unwrap();
        assert!(at(LISTEN, address, None));
        assert!(at(ESTABLISHED, address, Some(own)));
        assert!(at(ESTABLISHED, own, Some(address)));
    }

    #[test]
    fn a_kernel_without_a_part_of_sock_diag_is_named() {
        for (errno, advice) in [
            (Errno::NOENT, "`modprobe tcp_diag`"),
            (Errno::OPNOTSUPP, "CONFIG_INET_DIAG_DESTROY"),
        ] {
            let text = explain(errno.into()).to_string();
            assert!(text.contains(advice), "{text}");
        }
        let other = explain(Errno::PERM.into());
        assert_eq!(Errno::from_io_error(&other), Some(Errno::PERM));
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_left_out(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = socket(&body);
        }
    }
}

//! The address of this host that a probe may bear in place of a client's.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The address that this host would speak to `target` from, if the kernel knows a way there and it is not one
/// that leads back to this host. Nothing is sent.
pub(super) fn address_towards(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    // The discard port (RFC 863): a connected UDP socket sends nothing by itself.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    let leads_back = own.is_loopback() || own.is_unspecified() || own == target;
    (!leads_back).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_own_addresses_are_no_way_to_a_target() {
        assert_eq!(address_towards("127.0.0.1".parse().unwrap()), None);
        assert_eq!(address_towards("::1".parse().unwrap()), None);
    }
}

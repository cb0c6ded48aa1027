//! Opening a listening socket, with the reasons why it fails in an operator's words.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::exit::ExitError;

/// Binds `address` for what the option `option` (as the operator writes it) sets.
///
/// The listener is non-blocking, ready for `tokio::net::TcpListener::from_std`.
///
/// # Errors
/// An [`ExitError`] with code 1 that says what to do: another port, privileges, or an address
/// that this host has.
pub fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, ExitError> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "the port is in use: stop what listens there (ss -ltnp 'sport = :{}') or give \
                 another {option}",
                address.port()
            ),
            ErrorKind::AddrNotAvailable => format!(
                "this host does not have that address (ip address show): give another {option}"
            ),
            ErrorKind::PermissionDenied => format!(
                "not permitted: run as root, give CAP_NET_BIND_SERVICE, or give {option} a port \
                 above 1023"
            ),
            // A foreign enum without an end.
            _ => format!("{error} ({option})"),
        };
        ExitError::start(format!("cannot listen on {address}: {advice}"))
    })?;
    listener
        .set_nonblocking(true)
        .map_err(|error| ExitError::caused(format_args!("cannot use {address}"), &error))?;
    Ok(listener)
}

/// The address at which peers are listened for: see [`bind_for_peers`].
pub(crate) fn address_for_peers(address: Option<IpAddr>, insecure: bool) -> IpAddr {
    let has_ipv6 = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    match address {
        Some(ip) => ip,
        None if insecure => Ipv4Addr::LOCALHOST.into(),
        None if has_ipv6() => Ipv6Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Binds where the operator says (`--bind`, `--port`), or all addresses: of both families, or of
/// IPv4 on a host without IPv6. Where peers need no certificate (`insecure`) only this host's loopback
/// address, unless the operator names another.
///
/// # Errors
/// As [`bind`].
pub fn bind_for_peers(
    address: Option<IpAddr>,
    port: u16,
    insecure: bool,
) -> Result<TcpListener, ExitError> {
    let ip = address_for_peers(address, insecure);
    let listener = bind(SocketAddr::new(ip, port), "--bind and --port")?;
    if address.is_none() && insecure {
        tracing::warn!(
            "--insecure without -b: only copiers on this host reach it; name the address at which \
             others are to reach it with -b"
        );
    }
    Ok(listener)
}

/// The name of this host, as `hostname` shows it.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_the_option_and_a_command() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "--admin").unwrap();
        let error = bind(first.local_addr().unwrap(), "--admin").unwrap_err();
        assert!(error.to_string().contains("the port is in use"), "{error}");
        assert!(error.to_string().contains("--admin"), "{error}");
        assert_eq!(error.code(), 1);
    }

    #[test]
    fn without_certificates_only_this_host_is_served_unless_an_address_is_named() {
        let ip = |address, insecure| {
            let listener = bind_for_peers(address, 0, insecure).unwrap();
            listener.local_addr().unwrap().ip()
        };
        assert!(ip(None, true).is_loopback());
        assert!(ip(None, false).is_unspecified());
        let any = Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(ip(Some(any), true), any);
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error = bind("198.18.255.254:0".parse().unwrap(), "-b").unwrap_err();
        assert!(
            error.to_string().contains("does not have that address"),
            "{error}"
        );
    }
}

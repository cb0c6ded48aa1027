//! Addresses as operators write them, parsed with messages that say what to write instead.
//!
//! Each type implements [`std::str::FromStr`] with [`AddressError`], which clap shows as it is.

pub mod cidr;
mod host;
mod live;
mod mac;
mod mapping;
mod pool;

pub use cidr::Cidr;
pub use host::{DefaultPort, HostPort};
pub use live::{ChosenBy, Live, Pods};
pub use mac::Mac;
pub use mapping::{Mapping, Mappings};
pub use pool::{AddressRange, ClientPool, Family};

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What is wrong with an address, and what to write instead: one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl AddressError {
    /// An error that says this.
    pub fn new(message: impl Into<String>) -> Self {
        AddressError(message.into())
    }
}

/// A port from 1 to 65535.
fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(AddressError::new(format!(
            "'{text}' is not a port: give a number from 1 to 65535"
        ))),
    }
}

/// Refuses what is not the address of one host: multicast and broadcast.
///
/// # Errors
/// What is wrong with it.
pub fn check_single(ip: IpAddr) -> Result<(), AddressError> {
    let broadcast = match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    if ip.is_multicast() || broadcast {
        return Err(AddressError::new(format!(
            "{ip} is not the address of one host"
        )));
    }
    Ok(())
}

/// An IP address without brackets. Host names get a message of their own.
fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let message = if text.is_empty() {
        "an address is missing".to_owned()
    } else if text.contains('%') {
        format!("'{text}': an address with a zone (%device) cannot be used here")
    } else if text.contains(':') {
        format!("'{text}' is not an IPv6 address")
    } else if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        format!("'{text}' is not an IPv4 address: give four numbers from 0 to 255")
    } else {
        format!(
            "'{text}' is not an IP address; host names are not accepted here: give the address \
             (getent ahosts '{text}' shows it)"
        )
    };
    Err(AddressError::new(message))
}

/// `[v6]` or what stands before the last colon, and what follows it. No port: `None`.
fn split_port(text: &str) -> Result<(Host<'_>, Option<&str>), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or_else(|| {
            AddressError::new(format!(
                "'{text}': the bracket is not closed: write [address]:port"
            ))
        })?;
        let ip: Ipv6Addr = inside.parse().map_err(|_| {
            AddressError::new(format!(
                "'{text}': brackets hold an IPv6 address, and '{inside}' is none"
            ))
        })?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((Host::V6(ip), Some(port))),
            None if after.is_empty() => Ok((Host::V6(ip), None)),
            None => Err(AddressError::new(format!(
                "'{text}': only :port may follow the bracket"
            ))),
        };
    }
    match text.split_once(':') {
        None => Ok((Host::Other(text), None)),
        Some((_, rest)) if rest.contains(':') => Err(AddressError::new(format!(
            "'{text}': write an IPv6 address in brackets, as in [2001:db8::1]:80"
        ))),
        Some((host, port)) => Ok((Host::Other(host), Some(port))),
    }
}

/// What stands before a port.
enum Host<'a> {
    V6(Ipv6Addr),
    /// An IPv4 address or a name, unchecked.
    Other(&'a str),
}

impl Host<'_> {
    fn ip(&self) -> Result<IpAddr, AddressError> {
        match self {
            Host::V6(ip) => Ok(IpAddr::V6(*ip)),
            Host::Other(text) => parse_ip(text),
        }
    }
}

/// Parses `ip:port`, IPv6 in brackets; no host name.
///
/// # Errors
/// One line that says what to write instead.
pub fn parse_socket_address(text: &str) -> Result<SocketAddr, AddressError> {
    let (host, port) = split_port(text)?;
    let ip = host.ip()?;
    let port = port.ok_or_else(|| {
        AddressError::new(format!(
            "'{text}' has no port: write {}",
            SocketAddr::new(ip, 80)
        ))
    })?;
    Ok(SocketAddr::new(ip, parse_port(port)?))
}

//! The devices that are captured, and by which filter: as the options want it, whatever this host has.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};

use millrace_capture::{Expression, Filter, ResponseFilter, RingConfig};
use millrace_daemon::exit::ExitError;

use crate::options::{Mode, Options, SINK};

/// One for each device.
///
/// # Errors
/// Options that do not go together, or a filter that is none.
pub fn configs(options: &Options) -> Result<Vec<RingConfig>, ExitError> {
    let mode = options.mode();
    let headers = ResponseFilter::default();
    let snap_len = headers.snap_len;
    let filter = match &options.filter {
        Some(text) if text.trim().is_empty() => {
            return Err(ExitError::usage(
                "-F: the expression is empty; leave -F out to capture all responses",
            ));
        }
        Some(text) => Filter::Expression(Expression {
            text: text.clone(),
            exclude: Vec::new(),
            snap_len: headers.snap_len,
        }),
        None => Filter::Responses(headers),
    };
    filter
        .compile(millrace_wire::LinkType::Ethernet, snap_len)
        .map_err(|error| ExitError::usage(error.to_string()))?;
    let mut names = options.devices.clone();
    match mode {
        Mode::Sink if names.is_empty() => names.push(SINK.to_owned()),
        Mode::Link if names.is_empty() => {
            return Err(ExitError::usage(
                "--mode link: name the device on which other hosts' responses arrive with -i",
            ));
        }
        Mode::Nfqueue if !names.is_empty() => {
            return Err(ExitError::usage(
                "--mode nfqueue takes packets from a queue, not from a device: leave -i out",
            ));
        }
        Mode::Sink | Mode::Link | Mode::Nfqueue => {}
    }
    if mode == Mode::Nfqueue && options.filter.is_some() {
        return Err(ExitError::usage(
            "-F: with --mode nfqueue the firewall's rule says which packets are responses",
        ));
    }
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(ExitError::usage(
            "-i: a device's name is missing; write DEV or DEV,DEV,...",
        ));
    }
    names.sort();
    names.dedup();
    let rings = names.into_iter().map(|name| RingConfig {
        // A quarter of it is taken at once, for headers; the rest as frames come that are wanted whole.
        buffer_bytes: (options.buffer_mb as usize) << 22,
        ..RingConfig::new(name, filter.clone())
    });
    Ok(rings.collect())
}

/// More addresses are not left out: each makes the kernel's filter longer.
const MOST_ADDRESSES: usize = 16;

/// Leaves out what copiers and this interceptor say to each other on its listening socket: it comes by the devices that are
/// captured, and would wake the worker for each word of its own. Of a host with many addresses only some are left out, always
/// the same ones: it costs a little more, and nothing else.
///
/// # Errors
/// When the kernel does not tell where the socket listens.
pub fn leave_out(
    configs: &mut [RingConfig],
    listener: &TcpListener,
    local: &HashSet<IpAddr>,
) -> Result<(), ExitError> {
    let listening = listener.local_addr();
    let listening = listening
        .map_err(|error| ExitError::caused("cannot tell the listening socket's address", &error))?;
    let own = own_sockets(listening, local);
    for config in configs {
        if let Filter::Responses(filter) = &mut config.filter {
            filter.exclude.clone_from(&own);
        }
    }
    Ok(())
}

/// The addresses that others reach a listening socket at, with its port.
fn own_sockets(listening: SocketAddr, local: &HashSet<IpAddr>) -> Vec<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return vec![listening];
    }
    let reached = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => listening.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let all: BTreeSet<&IpAddr> = local.iter().filter(reached).collect();
    let some = all.into_iter().take(MOST_ADDRESSES);
    some.map(|address| SocketAddr::new(*address, listening.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sockets_own_addresses_are_those_that_others_reach_it_at() {
        let local = ["127.0.0.1", "198.18.2.30", "2001:db8::30", "fe80::1", "::1"];
        let local: HashSet<IpAddr> = local.map(|address| address.parse().unwrap()).into();
        let own = |listening: &str| {
            let own = own_sockets(listening.parse().unwrap(), &local);
            own.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(own("198.18.2.30:9"), ["198.18.2.30:9"]);
        assert_eq!(own("0.0.0.0:9"), ["198.18.2.30:9"]);
        assert_eq!(own("[::]:9"), ["198.18.2.30:9", "[2001:db8::30]:9"]);
        let many = (0..200)
            .map(|last| IpAddr::from([198, 18, 7, last]))
            .collect();
        let some = own_sockets("0.0.0.0:9".parse().unwrap(), &many);
        assert_eq!(some.len(), MOST_ADDRESSES);
        assert_eq!(some, own_sockets("0.0.0.0:9".parse().unwrap(), &many));
    }
}

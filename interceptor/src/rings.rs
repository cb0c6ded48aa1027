//! The devices that are captured, and by which filter: as the options want it, whatever this host has.

use std::collections::HashSet;
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

/// More addresses of a host than this are not left out: each makes the kernel's filter longer.
const MOST_ADDRESSES: usize = 64;

/// Leaves out what copiers and this interceptor say to each other on its listening socket: it comes by the devices that are
/// captured, and would wake the worker for each word of its own.
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
    let own: Vec<SocketAddr> = match listening.ip().is_unspecified() {
        false => vec![listening],
        true => {
            let all = local.iter().take(MOST_ADDRESSES);
            all.map(|address| SocketAddr::new(*address, listening.port()))
                .collect()
        }
    };
    for config in configs {
        if let Filter::Responses(filter) = &mut config.filter {
            filter.exclude.clone_from(&own);
        }
    }
    Ok(())
}

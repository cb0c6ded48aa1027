//! What packets leave through, as the operator wrote it.

use std::collections::HashMap;

use millrace_capture::{Device, MacAddress, NextHopConfig, StaticHop};
use millrace_daemon::exit::ExitError;
use millrace_notation::address::Mac;
use millrace_replay::outlet::SendPath;

use crate::options::{Options, Output};

pub(super) fn way(options: &Options, local: bool) -> Result<SendPath, ExitError> {
    let sending = &options.sending;
    // What stays on this host is caught by rules of its own.
    let tracked = sending.allow_conntrack || local;
    let Output::Device(device) = &sending.output else {
        let with_mac = options
            .services
            .iter()
            .find(|mapping| mapping.live_mac.is_some() || mapping.target_mac.is_some());
        return match with_mac {
            Some(mapping) => Err(ExitError::usage(format!(
                "-x {mapping}: MAC addresses are for sending at the link layer: add -o DEVICE"
            ))),
            None if local || sending.output == Output::Routed => Ok(SendPath::Routed { tracked }),
            None => Ok(SendPath::Auto { tracked }),
        };
    };
    let found = Device::find(device).map_err(|error| ExitError::start(error.to_string()))?;
    let own = found.mac;
    let mut fixed = HashMap::new();
    for mapping in &options.services {
        if let Some(destination) = mapping.target_mac {
            let source = mapping.live_mac.map(mac);
            if let Some(source) = source.filter(|source| Some(*source) != own) {
                let own = own.map_or_else(|| "none".to_owned(), |own| own.to_string());
                return Err(ExitError::usage(format!(
                    "-x {mapping}: {source} is not the MAC address of {device} ({own}): with another one switches \
                     would send what is meant for its owner here"
                )));
            }
            let hop = StaticHop {
                source,
                destination: mac(destination),
            };
            fixed.insert(mapping.target.ip(), hop);
        }
    }
    Ok(SendPath::Link(NextHopConfig {
        fixed,
        ..NextHopConfig::new(device.clone())
    }))
}

pub(super) fn mac(mac: Mac) -> MacAddress {
    MacAddress::new(mac.octets())
}

//! The capabilities of the calling thread (capabilities(7)).

use std::fmt;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::exit::ExitError;

/// What a daemon may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Packet and raw sockets.
    NetRaw,
    /// Routes, rules, devices, queues.
    NetAdmin,
}

impl Capability {
    fn bit(self) -> CapabilitySet {
        match self {
            Capability::NetRaw => CapabilitySet::NET_RAW,
            Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::NetAdmin => "CAP_NET_ADMIN",
        })
    }
}

fn set_of(list: &[Capability]) -> CapabilitySet {
    list.iter()
        .fold(CapabilitySet::empty(), |set, it| set | it.bit())
}

/// All numbers that the kernel may know.
fn each() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|n| CapabilitySet::from_bits_retain(1 << n))
}

/// Nothing that this process starts can get more than `keep`. Only with CAP_SETPCAP, as root has.
pub(super) fn limit_bounding_set(keep: &[Capability]) -> Result<(), ExitError> {
    let may = own()?.effective.contains(CapabilitySet::SETPCAP);
    if !may {
        return Ok(());
    }
    let keep = set_of(keep);
    for bit in each().filter(|bit| !keep.intersects(*bit)) {
        match capability_is_in_bounding_set(bit) {
            Ok(true) => remove_capability_from_bounding_set(bit).map_err(|error| {
                ExitError::caused("cannot limit the capability bounding set", &error)
            })?,
            Ok(false) => {}
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => {
                return Err(ExitError::caused(
                    "cannot read the capability bounding set",
                    &error,
                ));
            }
        }
    }
    Ok(())
}

/// Drops all others, in all sets.
pub(super) fn keep_only(keep: &[Capability], for_children: bool) -> Result<(), ExitError> {
    let before = own()?;
    if let Some(missing) = keep.iter().find(|it| !before.permitted.contains(it.bit())) {
        return Err(ExitError::start(format!(
            "{missing} is missing: start it as root, or give it that capability (systemd: \
             AmbientCapabilities={missing})"
        )));
    }
    let keep_set = set_of(keep);
    let sets = CapabilitySets {
        effective: keep_set,
        permitted: keep_set,
        inheritable: if for_children {
            keep_set
        } else {
            CapabilitySet::empty()
        },
    };
    let cannot = |error: Errno| ExitError::caused("cannot give up capabilities", &error);
    clear_ambient_capability_set().map_err(cannot)?;
    set_capabilities(None, sets).map_err(cannot)?;
    if for_children {
        for capability in keep {
            configure_capability_in_ambient_set(capability.bit(), true).map_err(cannot)?;
        }
    }
    Ok(())
}

fn own() -> Result<CapabilitySets, ExitError> {
    capabilities(None).map_err(|error| ExitError::caused("cannot read the capabilities", &error))
}

/// The permitted ones, by name.
pub(super) fn permitted() -> Result<Vec<String>, ExitError> {
    let permitted = own()?.permitted;
    let named = permitted
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"));
    Ok(named.collect())
}

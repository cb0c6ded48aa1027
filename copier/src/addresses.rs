//! The addresses of this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use millrace_capture::Device;

/// The addresses that this host has now.
pub(crate) fn of_this_host() -> BTreeSet<IpAddr> {
    let devices = Device::list().into_iter();
    devices.flat_map(|device| device.addresses).collect()
}

//! What can go wrong when a device, a ring or a socket is opened or read.

use std::io;

use crate::filter::FilterError;

/// Why packets cannot be captured from, or sent through, a device.
///
/// The message of each variant is for the operator: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The process may not open packet sockets.
    #[error(
        "no permission to capture or forge packets (CAP_NET_RAW): run as root, or grant it with \
         `setcap cap_net_raw+ep PROGRAM` or AmbientCapabilities=CAP_NET_RAW in the systemd unit"
    )]
    NotPermitted,
    /// No device has this name.
    #[error("no device named {device:?}; the devices here are: {existing}")]
    NoSuchDevice {
        /// The name that was asked for.
        device: String,
        /// All names there are, separated by commas.
        existing: String,
    },
    /// The device does not carry IP in a form that is understood.
    #[error(
        "device {device} has hardware type {hardware_type} (ARPHRD), which is neither Ethernet, \
         loopback nor an IP tunnel: choose another device with -i"
    )]
    UnsupportedDevice {
        /// The device.
        device: String,
        /// Its type, an `ARPHRD_*` number of `linux/if_arp.h`.
        hardware_type: u16,
    },
    /// The device was set down. Capture goes on by itself once it is up again.
    #[error("device {device} is down: set it up with `ip link set {device} up`")]
    DeviceDown {
        /// The device.
        device: String,
    },
    /// The device was removed. When one of this name appears again, it has to be opened again.
    #[error("device {device} was removed: its traffic is not seen until it exists again")]
    DeviceRemoved {
        /// The device.
        device: String,
    },
    /// The configured buffer is too small to work with.
    #[error(
        "a capture buffer of {buffer_bytes} bytes is too small: at least {needed} bytes are needed \
         (-B)"
    )]
    BufferTooSmall {
        /// What was configured, in bytes.
        buffer_bytes: usize,
        /// The least that works, in bytes.
        needed: usize,
    },
    /// The filter could not be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A system call failed.
    #[error("cannot {action} on device {device}: {source}")]
    Device {
        /// What was attempted.
        action: &'static str,
        /// The device.
        device: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A system call failed that belongs to no device.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl CaptureError {
    /// For `map_err`: the error of `action` on `device`, with refused permission told apart.
    pub(crate) fn on<E: Into<io::Error>>(
        action: &'static str,
        device: &str,
    ) -> impl FnOnce(E) -> Self {
        move |error| {
            let source = error.into();
            match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
                _ => Self::Device {
                    action,
                    device: device.to_owned(),
                    source,
                },
            }
        }
    }

    /// For `map_err`: the error of `action`, with refused permission told apart.
    pub(crate) fn of<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| {
            let source = error.into();
            match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
                _ => Self::System { action, source },
            }
        }
    }
}

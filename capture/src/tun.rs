//! A tun device that lives as long as its owner, however that ends, and takes its routes with it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use crate::error::CaptureError;
use crate::sys::tun::{REQUEST, set_interface};

/// Where the flags of a request stand, behind the name.
const NAME: usize = libc::IFNAMSIZ;

/// A tun device of this process. Packets that are routed to it are seen by capture rings and go no
/// further: nothing reads them.
#[derive(Debug)]
pub struct Tun {
    /// Closing it removes the device.
    _file: File,
    name: String,
}

impl Tun {
    /// Creates a device; `%d` in its name becomes the first free number.
    ///
    /// # Errors
    /// No permission (CAP_NET_ADMIN), or a kernel without tun devices.
    pub fn create(name: &str) -> Result<Self, CaptureError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map_err(CaptureError::of("open /dev/net/tun"))?;
        let mut request = [0u8; REQUEST];
        for (to, from) in request.iter_mut().zip(name.bytes().take(NAME - 1)) {
            *to = from;
        }
        // Both flags fit 16 bits.
        let flags = ((libc::IFF_TUN | libc::IFF_NO_PI) as u16).to_ne_bytes();
        if let Some(place) = request.get_mut(NAME..NAME + 2) {
            place.copy_from_slice(&flags);
        }
        set_interface(file.as_fd(), &mut request)
            .map_err(CaptureError::of("create a tun device"))?;
        let name: Vec<u8> = request
            .into_iter()
            .take(NAME)
            .take_while(|byte| *byte != 0)
            .collect();
        Ok(Self {
            _file: file,
            name: String::from_utf8_lossy(&name).into_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

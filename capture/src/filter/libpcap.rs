//! Filter expressions (`pcap-filter(7)`), by libpcap itself.
//!
//! The library is loaded when an expression is used and not before, so that a host without it
//! runs everything else.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::net::SocketAddr;
use std::ptr::NonNull;

use libloading::{Library, Symbol};
use millrace_wire::LinkType;

use super::{FilterError, Instruction, Program};

/// Debian and its relatives have the first name, all others the second.
const NAMES: [&str; 2] = ["libpcap.so.0.8", "libpcap.so.1"];
/// `PCAP_NETMASK_UNKNOWN`.
const NETMASK_UNKNOWN: u32 = u32::MAX;

/// An expression of the operator (`-F`).
///
/// Tags that the device takes off frames cannot be matched with `vlan`, as they are not in the
/// frame any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The expression; empty for all packets.
    pub text: String,
    /// Packets to these are left out whatever the expression says: our own copies on their way to
    /// the target.
    pub exclude: Vec<SocketAddr>,
    /// Bytes kept of each packet, if the ring does not keep less.
    pub snap_len: u32,
}

impl Expression {
    pub(super) fn compile(&self, link: LinkType, snap_len: u32) -> Result<Program, FilterError> {
        let library = Pcap::load()?;
        let snap_len = snap_len.min(self.snap_len);
        // Alone first: an expression that closes parentheses it did not open must not pass, and
        // the message must be about what the operator wrote.
        let alone = library.compile(&self.text, link, snap_len)?;
        if self.exclude.is_empty() {
            return Ok(alone);
        }
        let mut combined = String::new();
        for target in &self.exclude {
            let (ip, port) = (target.ip().to_canonical(), target.port());
            let family = if ip.is_ipv4() { "ip" } else { "ip6" };
            if !combined.is_empty() {
                combined.push_str(" and ");
            }
            combined.push_str(&format!(
                "not ({family} and tcp and dst host {ip} and dst port {port})"
            ));
        }
        if !self.text.trim().is_empty() {
            combined.push_str(&format!(" and ({})", self.text));
        }
        library.compile(&combined, link, snap_len)
    }
}

/// `struct bpf_insn` of libpcap.
#[repr(C)]
#[derive(Clone, Copy)]
struct BpfInstruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program` of libpcap.
#[repr(C)]
struct BpfProgram {
    length: c_uint,
    instructions: *mut BpfInstruction,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile =
    unsafe extern "C" fn(*mut c_void, *mut BpfProgram, *const c_char, c_int, u32) -> c_int;
type GetError = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type FreeCode = unsafe extern "C" fn(*mut BpfProgram);
type Close = unsafe extern "C" fn(*mut c_void);

/// The loaded library.
struct Pcap {
    library: Library,
}

impl Pcap {
    fn load() -> Result<Self, FilterError> {
        Self::load_any(&NAMES)
    }

    fn load_any(names: &[&str]) -> Result<Self, FilterError> {
        let mut reason = String::new();
        for name in names {
            // SAFETY: libpcap's initialisers have no requirements.
            match unsafe { Library::new(*name) } {
                Ok(library) => return Ok(Self { library }),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(FilterError::LibraryMissing { reason })
    }

    /// # Safety
    /// `T` is the type of the function of this name in `pcap/pcap.h`.
    unsafe fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>, FilterError> {
        // SAFETY: what the caller promises.
        let symbol = unsafe { self.library.get::<T>(name) };
        symbol.map_err(|error| FilterError::LibraryMissing {
            reason: error.to_string(),
        })
    }

    fn compile(
        &self,
        expression: &str,
        link: LinkType,
        snap_len: u32,
    ) -> Result<Program, FilterError> {
        let wrong = |message: String| FilterError::Expression {
            expression: expression.to_owned(),
            message,
        };
        let text =
            CString::new(expression).map_err(|_| wrong("it contains a zero byte".to_owned()))?;
        // SAFETY: the type is that of pcap/pcap.h.
        let open_dead = unsafe { self.function::<OpenDead>("pcap_open_dead") }?;
        // SAFETY: as above.
        let compile = unsafe { self.function::<Compile>("pcap_compile") }?;
        // SAFETY: as above.
        let get_error = unsafe { self.function::<GetError>("pcap_geterr") }?;
        // SAFETY: as above.
        let free_code = unsafe { self.function::<FreeCode>("pcap_freecode") }?;
        // SAFETY: as above.
        let close = unsafe { self.function::<Close>("pcap_close") }?;

        let snap_len = c_int::try_from(snap_len).unwrap_or(c_int::MAX);
        // SAFETY: takes any numbers; the handle is closed below.
        let handle = unsafe { open_dead(data_link(link), snap_len) };
        let handle =
            NonNull::new(handle).ok_or_else(|| wrong("libpcap is out of memory".to_owned()))?;
        let handle = Handle {
            handle,
            close: *close,
        };
        let mut program = BpfProgram {
            length: 0,
            instructions: std::ptr::null_mut(),
        };
        // SAFETY: the handle is open, the text ends in a zero byte, the program may be written.
        let result = unsafe {
            compile(
                handle.handle.as_ptr(),
                &mut program,
                text.as_ptr(),
                1,
                NETMASK_UNKNOWN,
            )
        };
        if result != 0 {
            // SAFETY: the handle is open.
            let message = unsafe { get_error(handle.handle.as_ptr()) };
            // SAFETY: a string that ends in a zero byte, in the handle, which is still open.
            let message = unsafe { CStr::from_ptr(message) };
            return Err(wrong(message.to_string_lossy().into_owned()));
        }
        let length = usize::try_from(program.length).unwrap_or(0);
        let instructions = if program.instructions.is_null() {
            Vec::new()
        } else {
            // SAFETY: libpcap compiled without error, so there are this many instructions.
            unsafe { std::slice::from_raw_parts(program.instructions, length) }.to_vec()
        };
        // SAFETY: the program was filled in by pcap_compile and is not used any more.
        unsafe { free_code(&mut program) };
        if instructions.len() > Program::MAX_INSTRUCTIONS {
            return Err(wrong(format!(
                "it needs {} instructions, the kernel takes {}",
                instructions.len(),
                Program::MAX_INSTRUCTIONS
            )));
        }
        Ok(Program::new(
            instructions
                .into_iter()
                .map(|i| Instruction {
                    code: i.code,
                    jt: i.jt,
                    jf: i.jf,
                    k: i.k,
                })
                .collect(),
        ))
    }
}

/// A libpcap handle, closed on drop.
struct Handle {
    handle: NonNull<c_void>,
    close: Close,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and this is the last use.
        unsafe { (self.close)(self.handle.as_ptr()) };
    }
}

/// The number of a link type in libpcap on Linux (`DLT_*`).
fn data_link(link: LinkType) -> c_int {
    match link {
        LinkType::Null => 0,
        LinkType::Ethernet => 1,
        LinkType::RawIp => 12,
        LinkType::Loop => 108,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
        LinkType::Nflog => 239,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_asked_for_by_its_package() {
        let error = Pcap::load_any(&["libpcap.so.missing"]).err().unwrap();
        let message = error.to_string();
        assert!(message.contains("libpcap0.8"), "{message}");
    }
}

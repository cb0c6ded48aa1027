//! Packet files: pcap and pcapng, read and written one packet at a time in constant memory.
//!
//! A file is hostile until parsed: whatever its bytes are, reading ends with its packets or with a
//! [`FileError`] that says where it went wrong, and the packets before that place have been given.
//!
//! - [`reader`]: [`PacketFile`], which finds out what a file is and gives its packets.
//! - `pcap`, `pcapng`: the two formats.
//! - [`source`]: where the bytes come from: a file, a pipe, gzip, zstd, xz.
//! - `input`: the bytes of a source through a bounded buffer.
//! - [`linktype`]: the link types of both formats, as far as [`millrace_wire`] reads them.
//! - [`merge`]: several files as one, by time.
//! - [`writer`]: [`PacketWriter`], which writes pcapng.

pub mod error;
mod input;
pub mod linktype;
pub mod merge;
mod pcap;
mod pcapng;
pub mod reader;
pub mod source;
mod stranger;
#[cfg(test)]
mod tests;
pub mod writer;

pub use error::{FileError, Problem};
pub use merge::Merged;
pub use reader::{Format, Interface, PacketFile, Recorded};
pub use source::{Progress, Source};
pub use stranger::Stranger;
pub use writer::{InterfaceCounts, PacketWriter};

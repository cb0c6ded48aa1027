//! Writes pcapng files with time stamps in nanoseconds.

use std::io::{self, Write};

use millrace_wire::LinkType;

use super::linktype;
use super::pcapng::{
    BYTE_ORDER, ENHANCED_PACKET, IF_NAME, IF_TSRESOL, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS,
    ISB_IFDROP, ISB_IFRECV, SECTION_HEADER,
};

/// Nanoseconds: 10^-9 s (draft-ietf-opsawg-pcapng 4.2, if_tsresol).
const NANOSECONDS: u8 = 9;
/// Option 4 of a section header: the program that wrote it (4.1).
const SHB_USERAPPL: u16 = 4;

/// What an interface counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounts {
    /// Packets received and written.
    pub received: u64,
    /// Packets lost by capture.
    pub dropped: u64,
}

/// Writes one file. What it writes goes straight to `writer`, which should be buffered.
#[derive(Debug)]
pub struct PacketWriter<W: Write> {
    writer: W,
    block: Vec<u8>,
    written: u64,
}

impl<W: Write> PacketWriter<W> {
    /// Begins a file with these interfaces: name, link type and the most bytes kept of a packet.
    ///
    /// # Errors
    /// Those of `writer`.
    pub fn new<'n>(
        writer: W,
        interfaces: impl IntoIterator<Item = (&'n str, LinkType, u32)>,
    ) -> io::Result<Self> {
        let mut this = Self {
            writer,
            block: Vec::new(),
            written: 0,
        };
        this.begin(SECTION_HEADER);
        this.put(&BYTE_ORDER.to_le_bytes());
        this.put(&[1, 0, 0, 0]);
        // The length of the section is not known.
        this.put(&u64::MAX.to_le_bytes());
        this.option(SHB_USERAPPL, b"Millrace");
        this.end_options();
        this.finish_block()?;
        for (name, link, snap_len) in interfaces {
            this.begin(INTERFACE_DESCRIPTION);
            this.put(&linktype::number(link).to_le_bytes());
            this.put(&[0, 0]);
            this.put(&snap_len.to_le_bytes());
            this.option(IF_NAME, name.as_bytes());
            this.option(IF_TSRESOL, &[NANOSECONDS]);
            this.end_options();
            this.finish_block()?;
        }
        Ok(this)
    }

    /// Writes a packet that was captured at `timestamp` (nanoseconds since 1970) on the interface
    /// with this number, and was `original_len` bytes long.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn packet(
        &mut self,
        interface: u32,
        timestamp: u64,
        original_len: u32,
        data: &[u8],
    ) -> io::Result<()> {
        // The upper and the lower half.
        let (high, low) = ((timestamp >> 32) as u32, timestamp as u32);
        let captured = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.begin(ENHANCED_PACKET);
        for number in [interface, high, low, captured, original_len.max(captured)] {
            self.put(&number.to_le_bytes());
        }
        self.put(data);
        self.pad();
        self.finish_block()
    }

    /// Writes what the interface with this number has counted, as of `timestamp` (nanoseconds
    /// since 1970).
    ///
    /// # Errors
    /// Those of the writer.
    pub fn statistics(
        &mut self,
        interface: u32,
        timestamp: u64,
        counts: InterfaceCounts,
    ) -> io::Result<()> {
        let (high, low) = ((timestamp >> 32) as u32, timestamp as u32);
        self.begin(INTERFACE_STATISTICS);
        for number in [interface, high, low] {
            self.put(&number.to_le_bytes());
        }
        self.option(ISB_IFRECV, &counts.received.to_le_bytes());
        self.option(ISB_IFDROP, &counts.dropped.to_le_bytes());
        self.end_options();
        self.finish_block()
    }

    /// Bytes written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Gives the writer back, flushed.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        // The length is filled in at the end.
        self.put(&[0; 4]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // Names of devices and numbers: all short.
        let value = value.get(..value.len().min(255)).unwrap_or_default();
        self.put(&code.to_le_bytes());
        self.put(&(value.len() as u16).to_le_bytes());
        self.put(value);
        self.pad();
    }

    fn end_options(&mut self) {
        self.put(&[0; 4]);
    }

    fn finish_block(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.block.len() + 4).map_err(io::Error::other)?;
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        self.put(&length.to_le_bytes());
        self.writer.write_all(&self.block)?;
        self.written += u64::from(length);
        Ok(())
    }
}

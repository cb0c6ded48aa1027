//! A packet file of either format.

use std::io::Read;

use millrace_wire::LinkType;

use super::error::{FileError, Problem};
use super::input::Input;
use super::linktype;
use super::pcap::{self, Pcap};
use super::pcapng::{self, PcapNg};
use super::source::{Progress, Source};
use super::stranger::{BEGINNING, Stranger};

/// The longest packet that is believed, in bytes: twice what BIG TCP makes of one.
pub(super) const MAX_PACKET: u32 = 1 << 20;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// pcap, in any of its byte orders and resolutions.
    Pcap,
    /// pcapng.
    PcapNg,
}

/// Where packets of a file were captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, if the file says.
    pub name: Option<String>,
    /// Number of its link type in the registry of tcpdump.org.
    pub link: u32,
    /// The most bytes that were kept of a packet; 0: all.
    pub snap_len: u32,
    /// Packets that it received, if the file says.
    pub received: Option<u64>,
    /// Packets that the capture lost there, if the file says.
    pub dropped: Option<u64>,
}

impl Interface {
    pub(super) const fn new(link: u32) -> Self {
        Self {
            name: None,
            link,
            snap_len: 0,
            received: None,
            dropped: None,
        }
    }
}

/// A packet of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// When it was captured: nanoseconds since 1970.
    pub timestamp: u64,
    /// Number of its interface in [`PacketFile::interfaces`].
    pub interface: u32,
    /// Number of its link type in the registry of tcpdump.org.
    pub link: u32,
    /// Its length on the wire, never less than what was captured.
    pub original_len: u32,
    /// What was captured of it, from the link-layer header on.
    pub data: &'a [u8],
}

impl Recorded<'_> {
    /// How it begins; `None`: in no way that is understood.
    pub const fn link_type(&self) -> Option<LinkType> {
        linktype::link_type(self.link)
    }
}

#[derive(Debug)]
enum Body {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// An open packet file. Memory is bounded by the longest packet.
pub struct PacketFile {
    name: String,
    input: Input,
    body: Body,
    interfaces: Vec<Interface>,
    progress: Progress,
    /// It has ended or was found to be broken.
    over: bool,
}

impl std::fmt::Debug for PacketFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketFile")
            .field("name", &self.name)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl PacketFile {
    /// Opens a source and reads its beginning. From a pipe, this waits for its first bytes.
    ///
    /// # Errors
    /// A [`FileError`] when it cannot be opened or is no packet file.
    pub fn open(source: &Source) -> Result<Self, FileError> {
        let name = source.name();
        let open = || {
            let (reader, progress) = source.open()?;
            Self::begin(name.clone(), reader, progress)
        };
        open().map_err(|problem| FileError::new(&name, problem))
    }

    /// Packets that capture lost, as far as was read and the file says.
    pub fn dropped(&self) -> u64 {
        // Files say what they like.
        let dropped = self.interfaces.iter().filter_map(|one| one.dropped);
        dropped.fold(0, u64::saturating_add)
    }

    /// Reads from any reader, uncompressed.
    ///
    /// # Errors
    /// As [`PacketFile::open`].
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static) -> Result<Self, FileError> {
        Self::begin(name.to_owned(), Box::new(reader), Progress::default())
            .map_err(|problem| FileError::new(name, problem))
    }

    fn begin(
        name: String,
        reader: Box<dyn Read + Send>,
        progress: Progress,
    ) -> Result<Self, Problem> {
        let mut input = Input::new(reader);
        let beginning = input.peek(4)?;
        if beginning.is_empty() {
            return Err(Problem::Empty);
        }
        let mut interfaces = Vec::new();
        let body = if pcap::is_pcap(beginning) {
            let (pcap, interface) = Pcap::begin(&mut input)?;
            interfaces.push(interface);
            Body::Pcap(pcap)
        } else if pcapng::is_pcapng(beginning) {
            Body::PcapNg(PcapNg::new())
        } else {
            let beginning = input.peek(BEGINNING)?;
            return Err(Problem::NoRecording(Stranger::new(beginning)));
        };
        Ok(Self {
            name,
            input,
            body,
            interfaces,
            progress,
            over: false,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its format.
    pub const fn format(&self) -> Format {
        match self.body {
            Body::Pcap(_) => Format::Pcap,
            Body::PcapNg(_) => Format::PcapNg,
        }
    }

    /// The interfaces that were met so far, of all sections.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// How far it was read.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The next packet; `None` at the end, and from then on.
    ///
    /// # Errors
    /// A [`FileError`] once, where the file is cut short, unreadable or corrupt; nothing can be
    /// read from there on.
    pub fn next_packet(&mut self) -> Result<Option<Recorded<'_>>, FileError> {
        if self.over {
            return Ok(None);
        }
        let result = match &mut self.body {
            Body::Pcap(pcap) => pcap.next(&mut self.input),
            Body::PcapNg(pcapng) => pcapng.next(&mut self.input, &mut self.interfaces),
        };
        if !matches!(result, Ok(Some(_))) {
            self.over = true;
        }
        result.map_err(|problem| FileError::new(&self.name, problem))
    }
}

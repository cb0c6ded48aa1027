//! Several packet files as one: packets in the order of their times.

use super::error::FileError;
use super::reader::{PacketFile, Recorded};

/// Files of which the packet with the earliest time comes first. Each file keeps its own order:
/// only the first packet of each is compared.
#[derive(Debug)]
pub struct Merged {
    files: Vec<File>,
    problems: Vec<FileError>,
    /// The file whose packet was given last.
    given: Option<usize>,
}

#[derive(Debug)]
struct File {
    file: PacketFile,
    head: Option<Head>,
}

/// A packet that was read and not given yet.
#[derive(Debug)]
struct Head {
    timestamp: u64,
    interface: u32,
    link: u32,
    original_len: u32,
    data: Vec<u8>,
}

impl File {
    /// Reads the next packet into the place of the one before.
    fn advance(&mut self) -> Result<(), FileError> {
        let before = self.head.take();
        let Some(packet) = self.file.next_packet()? else {
            return Ok(());
        };
        let mut data = before.map(|head| head.data).unwrap_or_default();
        data.clear();
        data.extend_from_slice(packet.data);
        self.head = Some(Head {
            timestamp: packet.timestamp,
            interface: packet.interface,
            link: packet.link,
            original_len: packet.original_len,
            data,
        });
        Ok(())
    }
}

impl Merged {
    /// All of `files`, at their beginning.
    pub fn new(files: Vec<PacketFile>) -> Self {
        let mut merged = Self {
            files: files
                .into_iter()
                .map(|file| File { file, head: None })
                .collect(),
            problems: Vec::new(),
            given: None,
        };
        if merged.files.len() > 1 {
            for index in 0..merged.files.len() {
                merged.advance(index);
            }
        }
        merged
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &PacketFile> {
        self.files.iter().map(|file| &file.file)
    }

    /// Where files could not be read to their end, as far as that was not taken yet.
    pub fn take_problems(&mut self) -> Vec<FileError> {
        std::mem::take(&mut self.problems)
    }

    /// The next packet, with the number of its file; `None` when all files have ended. A file that
    /// is broken ends there, and [`Merged::take_problems`] says so.
    pub fn next_packet(&mut self) -> Option<(usize, Recorded<'_>)> {
        if self.files.len() == 1 {
            // Without a copy.
            return match self.files.first_mut()?.file.next_packet() {
                Ok(packet) => packet.map(|packet| (0, packet)),
                Err(error) => {
                    self.problems.push(error);
                    None
                }
            };
        }
        // The packet that was given last stayed where it is until now.
        if let Some(index) = self.given.take() {
            self.advance(index);
        }
        let index = self.earliest()?;
        self.given = Some(index);
        let head = self.files.get(index)?.head.as_ref()?;
        Some((
            index,
            Recorded {
                timestamp: head.timestamp,
                interface: head.interface,
                link: head.link,
                original_len: head.original_len,
                data: &head.data,
            },
        ))
    }

    fn earliest(&self) -> Option<usize> {
        self.files
            .iter()
            .enumerate()
            .filter_map(|(index, file)| Some((file.head.as_ref()?.timestamp, index)))
            .min()
            .map(|(_, index)| index)
    }

    fn advance(&mut self, index: usize) {
        if let Some(file) = self.files.get_mut(index)
            && let Err(error) = file.advance()
        {
            self.problems.push(error);
        }
    }
}

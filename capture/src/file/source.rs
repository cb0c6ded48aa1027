//! Where the bytes of a packet file come from: a file or a pipe, plain or compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::Problem;

/// First bytes of a gzip member (RFC 1952 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a Zstandard frame (RFC 8878 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A skippable Zstandard frame begins with one of 16 such numbers (RFC 8878 3.1.2).
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// First bytes of an xz stream (The .xz File Format, 2.1.1.1).
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// Memory that an xz stream may ask for, in KiB: half as much again as `xz -9` makes streams need.
const XZ_MEMORY: u32 = 100 << 10;
/// Bytes read from the system at once.
const CHUNK: usize = 256 << 10;

/// A file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// Standard input, written `-`.
    StandardInput,
}

impl Source {
    /// The source that an operator wrote.
    pub fn new(text: &str) -> Self {
        match text {
            "-" => Self::StandardInput,
            path => Self::Path(path.into()),
        }
    }

    /// What to call it.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::StandardInput => "standard input".to_owned(),
        }
    }

    /// Whether it can be read more than once.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Path(path) => is_regular(path),
            Self::StandardInput => false,
        }
    }

    /// Opens it, and looks through its compression.
    pub(super) fn open(&self) -> Result<(Box<dyn Read + Send>, Progress), Problem> {
        let (raw, total): (Box<dyn Read + Send>, _) = match self {
            Self::Path(path) => {
                let file = File::open(path).map_err(Problem::Open)?;
                let metadata = file.metadata().map_err(Problem::Open)?;
                if metadata.is_dir() {
                    return Err(Problem::Open(io::ErrorKind::IsADirectory.into()));
                }
                (Box::new(file), metadata.is_file().then_some(metadata.len()))
            }
            Self::StandardInput => (Box::new(io::stdin()), None),
        };
        let progress = Progress {
            read: Arc::default(),
            total,
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(&progress.read),
        };
        let mut buffered = BufReader::with_capacity(CHUNK, counted);
        let compression =
            compression(&mut buffered).map_err(|source| Problem::Read { offset: 0, source })?;
        let reader: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(buffered),
            Compression::Gzip => Box::new(Gzip::new(buffered)),
            Compression::Zstd => Box::new(Zstd::new(buffered)),
            // Streams one after the other, with padding between them.
            Compression::Xz => Box::new(XzReader::new_mem_limit(buffered, true, XZ_MEMORY)),
        };
        Ok((reader, progress))
    }
}

fn is_regular(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// How far a source was read. Its copies show the same state.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Progress {
    /// Bytes read, before decompression.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes that there are; `None`: nobody knows, as of a pipe.
    pub const fn total(&self) -> Option<u64> {
        self.total
    }
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

/// Looks at the first bytes. A pipe may deliver them one by one, and what was read stays buffered
/// only within one fill; so the magic numbers are told apart by as few bytes as one read gives.
fn compression<R: Read>(reader: &mut BufReader<R>) -> io::Result<Compression> {
    let beginning = loop {
        match reader.fill_buf() {
            Ok(bytes) => break bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let begins = |magic: &[u8]| {
        let len = magic.len().min(beginning.len());
        len > 0 && beginning.get(..len) == magic.get(..len)
    };
    let skippable = beginning.get(1..4) == Some(&ZSTD_SKIPPABLE)
        && beginning.first().is_some_and(|first| first >> 4 == 5);
    Ok(if begins(&GZIP) {
        Compression::Gzip
    } else if begins(&ZSTD) || skippable {
        Compression::Zstd
    } else if begins(&XZ) {
        Compression::Xz
    } else {
        Compression::None
    })
}

/// Members one after the other, as `gzip` and `cat` make them (RFC 1952 2.2). Zeros behind the last are padding, as
/// gzip(1) takes them.
struct Gzip<R> {
    /// The member that is read; none at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gzip<R> {
    fn new(reader: R) -> Self {
        Self {
            member: Some(GzDecoder::new(reader)),
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else {
                return Ok(0);
            };
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let mut reader = match self.member.take() {
                Some(member) => member.into_inner(),
                None => return Ok(0),
            };
            if skip_zeros(&mut reader)? {
                self.member = Some(GzDecoder::new(reader));
            }
        }
    }
}

/// Passes over zeros. Says whether something follows.
fn skip_zeros(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = reader.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let (is_empty, all) = (bytes.is_empty(), zeros == bytes.len());
        reader.consume(zeros);
        if is_empty || !all {
            return Ok(!is_empty);
        }
    }
}

/// Frames one after the other, as `zstd` and `cat` make them (RFC 8878 3.1). The decoder refuses
/// frames that ask for a window of more than 100 MB.
struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    /// Whether a frame was begun and is not at its end.
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            decoder: FrameDecoder::new(),
            inside: false,
        }
    }

    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.reader) {
            Ok(()) => {
                self.inside = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let mut skipped = self.reader.by_ref().take(length.into());
                match io::copy(&mut skipped, &mut io::sink())? {
                    count if count == u64::from(length) => Ok(()),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if self.reader.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.begin_frame()?;
            } else if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            } else if self.decoder.is_finished() {
                self.inside = false;
            } else {
                self.decoder
                    .decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
        }
    }
}

//! From the capture rings into the files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_capture::file::InterfaceCounts;
use millrace_capture::{
    CaptureError, PacketWriter, Ring, RingConfig, RingStatistics, Tap, Waker, wait,
};
use millrace_fleet::drain::{DrainWatch, Stage};
use millrace_fleet::exit::ExitError;
use millrace_wire::LinkType;

use super::cannot_write;
use super::files::Files;

/// Longest sleep, so that devices that come back are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);
/// What was recorded is on disk after this time at the latest.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Blocks taken from one ring before the others get their turn.
const BLOCKS_IN_A_ROW: usize = 16;

/// A device that is recorded.
#[derive(Debug)]
pub struct Tape {
    tap: Tap,
    link: LinkType,
    snap_len: u32,
    /// Packets written to the present file.
    written: u64,
    /// Drops that earlier files tell of.
    dropped_before: u64,
}

impl Tape {
    /// Begins to capture.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn open(config: RingConfig) -> Result<Self, CaptureError> {
        // A tap does not say how its frames begin while the device is away.
        let link = Ring::open(&config)?.link_type();
        Ok(Self {
            link,
            snap_len: config.snap_len,
            tap: Tap::open(config)?,
            written: 0,
            dropped_before: 0,
        })
    }
}

/// Asks for a new file. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Writes what the rings hold.
#[derive(Debug)]
pub struct Recorder {
    tapes: Vec<Tape>,
    files: Files,
    path: PathBuf,
    writer: PacketWriter<BufWriter<File>>,
    asked: Asked,
    drain: DrainWatch,
    waker: Waker,
    flush_at: Instant,
    packets: u64,
    bytes: u64,
}

impl Recorder {
    /// Creates the first file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn new(
        tapes: Vec<Tape>,
        mut files: Files,
        drain: DrainWatch,
        waker: Waker,
    ) -> Result<Self, ExitError> {
        let (path, writer) = create(&mut files, &tapes)?;
        for tape in &tapes {
            tracing::info!("recording {} into {}", tape.tap.device(), path.display());
        }
        Ok(Self {
            tapes,
            files,
            path,
            writer,
            asked: Asked::default(),
            drain,
            waker,
            flush_at: Instant::now() + FLUSH_INTERVAL,
            packets: 0,
            bytes: 0,
        })
    }

    /// Where a new file can be asked for.
    pub fn asked_to_rotate(&self) -> Asked {
        self.asked.clone()
    }

    /// Records until it is told to end.
    ///
    /// # Errors
    /// A file that cannot be written any more.
    pub fn run(&mut self) -> Result<(), ExitError> {
        while self.drain.stage() == Stage::Running {
            let more = self.turn()?;
            if !more {
                self.sleep();
            }
        }
        // What the kernel has seen so far belongs to the recording; it goes on adding, so not
        // without a bound.
        let limit = Instant::now() + Duration::from_secs(2);
        std::thread::sleep(Duration::from_millis(20));
        while self.turn()? && Instant::now() < limit {}
        self.close()
            .map_err(|error| cannot_write(&self.path, &error))?;
        self.tell();
        Ok(())
    }

    fn turn(&mut self) -> Result<bool, ExitError> {
        if self.files.is_full(self.writer.written()) {
            self.rotate()?;
        } else if self.asked.take() {
            if self.files.can_follow() {
                self.rotate()?;
            } else {
                tracing::warn!(
                    "SIGHUP: {} is still there and would be overwritten: move it away first, or \
                     record with --rotate-size or --rotate-time",
                    self.path.display()
                );
            }
        }
        let mut more = false;
        for index in 0..self.tapes.len() {
            more |= self
                .take(index)
                .map_err(|error| cannot_write(&self.path, &error))?;
        }
        if Instant::now() >= self.flush_at {
            self.flush_at = Instant::now() + FLUSH_INTERVAL;
            self.writer
                .flush()
                .map_err(|error| cannot_write(&self.path, &error))?;
            for tape in &mut self.tapes {
                tape.tap.suspect();
            }
        }
        Ok(more)
    }

    fn take(&mut self, index: usize) -> io::Result<bool> {
        let Self {
            tapes,
            files,
            writer,
            packets,
            bytes,
            ..
        } = self;
        let Some(tape) = tapes.get_mut(index) else {
            return Ok(false);
        };
        // There are few devices.
        let interface = index as u32;
        for _ in 0..BLOCKS_IN_A_ROW {
            let Some((link, block)) = tape.tap.next_block() else {
                return Ok(false);
            };
            if link != tape.link {
                // The device came back as another kind; its frames would be misread.
                continue;
            }
            for frame in &block {
                writer.packet(interface, frame.timestamp, frame.original_len, frame.data)?;
                tape.written += 1;
                *packets += 1;
                *bytes += frame.data.len() as u64;
            }
            if files.is_full(writer.written()) {
                break;
            }
        }
        Ok(true)
    }

    fn rotate(&mut self) -> Result<(), ExitError> {
        self.close()
            .map_err(|error| cannot_write(&self.path, &error))?;
        let (path, writer) = create(&mut self.files, &self.tapes)?;
        tracing::info!("recording goes on in {}", path.display());
        self.path = path;
        self.writer = writer;
        Ok(())
    }

    /// Ends the present file with what was counted.
    fn close(&mut self) -> io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for (index, tape) in self.tapes.iter_mut().enumerate() {
            let RingStatistics { dropped, .. } = tape.tap.statistics();
            let counts = InterfaceCounts {
                received: std::mem::take(&mut tape.written),
                dropped: dropped - tape.dropped_before,
            };
            tape.dropped_before = dropped;
            self.writer.statistics(index as u32, nanos, counts)?;
        }
        self.writer.flush()
    }

    fn tell(&self) {
        let dropped: u64 = self.tapes.iter().map(|tape| tape.dropped_before).sum();
        let line = format!(
            "{} packets recorded, {:.1} MB, {dropped} dropped",
            self.packets,
            self.bytes as f64 / 1e6
        );
        // Whoever reads stdout may be gone by now.
        let _ = writeln!(io::stdout(), "{line}");
        if dropped > 0 {
            tracing::warn!(
                "capture dropped {dropped} packets: record on a faster disk, with a larger buffer \
                 (-B), or fewer services"
            );
        }
    }

    fn sleep(&self) {
        let longest = self
            .files
            .old_in()
            .map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP));
        let mut fds: Vec<_> = self.tapes.iter().filter_map(|tape| tape.tap.fd()).collect();
        fds.push(self.waker.as_fd());
        match wait(&fds, Some(longest.max(Duration::from_millis(1)))) {
            Ok(readiness) if readiness.is_ready(fds.len() - 1) => self.waker.clear(),
            Ok(_) => {}
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                std::thread::sleep(LONGEST_SLEEP);
            }
        }
    }
}

fn create(
    files: &mut Files,
    tapes: &[Tape],
) -> Result<(PathBuf, PacketWriter<BufWriter<File>>), ExitError> {
    let (path, file) = files
        .create()
        .map_err(|(path, error)| cannot_write(&path, &error))?;
    let interfaces = tapes
        .iter()
        .map(|tape| (tape.tap.device(), tape.link, tape.snap_len));
    let writer =
        PacketWriter::new(file, interfaces).map_err(|error| cannot_write(&path, &error))?;
    Ok((path, writer))
}

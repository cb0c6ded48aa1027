//! From the capture rings into the files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_capture::file::InterfaceCounts;
use millrace_capture::{CaptureError, PacketWriter, RingConfig, RingStatistics, Tap, Waker, wait};
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::exit::ExitError;
use millrace_wire::LinkType;

use super::files::Files;

/// Longest sleep, so that devices that come back are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);
/// What was recorded is on disk after this time at the latest.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// And so is what is beyond so many bytes, since room is looked for at the same time.
const FLUSH_BYTES: u64 = 16 << 20;
/// Blocks taken from one ring before the others get their turn.
const FRAMES_IN_A_ROW: usize = 1024;

/// A device that is recorded.
#[derive(Debug)]
pub struct Tape {
    tap: Tap,
    link: LinkType,
    snap_len: u32,
    /// Packets written to the present file.
    written: u64,
    /// Frames that could not be kept: the device came back as another kind.
    foreign: u64,
    /// Drops that earlier files tell of.
    dropped_before: u64,
}

impl Tape {
    /// Begins to capture.
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn open(config: RingConfig) -> Result<Self, CaptureError> {
        let snap_len = config.snap_len;
        let tap = Tap::open(config)?;
        let link = tap.link_type().ok_or_else(|| CaptureError::DeviceRemoved {
            device: tap.devices().to_owned(),
        })?;
        Ok(Self {
            link,
            snap_len,
            tap,
            written: 0,
            foreign: 0,
            dropped_before: 0,
        })
    }

    /// Counts frames that the file cannot hold: they begin in another way than it says of the
    /// device, and would be misread.
    fn leave_out(&mut self, link: LinkType, frames: u64) {
        if self.foreign == 0 {
            tracing::warn!(
                "{} came back as another kind of device ({link:?} in place of {:?}): its packets are \
                 left out and counted as dropped; end the recording and begin another one",
                self.tap.devices(),
                self.link
            );
        }
        self.foreign += frames;
    }

    /// What was not recorded since this was asked last.
    fn new_drops(&mut self, dropped: u64) -> u64 {
        let dropped = dropped.saturating_add(self.foreign);
        // Where the kernel does not tell, less is known than before.
        let new = dropped.saturating_sub(self.dropped_before);
        self.dropped_before += new;
        new
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
    /// Whether the present file has its end.
    closed: bool,
    asked: Asked,
    drain: DrainWatch,
    waker: Waker,
    flush_at: Instant,
    /// Bytes of the present file beyond which it is flushed.
    flush_beyond: u64,
    packets: u64,
    bytes: u64,
}

impl Recorder {
    /// Creates the first file.
    ///
    /// # Errors
    /// A file that cannot be written, or too little room.
    pub fn new(
        tapes: Vec<Tape>,
        mut files: Files,
        drain: DrainWatch,
        waker: Waker,
    ) -> Result<Self, ExitError> {
        if !files.has_room() {
            return Err(no_room(&files, "nothing is recorded"));
        }
        let (path, writer) = create(&mut files, &tapes)?;
        for tape in &tapes {
            tracing::info!("recording {} into {}", tape.tap.devices(), path.display());
        }
        Ok(Self {
            tapes,
            files,
            path,
            writer,
            closed: false,
            asked: Asked::default(),
            drain,
            waker,
            flush_at: Instant::now() + FLUSH_INTERVAL,
            flush_beyond: FLUSH_BYTES,
            packets: 0,
            bytes: 0,
        })
    }

    /// Where a new file can be asked for.
    pub fn asked_to_rotate(&self) -> Asked {
        self.asked.clone()
    }

    /// Records until it is told to end, and says what was recorded, however it ended.
    ///
    /// # Errors
    /// A file that cannot be written any more, or too little room for more.
    pub fn run(&mut self) -> Result<(), ExitError> {
        let recorded = self.record();
        let closed = self
            .close()
            .map_err(|error| cannot_write(&self.path, &error));
        self.tell();
        recorded.and(closed)
    }

    fn record(&mut self) -> Result<(), ExitError> {
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
        if Instant::now() >= self.flush_at || self.writer.written() >= self.flush_beyond {
            self.flush()?;
        }
        Ok(more)
    }

    fn flush(&mut self) -> Result<(), ExitError> {
        self.flush_at = Instant::now() + FLUSH_INTERVAL;
        self.flush_beyond = self.writer.written() + FLUSH_BYTES;
        self.writer
            .flush()
            .map_err(|error| cannot_write(&self.path, &error))?;
        for tape in &mut self.tapes {
            tape.tap.suspect();
        }
        match self.files.has_room() {
            true => Ok(()),
            false => Err(no_room(&self.files, "the recording has ended")),
        }
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
        let (mut foreign, mut failure) = (None, None);
        let (mut frames, mut size) = (0, 0);
        let expected = tape.link;
        let taken = tape.tap.read(FRAMES_IN_A_ROW, |link, frame| {
            if link != expected {
                foreign = Some((link, foreign.map_or(0, |(_, count)| count) + 1));
            } else if failure.is_none() {
                let (at, len) = (frame.timestamp, frame.original_len);
                failure = writer.packet(interface, at, len, frame.data).err();
                frames += 1;
                size += frame.data.len() as u64;
            }
        });
        tape.written += frames;
        *packets += frames;
        *bytes += size;
        if let Some((link, count)) = foreign {
            tape.leave_out(link, count);
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(taken == FRAMES_IN_A_ROW && !files.is_full(writer.written())),
        }
    }

    fn rotate(&mut self) -> Result<(), ExitError> {
        self.close()
            .map_err(|error| cannot_write(&self.path, &error))?;
        let (path, writer) = create(&mut self.files, &self.tapes)?;
        tracing::info!("recording goes on in {}", path.display());
        self.path = path;
        self.writer = writer;
        self.closed = false;
        self.flush_beyond = FLUSH_BYTES;
        Ok(())
    }

    /// Ends the present file with what was counted, if it has no end yet.
    fn close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // Counted before anything is written: what fails there must be told all the same.
        let count = |tape: &mut Tape| {
            let RingStatistics { dropped, .. } = tape.tap.statistics();
            InterfaceCounts {
                received: std::mem::take(&mut tape.written),
                dropped: tape.new_drops(dropped),
            }
        };
        let counts: Vec<_> = self.tapes.iter_mut().map(count).collect();
        for (index, counts) in counts.into_iter().enumerate() {
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
            Ok(readiness) if readiness.is_ready(fds.len() - 1) => {
                self.waker.clear();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                std::thread::sleep(LONGEST_SLEEP);
            }
        }
    }
}

/// One line about a file that cannot be written.
fn cannot_write(path: &Path, error: &std::io::Error) -> ExitError {
    ExitError::caused(format!("cannot write {} (-w)", path.display()), error)
}

fn no_room(files: &Files, what: &str) -> ExitError {
    let (min_free, directory) = files.min_free();
    ExitError::start(format!(
        "less than {min_free} is free at {} (--min-free): {what}; make room there, or let --rotate-size \
         and --keep remove the oldest files",
        directory.display()
    ))
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
        .map(|tape| (tape.tap.devices(), tape.link, tape.snap_len));
    let writer =
        PacketWriter::new(file, interfaces).map_err(|error| cannot_write(&path, &error))?;
    Ok((path, writer))
}

#[cfg(test)]
mod tests {
    use millrace_capture::{Filter, ResponseFilter};

    use super::*;

    #[test]
    fn what_is_left_out_counts_as_dropped_and_counts_never_go_back() {
        let filter = Filter::Responses(ResponseFilter::default());
        let mut tape = Tape {
            tap: Tap::waiting(RingConfig::new("none", filter)),
            link: LinkType::Ethernet,
            snap_len: 100,
            written: 0,
            foreign: 0,
            dropped_before: 0,
        };
        assert_eq!(tape.new_drops(5), 5);
        tape.leave_out(LinkType::RawIp, 3);
        assert_eq!(tape.new_drops(6), 4);
        // The kernel does not tell.
        assert_eq!(tape.new_drops(0), 0);
        assert_eq!(tape.new_drops(8), 2);
        assert_eq!(tape.dropped_before, 11);
    }
}

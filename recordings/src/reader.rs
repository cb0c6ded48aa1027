//! Reads a recording on a thread of its own, a bounded number of batches ahead of the feed.
//!
//! Disks and pipes may block; the shard must not, since its replicas have timers.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use millrace_capture::file::{Merged, PacketFile};
use millrace_capture::{FileError, Source, Waker};
use millrace_daemon::exit::ExitError;
use millrace_wire::LinkType;

/// A time further away than this from those before and behind it is wrong, in nanoseconds.
const ASTRAY: u64 = 60_000_000_000;
/// Payload of one batch, about, in bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that may wait: 2 MB, and no more for a packet of any size than that packet.
const BATCHES: usize = 8;

/// A packet of a batch.
#[derive(Clone, Copy, Debug)]
struct Place {
    timestamp: u64,
    link: LinkType,
    original_len: u32,
    start: usize,
    end: usize,
}

/// A packet as the feed takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) timestamp: u64,
    /// How it begins.
    pub(crate) link: LinkType,
    /// Its length on the wire.
    pub(crate) original_len: u32,
    /// What was captured.
    pub(crate) data: &'a [u8],
}

/// Packets in their order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    places: Vec<Place>,
    next: usize,
    /// Packets of link types that are not understood.
    pub(crate) foreign: u64,
    /// Files that could not be read to their end, each once.
    pub(crate) problems: Vec<FileError>,
    /// The files end with this batch.
    pub(crate) ends_round: bool,
    /// Packets that the recorder lost, as far as was read and the files say.
    pub(crate) dropped: u64,
    /// The bytes of all files that had been read before it and behind it, and that there are in
    /// all; `None`: nobody knows, as with a pipe among them.
    span: Option<(u64, u64, u64)>,
}

impl Batch {
    /// The next packet, not taken yet.
    pub(crate) fn peek(&self) -> Option<Packet<'_>> {
        let place = self.places.get(self.next)?;
        Some(Packet {
            timestamp: place.timestamp,
            link: place.link,
            original_len: place.original_len,
            data: self.bytes.get(place.start..place.end)?,
        })
    }

    /// Which part of the files lies before the next packet; `None` if nobody knows.
    pub(crate) fn part(&self) -> Option<f64> {
        let (from, to, total) = self.span?;
        let within = match self.places.len() {
            0 => 1.0,
            all => self.next as f64 / all as f64,
        };
        let read = from as f64 + (to.saturating_sub(from)) as f64 * within;
        Some(read / total.max(1) as f64)
    }

    /// Takes it.
    pub(crate) const fn advance(&mut self) {
        self.next += 1;
    }

    fn push(&mut self, packet: &millrace_capture::Recorded<'_>) {
        let Some(link) = packet.link_type() else {
            self.foreign += 1;
            return;
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet.data);
        self.places.push(Place {
            timestamp: packet.timestamp,
            link,
            original_len: packet.original_len,
            start,
            end: self.bytes.len(),
        });
    }

    /// Whether only the packet that follows shows what to make of the last one's time.
    fn ends_in_doubt(&self, before: Option<u64>) -> bool {
        let mut from_behind = self.places.iter().rev().map(|place| place.timestamp);
        match (from_behind.next(), from_behind.next().or(before)) {
            (Some(last), Some(before)) => last.abs_diff(before) > ASTRAY,
            (Some(_) | None, _) => false,
        }
    }

    /// Gives a packet whose time stands alone, far from those before and behind it, the time of the packet before: a
    /// wrong time stamp moves one packet. `before` is the time of the last packet of the batch before.
    fn straighten(&mut self, before: &mut Option<u64>) {
        let times: Vec<u64> = self.places.iter().map(|place| place.timestamp).collect();
        let next = times.iter().skip(1).map(Some).chain([None]);
        for (place, next) in self.places.iter_mut().zip(next) {
            let near = |time: u64, other: u64| time.abs_diff(other) <= ASTRAY;
            if let (Some(before), Some(next)) = (*before, next)
                && !near(place.timestamp, before)
                && !near(place.timestamp, *next)
                && near(*next, before)
            {
                place.timestamp = before;
            }
            *before = Some(place.timestamp);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.next = 0;
        self.foreign = 0;
        self.problems.clear();
        self.ends_round = false;
        self.dropped = 0;
        self.span = None;
    }
}

/// What a reader has to give.
#[derive(Debug)]
pub(crate) enum Next {
    /// Packets.
    Batch(Batch),
    /// Nothing at the moment.
    NotYet,
    /// Nothing any more.
    End,
}

/// The receiving end of a reader.
#[derive(Debug)]
pub(crate) struct Reader {
    batches: Receiver<Batch>,
    used: SyncSender<Batch>,
}

impl Reader {
    /// Opens the files and begins to read them, `rounds` times. Whoever sleeps on `waker` is woken
    /// for each batch. A pipe may have nothing to read for long, so that files with one among them
    /// are opened by the thread, and what is wrong with them is a problem of the first batch.
    ///
    /// # Errors
    /// A file that cannot be opened or is no packet file; or that is to be read twice and cannot
    /// be.
    pub(crate) fn start(
        sources: Vec<Source>,
        rounds: u32,
        waker: Waker,
    ) -> Result<Self, ExitError> {
        if rounds > 1
            && let Some(once) = sources.iter().find(|source| !source.is_repeatable())
        {
            return Err(ExitError::usage(format!(
                "-T {rounds}: {} can be read only once; save it to a file first",
                once.name()
            )));
        }
        let files = match sources.iter().all(Source::is_repeatable) {
            true => Some(open(&sources).map_err(|error| ExitError::start(format!("-i {error}")))?),
            false => None,
        };
        let (sender, batches) = sync_channel(BATCHES);
        let (used, spare) = sync_channel(BATCHES);
        let reading = Reading {
            sources,
            rounds,
            sender,
            spare,
            waker,
        };
        std::thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || reading.run(files))
            .map_err(|error| ExitError::caused("cannot start the reader's thread", &error))?;
        Ok(Self { batches, used })
    }

    /// The next batch, without waiting for it.
    pub(crate) fn next(&self) -> Next {
        match self.batches.try_recv() {
            Ok(batch) => Next::Batch(batch),
            Err(TryRecvError::Empty) => Next::NotYet,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }

    /// Gives a batch back, so that its memory is used again.
    pub(crate) fn give_back(&self, batch: Batch) {
        // With no room for it, or nobody who needs it, its memory is simply free.
        drop(self.used.try_send(batch));
    }
}

fn open(sources: &[Source]) -> Result<Vec<PacketFile>, FileError> {
    sources.iter().map(PacketFile::open).collect()
}

/// Bytes that were read of all files.
fn read_of(files: &Merged) -> u64 {
    files.files().map(|file| file.progress().read()).sum()
}

/// Bytes that there are in all files.
fn total_of(files: &Merged) -> Option<u64> {
    files.files().map(|file| file.progress().total()).sum()
}

/// The reading thread.
struct Reading {
    sources: Vec<Source>,
    rounds: u32,
    sender: SyncSender<Batch>,
    spare: Receiver<Batch>,
    waker: Waker,
}

impl Reading {
    /// Reads until all rounds are read or nobody wants more.
    fn run(self, mut files: Option<Vec<PacketFile>>) {
        for _ in 0..self.rounds {
            let opened = match files.take() {
                Some(files) => Ok(files),
                None => open(&self.sources),
            };
            let goes_on = match opened {
                Ok(files) => self.round(Merged::new(files)),
                Err(error) => {
                    let mut batch = self.batch();
                    batch.problems.push(error);
                    self.send(batch);
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        // The sender goes first, so that whoever is woken sees the end.
        let Self { sender, waker, .. } = self;
        drop(sender);
        waker.wake();
    }

    /// Says whether anybody wants more.
    fn round(&self, mut files: Merged) -> bool {
        let (mut read, mut before) = (0, None);
        loop {
            let mut batch = self.batch();
            loop {
                let room = batch.bytes.len() < BATCH_BYTES && batch.places.len() < BATCH_BYTES / 64;
                let in_doubt = batch.ends_in_doubt(before) && batch.bytes.len() < 2 * BATCH_BYTES;
                if !room && !in_doubt {
                    break;
                }
                match files.next_packet() {
                    Some((_, packet)) => batch.push(&packet),
                    None => {
                        batch.ends_round = true;
                        break;
                    }
                }
            }
            batch.straighten(&mut before);
            batch.problems = files.take_problems();
            batch.dropped = files
                .files()
                .map(PacketFile::dropped)
                .fold(0, u64::saturating_add);
            let before = std::mem::replace(&mut read, read_of(&files));
            batch.span = total_of(&files).map(|total| (before, read, total));
            let last = batch.ends_round;
            if !self.send(batch) {
                return false;
            }
            if last {
                return true;
            }
        }
    }

    fn batch(&self) -> Batch {
        let mut batch = self.spare.try_recv().unwrap_or_default();
        batch.clear();
        batch
    }

    fn send(&self, batch: Batch) -> bool {
        let sent = self.sender.send(batch).is_ok();
        self.waker.wake();
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A batch of packets with these times.
    fn batch(seconds: &[u64]) -> Batch {
        let place = |second: &u64| Place {
            timestamp: second * SECOND,
            link: LinkType::Ethernet,
            original_len: 0,
            start: 0,
            end: 0,
        };
        Batch {
            places: seconds.iter().map(place).collect(),
            ..Batch::default()
        }
    }

    /// The times of a batch with these seconds, straightened.
    fn straight(before: Option<u64>, seconds: &[u64]) -> Vec<u64> {
        let mut batch = batch(seconds);
        batch.straighten(&mut before.map(|it| it * SECOND));
        let times = batch.places.iter().map(|it| it.timestamp / SECOND);
        times.collect()
    }

    #[test]
    fn a_time_that_stands_alone_moves_one_packet() {
        assert_eq!(
            straight(None, &[1000, 1001, 0, 1002]),
            [1000, 1001, 1001, 1002]
        );
        assert_eq!(straight(None, &[1000, 99_999, 1002]), [1000, 1000, 1002]);
        assert_eq!(straight(Some(1000), &[99_999, 1002]), [1000, 1002]);
        // A pause, and a clock that was set, are what they are.
        for times in [
            &[1000, 9000, 9001][..],
            &[1000, 1001, 10, 11],
            &[1000, 1059, 1000],
        ] {
            assert_eq!(straight(None, times), times);
        }
    }

    #[test]
    fn only_a_packet_far_from_the_one_before_leaves_a_batch_in_doubt() {
        let ends = |before: Option<u64>, seconds: &[u64]| {
            batch(seconds).ends_in_doubt(before.map(|it| it * SECOND))
        };
        assert!(ends(Some(1000), &[2000]) && ends(None, &[1000, 1]));
        assert!(!ends(None, &[1000]) && !ends(Some(1000), &[1001]) && !ends(Some(1000), &[]));
    }
}

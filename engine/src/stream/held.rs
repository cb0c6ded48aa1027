//! What came behind a hole, until the hole is filled or given up.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{End, GivenUp, RunInfo, StreamError, clip};
use crate::payload::Payload;

/// Bytes held by one session, with what they cost besides. A larger hole than this is not
/// reordering: no window is as large.
const MAX_MEMORY: usize = 64 << 20;
/// What a run costs besides its bytes.
const RUN_COST: usize = size_of::<HeldRun>() + 32;
/// Runs held by one session: more than segments fit the largest windows in use. To find a place among them takes time.
const MAX_RUNS: usize = 64 << 10;
/// Runs that touch become one up to this length.
const MERGED: usize = 8 << 10;
/// ... if they came within so many microseconds of each other: a pause means a turn.
const MERGED_WITHIN: u32 = 1_000;

/// A run of bytes behind a hole.
#[derive(Debug)]
pub(crate) struct HeldRun {
    pub(crate) offset: u64,
    pub(crate) info: RunInfo,
    pub(crate) data: Bytes,
}

impl HeldRun {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// Whether bytes that follow may become part of it.
    fn takes(&self, bytes: &[u8], info: RunInfo) -> bool {
        !info.fresh
            && info.answer == self.info.answer
            && info.at.micros_since(self.info.at) <= MERGED_WITHIN
            && self.data.len() + bytes.len() <= MERGED
    }
}

/// Runs behind a hole: disjoint, in ascending order, none empty.
#[derive(Debug, Default)]
pub(super) struct Held {
    runs: VecDeque<HeldRun>,
    bytes: usize,
    /// The client is known to have sent everything below this offset.
    pub(super) reach: u64,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether nothing is held or known to be missing behind `next`.
    pub(super) fn is_over(&self, next: u64) -> bool {
        self.runs.is_empty() && self.reach <= next
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn memory(&self) -> usize {
        self.bytes + self.runs.len() * RUN_COST
    }

    /// Behind the last byte that the client is known to have sent.
    pub(super) fn known_end(&self) -> u64 {
        self.reach.max(self.runs.back().map_or(0, HeldRun::end))
    }

    /// Drops everything from `end` on.
    pub(super) fn clip(&mut self, end: u64) {
        self.runs.retain(|run| run.offset < end);
        if let Some(last) = self.runs.back_mut()
            && last.end() > end
        {
            last.data
                .truncate(clip(&last.data, end - last.offset).len());
        }
        self.count();
        self.reach = self.reach.min(end);
    }

    fn count(&mut self) {
        self.bytes = self.runs.iter().map(|run| run.data.len()).sum();
    }

    /// Holds what is new of `bytes`, a part of `payload`, at `offset`; gives the number of bytes
    /// that were not new. The first copy wins.
    pub(super) fn hold(
        &mut self,
        offset: u64,
        bytes: &[u8],
        payload: Payload<'_>,
        info: RunInfo,
    ) -> Result<u64, StreamError> {
        if self.memory() + bytes.len() + RUN_COST > MAX_MEMORY || self.runs.len() >= MAX_RUNS {
            return Err(StreamError::TooFarAhead);
        }
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        let mut index = self.runs.partition_point(|run| run.end() <= offset);
        let mut added = 0;
        while at < end {
            let next = self.runs.get(index).map_or(end, |run| run.offset.min(end));
            if at < next {
                let piece = bytes.get((at - offset) as usize..(next - offset) as usize);
                let piece = piece.unwrap_or(&[]);
                added += piece.len();
                // Only the segment's first byte can begin a turn.
                let fresh = info.fresh && at == offset;
                let info = RunInfo { fresh, ..info };
                index += usize::from(self.insert(index, at, piece, payload, info));
            }
            at = self.runs.get(index).map_or(end, HeldRun::end).max(next);
            index += 1;
        }
        self.bytes += added;
        Ok((bytes.len() - added) as u64)
    }

    /// Puts a piece before the run at `index`, or makes it a part of the one before. Says whether
    /// there is one run more.
    fn insert(
        &mut self,
        index: usize,
        offset: u64,
        piece: &[u8],
        payload: Payload<'_>,
        info: RunInfo,
    ) -> bool {
        let before = index.checked_sub(1).and_then(|it| self.runs.get_mut(it));
        if let Some(run) = before.filter(|run| run.end() == offset && run.takes(piece, info)) {
            let mut data = BytesMut::from(std::mem::take(&mut run.data));
            data.extend_from_slice(piece);
            run.data = data.freeze();
            return false;
        }
        let data = payload.keep(piece);
        self.runs.insert(index, HeldRun { offset, info, data });
        true
    }

    /// Takes out the first run if it begins at `next` or before.
    pub(super) fn take_first(&mut self, next: u64) -> Option<HeldRun> {
        if self.runs.front()?.offset > next {
            return None;
        }
        let run = self.runs.pop_front()?;
        self.bytes -= run.data.len();
        Some(run)
    }

    pub(super) fn into_runs(self) -> VecDeque<HeldRun> {
        self.runs
    }

    /// What was taken out of another stream, whose byte `first` is the first one of this and was sent
    /// when the client had seen `answered` bytes.
    pub(super) fn of(behind: Behind, first: u64, answered: u64) -> Self {
        let mut held = Self {
            runs: behind.runs,
            bytes: 0,
            reach: behind.known_end.saturating_sub(first),
        };
        for run in &mut held.runs {
            run.offset -= first;
            run.info.answer = run.info.answer.saturating_sub(answered);
        }
        held.count();
        held
    }
}

/// What lies behind a hole, taken out of its stream. Offsets are that stream's.
#[derive(Debug)]
pub(crate) struct Behind {
    /// Where it begins: everything before was taken or given up.
    pub(crate) at: u64,
    pub(crate) runs: VecDeque<HeldRun>,
    /// Where the stream ends, if that was announced.
    pub(crate) end: Option<End>,
    /// Behind the last byte that the client is known to have sent.
    pub(crate) known_end: u64,
}

impl Behind {
    /// Gives up everything before the next turn; without `resumes`, everything.
    pub(crate) fn skip_to_turn(&mut self, resumes: bool) -> GivenUp {
        let mut held = 0;
        while let Some(run) = self.runs.front().filter(|run| !(resumes && run.info.fresh)) {
            held += run.data.len() as u64;
            self.runs.pop_front();
        }
        let next = self.runs.front().map_or(self.known_end, |run| run.offset);
        let missing = (next - self.at).saturating_sub(held);
        self.at = next;
        GivenUp { held, missing }
    }

    /// Takes the next run if nothing is missing before it.
    pub(crate) fn take_next(&mut self) -> Option<HeldRun> {
        let run = self.runs.pop_front_if(|run| run.offset <= self.at)?;
        self.at = self.at.max(run.end());
        Some(run)
    }

    /// Whether nothing is left but perhaps the end.
    pub(crate) fn is_over(&self) -> bool {
        self.runs.is_empty() && self.at >= self.known_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn info(at: u64, fresh: bool) -> RunInfo {
        RunInfo {
            at: Time::from_micros(at),
            answer: 0,
            fresh,
        }
    }

    fn hold(held: &mut Held, offset: u64, bytes: &[u8], info: RunInfo) {
        held.hold(offset, bytes, Payload::Borrowed(bytes), info)
            .unwrap();
    }

    #[test]
    fn runs_that_touch_are_one_and_turns_stay_apart() {
        let mut held = Held::default();
        for i in 0..1000 {
            hold(&mut held, 100 + i, b"x", info(i, false));
        }
        assert_eq!((held.runs.len(), held.bytes()), (1, 1000));
        hold(&mut held, 1100, b"turn", info(1000, true));
        hold(&mut held, 1104, b"late", info(9000, false));
        assert_eq!(held.runs.len(), 3);
        hold(&mut held, 2000, b"behind another hole", info(9000, true));
        let known_end = held.known_end();
        let mut behind = Behind {
            at: 90,
            runs: held.into_runs(),
            end: None,
            known_end,
        };
        let given_up = behind.skip_to_turn(true);
        assert_eq!((given_up.held, given_up.missing), (1000, 10));
        assert_eq!(behind.take_next().map(|run| run.offset), Some(1100));
        assert_eq!(behind.take_next().map(|run| run.offset), Some(1104));
        assert!(behind.take_next().is_none() && !behind.is_over());
        let given_up = behind.skip_to_turn(true);
        assert_eq!((given_up.held, given_up.missing), (0, 892));
        assert!(behind.take_next().is_some() && behind.is_over());
    }

    #[test]
    fn what_is_held_is_bounded_in_bytes_and_in_runs() {
        let mut held = Held::default();
        for i in 0..20_000 {
            hold(&mut held, 100 + 2 * i, b"x", info(0, false));
        }
        let long = vec![0; MAX_MEMORY - held.memory() - RUN_COST];
        hold(&mut held, 1 << 20, &long, info(0, false));
        let payload = Payload::Borrowed(b"y");
        let refused = held.hold(1 << 30, b"y", payload, info(0, false));
        assert_eq!(refused, Err(StreamError::TooFarAhead));

        let mut held = Held::default();
        for i in 0..MAX_RUNS as u64 {
            hold(&mut held, 100 + 2 * i, b"x", info(0, false));
        }
        let refused = held.hold(1 << 30, b"y", payload, info(0, false));
        assert_eq!(refused, Err(StreamError::TooFarAhead));
    }
}

//! What a client sent: reassembled once, stored once, read by every replica.
//!
//! - `held`: what came behind a hole.

mod held;

use millrace_wire::Seq;

pub(crate) use self::held::Behind;
use self::held::Held;
use crate::payload::Payload;
use crate::pool::{BlockId, BlockPool};
use crate::stats::{AbortReason, GivenUp};
use crate::time::Time;

/// What came with a run of client bytes, besides the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunInfo {
    /// When it was seen.
    pub(crate) at: Time,
    /// How many bytes of the live server's answer the client had acknowledged.
    pub(crate) answer: u64,
    /// Whether it begins a turn by all that was seen: the live server had answered everything
    /// before, and the client had seen the whole answer.
    pub(crate) fresh: bool,
}

/// How the client's side of the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// With a FIN.
    Fin,
    /// With a RST, no FIN before it.
    Reset,
    /// The live server reset the connection, or a new connection took its four-tuple: the client
    /// sent neither FIN nor RST.
    Severed,
    /// What follows was not captured.
    Lost,
    /// What follows is not copied, since the copier was under pressure.
    SetAside,
    /// What follows cannot be copied, for this reason.
    Uncopied(AbortReason),
}

/// Where and how the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Number of bytes in the stream.
    pub(crate) offset: u64,
    /// How it ended.
    pub(crate) kind: EndKind,
}

/// What a segment did to the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Bytes that are new in the stream.
    pub(crate) new: u64,
    /// Bytes that were there already.
    pub(crate) repeated: u64,
    /// Bytes that were there already with another value; the first copy was kept.
    pub(crate) differing: u64,
    /// Bytes before it that are missing for good.
    pub(crate) missing: u64,
}

/// Why a segment could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// No memory for its bytes.
    NoMemory,
    /// Too much is held behind a hole.
    TooFarAhead,
}

/// A place in a stream that is read on from: saves the walk from the first block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    block: BlockId,
    /// Where the block begins, modulo 2^32: no reader goes on further than a window from where it
    /// read last.
    start: u32,
}

impl Cursor {
    /// Where the block begins, for a reader at `offset`.
    const fn start_near(&self, offset: u64) -> Option<u64> {
        let ahead = (offset as u32).wrapping_sub(self.start);
        if ahead >= 1 << 31 {
            return None;
        }
        offset.checked_sub(ahead as u64)
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            block: BlockId::NONE,
            start: 0,
        }
    }
}

/// The client's byte stream. Offset 0 is the first byte behind the SYN.
pub(crate) struct ClientStream {
    first: Seq,
    next: u64,
    head: BlockId,
    tail: BlockId,
    head_start: u64,
    discarding: bool,
    end_kind: Option<EndKind>,
    end_offset: u64,
    held: Option<Box<Held>>,
}

impl ClientStream {
    /// A stream whose first byte has the sequence number `first`.
    pub(crate) const fn new(first: Seq) -> Self {
        Self {
            first,
            next: 0,
            head: BlockId::NONE,
            tail: BlockId::NONE,
            head_start: 0,
            discarding: false,
            end_kind: None,
            end_offset: u64::MAX,
            held: None,
        }
    }

    /// How many bytes are there without a hole.
    pub(crate) const fn len(&self) -> u64 {
        self.next
    }

    /// Sequence number of the first byte.
    pub(crate) const fn first_seq(&self) -> Seq {
        self.first
    }

    /// Where it ends, once every byte before is there.
    pub(crate) fn end(&self) -> Option<End> {
        self.announced_end().filter(|end| end.offset <= self.next)
    }

    /// Where it will end, as soon as that was seen, holes or not.
    pub(crate) fn announced_end(&self) -> Option<End> {
        let offset = self.end_offset;
        self.end_kind.map(|kind| End { offset, kind })
    }

    /// Whether bytes are missing that the client is known to have sent.
    pub(crate) fn has_hole(&self) -> bool {
        self.held.is_some() || (self.end_kind.is_some() && self.end_offset > self.next)
    }

    /// The stream offset of a sequence number; `None` when it lies before the stream.
    pub(crate) const fn offset_of(&self, seq: Seq) -> Option<u64> {
        // The truncated length gives the sequence number of the next byte, modulo 2^32.
        seq.offset_near(self.first.add(self.next as u32), self.next)
    }

    /// Remembers the end. The first end wins; a FIN turns into nothing else afterwards. What is
    /// held behind it is garbage.
    pub(crate) fn set_end(&mut self, end: End) {
        if self.end_kind.is_some() {
            return;
        }
        self.end_kind = Some(end.kind);
        self.end_offset = end.offset;
        if let Some(held) = &mut self.held {
            held.clip(end.offset);
            if held.is_empty() {
                self.held = None;
            }
        }
    }

    /// Notes that the client has sent everything below `end`, whether capture has it or not. Gives
    /// the bytes that are missing for good by that: none as long as they may still come.
    pub(crate) fn reach(&mut self, end: u64) -> u64 {
        let end = end.min(self.end_offset);
        if end <= self.next {
            return 0;
        }
        if self.discarding {
            return end - std::mem::replace(&mut self.next, end);
        }
        let held = self.held.get_or_insert_default();
        held.reach = held.reach.max(end);
        0
    }

    /// Behind the last byte that the client is known to have sent.
    pub(crate) fn known_end(&self) -> u64 {
        let held = self.held.as_ref().map_or(0, |held| held.known_end());
        let announced = self.announced_end().map_or(0, |end| end.offset);
        self.next.max(held).max(announced)
    }

    /// Ends it where it is: what is missing will never come, nor what lies behind it.
    /// An end that is there already stays.
    pub(crate) fn cut_short(&mut self, kind: EndKind) -> GivenUp {
        if self.end().is_some() {
            return GivenUp::default();
        }
        let given_up = self.give_up();
        self.end_kind = Some(kind);
        self.end_offset = self.next;
        given_up
    }

    /// Counts bytes that whoever reads this stream was given at once. Nothing is stored or held before them.
    pub(crate) const fn pass(&mut self, len: u64) {
        self.next += len;
    }

    /// Whether nothing is stored, held, or known to follow.
    pub(crate) const fn is_bare(&self) -> bool {
        let stores = !matches!(self.head, BlockId::NONE);
        !stores && self.held.is_none() && self.end_kind.is_none() && !self.discarding
    }

    /// Stops storing: whatever comes is counted and thrown away. Gives what was not part of the
    /// stream yet.
    pub(crate) fn discard(&mut self, pool: &mut BlockPool) -> GivenUp {
        self.discarding = true;
        let end = self.known_end();
        let given_up = self.give_up();
        self.release(pool, u64::MAX);
        self.next = end;
        given_up
    }

    /// Takes out everything behind the hole, with the end that was announced there.
    pub(crate) fn take_behind_hole(&mut self) -> Behind {
        let known_end = self.known_end();
        let end = self.announced_end().filter(|end| end.offset > self.next);
        if end.is_some() {
            (self.end_kind, self.end_offset) = (None, u64::MAX);
        }
        let held = self.held.take().unwrap_or_default();
        Behind {
            at: self.next,
            runs: held.into_runs(),
            end,
            known_end,
        }
    }

    /// Holds what lies behind a hole in this stream, whose first byte is byte `first` of the stream
    /// that it was taken out of, and was sent when the client had seen `answered` bytes.
    pub(crate) fn put_behind_hole(&mut self, behind: Behind, first: u64, answered: u64) {
        if let Some(end) = behind.end {
            let offset = end.offset - first;
            self.set_end(End { offset, ..end });
        }
        self.held = Some(Box::new(Held::of(behind, first, answered)));
    }

    fn give_up(&mut self) -> GivenUp {
        let held = self.held_bytes() as u64;
        let missing = (self.known_end() - self.next).saturating_sub(held);
        self.held = None;
        GivenUp { held, missing }
    }

    /// Takes bytes of a segment, a part of its `payload`, that begin at `offset`. `on_run` is told
    /// of every run that becomes part of the stream, in order: its offset, its length, and what came
    /// with it.
    pub(crate) fn accept(
        &mut self,
        pool: &mut BlockPool,
        offset: u64,
        bytes: &[u8],
        payload: Payload<'_>,
        info: RunInfo,
        mut on_run: impl FnMut(u64, u64, RunInfo),
    ) -> Result<Accepted, StreamError> {
        let mut accepted = Accepted::default();
        // Bytes behind an end that was announced are garbage: the receiver ignores them too.
        let bytes = clip(bytes, self.end_offset.saturating_sub(offset));
        if self.discarding {
            // Nothing of it will be delivered: what was seen and what was not are only counted.
            if bytes.is_empty() {
                return Ok(accepted);
            }
            let end = offset + bytes.len() as u64;
            accepted.missing = offset.saturating_sub(self.next);
            accepted.new = end.saturating_sub(self.next.max(offset));
            accepted.repeated = bytes.len() as u64 - accepted.new;
            self.next = self.next.max(end);
            return Ok(accepted);
        }
        if self.held.is_some() || offset > self.next {
            // What is held came first and wins, so even a segment that fits the end of the stream
            // goes between the held runs.
            let skip = clip(bytes, self.next.saturating_sub(offset)).len();
            let (before, new) = bytes.split_at_checked(skip).unwrap_or((bytes, &[]));
            accepted.differing = self.count_differing(pool, offset, before);
            accepted.repeated =
                skip as u64 + self.hold(offset + skip as u64, new, payload, info)?;
            self.take_held(pool, &mut accepted, on_run)?;
            return Ok(accepted);
        }
        let old = (self.next - offset).min(bytes.len() as u64);
        accepted.repeated = old;
        let (before, new) = bytes.split_at_checked(old as usize).unwrap_or((bytes, &[]));
        accepted.differing = self.count_differing(pool, offset, before);
        if !new.is_empty() {
            let start = self.next;
            self.append(pool, new, payload)?;
            accepted.new = new.len() as u64;
            on_run(start, accepted.new, info);
        }
        Ok(accepted)
    }

    /// The bytes from `offset` on, at most `len` of them and from at most three blocks. `cursor`
    /// belongs to the reader and makes reading on cheap.
    ///
    /// A block that is not full is the last one, or comes before one that refers to many bytes: so
    /// three blocks have at least `BLOCK` bytes from any place on, if that many are there.
    pub(crate) fn read<'p>(
        &self,
        pool: &'p BlockPool,
        cursor: &mut Cursor,
        offset: u64,
        len: usize,
    ) -> [&'p [u8]; 3] {
        let known = cursor.start_near(offset).filter(|start| {
            cursor.block != BlockId::NONE && self.head != BlockId::NONE && *start >= self.head_start
        });
        let (mut block, mut start) = match known {
            Some(start) => (cursor.block, start),
            None => (self.head, self.head_start),
        };
        while block != BlockId::NONE && start + pool.len(block) as u64 <= offset {
            start += pool.len(block) as u64;
            block = pool.next(block);
        }
        if block == BlockId::NONE || offset < start {
            return [&[]; 3];
        }
        *cursor = Cursor {
            block,
            start: start as u32,
        };
        let (mut at, mut rest) = ((offset - start) as usize, len);
        std::array::from_fn(|_| {
            if rest == 0 {
                return &[][..];
            }
            let piece = pool.bytes(block, at, rest);
            rest -= piece.len();
            (block, at) = (pool.next(block), 0);
            piece
        })
    }

    /// Whether every byte of its first block lies below `offset`.
    pub(crate) fn can_release(&self, pool: &BlockPool, offset: u64) -> bool {
        self.head != BlockId::NONE && self.head_end(pool) <= offset
    }

    fn head_end(&self, pool: &BlockPool) -> u64 {
        self.head_start + pool.len(self.head) as u64
    }

    /// Frees blocks of which every byte lies below `offset`.
    pub(crate) fn release(&mut self, pool: &mut BlockPool, offset: u64) {
        while self.head != BlockId::NONE {
            let end = self.head_end(pool);
            if end > offset {
                return;
            }
            let next = pool.next(self.head);
            pool.give(self.head);
            self.head_start = end;
            self.head = next;
        }
        self.tail = BlockId::NONE;
    }

    /// Bytes stored in order, for replicas that have not delivered them yet.
    pub(crate) const fn stored(&self) -> u64 {
        match self.head {
            BlockId::NONE => 0,
            _ => self.next - self.head_start,
        }
    }

    /// Bytes held behind a hole.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes())
    }

    /// Memory of what is held behind a hole, in bytes.
    pub(crate) fn held_memory(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.memory())
    }

    fn append(
        &mut self,
        pool: &mut BlockPool,
        mut bytes: &[u8],
        payload: Payload<'_>,
    ) -> Result<(), StreamError> {
        if self.discarding {
            self.next += bytes.len() as u64;
            return Ok(());
        }
        if let Some(shared) = payload.share(bytes) {
            let len = shared.len();
            let block = self.add_block(pool)?;
            pool.share(block, shared);
            self.next += len as u64;
            return Ok(());
        }
        while !bytes.is_empty() {
            let mut written = 0;
            if self.tail != BlockId::NONE {
                written = pool.write(self.tail, bytes);
            }
            if written == 0 {
                let block = self.add_block(pool)?;
                written = pool.write(block, bytes);
            }
            self.next += written as u64;
            bytes = bytes.get(written..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// An empty block at the end.
    fn add_block(&mut self, pool: &mut BlockPool) -> Result<BlockId, StreamError> {
        let block = pool.take().ok_or(StreamError::NoMemory)?;
        if self.tail == BlockId::NONE {
            self.head = block;
            self.head_start = self.next;
        } else {
            pool.link(self.tail, block);
        }
        self.tail = block;
        Ok(block)
    }

    /// Compares bytes that came again with those that are still stored.
    fn count_differing(&self, pool: &BlockPool, offset: u64, bytes: &[u8]) -> u64 {
        let stored_from = if self.head == BlockId::NONE {
            self.next
        } else {
            self.head_start
        };
        let skip = stored_from.saturating_sub(offset);
        let mut offset = offset.max(stored_from);
        let mut bytes = usize::try_from(skip)
            .ok()
            .and_then(|skip| bytes.get(skip..))
            .unwrap_or(&[]);
        let mut cursor = Cursor::default();
        let mut differing = 0;
        while !bytes.is_empty() {
            let [stored, ..] = self.read(pool, &mut cursor, offset, bytes.len());
            if stored.is_empty() {
                break;
            }
            differing += stored.iter().zip(bytes).filter(|(a, b)| a != b).count() as u64;
            offset += stored.len() as u64;
            bytes = bytes.get(stored.len()..).unwrap_or(&[]);
        }
        differing
    }

    /// Holds what is new of a run behind a hole; gives the number of bytes that were not.
    fn hold(
        &mut self,
        offset: u64,
        bytes: &[u8],
        payload: Payload<'_>,
        info: RunInfo,
    ) -> Result<u64, StreamError> {
        if bytes.is_empty() || self.discarding {
            return Ok(0);
        }
        let held = self.held.get_or_insert_default();
        held.hold(offset, bytes, payload, info)
    }

    fn take_held(
        &mut self,
        pool: &mut BlockPool,
        accepted: &mut Accepted,
        mut on_run: impl FnMut(u64, u64, RunInfo),
    ) -> Result<(), StreamError> {
        let Some(mut held) = self.held.take() else {
            return Ok(());
        };
        while let Some(run) = held.take_first(self.next) {
            let skip = (self.next - run.offset) as usize;
            if let Some(new) = run.data.get(skip..).filter(|new| !new.is_empty()) {
                let start = self.next;
                self.append(pool, new, Payload::Shared(&run.data))?;
                accepted.new += new.len() as u64;
                on_run(start, new.len() as u64, run.info);
            }
        }
        if !held.is_over(self.next) {
            self.held = Some(held);
        }
        Ok(())
    }
}

/// At most `len` bytes from the front.
fn clip(bytes: &[u8], len: u64) -> &[u8] {
    usize::try_from(len)
        .ok()
        .and_then(|len| bytes.get(..len))
        .unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::BLOCK;
    use bytes::Bytes;
    use proptest::prelude::*;

    const INFO: RunInfo = RunInfo {
        at: Time::from_micros(0),
        answer: 0,
        fresh: false,
    };

    fn contents(stream: &ClientStream, pool: &BlockPool, from: u64) -> Vec<u8> {
        let mut cursor = Cursor::default();
        let mut out = Vec::new();
        let mut at = from;
        while at < stream.len() {
            let pieces = stream.read(pool, &mut cursor, at, BLOCK);
            let len: usize = pieces.iter().map(|piece| piece.len()).sum();
            assert_eq!(len as u64, (stream.len() - at).min(BLOCK as u64));
            pieces.iter().for_each(|piece| out.extend_from_slice(piece));
            at = from + out.len() as u64;
        }
        out
    }

    #[test]
    fn the_first_copy_of_an_overlap_wins_and_the_other_is_counted() {
        let mut pool = BlockPool::new();
        let mut stream = ClientStream::new(Seq(1));
        let mut put = |stream: &mut ClientStream, offset, bytes: &[u8]| {
            stream
                .accept(
                    &mut pool,
                    offset,
                    bytes,
                    Payload::Borrowed(bytes),
                    INFO,
                    |_, _, _| {},
                )
                .unwrap()
        };
        put(&mut stream, 0, b"abcd");
        let again = put(&mut stream, 2, b"xdef");
        assert_eq!((again.new, again.repeated, again.differing), (2, 2, 1));
        put(&mut stream, 8, b"ij");
        put(&mut stream, 7, b"hIJk");
        put(&mut stream, 6, b"gXX");
        assert_eq!(contents(&stream, &pool, 0), b"abcdefghijk");
    }

    proptest! {
        #[test]
        fn any_order_and_any_boundaries_give_the_same_stream(
            data in proptest::collection::vec(any::<u8>(), 1..60_000),
            pieces in proptest::collection::vec(
                (any::<prop::sample::Index>(), prop_oneof![1..3000usize, 8000..20_000usize]), 0..60),
            shared in any::<bool>(),
            release in any::<prop::sample::Index>(),
            first in any::<u32>(),
        ) {
            let mut pool = BlockPool::new();
            let mut stream = ClientStream::new(Seq(first));
            let mut runs = Vec::new();
            let whole_data = Bytes::from(data.clone());
            let payload = match shared {
                true => Payload::Shared(&whole_data),
                false => Payload::Borrowed(&data),
            };
            let bytes = payload.bytes();
            let whole = std::iter::once((0, data.len()));
            let random = pieces.iter().map(|(at, len)| (at.index(data.len()), *len));
            for (at, len) in random.chain(whole) {
                let end = data.len().min(at + len);
                let seq = Seq(first).add(at as u32);
                let offset = stream.offset_of(seq).unwrap();
                prop_assert_eq!(offset, at as u64);
                let result = stream.accept(&mut pool, offset, &bytes[at..end], payload, INFO,
                    |start, len, _| runs.push((start, len)));
                prop_assert_eq!(result.unwrap().differing, 0);
            }
            prop_assert_eq!(stream.len(), data.len() as u64);
            prop_assert!(!stream.has_hole());
            let mut at = 0;
            for (start, len) in runs {
                prop_assert_eq!(start, at);
                at += len;
            }
            prop_assert_eq!(at, data.len() as u64);
            let from = release.index(data.len());
            stream.release(&mut pool, from as u64);
            prop_assert_eq!(&contents(&stream, &pool, from as u64)[..], &data[from..]);
            stream.discard(&mut pool);
            prop_assert_eq!(pool.memory(), 0);
        }
    }
}

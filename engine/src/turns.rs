//! The turns of a session: where in the client's stream it had waited for an answer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::stats::TurnLatency;
use crate::stream::RunInfo;
use crate::time::Time;

/// A pause of the client longer than this begins a new mark even without a new answer, so that a
/// replica which is not behind keeps the pause.
const PAUSE_MICROS: u32 = 20_000;

/// The point in the client's stream at which a new turn begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Offset of the turn's first byte, or of the end of the stream.
    pub(crate) start: u64,
    /// Bytes of the live server's answer, from the beginning of the session, that the client had
    /// acknowledged when it sent that byte. A FIN of the server counts as one more.
    pub(crate) answer: u64,
    /// From the end of the live answer (or of the client's last turn) to this turn, in
    /// microseconds: the client's think time, with its round trip in it.
    pub(crate) think: u32,
    /// From the end of the last turn to the first byte of its live answer, in microseconds.
    pub(crate) live_latency: u32,
    /// The longest pause inside that live answer, in microseconds.
    pub(crate) live_gap: u32,
    /// At that moment the client had seen all that the server had sent, and the server had
    /// received all that the client had sent: nothing was under way.
    pub(crate) lockstep: bool,
    /// What of the target's answer is waited for.
    pub(crate) wait: Wait,
    /// How long that byte had waited before it was taken in: see [`Waited`].
    pub(crate) waited: Waited,
}

/// What of the target's answer to the turn before a turn waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As many bytes as the live server had answered, or silence.
    #[default]
    Counted,
    /// Until the conversation that plays this says that it was whole.
    Told,
    /// Nothing: it has been heard whole.
    Over,
}

/// How long something waited before it was taken in: in units of 256 microseconds, up to 16 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waited(u16);

impl Waited {
    pub(crate) fn new(waited: Duration) -> Self {
        Self(u16::try_from(waited.as_micros() >> 8).unwrap_or(u16::MAX))
    }

    /// In microseconds.
    pub(crate) const fn micros(self) -> u32 {
        (self.0 as u32) << 8
    }
}

/// Times of the turn that is under way, on one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnClock {
    /// When the client's last byte went by; [`Time::ORIGIN`] before the first.
    pub(crate) asked_at: Time,
    /// When the last byte of the answer did, or the connection began.
    last_at: Time,
    /// From the client's last byte to the first of the answer, in microseconds; without one,
    /// [`UNASKED`], [`ASKING`] or [`OVERDUE`].
    first: u32,
    /// The longest pause between two pieces of the answer, in microseconds.
    gap: u32,
}

/// Stands for an answer that has not begun and that nobody has asked for; longer latencies count as
/// a little less than this.
const UNASKED: u32 = u32::MAX - 2;
/// Stands for an answer that is waited for.
const ASKING: u32 = u32::MAX - 1;
/// Stands for an answer that is waited for, and counted as overdue.
const OVERDUE: u32 = u32::MAX;

impl TurnClock {
    /// A clock that starts when the connection does.
    pub(crate) const fn starting(at: Time) -> Self {
        Self {
            asked_at: Time::ORIGIN,
            last_at: at,
            first: UNASKED,
            gap: 0,
        }
    }

    /// Bytes of the client went by.
    pub(crate) fn ask(&mut self, at: Time) {
        if self.first == UNASKED {
            self.first = ASKING;
        }
        self.end_asking(at);
    }

    /// The client's FIN went by: it asks for nothing.
    pub(crate) fn end_asking(&mut self, at: Time) {
        if self.has_answer() {
            // An answer that had begun before the question was complete took no time.
            let later = at.micros_since(self.asked_at);
            self.first = self.first.saturating_sub(later);
        }
        self.asked_at = at;
    }

    /// Bytes of the answer went by.
    pub(crate) fn answer(&mut self, at: Time) {
        self.answer_heard(at, 0);
    }

    /// Bytes of the answer are heard, `waited` microseconds after they went by: latency leaves that out.
    pub(crate) fn answer_heard(&mut self, at: Time, waited: u32) {
        if self.has_answer() {
            self.gap = self.gap.max(at.micros_since(self.last_at));
        } else {
            let first = at.micros_since(self.asked_at).saturating_sub(waited);
            self.first = first.min(UNASKED - 1);
        }
        self.last_at = at;
    }

    /// Whether there is a question without an answer that does not count as overdue yet.
    pub(crate) const fn is_asking(&self) -> bool {
        self.first == ASKING
    }

    /// When a question that may wait for `patience` counts as overdue.
    pub(crate) fn overdue_at(&self, patience: Duration) -> Time {
        match self.is_asking() {
            true => self.asked_at + patience,
            false => Time::NEVER,
        }
    }

    /// Whether there is a question without an answer, overdue or not.
    pub(crate) const fn is_unanswered(&self) -> bool {
        self.first >= ASKING
    }

    /// From now on a question without an answer counts as overdue, even if an answer comes; says
    /// whether there is one that did not before.
    pub(crate) const fn give_up(&mut self) -> bool {
        let asking = self.is_asking();
        if asking {
            self.first = OVERDUE;
        }
        asking
    }

    /// Whether the answer has begun.
    pub(crate) const fn has_answer(&self) -> bool {
        self.first < UNASKED
    }

    /// When the last thing of this turn happened.
    pub(crate) fn latest(&self) -> Time {
        self.asked_at.max(self.last_at)
    }

    /// The longest pause inside the answer so far, in microseconds.
    pub(crate) const fn longest_gap(&self) -> u32 {
        self.gap
    }

    /// Ends the turn; gives its latency if there were a question and an answer. A greeting, before
    /// any question, has none. A question without an answer stays: a client that has sent its FIN
    /// may still wait.
    pub(crate) fn finish(&mut self) -> Option<TurnLatency> {
        let asked = self.asked_at != Time::ORIGIN;
        let answered = self.has_answer();
        let latency = (asked && answered).then(|| TurnLatency {
            first: self.first,
            last: self.last_at.micros_since(self.asked_at),
        });
        if answered {
            self.first = UNASKED;
        }
        self.gap = 0;
        latency
    }

    /// Another turn follows the one that was finished. One without an answer was none that the
    /// client waited for.
    pub(crate) const fn begin_next(&mut self) {
        self.first = UNASKED;
    }
}

/// Marks that some replica has not passed yet. The usual case of one at most costs no heap.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Number of the first mark that is kept.
    base: u32,
    front: Option<Mark>,
    rest: Option<Box<Rest>>,
    last_answer: u64,
    /// When the first mark was made.
    front_at: Moment,
}

/// The low bits of a time's microseconds.
type Moment = u32;

/// The marks behind the first, for a replica that lags.
#[derive(Debug, Default)]
struct Rest {
    /// Each with the time at which it was made.
    marks: VecDeque<(Mark, Moment)>,
}

impl Turns {
    /// The mark with the number `n`, counted from the session's first.
    pub(crate) fn get(&self, n: u32) -> Option<&Mark> {
        match n.checked_sub(self.base)? {
            0 => self.front.as_ref(),
            i => Some(&self.rest.as_ref()?.marks.get(i as usize - 1)?.0),
        }
    }

    /// Memory of the marks besides the structure itself, in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| {
            size_of::<Rest>() + rest.marks.capacity() * size_of::<(Mark, Moment)>()
        })
    }

    /// Whether a run with this information begins a new turn.
    pub(crate) fn begins(&self, info: RunInfo, last_client_byte: Time) -> bool {
        self.next_number() == 0
            || info.answer > self.last_answer
            || info.at.micros_since(last_client_byte) > PAUSE_MICROS
    }

    /// How long ago mark number `n` was made, in microseconds; what was longer ago than 71 minutes counts as something
    /// shorter.
    pub(crate) fn age_of(&self, n: u32, now: Time) -> Option<u32> {
        let at = match n.checked_sub(self.base)? {
            0 => self.front.as_ref().map(|_| self.front_at)?,
            i => self.rest.as_ref()?.marks.get(i as usize - 1)?.1,
        };
        Some((now.as_micros() as Moment).wrapping_sub(at))
    }

    /// Adds a mark, at `now`.
    pub(crate) fn push(&mut self, now: Time, mark: Mark) {
        let at = now.as_micros() as Moment;
        self.last_answer = self.last_answer.max(mark.answer);
        if self.front.is_none() {
            (self.front, self.front_at) = (Some(mark), at);
        } else {
            let rest = self.rest.get_or_insert_default();
            rest.marks.push_back((mark, at));
        }
    }

    /// Whether there are marks before number `n`.
    pub(crate) const fn can_forget(&self, n: u32) -> bool {
        self.base < n && self.front.is_some()
    }

    /// Forgets the marks before number `n`, which every replica has passed.
    pub(crate) fn forget_before(&mut self, n: u32) {
        while self.can_forget(n) {
            let next = self.rest.as_mut().and_then(|rest| rest.marks.pop_front());
            self.front_at = next.map_or(0, |(_, at)| at);
            self.front = next.map(|(mark, _)| mark);
            self.base += 1;
        }
        if self.rest.as_ref().is_some_and(|rest| rest.marks.is_empty()) {
            self.rest = None;
        }
    }

    /// Mark number `n`, if it is still kept, waits for no more of an answer.
    pub(crate) fn answered(&mut self, n: u32) {
        let mark = match n.checked_sub(self.base) {
            None => None,
            Some(0) => self.front.as_mut(),
            Some(i) => {
                let marks = self.rest.as_mut().map(|rest| &mut rest.marks);
                marks
                    .and_then(|marks| marks.get_mut(i as usize - 1))
                    .map(|(mark, _)| mark)
            }
        };
        if let Some(mark) = mark {
            mark.wait = Wait::Over;
        }
    }

    /// Number of the next mark that will be made.
    pub(crate) fn next_number(&self) -> u32 {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.marks.len());
        // There are never 2^32 marks at once.
        self.base + u32::from(self.front.is_some()) + rest as u32
    }
}

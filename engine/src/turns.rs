//! The turns of a session: where in the client's stream it had waited for an answer.

use std::collections::VecDeque;

use crate::stream::RunInfo;
use crate::time::Time;

/// A pause of the client longer than this begins a new mark even without a new answer, so that a
/// replica that lags keeps the pause.
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
}

/// The latency of one turn: from its last byte to the first and the last byte of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TurnLatency {
    /// To the first byte, in microseconds.
    pub(crate) first: u32,
    /// To the last byte, in microseconds.
    pub(crate) last: u32,
}

/// Times of the turn that is under way, on one side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TurnClock {
    /// When the client's last byte went by.
    pub(crate) asked_at: Time,
    /// When the first byte of the answer did; meaningless without `answered`.
    first_at: Time,
    /// When the last byte of the answer did; meaningless without `answered`.
    pub(crate) last_at: Time,
    /// The longest pause between two pieces of the answer, in microseconds.
    gap: u32,
    /// Whether there was any answer yet.
    pub(crate) answered: bool,
    /// Whether anything was asked: an answer before that is a greeting, which has no latency.
    asked: bool,
}

impl TurnClock {
    /// A clock that starts when the connection does.
    pub(crate) fn starting(at: Time) -> Self {
        Self {
            asked_at: at,
            first_at: at,
            last_at: at,
            ..Self::default()
        }
    }

    /// Bytes of the client went by.
    pub(crate) const fn ask(&mut self, at: Time) {
        self.asked_at = at;
        self.asked = true;
    }

    /// Bytes of the answer went by.
    pub(crate) fn answer(&mut self, at: Time) {
        if self.answered {
            self.gap = self.gap.max(at.micros_since(self.last_at));
        } else {
            self.first_at = at;
            self.answered = true;
        }
        self.last_at = at;
    }

    /// When the last thing of this turn happened.
    pub(crate) fn latest(&self) -> Time {
        self.asked_at.max(self.last_at)
    }

    /// The longest pause inside the answer so far, in microseconds.
    pub(crate) const fn longest_gap(&self) -> u32 {
        self.gap
    }

    /// Ends the turn; gives its latency if there were a question and an answer.
    pub(crate) fn finish(&mut self) -> Option<TurnLatency> {
        let latency = (self.asked && self.answered).then(|| TurnLatency {
            first: self.first_at.micros_since(self.asked_at),
            last: self.last_at.micros_since(self.asked_at),
        });
        self.answered = false;
        self.gap = 0;
        latency
    }
}

/// Marks that some replica has not passed yet. The usual case of one at most costs no heap.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Number of the first mark that is kept.
    base: u32,
    front: Option<Mark>,
    rest: VecDeque<Mark>,
    last_answer: u64,
    begun: bool,
}

impl Turns {
    /// The mark with the number `n`, counted from the session's first.
    pub(crate) fn get(&self, n: u32) -> Option<&Mark> {
        match n.checked_sub(self.base)? {
            0 => self.front.as_ref(),
            i => self.rest.get(i as usize - 1),
        }
    }

    /// Marks that are kept; for the accounting of memory.
    pub(crate) fn kept(&self) -> usize {
        self.rest.capacity()
    }

    /// Whether a run with this information begins a new turn.
    pub(crate) fn begins(&self, info: RunInfo, last_client_byte: Time) -> bool {
        !self.begun
            || info.answer > self.last_answer
            || info.at.micros_since(last_client_byte) > PAUSE_MICROS
    }

    /// Adds a mark.
    pub(crate) fn push(&mut self, mark: Mark) {
        self.begun = true;
        self.last_answer = self.last_answer.max(mark.answer);
        if self.front.is_none() {
            self.front = Some(mark);
        } else {
            self.rest.push_back(mark);
        }
    }

    /// Forgets the marks before number `n`, which every replica has passed.
    pub(crate) fn forget_before(&mut self, n: u32) {
        while self.base < n && self.front.is_some() {
            self.front = self.rest.pop_front();
            self.base += 1;
        }
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
    }

    /// Forgets everything: no replica is left to pass a mark.
    pub(crate) fn clear(&mut self) {
        self.forget_before(u32::MAX);
    }

    /// Number of the next mark that will be made.
    pub(crate) fn next_number(&self) -> u32 {
        // There are never 2^32 marks at once.
        self.base + u32::from(self.front.is_some()) + self.rest.len() as u32
    }
}

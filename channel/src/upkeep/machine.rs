//! When a stream connects, speaks, waits and gives up an attempt.
//!
//! Time goes in with every call, what is to be done comes out of it.

use std::time::Duration;

use millrace_daemon::boottime::BootTime;

use super::{Contract, End, Refusal, Terms, printable};

/// How long an answer to a ping is waited for. HTTP/2 has pings of its own, but a host may answer these while the daemon on
/// it hangs.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<M> {
    /// Open a stream on a new connection.
    Connect,
    /// Send this on it.
    Send(M),
    /// Drop the connection.
    HangUp,
    /// Tell the operator.
    Warn(String),
    /// Tell who looks closely.
    Debug(String),
    /// The stream is over for good.
    Stop,
}

type Actions<C> = Vec<Action<<C as Contract>::Outgoing>>;

/// The state of a stream.
#[derive(Debug)]
pub(super) struct Machine<C> {
    contract: C,
    terms: Terms,
    /// For the jitter.
    random: fn() -> u64,
    phase: Phase,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// The last reason that the operator was told of.
    warned_of: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing goes on until then.
    Waiting { until: BootTime },
    /// The first message is on its way, or will be once the connection is there.
    Opening { since: BootTime },
    /// Both sides have spoken.
    Up {
        /// When the attempt began.
        since: BootTime,
        next_ping: BootTime,
        /// Of the last ping.
        nonce: u64,
        /// When it was sent, if its answer is awaited.
        asked_at: Option<BootTime>,
    },
    /// For good.
    Closed,
}

impl<C: Contract> Machine<C> {
    /// A stream that begins at its first tick.
    pub(super) fn new(contract: C, terms: Terms, random: fn() -> u64) -> Self {
        Machine {
            contract,
            terms,
            random,
            phase: Phase::Waiting {
                until: BootTime::default(),
            },
            failures: 0,
            warned_of: String::new(),
        }
    }

    pub(super) fn contract(&mut self) -> &mut C {
        &mut self.contract
    }

    #[cfg(test)]
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// When [`Machine::tick`] is to be called next; never again if none.
    pub(super) fn deadline(&self) -> Option<BootTime> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Opening { since } => Some(since.after(self.terms.answer_within)),
            Phase::Up { next_ping, .. } => Some(next_ping),
            Phase::Closed => None,
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: BootTime) -> Actions<C> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &mut self.phase {
            Phase::Waiting { .. } => {
                self.phase = Phase::Opening { since: now };
                vec![Action::Connect, Action::Send(self.contract.first())]
            }
            Phase::Opening { .. } => {
                let reason = self.terms.no_answer.clone();
                self.failed(reason, now)
            }
            Phase::Up {
                next_ping,
                nonce,
                asked_at,
                ..
            } => {
                // This side has stood still: what the peer has said meanwhile is not read yet.
                let stood_still = now.since(*next_ping) > self.terms.ping_every;
                *next_ping = now.after(self.terms.ping_every);
                let patience = PONG_WITHIN;
                match asked_at {
                    Some(asked_at) if now.since(*asked_at) > patience && !stood_still => {
                        let pong = self.terms.pong;
                        self.failed(format!("no {pong} for {patience:?}: it hangs"), now)
                    }
                    Some(_) => Vec::new(),
                    None => {
                        *nonce += 1;
                        *asked_at = Some(now);
                        vec![Action::Send(self.contract.ping(*nonce))]
                    }
                }
            }
            Phase::Closed => Vec::new(),
        }
    }

    /// The peer has said something, or has ended the stream.
    pub(super) fn heard(&mut self, message: Option<C::Incoming>, now: BootTime) -> Actions<C> {
        let end = match (&mut self.phase, message) {
            (Phase::Opening { since }, answer) => {
                let since = *since;
                match self.contract.judge(answer) {
                    Ok(()) => {
                        self.phase = Phase::Up {
                            since,
                            next_ping: now,
                            nonce: 0,
                            asked_at: None,
                        };
                        return Vec::new();
                    }
                    Err(end) => end,
                }
            }
            (Phase::Up { .. }, None) => End::Failed(self.terms.ended.to_owned()),
            (
                Phase::Up {
                    nonce, asked_at, ..
                },
                Some(message),
            ) => match self.contract.take(message) {
                Ok(answer) => {
                    if let Some((of, pong)) = answer
                        && of == *nonce
                        && let Some(asked_at) = asked_at.take()
                    {
                        self.contract.pong(pong, asked_at);
                    }
                    return Vec::new();
                }
                Err(end) => end,
            },
            (Phase::Waiting { .. } | Phase::Closed, _) => return Vec::new(),
        };
        self.end(end, now)
    }

    /// The connection broke, or could not be opened.
    pub(super) fn failed(&mut self, reason: String, now: BootTime) -> Actions<C> {
        self.end(End::Failed(reason), now)
    }

    /// This side wants no stream any more.
    pub(super) fn close(&mut self, now: BootTime) -> Actions<C> {
        self.end(End::Closed, now)
    }

    fn end(&mut self, end: End<C::Refusal>, now: BootTime) -> Actions<C> {
        let (since, was_up) = match self.phase {
            Phase::Opening { since } => (since, false),
            Phase::Up { since, .. } => (since, true),
            Phase::Waiting { .. } if matches!(end, End::Closed) => {
                self.phase = Phase::Closed;
                return vec![Action::Stop];
            }
            Phase::Waiting { .. } | Phase::Closed => return Vec::new(),
        };
        let (reason, slowest) = match &end {
            End::Closed => {
                self.phase = Phase::Closed;
                self.contract.ended(end, "closed", was_up);
                return vec![Action::HangUp, Action::Stop];
            }
            End::Failed(reason) => (printable(reason), false),
            End::Refused(refusal) => {
                let reason = format!("refused: {}", printable(refusal.reason()));
                (reason, !refusal.passes())
            }
        };
        let wait = self.wait(was_up.then(|| now.since(since)), slowest);
        self.phase = Phase::Waiting {
            until: now.after(wait),
        };
        self.contract.ended(end, &reason, was_up);
        let peer = &self.terms.peer;
        let said = if was_up || reason != self.warned_of {
            let until = self.terms.until;
            let said = format!("{peer}: {reason}; trying again until {until}");
            self.warned_of = reason;
            Action::Warn(said)
        } else {
            let failures = self.failures;
            Action::Debug(format!("{peer}: {reason}; attempt {failures}"))
        };
        vec![Action::HangUp, said]
    }

    /// How long the next attempt is put off after one that was up for so long, if it was.
    fn wait(&mut self, was_up_for: Option<Duration>, slowest: bool) -> Duration {
        let backoff = self.terms.backoff;
        // A stream that broke at once is no success: otherwise it would be hammered.
        if was_up_for.is_some_and(|it| it >= backoff.max) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match slowest {
            true => backoff.max,
            false => backoff.wait(self.failures, (self.random)()),
        }
    }
}

#[cfg(test)]
mod tests;

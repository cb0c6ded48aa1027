//! The gate: a turn goes out when the target has answered the turn before.
//!
//! A client that sent turn k had seen the live server's answer to turn k-1. So a replica sends
//! turn k once the target has answered as many bytes as the client had seen, and after the
//! client's own think time, unless the replica is behind the client: then it thinks less, until it
//! has caught up. Targets may answer less than the live server did: then the answer counts as
//! complete when it has gone quiet. And protocols may talk in both directions at once:
//! so a target that says nothing at all delays a turn only for a bounded time.

use crate::stats::TurnLatency;
use crate::time::Time;
use crate::turns::{Mark, TurnClock, Wait};

/// Quiet after a shorter answer, to begin with, in microseconds. It adapts: see [`QuietFloor`].
const FIRST_QUIET: u32 = 200_000;
/// Bounds of the adaptive quiet time, in microseconds.
const QUIET_BOUNDS: (u32, u32) = (1_000, 10_000_000);
/// An answer that was begun and pauses is waited for this many times its longest pause so far.
const TARGET_PAUSES: u32 = 4;
/// ... and this many times the longest pause of the live answer.
const LIVE_PAUSES: u32 = 16;
/// ... or only this many, once the target has answered as much as the live server did and only more
/// than that is waited for: what looked like a longer answer may have been an early one.
const LIVE_PAUSES_BEYOND: u32 = 2;
/// No wait of the gate is longer, in microseconds: below the usual answer time-out. Only where the
/// live server itself took its time (long polls, streams), [`LIVE_TIMES`] of that.
const LONGEST_WAIT: u32 = 60_000_000;
/// See [`LONGEST_WAIT`].
const LIVE_TIMES: u32 = 2;
/// A turn without any answer is waited for this long, in microseconds, or [`LIVE_PAUSES`] times
/// the live latency.
const PATIENCE: u32 = 10_000_000;
/// Patience is halved with every override in a row, down to this, in microseconds: a stream in
/// which the two sides do not wait for each other must not fall behind further and further.
const LEAST_PATIENCE: u32 = 100_000;

/// How long an answer must be quiet to count as complete: learned per service, because all its
/// targets run the same program. Every quiet answer that was indeed complete halves it, every
/// one that went on quadruples it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuietFloor(u32);

impl Default for QuietFloor {
    fn default() -> Self {
        Self(FIRST_QUIET)
    }
}

impl QuietFloor {
    fn confirmed(&mut self) {
        self.0 = (self.0 / 2).max(QUIET_BOUNDS.0);
    }

    fn refuted(&mut self) {
        self.0 = self.0.saturating_mul(4).min(QUIET_BOUNDS.1);
    }
}

/// Why a turn was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The answer was as long as the live one, or the target can answer no more.
    Answered,
    /// A shorter answer went quiet.
    Quiet,
    /// There was no answer at all within the bound.
    Overridden,
}

/// What the gate says about a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go.
    Open(Passed),
    /// Ask again at this time, or when something has come from the target.
    Wait(Time),
}

/// What the gate must know of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Bytes that the target answered, its FIN counted as one.
    pub(crate) answered: u64,
    /// The target has sent its FIN and can answer no more.
    pub(crate) finished: bool,
    /// Bytes that the target acknowledged.
    pub(crate) acked: u64,
}

/// The gate of one replica.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Number of the first mark that was not passed.
    next: u32,
    /// Times of the turn that is under way.
    pub(crate) clock: TurnClock,
    /// What the target answered more (or less) than the live server, where that was settled.
    skew: i64,
    /// Offset at which the turn under way begins.
    turn_start: u64,
    /// When the answer to the turn under way was found complete.
    settled_at: Time,
    /// Overrides in a row.
    overrides: u8,
    /// The turn under way was let through by a quiet time, which is to be confirmed or refuted.
    on_trial: bool,
    /// When the turn under way was let through, nothing else was.
    lockstep: bool,
    /// How far the turn under way was behind the client, but for what the target itself took longer than the live server,
    /// in microseconds. Before the first turn: how long the target took to connect.
    lag: u32,
    /// How long the last part of the answer had waited when it was heard, and how long what follows it may.
    waits: Waits,
}

/// How long answers wait on their way back before they are heard, in microseconds. It is no time of the target's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// What is heard now has waited so long.
    pub(crate) past: u16,
    /// What comes next may wait so long.
    pub(crate) next: u16,
}

impl Gate {
    /// A gate for a connection that was established at `now`, after so many microseconds.
    pub(crate) fn new(now: Time, connecting: u32) -> Self {
        Self {
            next: 0,
            clock: TurnClock::starting(now),
            skew: 0,
            turn_start: 0,
            settled_at: Time::NEVER,
            overrides: 0,
            on_trial: false,
            lockstep: false,
            lag: connecting,
            waits: Waits::default(),
        }
    }

    /// Number of the first mark that was not passed yet.
    pub(crate) const fn next_mark(&self) -> u32 {
        self.next
    }

    /// Until when an answer to what was asked last is waited for, though none may come; the origin when nothing is
    /// unanswered.
    pub(crate) const fn waits_until(&self) -> Time {
        match self.clock.is_unanswered() {
            true => self.clock.asked_at.plus_micros(PATIENCE),
            false => Time::ORIGIN,
        }
    }

    /// Whether the turn at `mark` may go at `now`. The client's think time is kept, but not beyond `latest_by`.
    /// `hear_out`: while the target goes on beyond the live answer, it is heard out.
    // Asked far less often than whether there is a turn at all.
    #[inline(never)]
    pub(crate) fn check(
        &mut self,
        now: Time,
        mark: &Mark,
        progress: Progress,
        floor: QuietFloor,
        hear_out: bool,
        latest_by: Time,
    ) -> Verdict {
        let latest = self.clock.latest();
        let think = |from: Time| from.plus_micros(mark.think).min(latest_by.max(from));
        let thought = think(latest);
        let at = |due: Time, passed| {
            if due <= now {
                Verdict::Open(passed)
            } else {
                Verdict::Wait(due)
            }
        };
        let needed = mark.answer.saturating_add_signed(self.skew);
        let is_answered = match mark.wait {
            Wait::Counted => progress.answered >= needed,
            Wait::Told => false,
            Wait::Over => true,
        };
        if is_answered || progress.finished {
            if self.settled_at == Time::NEVER {
                self.settled_at = latest.min(now);
            }
            let settled = think(self.settled_at);
            let limit = match hear_out {
                true => settled.max(self.settled_at.plus_micros(self.patience(mark))),
                false => settled,
            };
            return if thought <= limit {
                at(thought, Passed::Answered)
            } else if hear_out {
                // It talks all the time: waiting for silence would be waiting for ever.
                at(limit, Passed::Overridden)
            } else {
                at(limit, Passed::Answered)
            };
        }
        if progress.acked < mark.start {
            // The target has not even received the turn before: retransmission is at work.
            return Verdict::Wait(Time::NEVER);
        }
        if mark.wait == Wait::Counted && self.clock.has_answer() {
            let quiet = self.quiet_until(mark, progress, floor);
            return at(quiet.max(thought), Passed::Quiet);
        }
        let patience = latest.plus_micros(self.patience(mark));
        at(patience.max(thought), Passed::Overridden)
    }

    /// How long a target that does not do as the live server did is waited for.
    fn patience(&self, mark: &Mark) -> u32 {
        let patience = PATIENCE
            .max(mark.live_latency.saturating_mul(LIVE_PAUSES))
            .min(longest(mark.live_latency));
        (patience >> self.overrides.min(31)).max(LEAST_PATIENCE)
    }

    /// The lag of the turn at `mark`, which goes out `behind` microseconds after its client's. What the last turn lagged
    /// stays, and what has passed since the turn was due comes to it; a pause that was shortened takes from it. What is
    /// waited for until then is the target's, and so is the time that it took to connect.
    pub(crate) fn lag(
        &mut self,
        now: Time,
        mark: &Mark,
        passed: Passed,
        quiet: Time,
        behind: u32,
    ) -> u32 {
        let latest = self.clock.latest();
        let thought = latest.plus_micros(mark.think);
        let is_first = self.clock.asked_at == Time::ORIGIN;
        let (due, early) = match passed {
            Passed::Answered => (thought, thought.micros_since(now)),
            Passed::Quiet => (quiet.max(thought), thought.micros_since(now)),
            Passed::Overridden => (latest.plus_micros(self.patience(mark)).max(thought), 0),
        };
        let late = now.micros_since(due);
        let late = match passed {
            Passed::Answered | Passed::Quiet if self.clock.has_answer() => {
                late.saturating_add(self.waits.past.into())
            }
            Passed::Answered | Passed::Quiet | Passed::Overridden => late,
        };
        let lag = match (is_first, self.clock.has_answer()) {
            // All that is known to be the target's is how long it took to connect.
            (true, false) => behind.saturating_sub(self.lag),
            // How long the live server took to greet, nobody knows any more.
            (true, true) => late,
            (false, _) => self.lag.saturating_add(late).saturating_sub(early),
        };
        self.lag = lag.min(behind);
        self.lag
    }

    /// Until when a shorter answer must be quiet to count as complete.
    pub(crate) fn quiet_until(&self, mark: &Mark, progress: Progress, floor: QuietFloor) -> Time {
        let live_pauses = match progress.answered >= mark.answer {
            true => LIVE_PAUSES_BEYOND,
            false => LIVE_PAUSES,
        };
        let pauses = (self.clock.longest_gap().saturating_mul(TARGET_PAUSES))
            .max(mark.live_gap.saturating_mul(live_pauses));
        let quiet = pauses.min(longest(mark.live_gap)).max(floor.0);
        // More of it may have come, and not be heard yet.
        let quiet = quiet.saturating_add(self.waits.next.into());
        self.clock.latest().plus_micros(quiet)
    }

    /// The turn at `mark` goes out. Gives the latency of the turn before.
    pub(crate) fn pass(
        &mut self,
        mark: &Mark,
        passed: Passed,
        progress: Progress,
    ) -> Option<TurnLatency> {
        let difference = progress.answered as i64 - mark.answer as i64;
        match passed {
            // Whoever has heard it whole knows how long it was.
            Passed::Answered if mark.wait == Wait::Over => self.skew = difference,
            // More than the live answer: forgive it only where the surplus cannot be the answer
            // to another turn that is under way.
            Passed::Answered if mark.lockstep => self.skew = difference.max(self.skew),
            Passed::Answered => {}
            Passed::Quiet | Passed::Overridden => self.skew = difference,
        }
        self.overrides = match passed {
            Passed::Overridden => self.overrides.saturating_add(1),
            Passed::Answered | Passed::Quiet => 0,
        };
        self.on_trial = passed == Passed::Quiet;
        self.lockstep = mark.lockstep;
        self.turn_start = mark.start;
        self.settled_at = Time::NEVER;
        self.next += 1;
        self.finish()
    }

    /// Ends the turn under way; gives its latency if there were a question and an answer.
    pub(crate) fn finish(&mut self) -> Option<TurnLatency> {
        let TurnLatency { first, last } = self.clock.finish()?;
        let last = last.saturating_sub(self.waits.past.into()).max(first);
        Some(TurnLatency { first, last })
    }

    /// The target answered `bytes` more, and perhaps its FIN, in a segment that acknowledged the
    /// client's stream up to `acked`. Says whether that refutes a quiet time.
    pub(crate) fn on_answer(
        &mut self,
        now: Time,
        waits: Waits,
        bytes: u64,
        fin: bool,
        acked: u64,
        floor: &mut QuietFloor,
    ) -> bool {
        let late = self.lockstep && acked <= self.turn_start;
        if late {
            // Sent before the target knew of the turn under way: the tail of the last answer.
            let grown = bytes + u64::from(fin);
            self.skew = self.skew.saturating_add_unsigned(grown);
        } else if bytes > 0 {
            self.waits = waits;
            self.clock.answer_heard(now, waits.past.into());
        }
        let refuted = late && self.on_trial;
        if refuted {
            floor.refuted();
        } else if self.on_trial {
            floor.confirmed();
        }
        self.on_trial = false;
        refuted
    }
}

/// The longest wait where the live server took `live` microseconds.
fn longest(live: u32) -> u32 {
    LONGEST_WAIT.max(live.saturating_mul(LIVE_TIMES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(start: u64, answer: u64, think: u32) -> Mark {
        Mark {
            start,
            answer,
            think,
            live_latency: 1000,
            live_gap: 0,
            lockstep: true,
            wait: Wait::Counted,
            waited: crate::turns::Waited::default(),
        }
    }

    fn progress(answered: u64, acked: u64) -> Progress {
        Progress {
            answered,
            finished: false,
            acked,
        }
    }

    const T0: Time = Time::from_micros(1_000_000);
    const HEARD: Waits = Waits { past: 0, next: 0 };

    fn at(micros: u32) -> Time {
        T0.plus_micros(micros)
    }

    #[test]
    fn a_turn_waits_for_the_answer_and_then_for_the_think_time() {
        let mut gate = Gate::new(T0, 0);
        let mut floor = QuietFloor::default();
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(at(0));
        let second = mark(10, 500, 700);
        assert!(matches!(
            gate.check(at(10), &second, progress(0, 10), floor, true, Time::NEVER),
            Verdict::Wait(_)
        ));
        gate.on_answer(at(1000), HEARD, 500, false, 10, &mut floor);
        let verdict = gate.check(
            at(1000),
            &second,
            progress(500, 10),
            floor,
            true,
            Time::NEVER,
        );
        assert_eq!(verdict, Verdict::Wait(at(1700)));
        let verdict = gate.check(
            at(1700),
            &second,
            progress(500, 10),
            floor,
            true,
            Time::NEVER,
        );
        assert_eq!(verdict, Verdict::Open(Passed::Answered));
    }

    #[test]
    fn what_an_answer_waited_is_lag_and_no_latency() {
        let (mut gate, mut floor) = (Gate::new(T0, 0), QuietFloor::default());
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(at(0));
        // Two parts of it came after 200 and 600 us, and are heard later.
        let waited = |past| Waits { past, next: 0 };
        gate.on_answer(at(1000), waited(800), 300, false, 10, &mut floor);
        gate.on_answer(at(1000), waited(400), 200, false, 10, &mut floor);
        let second = mark(10, 500, 300);
        let heard = progress(500, 10);
        // The gate counts from when it is heard: more of it may be heard at the same time.
        let verdict = gate.check(at(1000), &second, heard, floor, true, Time::NEVER);
        assert_eq!(verdict, Verdict::Wait(at(1300)));
        let quiet = gate.quiet_until(&second, heard, floor);
        let lag = gate.lag(at(1310), &second, Passed::Answered, quiet, u32::MAX);
        assert_eq!(lag, 410);
        let latency = gate.pass(&second, Passed::Answered, heard).unwrap();
        assert_eq!((latency.first, latency.last), (200, 600));
        // One that seems to have come before what it answers took no time.
        gate.clock.ask(at(2000));
        gate.on_answer(at(2100), waited(500), 100, false, 20, &mut floor);
        let latency = gate.pass(&mark(20, 600, 0), Passed::Answered, progress(600, 20));
        let latency = latency.unwrap();
        assert_eq!((latency.first, latency.last), (0, 0));
    }

    #[test]
    fn an_answer_of_which_more_may_wait_is_not_quiet_yet() {
        let (mut gate, mut floor) = (Gate::new(T0, 0), QuietFloor(1000));
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(at(0));
        let waits = Waits {
            past: 300,
            next: 800,
        };
        gate.on_answer(at(500), waits, 400, false, 10, &mut floor);
        let (more, heard) = (mark(10, 500, 0), progress(400, 10));
        let verdict = gate.check(at(500), &more, heard, floor, true, Time::NEVER);
        assert_eq!(verdict, Verdict::Wait(at(2300)));
    }

    #[test]
    fn a_shorter_answer_counts_when_quiet_and_the_wait_is_learned() {
        let mut gate = Gate::new(T0, 0);
        let mut floor = QuietFloor::default();
        let mut now = T0;
        let mut waits = Vec::new();
        let (mut answered, mut live) = (0, 0);
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(now);
        for turn in 1..12 {
            now = now.plus_micros(100);
            answered += 400;
            live += 500;
            gate.on_answer(now, HEARD, 400, false, turn * 10, &mut floor);
            let next = mark(turn * 10, live, 0);
            let Verdict::Wait(until) = gate.check(
                now,
                &next,
                progress(answered, turn * 10),
                floor,
                true,
                Time::NEVER,
            ) else {
                panic!("did not wait");
            };
            waits.push(until.micros_since(now));
            now = until;
            let progress = progress(answered, turn * 10);
            assert_eq!(
                gate.check(now, &next, progress, floor, true, Time::NEVER),
                Verdict::Open(Passed::Quiet)
            );
            gate.pass(&next, Passed::Quiet, progress);
            gate.clock.ask(now);
        }
        assert_eq!(waits[0], 200_000);
        assert_eq!(*waits.last().unwrap(), 1000);
    }

    #[test]
    fn an_answer_that_goes_on_after_all_teaches_patience() {
        let mut gate = Gate::new(T0, 0);
        let mut floor = QuietFloor::default();
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(T0);
        gate.on_answer(at(10), HEARD, 100, false, 10, &mut floor);
        gate.pass(&mark(10, 300, 0), Passed::Quiet, progress(100, 10));
        assert!(gate.on_answer(at(20), HEARD, 200, false, 10, &mut floor));
        assert_eq!(floor.0, FIRST_QUIET * 4);
        // The tail belongs to the first turn: the second still needs its own 50 bytes.
        let third = mark(20, 350, 0);
        let verdict = gate.check(at(30), &third, progress(300, 20), floor, true, Time::NEVER);
        assert!(matches!(verdict, Verdict::Wait(_)));
        assert_eq!(
            gate.check(at(30), &third, progress(350, 20), floor, true, Time::NEVER),
            Verdict::Open(Passed::Answered)
        );
    }

    #[test]
    fn an_answer_that_came_early_is_not_missed_for_long() {
        let mut gate = Gate::new(T0, 0);
        let floor = QuietFloor::default();
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        gate.clock.ask(T0);
        // Both requests were under way, and the target was the faster one: no longer answer.
        gate.on_answer(at(10), HEARD, 900, false, 20, &mut QuietFloor::default());
        let second = mark(20, 500, 0);
        gate.pass(&second, Passed::Answered, progress(900, 20));
        gate.clock.ask(at(20));
        gate.on_answer(at(30), HEARD, 100, false, 30, &mut QuietFloor::default());
        let paused = |answer| Mark {
            live_gap: 3_000_000,
            ..mark(30, answer, 0)
        };
        let wait = |gate: &mut Gate, answer| match gate.check(
            at(30),
            &paused(answer),
            progress(1000, 30),
            floor,
            true,
            Time::NEVER,
        ) {
            Verdict::Wait(until) => until.micros_since(at(30)),
            Verdict::Open(passed) => panic!("{passed:?}"),
        };
        assert_eq!(wait(&mut gate, 1000), 3_000_000 * LIVE_PAUSES_BEYOND);
        assert_eq!(
            wait(&mut gate, 1100),
            3_000_000 * LIVE_PAUSES,
            "it owes some"
        );
    }

    #[test]
    fn a_turn_lags_by_what_it_is_later_than_due_however_it_was_let_through() {
        let next = mark(10, 500, 700);
        let (quiet, patience) = (at(300_000), PATIENCE);
        for (passed, due) in [
            (Passed::Answered, 1_700),
            (Passed::Quiet, 300_000),
            (Passed::Overridden, 1_000 + patience),
        ] {
            let lag = |late: i64, before: u32, behind: u32| {
                let mut gate = Gate::new(T0, 0);
                gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
                gate.clock.ask(at(0));
                gate.clock.answer(at(1_000));
                gate.lag = before;
                let now = at(u32::try_from(i64::from(due) + late).unwrap());
                gate.lag(now, &next, passed, quiet, behind)
            };
            assert_eq!(lag(0, 0, u32::MAX), 0, "{passed:?}");
            assert_eq!(lag(5_000, 0, u32::MAX), 5_000, "{passed:?}");
            assert_eq!(lag(5_000, 1_000, u32::MAX), 6_000, "{passed:?}");
            assert_eq!(lag(5_000, 1_000, 4_000), 4_000, "{passed:?}");
        }
        // A pause that is shortened takes from it.
        let mut gate = Gate::new(T0, 0);
        gate.clock.ask(at(0));
        gate.clock.answer(at(1_000));
        gate.lag = 1_000;
        assert_eq!(
            gate.lag(at(1_100), &next, Passed::Answered, quiet, 9_000),
            400
        );
    }

    #[test]
    fn silence_is_overridden_sooner_each_time() {
        let mut gate = Gate::new(T0, 0);
        let floor = QuietFloor::default();
        gate.pass(&mark(0, 0, 0), Passed::Answered, progress(0, 0));
        let mut now = T0;
        gate.clock.ask(now);
        let mut waits = Vec::new();
        for turn in 1..10u64 {
            let next = mark(turn * 10, turn * 100, 0);
            let Verdict::Wait(until) =
                gate.check(now, &next, progress(0, turn * 10), floor, true, Time::NEVER)
            else {
                panic!("did not wait");
            };
            waits.push(until.micros_since(now));
            now = until;
            let verdict = gate.check(now, &next, progress(0, turn * 10), floor, true, Time::NEVER);
            assert_eq!(verdict, Verdict::Open(Passed::Overridden));
            gate.pass(&next, Passed::Overridden, progress(0, turn * 10));
            gate.clock.ask(now);
        }
        assert_eq!(waits[0], PATIENCE);
        assert_eq!(*waits.last().unwrap(), LEAST_PATIENCE);
    }
}

//! How long the shard lets answers gather before it looks for them.
//!
//! A look costs the live host more than the answer that it brings: threads are woken, and the processor has to load code and
//! data anew. So where many sessions are answered within a millisecond, the shard looks for their answers together, as
//! network cards gather frames for one interrupt. Where a few sessions ask one request after the other, each answer is
//! taken in at once: their next turn waits for it.
//!
//! A session among many that asks faster than answers are looked for falls behind. So once turns are late, answers do not
//! gather any more, and it is tried again later, each time after twice as long. Turns may be late without it, too, since the
//! host or a target is overloaded: then answers gather unless more turns go out if they do not.

use std::time::{Duration, Instant};

use millrace_engine::Stats;

/// The longest time for which answers gather.
const LONGEST: Duration = Duration::from_millis(1);
/// Where no more flows than this are answered in a millisecond, nothing gathers.
const FEW_FLOWS: f64 = 5.0;
/// Where so many more are, answers gather for the longest time.
const MANY_FLOWS: f64 = 4.0;
/// Replicas that connect in a millisecond, from which on answers gather for the longest time. Most turns of such traffic
/// are the last ones of their sessions.
const MANY_CONNECT: f64 = 1.0;
/// What is less than this share of the longest time is not worth a rest.
const WORTH_WHILE: f64 = 0.2;
/// Flows are counted for at least so long, and averages taken over a few such times.
const FRAME: Duration = Duration::from_millis(1);
const AVERAGED: f64 = 8.0;

/// Whether turns are late is asked this often.
const ROUND: Duration = Duration::from_millis(50);
/// A turn is late that lags so far, in microseconds. Sessions that are less than a quarter of it behind do not shorten
/// pauses yet.
const LATE: u64 = 20_000;
/// Turns are late when more than one of so many is.
const LATE_ONE_OF: u64 = 50;
/// Answers do not gather for so many rounds once turns are late, and for how many at most.
const FIRST_PROMPT: u32 = 2;
const LONGEST_PROMPT: u32 = 200;
/// After so many rounds without late turns this begins anew.
const FORGIVEN: u32 = 40;
/// For so many rounds answers gather although turns are late.
const OVERLOADED: u32 = 20;
/// Without gathering more turns must go out than with it, to be worth its price: by one of so many.
const MORE_ONE_OF: f64 = 8.0;

/// How long answers gather.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// Flows that were heard since then, a bit for each, or for some together.
    frame_began: Instant,
    heard: u64,
    connected: u64,
    /// Flows that are heard, and replicas that connect, in a millisecond, on average.
    flows: f64,
    connects: f64,
    round: Round,
    stage: Stage,
    /// For how many rounds answers do not gather the next time that turns are late.
    prompt: u32,
}

/// What the last judgement was made of.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    turns: u64,
    late: u64,
    /// Whether answers gathered in it.
    gathered: bool,
}

/// Rounds are counted down.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Answers gather, and no turn was late for so many rounds.
    Gather(u32),
    /// They do not, for so many rounds. Before, so many turns went out in a second.
    Prompt(u32, f64),
    /// They gather although turns are late.
    Overloaded(u32),
}

impl Moderation {
    /// Nothing was heard yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            frame_began: now,
            heard: 0,
            connected: 0,
            flows: 0.0,
            connects: 0.0,
            round: Round {
                began: now,
                turns: 0,
                late: 0,
                gathered: false,
            },
            stage: Stage::Gather(0),
            prompt: FIRST_PROMPT,
        }
    }

    /// An answer to this flow, by any number that tells it from most others, has come.
    pub(crate) const fn hear(&mut self, flow: u64) {
        // The golden ratio: numbers in a row are far from each other (Knuth, TAOCP 3, 6.4).
        let spread = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.heard |= 1 << (spread >> 58);
    }

    /// Takes in what the engine has counted. To be called in each of the shard's rounds.
    pub(crate) fn see(&mut self, now: Instant, stats: &Stats) {
        let lag = &stats.turn_lag;
        self.count(now, stats.replicas_established, || {
            (lag.len(), lag.count_between(LATE, lag.high()))
        });
    }

    /// `connected`: replicas that have connected until now. `turns`: those that were sent until now, and those of them that
    /// were late.
    fn count(&mut self, now: Instant, connected: u64, turns: impl FnOnce() -> (u64, u64)) {
        let elapsed = now.saturating_duration_since(self.frame_began);
        if elapsed >= FRAME {
            self.end_frame(elapsed, connected);
            self.frame_began = now;
        }
        let elapsed = now.saturating_duration_since(self.round.began);
        if elapsed >= ROUND {
            self.end_round(elapsed, turns());
            self.round.began = now;
        }
    }

    fn end_frame(&mut self, elapsed: Duration, connected: u64) {
        let millis = elapsed.as_secs_f64() * 1e3;
        let weight = (millis / AVERAGED).min(1.0);
        let connects = connected.saturating_sub(self.connected) as f64 / millis;
        let flows = f64::from(self.heard.count_ones()) / millis;
        self.flows += (flows - self.flows) * weight;
        self.connects += (connects - self.connects) * weight;
        (self.heard, self.connected) = (0, connected);
    }

    /// How long answers gather at the moment: after a look for them the next one comes so much later, at least.
    pub(crate) fn window(&mut self) -> Duration {
        let share = ((self.flows - FEW_FLOWS) / MANY_FLOWS).max(self.connects / MANY_CONNECT);
        let crowded = share >= WORTH_WHILE;
        self.round.gathered |= crowded;
        match self.stage {
            Stage::Gather(_) | Stage::Overloaded(_) if crowded => LONGEST.mul_f64(share.min(1.0)),
            _ => Duration::ZERO,
        }
    }

    fn end_round(&mut self, elapsed: Duration, (turns, late): (u64, u64)) {
        let Round {
            turns: turns_before,
            late: late_before,
            gathered,
            ..
        } = self.round;
        let sent = turns.saturating_sub(turns_before);
        let is_late = late.saturating_sub(late_before) * LATE_ONE_OF > sent;
        let pace = sent as f64 / elapsed.as_secs_f64();
        (self.round.turns, self.round.late, self.round.gathered) = (turns, late, false);
        self.stage = match self.stage {
            Stage::Gather(_) if is_late && gathered => Stage::Prompt(self.prompt, pace),
            Stage::Gather(rounds) => {
                if rounds >= FORGIVEN {
                    self.prompt = FIRST_PROMPT;
                }
                Stage::Gather(rounds.saturating_add(1))
            }
            Stage::Prompt(rounds, before) if rounds > 1 => Stage::Prompt(rounds - 1, before),
            Stage::Prompt(_, before) => {
                let helps = pace > before * (1.0 + 1.0 / MORE_ONE_OF);
                if helps || !is_late {
                    self.prompt = (self.prompt * 2).min(LONGEST_PROMPT);
                }
                match (is_late, helps) {
                    (true, true) => Stage::Prompt(self.prompt, before),
                    (true, false) => Stage::Overloaded(OVERLOADED),
                    (false, _) => Stage::Gather(0),
                }
            }
            Stage::Overloaded(rounds) if rounds > 1 => Stage::Overloaded(rounds - 1),
            Stage::Overloaded(_) if is_late => Stage::Prompt(1, pace),
            Stage::Overloaded(_) => Stage::Gather(0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is copied while a moderation looks on.
    struct Traffic {
        /// Flows that are answered, and replicas that connect, in a millisecond.
        flows: u64,
        connects: f64,
        /// Turns that are sent in a millisecond, promptly and while answers gather, and the share of them that is late.
        prompt: (f64, f64),
        gathering: (f64, f64),
    }

    /// The share of the time in which answers gathered, of so many seconds.
    fn gathered(traffic: &Traffic, seconds: u32) -> f64 {
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        let (mut connected, mut turns, mut late) = (0.0, 0.0, 0.0);
        let mut rested = Duration::ZERO;
        for millis in 1..=seconds * 1000 {
            let now = start + FRAME * millis;
            (0..traffic.flows).for_each(|flow| moderation.hear(flow));
            connected += traffic.connects;
            let window = moderation.window();
            let (sent, share) = match window > LONGEST / 2 {
                true => traffic.gathering,
                false => traffic.prompt,
            };
            turns += sent;
            late += sent * share;
            rested += window;
            moderation.count(now, connected as u64, || (turns as u64, late as u64));
        }
        rested.as_secs_f64() / f64::from(seconds)
    }

    const IN_TIME: (f64, f64) = (20.0, 0.0);

    #[test]
    fn answers_gather_where_many_sessions_are_answered() {
        for (flows, connects, wanted) in [
            (1, 0.0, 0.0..0.001),
            (4, 0.0, 0.0..0.001),
            (7, 0.0, 0.4..0.6),
            (30, 0.0, 0.9..1.0),
            (3, 0.1, 0.0..0.001),
            (3, 1.5, 0.9..1.0),
        ] {
            let traffic = Traffic {
                flows,
                connects,
                prompt: IN_TIME,
                gathering: IN_TIME,
            };
            let share = gathered(&traffic, 10);
            assert!(wanted.contains(&share), "{flows} {connects}: {share}");
        }
    }

    #[test]
    fn what_makes_turns_late_is_done_less_and_less() {
        let traffic = Traffic {
            flows: 30,
            connects: 0.0,
            prompt: IN_TIME,
            gathering: (10.0, 0.1),
        };
        let (soon, later) = (gathered(&traffic, 2), gathered(&traffic, 60));
        assert!((0.05..0.3).contains(&soon), "{soon}");
        assert!((0.001..0.03).contains(&later), "{later}");
    }

    #[test]
    fn turns_that_are_late_anyway_decide_by_their_number() {
        for (prompt, wanted) in [(20.0, 0.9..1.0), (22.0, 0.9..1.0), (30.0, 0.0..0.1)] {
            let traffic = Traffic {
                flows: 30,
                connects: 0.0,
                prompt: (prompt, 0.5),
                gathering: (20.0, 0.5),
            };
            let share = gathered(&traffic, 60);
            assert!(wanted.contains(&share), "{prompt}: {share}");
        }
    }

    #[test]
    fn without_answers_nothing_gathers_any_more() {
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        for millis in 1..=100 {
            (0..30).for_each(|flow| moderation.hear(flow));
            moderation.count(start + FRAME * millis, 0, || (0, 0));
        }
        assert_eq!(moderation.window(), LONGEST);
        moderation.count(start + FRAME * 200, 0, || (0, 0));
        assert_eq!(moderation.window(), Duration::ZERO);
    }
}

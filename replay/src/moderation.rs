//! How long the shard lets answers gather before it takes them in.
//!
//! A look for answers costs the live host more than the answers do: a thread is woken, and the processor has to load code and
//! data anew. So where many sessions are answered within a millisecond, the shard looks for their answers together, as
//! network cards gather frames for one interrupt. Where a few sessions ask one request after the other, each answer is
//! taken in at once: their next turn waits for it. Where most sessions have a turn or two, few turns wait: then answers gather for
//! longer.
//!
//! Sessions make good what they wait, up to their pauses; the figures of latency leave it out (`transit`). A session
//! among many that pauses for less falls behind. So once turns are late, answers do not gather any more, and it is tried again
//! later, each time after twice as long. Where turns are late without it, too, the host or a target is overloaded: then
//! answers gather, unless clearly more turns go out when they do not.

use std::time::{Duration, Instant};

use millrace_engine::{Config, Stats};

/// The longest time for which answers gather.
const LONGEST: Duration = Duration::from_millis(1);
/// The same where most sessions are short: few turns wait for an answer.
const LONGEST_OF_SHORT: Duration = Duration::from_millis(2);
/// Sessions are short where so many turns go out, at most, for each replica that connects.
const TURNS_OF_SHORT: u64 = 2;
/// Where no more flows than this are answered in a millisecond, nothing gathers.
const FEW_FLOWS: f64 = 5.0;
/// So many flows more, and answers gather for the longest time.
const FLOWS_TO_LONGEST: f64 = 4.0;
/// Replicas that connect in a millisecond, from which on answers gather for the longest time.
const CONNECTS_TO_LONGEST: f64 = 1.0;
/// What is less than this share of the longest time is not worth a rest.
const WORTH_WHILE: f64 = 0.2;
/// Flows are counted for at least so long, and averages taken over some such times.
const FRAME: Duration = Duration::from_millis(1);
/// Milliseconds. In a frame that took longer, more flows may have been heard than can be told apart.
const AVERAGED: f64 = 8.0;

/// Whether turns are late is asked this often.
const ROUND: Duration = Duration::from_millis(50);
/// A turn is late that lags so far, in microseconds. Sessions that are less than a quarter of it behind do not shorten
/// pauses yet.
const LATE: u64 = 20_000;
/// Turns are late when more than one of so many is, and more than one at all.
const LATE_ONE_OF: u64 = 50;
/// Answers do not gather for so many rounds once turns are late, and for how many at most.
const FIRST_PROMPT: u32 = 4;
const LONGEST_PROMPT: u32 = 200;
/// After so many rounds without late turns this begins anew.
const FORGIVEN: u32 = 40;
/// Answers gather for at least so many rounds before it is given up: it is known then how many turns go out meanwhile.
const TRIAL: u32 = 4;
/// For so many rounds that holds which lets more turns go out, where they are late in any case.
const SETTLED: u32 = 40;
/// Without gathering more turns must go out than with it, to be worth its price: by one of so many.
const MORE_ONE_OF: f64 = 4.0;

/// How long answers gather.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// Whether sessions make good what they wait.
    may_gather: bool,
    /// Flows that were heard since the frame began, a bit for each, or for some together, and replicas that have connected.
    frame_began: Instant,
    heard: u64,
    connected: u64,
    /// Flows that are heard, and replicas that connect, in a millisecond, on average.
    flows: f64,
    connects: f64,
    /// What had been counted when the round began.
    round_began: Instant,
    turns: u64,
    late: u64,
    /// Replicas that have connected in it, and whether the sessions of the one before were short.
    begun: u64,
    is_short: bool,
    /// Whether there was anything to gather in it.
    is_crowded: bool,
    mode: Mode,
    /// Rounds of this mode that have passed, and turns that went out in them in a second, on average.
    rounds: u32,
    pace: f64,
    /// For how many rounds answers do not gather the next time that turns are late.
    prompt_rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Answers gather.
    Gather,
    /// They do not, since turns were late. Before, so many turns went out in a second.
    Prompt(f64),
    /// Turns are late in any case, and this is better.
    Settled {
        /// That answers gather.
        gather: bool,
    },
}

impl Moderation {
    /// Nothing was heard yet.
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        Self {
            // A turn that waits for its answer alone waits for nothing else.
            may_gather: config.has_pace() && !config.keep_pauses,
            frame_began: now,
            heard: 0,
            connected: 0,
            flows: 0.0,
            connects: 0.0,
            round_began: now,
            turns: 0,
            late: 0,
            begun: 0,
            is_short: false,
            is_crowded: false,
            mode: Mode::Gather,
            rounds: 0,
            pace: 0.0,
            prompt_rounds: FIRST_PROMPT,
        }
    }

    /// An answer to this flow, by any number that tells it from most others, has come.
    pub(crate) const fn hear(&mut self, flow: u64) {
        // The golden ratio: numbers in a row are far from each other (Knuth, TAOCP 3, 6.4).
        let spread = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.heard |= 1 << (spread >> 58);
    }

    /// So many replicas have connected.
    pub(crate) const fn connect(&mut self, count: u64) {
        self.connected += count;
        self.begun += count;
    }

    /// Takes in what the engine has counted. To be called in each of the shard's rounds.
    pub(crate) fn see(&mut self, now: Instant, stats: &Stats) {
        let lag = &stats.turn_lag;
        self.count(now, || (lag.len(), lag.count_between(LATE, lag.high())));
    }

    /// `turns`: those that were sent until now, and those of them that were late.
    fn count(&mut self, now: Instant, turns: impl FnOnce() -> (u64, u64)) {
        let elapsed = now.saturating_duration_since(self.frame_began);
        if elapsed >= FRAME {
            self.end_frame(elapsed);
            self.frame_began = now;
        }
        let elapsed = now.saturating_duration_since(self.round_began);
        if elapsed >= ROUND {
            self.end_round(elapsed, turns());
            self.round_began = now;
        }
    }

    fn end_frame(&mut self, elapsed: Duration) {
        let millis = elapsed.as_secs_f64() * 1e3;
        let weight = (millis / AVERAGED).min(1.0);
        let flows = f64::from(self.heard.count_ones()) / millis.min(AVERAGED);
        let connects = self.connected as f64 / millis;
        self.flows += (flows - self.flows) * weight;
        self.connects += (connects - self.connects) * weight;
        (self.heard, self.connected) = (0, 0);
        self.is_crowded |= self.share() >= WORTH_WHILE;
    }

    /// How long answers gather at the moment: after a look for them the next one comes so much later, at least.
    pub(crate) fn window(&self) -> Duration {
        let gathers = match self.mode {
            Mode::Gather => true,
            Mode::Prompt(_) => false,
            Mode::Settled { gather } => gather,
        };
        let longest = match self.is_short {
            true => LONGEST_OF_SHORT,
            false => LONGEST,
        };
        let share = self.share();
        match gathers && self.may_gather && share >= WORTH_WHILE {
            true => longest.mul_f64(share),
            false => Duration::ZERO,
        }
    }

    /// The share of the longest time that so many answers are worth.
    fn share(&self) -> f64 {
        let by_flows = (self.flows - FEW_FLOWS) / FLOWS_TO_LONGEST;
        by_flows.max(self.connects / CONNECTS_TO_LONGEST).min(1.0)
    }

    fn end_round(&mut self, elapsed: Duration, (turns, late): (u64, u64)) {
        let sent = turns.saturating_sub(self.turns);
        let late_ones = late.saturating_sub(self.late);
        let crowded = std::mem::take(&mut self.is_crowded);
        let begun = std::mem::take(&mut self.begun);
        (self.turns, self.late) = (turns, late);
        self.is_short = begun > 0 && sent <= begun * TURNS_OF_SHORT;
        if sent == 0 {
            return;
        }
        let is_late = late_ones > 1 && late_ones * LATE_ONE_OF > sent;
        self.rounds += 1;
        // Of all rounds until now, and of the last ones where there are many.
        let pace = sent as f64 / elapsed.as_secs_f64();
        self.pace += (pace - self.pace) / f64::from(self.rounds.min(2 * TRIAL));
        match self.mode {
            Mode::Gather if is_late && crowded => {
                if self.rounds >= TRIAL {
                    self.enter(Mode::Prompt(self.pace));
                }
            }
            Mode::Gather => {
                if self.rounds >= FORGIVEN {
                    self.prompt_rounds = FIRST_PROMPT;
                }
            }
            Mode::Prompt(_) if self.rounds < self.prompt_rounds => {}
            Mode::Prompt(_) if !is_late => {
                self.prompt_rounds = (self.prompt_rounds * 2).min(LONGEST_PROMPT);
                self.enter(Mode::Gather);
            }
            Mode::Prompt(before) => {
                let gather = self.pace <= before * (1.0 + 1.0 / MORE_ONE_OF);
                self.enter(Mode::Settled { gather });
            }
            Mode::Settled { .. } if self.rounds < SETTLED => {}
            Mode::Settled { .. } => self.enter(Mode::Gather),
        }
    }

    const fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        (self.rounds, self.pace) = (0, 0.0);
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

    /// Milliseconds for which answers gathered at a time, on average over so many seconds.
    fn gathered(traffic: &Traffic, seconds: u32) -> f64 {
        let start = Instant::now();
        let mut moderation = Moderation::new(start, &Config::default());
        let (mut connects, mut turns, mut late) = (0.0, 0.0, 0.0);
        let mut rested = Duration::ZERO;
        for millis in 1..=seconds * 1000 {
            let now = start + FRAME * millis;
            (0..traffic.flows).for_each(|flow| moderation.hear(flow));
            connects += traffic.connects;
            moderation.connect(connects as u64);
            connects -= connects.floor();
            let window = moderation.window();
            let (sent, share) = match window > LONGEST / 2 {
                true => traffic.gathering,
                false => traffic.prompt,
            };
            turns += sent;
            late += sent * share;
            rested += window;
            moderation.count(now, || (turns as u64, late as u64));
        }
        rested.as_secs_f64() / f64::from(seconds)
    }

    const IN_TIME: (f64, f64) = (20.0, 0.0);

    #[test]
    fn answers_gather_where_many_sessions_are_answered() {
        for (flows, connects, turns, wanted) in [
            (1, 0.0, 1.0, 0.0..0.001),
            (4, 0.0, 4.0, 0.0..0.001),
            (7, 0.0, 7.0, 0.4..0.6),
            (30, 0.0, 30.0, 0.9..1.0),
            (3, 0.1, 0.1, 0.0..0.001),
            (3, 1.5, 1.5, 1.9..2.0),
            (3, 0.5, 0.5, 0.9..1.1),
            (20, 1.5, 15.0, 0.9..1.0),
            (20, 5.0, 12.0, 0.9..1.0),
        ] {
            let traffic = Traffic {
                flows,
                connects,
                prompt: (turns, 0.0),
                gathering: (turns, 0.0),
            };
            let millis = gathered(&traffic, 10);
            let named = format!("{flows} {connects} {turns}: {millis}");
            assert!(wanted.contains(&millis), "{named}");
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
        assert!((0.2..0.6).contains(&soon), "{soon}");
        assert!((0.01..0.06).contains(&later), "{later}");
    }

    #[test]
    fn turns_that_are_late_anyway_decide_by_their_number() {
        for (prompt, wanted) in [(20.0, 0.9..1.0), (23.0, 0.9..1.0), (30.0, 0.05..0.15)] {
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
        let mut moderation = Moderation::new(start, &Config::default());
        for millis in 1..=100 {
            (0..30).for_each(|flow| moderation.hear(flow));
            moderation.count(start + FRAME * millis, || (0, 0));
        }
        assert_eq!(moderation.window(), LONGEST);
        moderation.count(start + FRAME * 200, || (0, 0));
        assert_eq!(moderation.window(), Duration::ZERO);
    }

    #[test]
    fn what_is_over_is_forgiven() {
        let start = Instant::now();
        let mut moderation = Moderation::new(start, &Config::default());
        let mut millis = 0;
        let mut rounds = |moderation: &mut Moderation, count: u32, late: u64| {
            for _ in 0..count * 50 {
                millis += 1;
                (0..30).for_each(|flow| moderation.hear(flow));
                let turns = u64::from(millis) * 20;
                let before = moderation.late;
                moderation.count(start + FRAME * millis, || (turns, before + late));
            }
        };
        rounds(&mut moderation, TRIAL, 500);
        assert!(matches!(moderation.mode, Mode::Prompt(_)));
        rounds(&mut moderation, FIRST_PROMPT, 0);
        assert_eq!(moderation.mode, Mode::Gather);
        assert_eq!(moderation.prompt_rounds, 2 * FIRST_PROMPT);
        rounds(&mut moderation, FORGIVEN, 0);
        assert_eq!(moderation.prompt_rounds, FIRST_PROMPT);
        // Two of a thousand are a hiccup.
        rounds(&mut moderation, TRIAL, 2);
        assert_eq!(moderation.mode, Mode::Gather);
    }

    #[test]
    fn what_keeps_pauses_or_has_none_gathers_nothing() {
        let start = Instant::now();
        let keeps = Config {
            keep_pauses: true,
            ..Config::default()
        };
        for (config, wanted) in [(Config::default(), LONGEST), (keeps, Duration::ZERO)] {
            let mut moderation = Moderation::new(start, &config);
            for millis in 1..=100 {
                (0..30).for_each(|flow| moderation.hear(flow));
                moderation.count(start + FRAME * millis, || (0, 0));
            }
            assert_eq!(moderation.window(), wanted);
        }
    }
}

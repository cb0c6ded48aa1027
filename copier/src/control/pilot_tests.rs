//! The pilot on simulated time and samples.

use super::*;
use millrace_engine::Stats;

/// What happens in a second at intensity 1.
#[derive(Clone, Copy)]
struct Second {
    connected: u64,
    refused: u64,
    resets: u64,
    ended: u64,
    turns: u64,
    answered: u64,
    /// Milliseconds.
    live: u64,
    target: u64,
}

const GOOD: Second = Second {
    connected: 20,
    refused: 0,
    resets: 0,
    ended: 20,
    turns: 100,
    answered: 100,
    live: 10,
    target: 12,
};

struct Flight {
    pilot: Pilot,
    sums: Sample,
    seconds: u64,
    stops: u32,
}

impl Flight {
    fn new(ramp: Option<&str>, guards: &str) -> Self {
        let guards: crate::guard::Guards = guards.parse().unwrap();
        let config = PilotConfig {
            intensity: Intensity::ONE,
            ramp: ramp.map(|ramp| ramp.parse().unwrap()),
            guards: guards.0,
            window: Duration::from_secs(10),
            min_sample: 50,
        };
        Self {
            pilot: Pilot::new(config),
            sums: Sample::of(millrace_engine::Engine::new(Default::default()).stats()),
            seconds: 0,
            stops: 0,
        }
    }

    /// So many seconds of this; gives the intensity at the end.
    fn fly(&mut self, seconds: u64, what: Second) -> f64 {
        for _ in 0..seconds {
            self.sums.connected += what.connected;
            self.sums.refused += what.refused;
            self.sums.resets += what.resets;
            self.sums.ended += what.ended;
            self.sums.live_turns.0 += 100;
            self.sums.live_turns.1 += 100;
            self.sums.target_turns.0 += what.turns;
            self.sums.target_turns.1 += what.answered;
            self.sums
                .live_latency
                .record_n(what.live * 1000, 100)
                .unwrap();
            self.sums
                .target_latency
                .record_n(what.target * 1000, what.answered)
                .unwrap();
            self.seconds += 1;
            let now = Duration::from_secs(self.seconds);
            let tick = self.pilot.tick(now, Some(self.sums.clone()));
            self.stops += u32::from(tick.stop);
        }
        self.pilot.intensity().as_ratio()
    }

    fn mode(&self) -> Mode {
        self.pilot.status().mode
    }
}

const EVERYTHING: &str =
    "connect-failures>5%:stop,resets>5%:step-back,unanswered>20%:stop,latency-p99>3x:hold";

#[test]
fn a_ramp_is_followed_while_the_target_does_well() {
    let mut flight = Flight::new(Some("10%..100%/90s,hold:60s,300%"), EVERYTHING);
    assert!((flight.fly(45, GOOD) - 0.55).abs() < 1e-6);
    assert!((flight.fly(50, GOOD) - 1.0).abs() < 1e-6);
    assert!((flight.fly(54, GOOD) - 1.0).abs() < 1e-6);
    assert!((flight.fly(1, GOOD) - 3.0).abs() < 1e-6);
    assert_eq!(flight.mode(), Mode::Running);
    let decisions = flight.pilot.status().decisions;
    assert_eq!(
        decisions.len(),
        2,
        "its beginning and its end: {decisions:?}"
    );
}

#[test]
fn a_slow_target_holds_the_ramp_and_lets_it_go_on_when_it_is_fast_again() {
    let mut flight = Flight::new(Some("0..100%/100s"), "latency-p99>3x:hold");
    flight.fly(30, GOOD);
    let slow = Second { target: 60, ..GOOD };
    let held = flight.fly(10, slow);
    assert_eq!(flight.mode(), Mode::Held);
    assert!(
        held < 0.35,
        "held within a few seconds of the window: {held}"
    );
    assert!(
        (flight.fly(20, slow) - held).abs() < 1e-9,
        "it does not rise any more"
    );
    // One good window is needed to forget, and one to trust.
    flight.fly(9, GOOD);
    assert_eq!(flight.mode(), Mode::Held);
    let on = flight.fly(15, GOOD);
    assert_eq!(flight.mode(), Mode::Running);
    assert!(on > held && flight.fly(10, GOOD) > on);
    let decisions = flight.pilot.status().decisions;
    let said = &decisions[1].what;
    assert!(
        said.contains("latency-p99>3x:hold")
            && said.contains("live 10")
            && said.contains("holding"),
        "{said}"
    );
    assert_eq!(flight.stops, 0);
}

#[test]
fn a_target_that_resets_is_stepped_back_to_where_the_rise_began() {
    let mut flight = Flight::new(
        Some("20%,hold:30s,20%..100%/40s,hold:1h"),
        "resets>5%:step-back",
    );
    assert!(flight.fly(60, GOOD) > 0.79);
    let bad = Second { resets: 10, ..GOOD };
    flight.fly(3, bad);
    assert_eq!(flight.mode(), Mode::Held);
    assert!((flight.fly(1, GOOD) - 0.2).abs() < 1e-6);
    // The window was cleared: what was before does not count again.
    assert!((flight.fly(9, GOOD) - 0.2).abs() < 1e-6);
    assert!(flight.fly(40, GOOD) > 0.2, "and it is tried again");
}

#[test]
fn without_a_ramp_a_step_back_halves_and_may_be_repeated() {
    let mut flight = Flight::new(None, "resets>5%:step-back");
    flight.fly(20, GOOD);
    let bad = Second { resets: 10, ..GOOD };
    let mut levels = Vec::new();
    for _ in 0..30 {
        levels.push(flight.fly(1, bad));
    }
    levels.dedup();
    assert!(levels.len() >= 4, "{levels:?}");
    assert!(
        levels
            .windows(2)
            .all(|pair| (pair[1] - pair[0] / 2.0).abs() < 1e-6),
        "{levels:?}"
    );
    // It stays there until the operator says otherwise.
    let low = flight.fly(60, GOOD);
    assert_eq!(flight.mode(), Mode::Running);
    assert!((low - levels.last().unwrap()).abs() < 1e-9);
    flight.pilot.command(Command::Set(Intensity::ONE));
    assert!((flight.fly(1, GOOD) - 1.0).abs() < 1e-9);
}

#[test]
fn a_target_that_is_gone_stops_everything_once_and_for_good() {
    for bad in [
        Second {
            connected: 0,
            refused: 20,
            ..GOOD
        },
        Second {
            answered: 0,
            ..GOOD
        },
    ] {
        let mut flight = Flight::new(Some("0..100%/100s"), EVERYTHING);
        flight.fly(30, GOOD);
        flight.fly(10, bad);
        assert_eq!(
            (flight.stops, flight.mode()),
            (1, Mode::Stopped),
            "within the window"
        );
        assert_eq!(flight.fly(100, GOOD), 0.0);
        assert_eq!(flight.stops, 1);
        flight.pilot.command(Command::Resume);
        assert!(flight.fly(1, GOOD) > 0.3, "where it was");
    }
}

#[test]
fn too_few_events_are_not_judged() {
    let mut flight = Flight::new(None, "connect-failures>5%:stop");
    let few = Second {
        connected: 0,
        refused: 4,
        ..GOOD
    };
    flight.fly(60, few);
    assert_eq!(flight.mode(), Mode::Running);
    let status = flight.pilot.status();
    assert_eq!(
        (status.guards[0].value, status.guards[0].broken),
        (Some(1.0), false)
    );
}

#[test]
fn what_the_live_server_leaves_unanswered_is_not_held_against_the_target() {
    let mut flight = Flight::new(None, "unanswered>20%:stop");
    for _ in 0..30 {
        flight.sums.live_turns.0 += 900;
        flight.fly(
            1,
            Second {
                answered: 20,
                ..GOOD
            },
        );
    }
    assert_eq!(flight.mode(), Mode::Running);
}

#[test]
fn the_operator_comes_before_ramp_and_guards() {
    let mut flight = Flight::new(Some("0..100%/100s"), EVERYTHING);
    flight.fly(50, GOOD);
    flight.pilot.command(Command::Pause);
    assert_eq!(flight.fly(50, GOOD), 0.0);
    flight.pilot.command(Command::Resume);
    let on = flight.fly(1, GOOD);
    assert!((on - 0.51).abs() < 1e-6, "the ramp stood still: {on}");
    flight
        .pilot
        .command(Command::Set(Intensity::from_ratio(2.5)));
    assert!((flight.fly(50, GOOD) - 2.5).abs() < 1e-9);
    assert!(flight.pilot.status().ramp.is_none());
    flight
        .pilot
        .command(Command::Follow("10%..20%/10s".parse().unwrap()));
    assert!((flight.fly(5, GOOD) - 0.15).abs() < 1e-6);
}

#[test]
fn decisions_are_bounded() {
    let mut flight = Flight::new(None, "resets>5%:hold");
    for _ in 0..1000 {
        flight.pilot.command(Command::Pause);
        flight.pilot.command(Command::Resume);
    }
    assert_eq!(flight.pilot.status().decisions.len(), DECISIONS);
}

#[test]
fn an_engine_that_has_done_nothing_is_no_reason_for_anything() {
    fn nothing(stats: &Stats) -> Sample {
        Sample::of(stats)
    }
    let engine = millrace_engine::Engine::new(Default::default());
    let mut flight = Flight::new(None, EVERYTHING);
    for second in 0..100 {
        let tick = flight
            .pilot
            .tick(Duration::from_secs(second), Some(nothing(engine.stats())));
        assert_eq!(
            tick,
            Tick {
                intensity: Intensity::ONE,
                stop: false
            }
        );
    }
}

#[test]
fn what_is_under_way_is_not_unanswered() {
    // A target that takes a second and a half for each answer: never more than that is missing.
    let mut flight = Flight::new(Some("10%..300%/20s"), "unanswered>5%:stop");
    let mut sent = Vec::new();
    for second in 0..40 {
        let turns = 100 * (second + 1);
        sent.push(turns);
        let answered = if second >= 2 {
            sent[second as usize - 2]
        } else {
            0
        };
        flight.fly(
            1,
            Second {
                turns,
                answered,
                ..GOOD
            },
        );
        assert_eq!(flight.mode(), Mode::Running, "second {second}");
    }
    // And one that has stopped answering is found well within the window.
    flight.fly(
        6,
        Second {
            turns: 4000,
            answered: 0,
            ..GOOD
        },
    );
    assert_eq!(flight.mode(), Mode::Stopped);
}

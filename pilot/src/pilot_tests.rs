//! The pilot on simulated time and samples.

use super::*;
use crate::sight::Blindness;
use millrace_engine::Stats;

/// What happens in a second at intensity 1.
#[derive(Clone, Copy)]
struct Second {
    connected: u64,
    refused: u64,
    resets: u64,
    ended: u64,
    answered: u64,
    overdue: u64,
    /// Milliseconds.
    live: u64,
    target: u64,
}

const GOOD: Second = Second {
    connected: 20,
    refused: 0,
    resets: 0,
    ended: 20,
    answered: 100,
    overdue: 0,
    live: 10,
    target: 12,
};

struct Flight {
    pilot: Pilot,
    sums: Sample,
    seconds: u64,
    stops: u32,
    /// Something can be sent.
    flowing: bool,
    /// What guards see; `None`: everything, and all interceptors were heard just now.
    view: Option<View>,
    /// The live server's side is captured.
    live_seen: bool,
}

impl Flight {
    fn new(ramp: Option<&str>, guards: &str) -> Self {
        let guards: crate::guard::Guards = guards.parse().unwrap();
        let config = PilotConfig {
            intensity: Intensity::ONE,
            factor: 1,
            ramp: ramp.map(|ramp| ramp.parse().unwrap()),
            guards: guards.0,
            window: Duration::from_secs(10),
            min_sample: 50,
            follows_plan: false,
        };
        Self {
            pilot: Pilot::new(config),
            sums: Sample::of(millrace_engine::Engine::new(Default::default()).stats()),
            seconds: 0,
            stops: 0,
            flowing: true,
            view: None,
            live_seen: true,
        }
    }

    /// So many seconds of this; gives the intensity at the end.
    fn fly(&mut self, seconds: u64, what: Second) -> f64 {
        for _ in 0..seconds {
            self.sums.connected += what.connected;
            self.sums.refused += what.refused;
            self.sums.resets += what.resets;
            self.sums.ended += what.ended;
            if self.live_seen {
                self.sums.live_segments += 200;
                self.sums.live_turns.answered += 100;
                let latency = &mut self.sums.live_latency;
                latency.record_n(what.live * 1000, 100).unwrap();
            } else {
                self.sums.live_turns.overdue += 100;
            }
            self.sums.target_turns.answered += what.answered;
            self.sums.target_turns.overdue += what.overdue;
            self.sums
                .target_latency
                .record_n(what.target * 1000, what.answered)
                .unwrap();
            self.seconds += 1;
            let now = Duration::from_secs(self.seconds);
            let observed = Observed {
                flowing: self.flowing,
                open: true,
                view: self.view.unwrap_or(View::Clear { heard_at: now }),
                sample: Some(self.sums.clone()),
                plan: None,
            };
            let tick = self.pilot.tick(now, observed);
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
    for _ in 0..50 {
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
    assert!((flight.fly(60, GOOD) - low).abs() < 1e-9);
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
            overdue: 100,
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
        flight.sums.live_turns.overdue += 900;
        flight.fly(
            1,
            Second {
                answered: 20,
                overdue: 80,
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
        let now = Duration::from_secs(second);
        let observed = Observed {
            flowing: true,
            open: true,
            view: View::Clear { heard_at: now },
            sample: Some(nothing(engine.stats())),
            plan: None,
        };
        let tick = flight.pilot.tick(now, observed);
        assert_eq!(
            tick,
            Tick {
                intensity: Intensity::ONE,
                stop: false,
                note: None,
            }
        );
    }
}

#[test]
fn a_target_that_leaves_every_fifth_turn_unanswered_is_found_while_it_does() {
    let mut flight = Flight::new(None, "unanswered>10%:stop");
    flight.fly(20, GOOD);
    let mute = Second {
        answered: 80,
        overdue: 20,
        ..GOOD
    };
    flight.fly(4, mute);
    let figure = flight.pilot.status().guards[0].value;
    assert!((figure.unwrap() - 0.08).abs() < 1e-9, "{figure:?}");
    flight.fly(5, mute);
    assert_eq!(flight.mode(), Mode::Stopped);
}

#[test]
fn a_broken_hold_does_not_hide_what_is_worse() {
    let rules = "latency-p99>3x:hold,connect-failures>5%:stop";
    let slow = Second { target: 60, ..GOOD };
    let gone = Second {
        connected: 0,
        refused: 20,
        ..slow
    };
    for held_first in [false, true] {
        let mut flight = Flight::new(Some("0..100%/100s"), rules);
        flight.fly(20, GOOD);
        if held_first {
            flight.fly(10, slow);
            assert_eq!(flight.mode(), Mode::Held);
        }
        flight.fly(10, gone);
        assert_eq!((flight.mode(), flight.stops), (Mode::Stopped, 1));
    }
}

#[test]
fn nothing_is_judged_by_its_first_moments() {
    let rules = "connect-failures>50%:stop,resets>5%:step-back";
    let mut flight = Flight::new(None, rules);
    let burst = Second {
        refused: 60,
        resets: 100,
        ended: 100,
        ..GOOD
    };
    flight.fly(2, burst);
    assert!((flight.fly(8, GOOD) - 1.0).abs() < 1e-9, "nothing yet");
    assert_eq!(flight.mode(), Mode::Running, "half a window for a stop");
    flight.fly(1, GOOD);
    assert_eq!(flight.mode(), Mode::Held, "a whole one to step back");
    let resetting = Second {
        refused: 0,
        ..burst
    };
    assert!((flight.fly(10, resetting) - 0.5).abs() < 1e-9, "and again");
    assert!((flight.fly(2, resetting) - 0.25).abs() < 1e-9);
}

#[test]
fn a_halving_is_shown_and_an_operator_takes_it_back() {
    let mut flight = Flight::new(None, "resets>5%:step-back");
    flight.fly(12, GOOD);
    assert_eq!(flight.pilot.status().scale, None);
    let bad = Second { resets: 10, ..GOOD };
    flight.fly(3, bad);
    let status = flight.pilot.status();
    assert_eq!(status.scale, Some(0.5));
    assert!(status.to_string().contains("scale   0.5"), "{status}");
    flight.fly(60, GOOD);
    assert_eq!(flight.mode(), Mode::Running);
    assert_eq!(flight.pilot.status().scale, Some(0.5), "it stays");
    flight.pilot.command(Command::Resume);
    assert!((flight.fly(1, GOOD) - 1.0).abs() < 1e-9);
    assert_eq!(flight.pilot.status().scale, None);
}

#[test]
fn without_the_live_servers_side_the_target_is_judged_by_itself() {
    let mute = Second {
        answered: 60,
        overdue: 40,
        ..GOOD
    };
    let mut flight = Flight::new(None, "unanswered>30%:stop");
    flight.live_seen = false;
    flight.fly(20, GOOD);
    assert_eq!(flight.mode(), Mode::Running);
    flight.fly(10, mute);
    assert_eq!(flight.mode(), Mode::Stopped);
    let said = flight.pilot.status().decisions[0].what.clone();
    assert!(said.contains("nothing seen of the live server"), "{said}");
}

#[test]
fn one_answer_of_the_live_server_is_nothing_to_compare_with() {
    let slow = Second {
        target: 900,
        ..GOOD
    };
    let mut flight = Flight::new(None, "latency-p50>3x:stop");
    flight.live_seen = false;
    flight.sums.live_latency.record(10_000).unwrap();
    flight.fly(5, slow);
    flight.sums.live_latency.record(10_000).unwrap();
    flight.fly(30, slow);
    assert_eq!(flight.mode(), Mode::Running);
    let status = flight.pilot.status();
    assert!(status.guards[0].lacks_live, "{status}");
    assert!(status.to_string().contains("to compare with"), "{status}");
    flight.live_seen = true;
    flight.fly(10, slow);
    assert_eq!(flight.mode(), Mode::Stopped);
}

#[test]
fn a_ramp_stands_still_while_nothing_can_be_sent() {
    let mut flight = Flight::new(Some("1%..300%/4s"), "resets>5%:stop");
    flight.flowing = false;
    assert!((flight.fly(100, GOOD) - 0.01).abs() < 1e-6);
    let status = flight.pilot.status();
    assert!(status.ramp.as_ref().unwrap().waiting);
    assert!(status.to_string().contains("waits until"), "{status}");
    flight.flowing = true;
    let half = flight.fly(2, GOOD);
    assert!((half - 1.505).abs() < 1e-6, "{half}");
    flight.flowing = false;
    assert!((flight.fly(100, GOOD) - half).abs() < 1e-9);
    flight.flowing = true;
    assert!((flight.fly(2, GOOD) - 3.0).abs() < 1e-6);
    assert!(!flight.pilot.status().ramp.unwrap().waiting);
}

#[test]
fn what_happens_while_answers_go_unseen_is_not_held_against_the_target() {
    let unseen = Second {
        connected: 0,
        refused: 20,
        answered: 0,
        overdue: 100,
        ..GOOD
    };
    let mut flight = Flight::new(Some("0..100%/100s"), EVERYTHING);
    flight.fly(30, GOOD);
    flight.view = Some(View::Blind(Blindness::Closed));
    flight.fly(30, unseen);
    let status = flight.pilot.status();
    assert_eq!(status.mode, Mode::Running, "{status}");
    assert!(status.to_string().contains("do not judge"), "{status}");
    let level = status.now;
    flight.view = Some(View::Blind(Blindness::Changed));
    assert!((flight.fly(30, GOOD) - level).abs() < 1e-9, "nobody looks");
    let status = flight.pilot.status().to_string();
    assert!(status.contains("waits until guards can judge"), "{status}");
    flight.view = None;
    flight.fly(30, GOOD);
    assert_eq!(flight.mode(), Mode::Running);
    assert_eq!(flight.pilot.status().blind, None);
    flight.fly(10, unseen);
    assert_eq!(flight.mode(), Mode::Stopped);
}

#[test]
fn nothing_is_done_before_every_interceptor_was_heard_after_the_fault() {
    let gone = Second {
        connected: 0,
        refused: 20,
        ..GOOD
    };
    let mut flight = Flight::new(None, EVERYTHING);
    flight.fly(30, GOOD);
    let heard_at = Duration::from_secs(30);
    flight.view = Some(View::Clear { heard_at });
    flight.fly(3, gone);
    assert_eq!(flight.mode(), Mode::Running, "it may be an interceptor");
    assert!(flight.pilot.status().guards[0].broken);
    flight.view = None;
    flight.fly(1, gone);
    assert_eq!(flight.mode(), Mode::Stopped);
}

//! The dead man's switch: a target, or one of the real servers behind it, whose answers stop coming back.

use std::time::Duration;

use millrace_engine::{AbortReason, Config};

use crate::sim::Action::{self, ClientFin, Server, ServerFin};
use crate::sim::target::Ended;
use crate::sim::{Live, Rng, World, at, config, ms, secs};
use crate::talk::*;

fn talk() -> Vec<Action> {
    vec![
        says(300),
        Server(500),
        says(300),
        Server(40),
        ClientFin,
        ServerFin,
    ]
}

/// A world into which a connection comes every `every`, for so long.
fn crowd(seed: u64, every: Duration, span: Duration) -> World {
    crowd_with(config(), seed, every, span)
}

fn crowd_with(config: Config, seed: u64, every: Duration, span: Duration) -> World {
    let mut world = World::new(config, seed);
    world.keep_sent = false;
    world.behaviour = answers_like(&talk());
    let count = u16::try_from(span.as_micros() / every.as_micros()).unwrap();
    for number in 0..count {
        let start = at(u32::from(number) * every);
        world.capture(Live::new(start, 10_000 + number).play(&talk()));
    }
    world
}

fn all_delivered(world: &mut World) {
    world.assert_all_delivered();
    let received = said(&talk());
    for target in &world.targets {
        assert!(target.received == received);
    }
    world.assert_nothing_left();
}

#[test]
fn a_real_server_that_nobody_guards_stops_copying_and_nothing_is_lost() {
    for every in [ms(2), ms(10), ms(50)] {
        let mut world = crowd(1, every, 200 * every);
        world.opened_after = None;
        // It joins the director in the middle, and gets every fourth connection.
        let joined = at(100 * every);
        world.call(joined, |world| {
            world.astray = |tuple| tuple.source.port >= 10_100 && tuple.source.port % 4 == 0;
        });
        world.run(secs(60));
        assert_eq!(world.silences, 1, "every {every:?}");
        let took = world.silent_at.since(joined);
        assert!(took <= 16 * every + ms(100), "{took:?}, every {every:?}");
        assert!(world.leaked <= 10, "{} leaked", world.leaked);
        let leaked = world.leaked;
        world.astray = |_| false;
        let now = world.now;
        world.engine.set_target_open(now, 0, true);
        world.run(secs(60));
        assert_eq!(world.leaked, leaked);
        all_delivered(&mut world);
    }
}

#[test]
fn a_target_whose_answers_all_go_astray_gets_nothing_more() {
    let mut world = crowd(1, ms(5), secs(1));
    world.opened_after = None;
    world.call(at(ms(500)), |world| {
        world.astray = |tuple| tuple.source.port >= 10_100;
    });
    world.run(secs(30));
    assert_eq!(world.silences, 1);
    assert!(world.leaked <= 10, "{} leaked", world.leaked);
    let took = world.silent_at.since(at(ms(500)));
    assert!(took <= ms(200), "{took:?}");
    world.astray = |_| false;
    let now = world.now;
    world.engine.set_target_open(now, 0, true);
    world.run(secs(60));
    all_delivered(&mut world);
}

#[test]
fn open_connections_whose_answers_go_astray_stop_their_target() {
    let mut world = World::new(config(), 1);
    let mut turns = vec![];
    for _ in 0..30 {
        turns.extend([says(100), Server(100), Action::Pause(ms(100))]);
    }
    world.behaviour = answers_like(&turns);
    for port in 0..20 {
        world.capture(Live::new(at(ms(7 * u64::from(port))), 10_000 + port).play(&turns));
    }
    world.opened_after = None;
    world.call(at(secs(2)), |world| {
        world.astray = |tuple| tuple.source.port % 4 == 0;
    });
    world.run(secs(60));
    assert_eq!(world.silences, 1);
    let took = world.silent_at.since(at(secs(2)));
    assert!(took < ms(1200), "{took:?}");
    // Five connections, and targets repeat what nobody acknowledges.
    assert!(
        world.leaked_before_silence <= 40,
        "{} leaked",
        world.leaked_before_silence
    );
    world.astray = |_| false;
    let now = world.now;
    world.engine.set_target_open(now, 0, true);
    world.run(secs(60));
    let stats = world.engine.stats();
    assert_eq!(stats.bytes_delivered, stats.bytes_wanted);
    assert_eq!(stats.replicas_aborted.total(), 0);
}

#[test]
fn what_loss_explains_stops_nothing_for_good() {
    let mut stops = 0;
    for seed in 0..20 {
        let mut world = crowd(seed, ms(2), secs(4));
        world.to_target.loss = 5.0;
        world.to_copier.loss = 5.0;
        world.run(secs(120));
        stops += world.silences;
        assert!(world.silences <= 1, "{} stops", world.silences);
        world.assert_all_delivered();
    }
    assert!(stops <= 2, "{stops} stops in 20 worlds of 2000 connections");
}

#[test]
fn a_pause_of_everything_is_no_silence() {
    let mut rng = Rng::new(5);
    let mut world = crowd(2, ms(3), secs(6));
    for _ in 0..20 {
        let start = ms(rng.between(100, 5500));
        world.call(at(start), |world| world.to_copier.delay = ms(30));
        world.call(at(start + ms(rng.between(1, 40))), |world| {
            world.to_copier.delay = Duration::from_micros(300);
        });
    }
    world.run(secs(60));
    assert_eq!(world.silences, 0);
    world.assert_all_delivered();
}

#[test]
fn a_way_that_becomes_slow_is_no_silence_for_long() {
    for every in [ms(2), ms(20), ms(200)] {
        let mut world = crowd(3, every, 300 * every);
        world.call(at(100 * every), |world| world.to_copier.delay = ms(300));
        world.run(secs(200));
        assert!(world.silences <= 1, "{}, every {every:?}", world.silences);
        world.assert_all_delivered();
    }
}

#[test]
fn a_share_of_silence_that_was_looked_into_is_no_news() {
    let mut world = crowd(1, ms(2), secs(8));
    // As with an interceptor that hangs: its real server answers, and the target is opened again.
    world.call(at(secs(2)), |world| {
        world.astray = |tuple| tuple.source.port % 3 == 0;
    });
    world.call(at(secs(7)), |world| world.astray = |_| false);
    world.run(secs(120));
    assert!((1..=4).contains(&world.silences), "{}", world.silences);
    world.assert_all_delivered();
}

#[test]
fn a_single_connection_that_is_never_answered_stops_nothing() {
    let mut world = crowd(1, ms(10), secs(10));
    world.astray = |tuple| tuple.source.port == 10_100;
    world.run(secs(200));
    assert_eq!(world.silences, 0);
    assert_eq!(world.target(10_101).ended, Ended::Fin);
    assert_eq!(world.engine.stats().replicas_aborted.total(), 1);
}

#[test]
fn connections_that_are_never_answered_end_though_their_target_is_opened_again_and_again() {
    let config = Config {
        answer_timeout: secs(2),
        ..config()
    };
    let mut world = crowd_with(config, 1, ms(20), secs(2));
    // Probes are answered, and these are not.
    world.call(at(secs(1)), |world| {
        world.astray = |tuple| tuple.source.port >= 10_050
    });
    world.opened_after = Some(ms(10));
    world.run(secs(400));
    let stats = world.engine.stats();
    assert!(world.silences > 0);
    assert_eq!(stats.replicas_aborted.of(AbortReason::Timeout), 50);
    world.assert_nothing_left();
}

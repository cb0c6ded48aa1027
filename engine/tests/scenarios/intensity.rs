//! How much is copied: which sessions, how often, how far apart, and what stands against more.

use std::collections::BTreeSet;

use millrace_engine::{
    AbortReason, Caps, Config, Engine, Event, Intensity, LiveAddress, RefusalReason, Relief, Share,
    SourcePool, Stats,
};
use millrace_wire::{Endpoint, Flags, FourTuple};

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, LIVE, Live, START, TARGET, World, at, config, ms, secs, v4};
use crate::talk::*;
use Action::*;

fn talk() -> Vec<Action> {
    vec![
        says(300),
        Server(500),
        Pause(ms(40)),
        says(200),
        Server(40),
        ClientFin,
        ServerFin,
    ]
}

fn with(change: impl FnOnce(&mut Config)) -> World {
    let mut config = config();
    change(&mut config);
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk());
    world
}

/// The clients among 50,000 whose sessions an engine copies, by the number of their session.
fn chosen(intensity: f64, seed: u64, key: [u8; 16], live: Endpoint) -> BTreeSet<u32> {
    let mut config = config();
    config.services[0].live = LiveAddress::At(live.ip);
    config.seed = seed;
    config.intensity = Intensity::from_ratio(intensity);
    config.intensity_key = key;
    let mut engine = Engine::new(config);
    let mut chosen = BTreeSet::new();
    for number in 0..50_000u32 {
        let client = Endpoint::new(
            v4(100 + (number / 500) as u8),
            20_000 + (number % 500) as u16,
        );
        let mut wire = Wire::new(1);
        wire.tuple = FourTuple::new(client, live);
        for packet in [wire.syn(), wire.ack(0, 0)] {
            engine.segment(START, START, &packet.view());
        }
        while let Some(event) = engine.poll_event() {
            if matches!(event, Event::FlowOpened { .. }) {
                chosen.insert(number);
            }
        }
    }
    let captured = engine.stats().sessions_captured;
    assert_eq!(captured, chosen.len() as u64);
    assert_eq!(engine.stats().sessions_unchosen, 50_000 - captured);
    assert_eq!(
        engine.gauges().sessions,
        chosen.len(),
        "the others cost nothing"
    );
    chosen
}

#[test]
fn a_fifth_of_fifty_thousand_sessions_is_a_fifth_and_part_of_every_half() {
    let key = [3; 16];
    let fifth = chosen(0.2, 1, key, LIVE);
    let half = chosen(0.5, 1, key, LIVE);
    assert!((9_500..=10_500).contains(&fifth.len()), "{}", fifth.len());
    assert!((24_500..=25_500).contains(&half.len()), "{}", half.len());
    assert!(fifth.is_subset(&half));
    // After a restart everything else is drawn anew, and on another copier too.
    assert_eq!(chosen(0.2, 999, key, LIVE), fifth);
    let other_live = Endpoint::new(v4(11), LIVE.port);
    assert_eq!(chosen(0.2, 5, key, other_live), fifth);
    // Without the key nobody can tell.
    assert_ne!(chosen(0.2, 1, [4; 16], LIVE), fifth);
}

#[test]
fn two_and_a_half_replicas_are_two_of_each_session_and_a_third_of_every_second_one() {
    let mut world = with(|config| config.intensity = Intensity::from_ratio(2.5));
    for i in 0..400 {
        world.capture(Live::new(at(ms(i)), PORT + i as u16).play(&talk()));
    }
    world.run(secs(30));
    let stats = stats(&world);
    assert!(
        (960..=1040).contains(&stats.replicas_opened),
        "{}",
        stats.replicas_opened
    );
    assert_eq!(stats.replicas_completed, stats.replicas_opened);
    assert_eq!(stats.bytes_captured, 400 * 500);
    assert_eq!(stats.bytes_wanted, stats.replicas_opened * 500);
    assert_eq!(stats.bytes_delivered, stats.bytes_wanted);
    world.assert_nothing_left();
}

#[test]
fn with_a_factor_of_three_a_fifth_of_the_sessions_is_copied_three_times() {
    let opened = |factor| {
        let mut world = with(|config| {
            config.intensity = Intensity::from_ratio(0.2);
            config.factor = factor;
        });
        for i in 0..400 {
            world.capture(Live::new(at(ms(i)), PORT + i as u16).play(&talk()));
        }
        world.run(secs(30));
        let stats = stats(&world).clone();
        assert_eq!(
            stats.sessions_captured * u64::from(factor),
            stats.replicas_opened
        );
        assert_eq!(stats.replicas_completed, stats.replicas_opened);
        assert_eq!(stats.bytes_delivered, stats.bytes_wanted);
        world.assert_nothing_left();
        (stats.sessions_captured, stats.sessions_unchosen)
    };
    let (chosen, unchosen) = opened(3);
    assert!((60..=100).contains(&chosen), "{chosen}");
    assert_eq!(opened(1), (chosen, unchosen), "the same sessions");
}

#[test]
fn a_session_that_becomes_chosen_in_its_middle_is_picked_up_at_its_next_turn() {
    for only_from_syn in [false, true] {
        let mut world = with(|config| {
            config.intensity = Intensity::ZERO;
            config.only_from_syn = only_from_syn;
        });
        let talk = [
            says(100),
            Server(50),
            Pause(ms(100)),
            says(200),
            Server(60),
            Pause(ms(100)),
            says(300),
            Server(70),
            ClientFin,
            ServerFin,
        ];
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.call(at(ms(50)), |world| {
            world.engine.set_intensity(Intensity::ONE)
        });
        world.run(secs(30));
        assert_eq!(stats(&world).sessions_unchosen, 1);
        if only_from_syn {
            assert!(world.targets.is_empty());
            continue;
        }
        assert_eq!(stats(&world).bytes_unchosen, 100);
        assert!(
            world.received(PORT) == &said(&talk)[300..],
            "from a whole turn on"
        );
        assert_eq!(stats(&world).sessions_midway, 1);
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn at_a_lower_intensity_open_sessions_go_on_and_new_ones_are_left_out() {
    let mut world = with(|_| {});
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.call(at(ms(20)), |world| {
        world.engine.set_intensity(Intensity::ZERO)
    });
    world.capture(Live::new(at(ms(30)), PORT + 1).play(&talk()));
    world.run(secs(30));
    assert!(world.received(PORT) == said(&talk()));
    assert_eq!(
        (world.targets.len(), stats(&world).sessions_unchosen),
        (1, 1)
    );
    assert_eq!(stats(&world).bytes_unchosen, 500);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn under_pressure_a_part_of_those_that_are_chosen_is_admitted_at_any_intensity() {
    for intensity in [0.2, 1.0, 2.5] {
        let mut world = with(|config| config.intensity = Intensity::from_ratio(intensity));
        let relief = Relief {
            admit: Intensity::from_ratio(0.5),
            ..Relief::default()
        };
        world.call(at(ms(0)), move |world| {
            let now = world.now;
            world.engine.set_relief(now, relief);
        });
        for number in 0..1000u16 {
            world.capture(Live::new(at(ms(10 + u64::from(number))), PORT + number).play(&talk()));
        }
        world.run(secs(30));
        let stats = stats(&world);
        let refused = stats.sessions_refused.of(RefusalReason::Overload) as f64;
        let chosen = 1000.0 - stats.sessions_unchosen as f64;
        let part = refused / chosen;
        assert!((0.4..0.6).contains(&part), "{part} at {intensity}");
    }
}

#[test]
fn stopped_replicas_are_reset_and_counted_and_new_sessions_begin_again() {
    let mut world = with(|config| config.intensity = Intensity::replicas(3));
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.call(at(ms(20)), |world| {
        let now = world.now;
        world.engine.stop_replicas(now);
    });
    world.capture(Live::new(at(ms(100)), PORT + 1).play(&talk()));
    world.run(secs(30));
    assert_eq!(stats(&world).replicas_aborted.of(AbortReason::Stopped), 3);
    let reset = world.targets.iter().filter(|t| t.ended == Ended::Reset);
    assert_eq!(reset.count(), 3);
    assert_eq!(stats(&world).replicas_completed, 3);
    world.assert_nothing_left();
}

#[test]
fn replicas_of_one_session_begin_and_stay_apart_and_the_first_is_never_late() {
    let spread = ms(20);
    let mut world = with(|config| {
        config.intensity = Intensity::replicas(20);
        config.spread = spread;
    });
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(secs(30));
    world.assert_all_delivered();
    // Per replica: when its SYN went out, and when each of its turns did.
    let begin = world.sent[0].0;
    let syns: Vec<_> = sent_with(&world, Flags::SYN)
        .iter()
        .map(|(t, _)| t.since(begin))
        .collect();
    assert_eq!(syns.len(), 20);
    assert!(syns.iter().all(|late| *late < spread));
    let first = sent_at(&world, PORT, 300).since(begin);
    let mut apart = BTreeSet::new();
    for target in &world.targets {
        let late = sent_at(&world, target.tuple.source.port, 300).since(begin);
        // The same distance as at the beginning, or as long as its own handshake took.
        assert!(
            late >= first && late < first + spread + ms(2),
            "{late:?} after {first:?}"
        );
        apart.insert(late);
    }
    assert!(apart.len() >= 15, "second turns at {apart:?}");
    world.assert_nothing_left();
}

#[test]
fn without_a_spread_replicas_begin_together() {
    let mut world = with(|config| config.intensity = Intensity::replicas(20));
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(secs(30));
    let syns: BTreeSet<_> = sent_with(&world, Flags::SYN)
        .iter()
        .map(|(time, _)| *time)
        .collect();
    assert_eq!(syns.len(), 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

fn refused(stats: &Stats, reason: RefusalReason) -> u64 {
    stats.sessions_refused.of(reason)
}

#[test]
fn no_more_sessions_begin_in_a_second_than_allowed_and_the_others_are_counted() {
    let mut world = with(|config| {
        config.caps.new_sessions = Some(100);
        config.only_from_syn = true;
    });
    for i in 0..1000 {
        world.capture(Live::new(at(ms(i * 2)), PORT + i as u16).play(&talk()));
    }
    world.run(secs(30));
    let begun = stats(&world).sessions_captured;
    assert!(
        (195..=206).contains(&begun),
        "100 a second for two seconds: {begun}"
    );
    assert_eq!(
        refused(stats(&world), RefusalReason::MaxNewSessions),
        1000 - begun
    );
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_refused_session_is_picked_up_later_at_a_turn_but_never_beyond_the_bound() {
    let mut world = with(|config| config.caps.open_sessions = Some(5));
    let long = [
        says(100),
        Server(50),
        Pause(secs(3)),
        says(100),
        Server(50),
        Pause(secs(1)),
        ClientFin,
        ServerFin,
    ];
    let short = [says(100), Server(50), ClientFin, ServerFin];
    world.behaviour = answers_like(&long);
    for i in 0..20u16 {
        let talk = if i < 5 { &short[..] } else { &long[..] };
        world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(talk));
    }
    let mut most = 0;
    for _ in 0..1000 {
        world.run(ms(10));
        most = most.max(world.engine.gauges().sessions_copied);
    }
    assert_eq!(most, 5);
    assert_eq!(refused(stats(&world), RefusalReason::MaxOpen), 15);
    assert_eq!(
        stats(&world).sessions_midway,
        5,
        "when the first five had ended"
    );
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn the_bandwidth_is_kept_to_and_everything_arrives_late_but_whole() {
    let rate = 200_000;
    let mut world = with(|config| config.caps.bandwidth = Some(rate));
    let talk = [
        Pause(ms(50)),
        says(300_000),
        Server(10),
        ClientFin,
        ServerFin,
    ];
    world.behaviour = answers_like(&talk);
    for i in 0..4u16 {
        world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(&talk));
    }
    // More than a second's worth waits by now.
    world.capture(Live::new(at(ms(500)), PORT + 4).play(&talk));
    world.run(secs(60));
    assert_eq!(refused(stats(&world), RefusalReason::MaxBandwidth), 1);
    assert_eq!(stats(&world).bytes_delivered, 1_200_000);
    world.assert_all_delivered();
    let seconds = |time: millrace_engine::Time| time.since(START).as_secs_f64();
    let mut sent = 0;
    for (time, packet) in &world.sent {
        let allowed = rate as f64 * seconds(*time) + 65_536.0 + 2000.0;
        sent += packet.payload_len as u64;
        assert!(
            sent as f64 <= allowed,
            "{sent} bytes after {} s",
            seconds(*time)
        );
    }
    assert_eq!(
        stats(&world).retransmission_timeouts,
        0,
        "waiting is no loss"
    );
    world.assert_nothing_left();
}

#[test]
fn copiers_with_a_share_each_never_meet_at_the_target() {
    for sources in [
        SourcePool::Clients,
        SourcePool::Ranges(vec![(v4(100), v4(102))]),
    ] {
        let mut seen = BTreeSet::new();
        for index in 0..3 {
            let mut world = with(|config| {
                config.intensity = Intensity::replicas(5);
                config.sources = sources.clone();
                config.share = Share::new(index, 3);
                config.seed = 1;
            });
            for i in 0..50u16 {
                // The clients' ports lie in one copier's share only.
                world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(&talk()));
            }
            world.run(secs(30));
            world.assert_all_delivered();
            for target in &world.targets {
                assert_eq!(target.tuple.destination, TARGET);
                assert!(seen.insert(target.tuple), "{:?} twice", target.tuple);
            }
        }
        assert_eq!(seen.len(), 3 * 50 * 5);
    }
}

#[test]
fn what_a_share_cannot_hold_is_refused_and_counted_and_there_is_room_again_later() {
    // 63 ports for each client address.
    let mut world = with(|config| config.share = Share::new(7, 1024));
    let long = [says(100), Server(50), Pause(secs(5)), ClientFin, ServerFin];
    world.behaviour = answers_like(&long);
    for i in 0..100u16 {
        world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(&long));
    }
    world.run(secs(10));
    assert_eq!(stats(&world).replicas_opened, 63);
    assert_eq!(
        stats(&world).replicas_refused.of(RefusalReason::Sources),
        37
    );
    for i in 0..60u16 {
        world.capture(Live::new(at(secs(11)), PORT + 200 + i).play(&long));
    }
    world.run(secs(10));
    assert_eq!(stats(&world).replicas_opened, 123);
    assert_eq!(
        stats(&world).ports_reused_early,
        60,
        "no other port was free"
    );
    assert_eq!(stats(&world).replicas_completed, 123);
    world.assert_nothing_left();
}

#[test]
fn unanswered_connects_and_turns_are_counted_on_both_sides() {
    let mut world = with(|_| {});
    world.behaviours.insert(PORT, Behaviour::default());
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.capture(Live::new(at(ms(0)), PORT + 1).play(&talk()));
    world.drop_to_target = vec![0];
    world.run(secs(60));
    let stats = stats(&world);
    assert_eq!(stats.slow_connects, 1);
    assert_eq!(turns(&world), [(4, 0), (2, 2)]);
    world.assert_nothing_left();
}

/// Turns that were answered in time and turns that were not, at the live server and at the target.
fn turns(world: &World) -> [(u64, u64); 2] {
    let stats = stats(world);
    [
        (stats.live_turns_answered, stats.live_turns_overdue),
        (stats.target_turns_answered, stats.target_turns_overdue),
    ]
}

#[test]
fn a_turn_is_overdue_as_soon_as_its_time_is_over_and_no_second_time() {
    let mut world = with(|config| config.overdue_after = secs(2));
    let talk = [
        says(300),
        Server(500),
        Pause(secs(5)),
        says(200),
        Server(40),
        ClientFin,
        ServerFin,
    ];
    world.behaviour = answers_like(&talk);
    world.behaviour.answer_delay = secs(3);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(ms(1900));
    assert_eq!(turns(&world), [(1, 0), (0, 0)]);
    world.run(ms(200));
    assert_eq!(turns(&world), [(1, 0), (0, 1)], "with nobody to wake it");
    world.run(secs(60));
    assert_eq!(turns(&world), [(2, 0), (0, 2)]);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn what_the_live_server_leaves_waiting_is_overdue_there_too() {
    let mut world = with(|config| config.overdue_after = secs(2));
    let talk = [says(300), Pause(secs(4)), Server(500), ClientFin, ServerFin];
    world.behaviour = answers_like(&talk);
    world.behaviour.answer_delay = secs(4);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(ms(2500));
    assert_eq!(turns(&world), [(0, 1), (0, 1)]);
    world.run(secs(60));
    assert_eq!(turns(&world), [(0, 1), (0, 1)]);
    world.assert_nothing_left();
}

#[test]
fn a_question_that_nobody_can_answer_any_more_is_overdue_at_once() {
    for end in [ClientReset, ServerReset, ServerFin] {
        let mut world = with(|config| config.overdue_after = secs(30));
        world.behaviour = Behaviour {
            fin_after: matches!(end, ServerFin).then_some(0),
            ..Behaviour::default()
        };
        world.capture(Live::new(at(ms(0)), PORT).play(&[says(300), Pause(ms(5)), end]));
        world.run(secs(5));
        assert_eq!(turns(&world), [(0, 1), (0, 1)]);
    }
}

#[test]
fn a_client_that_has_sent_its_fin_may_still_be_answered() {
    let mut world = with(|_| {});
    let talk = [says(300), ClientFin, Pause(ms(500)), Server(500), ServerFin];
    world.behaviour = Behaviour {
        closes_after_client: false,
        chatter: Some((ms(500), 500, 1)),
        ..Behaviour::default()
    };
    world.call(at(secs(1)), |world| world.close_target(PORT));
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(30));
    assert_eq!(turns(&world), [(1, 0), (1, 0)]);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn no_bounds_are_the_default() {
    assert_eq!(Config::default().caps, Caps::default());
    assert_eq!(Config::default().intensity, Intensity::ONE);
}

#[test]
fn a_refused_session_is_counted_once_and_not_as_one_begun_before_capture() {
    let mut world = with(|config| config.caps.open_sessions = Some(1));
    for client in 0..30u16 {
        world.capture(Live::new(at(ms(0)), PORT + client).play(&talk()));
    }
    world.run(secs(30));
    let counted = stats(&world);
    let refused = counted.sessions_refused.of(RefusalReason::MaxOpen);
    assert!(refused >= 29, "{refused}");
    assert_eq!(counted.sessions_unpicked, 0);
    assert_eq!(counted.bytes_captured + counted.bytes_refused, 30 * 500);
    world.assert_nothing_left();
}

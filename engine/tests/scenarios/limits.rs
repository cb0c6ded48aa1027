//! Bounds and the end: memory, draining, shutting down.

use millrace_engine::{AbortReason, Config, RefusalReason};
use millrace_wire::Flags;

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, LIVE, Live, World, at, bytes, config, ms, secs};
use crate::talk::*;
use Action::*;

fn with_memory(memory_limit: u64) -> World {
    let mut world = World::new(
        Config {
            memory_limit,
            ..config()
        },
        1,
    );
    world.keep_sent = false;
    world
}

#[test]
fn above_the_memory_limit_new_sessions_are_refused_and_counted_and_open_ones_go_on() {
    let limit = 1 << 20;
    let mut world = with_memory(limit);
    // A target that does not answer: everything is kept.
    world.interceptor_up = false;
    let talk = [
        Client(bytes(1, 10_000)),
        Pause(secs(10)),
        ClientFin,
        ServerFin,
    ];
    for i in 0..200u16 {
        world.capture(Live::new(at(ms(u64::from(i) * 10)), PORT + i).play(&talk));
    }
    world.run(secs(3));
    let refused = stats(&world).sessions_refused.of(RefusalReason::Memory);
    assert!(refused > 80, "{refused}");
    assert_eq!(stats(&world).sessions_captured + refused, 200);
    let gauges = world.engine.gauges();
    assert!(gauges.memory <= limit, "{gauges:?}");
    assert!(gauges.memory > limit / 2, "{gauges:?}");
    // The way back is there again: what was accepted arrives, and new sessions are welcome.
    world.interceptor_up = true;
    world.run(secs(60));
    assert_eq!(stats(&world).replicas_aborted.total(), 0);
    world.assert_all_delivered();
    assert!(world.targets.iter().all(|t| t.received == said(&talk)));
    let captured = stats(&world).sessions_captured;
    world.capture(Live::new(at(secs(100)), PORT + 500).play(&talk));
    world.run(secs(60));
    assert_eq!(stats(&world).sessions_captured, captured + 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_session_that_takes_too_much_memory_is_given_up_and_the_others_are_not() {
    let limit = 4 << 20;
    let mut world = with_memory(limit);
    world.behaviours.insert(
        PORT,
        Behaviour {
            stall: Some((1, secs(1000))),
            window: 3000,
            ..Behaviour::default()
        },
    );
    let mut greedy = Live::new(at(ms(0)), PORT);
    greedy.segment = 20_000;
    world.capture(greedy.play(&[Client(bytes(1, 3 << 20)), Pause(secs(20)), ClientFin]));
    let modest = [says(50_000), Server(100), ClientFin, ServerFin];
    for i in 1..20u16 {
        world.behaviours.insert(PORT + i, answers_like(&modest));
        world.capture(Live::new(at(ms(u64::from(i) * 3)), PORT + i).play(&modest));
    }
    world.run(secs(60));
    assert_eq!(stats(&world).replicas_aborted.of(AbortReason::Memory), 1);
    assert_eq!(stats(&world).replicas_completed, 19);
    assert!((1..20).all(|i| world.received(PORT + i) == said(&modest)));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert!(world.engine.gauges().memory < limit / 100);
    world.assert_nothing_left();
}

#[test]
fn bytes_held_behind_a_hole_are_bounded() {
    let wire = Wire::new(PORT);
    let mut syn_ack = wire.syn_ack();
    syn_ack.header.options.window_scale = Some(14);
    let mut segments = vec![(0, wire.syn()), (0, syn_ack), (1, wire.ack(0, 0))];
    for i in 0..8000 {
        // The first byte never comes.
        segments.push((
            2 + i as u64 / 12,
            wire.data(1 + i * 10_000, 0, &bytes(1, 10_000)),
        ));
    }
    let mut world = captured(Behaviour::default(), segments);
    let mut most = 0;
    for _ in 0..100 {
        world.run(ms(7));
        most = most.max(world.engine.gauges().memory);
    }
    assert!((60 << 20..65 << 20).contains(&most), "{most}");
    world.run(secs(5));
    assert_eq!(world.received(PORT), b"");
    assert_aborted(&mut world, AbortReason::CaptureGap);
}

#[test]
fn a_flood_of_syns_is_bounded_and_forgotten() {
    let limit = 1 << 20;
    let mut world = with_memory(limit);
    for i in 0..20_000u16 {
        let wire = Wire::new(PORT + i);
        let mut syn = wire.syn();
        if i % 2 == 0 {
            // With data, as Fast Open has it.
            syn.payload = bytes(1, 1000);
            syn.payload_len = 1000;
        }
        world.capture(vec![(at(ms(u64::from(i) / 20)), syn)]);
    }
    world.run(secs(2));
    let gauges = world.engine.gauges();
    assert!(gauges.memory <= limit, "{gauges:?}");
    assert!(stats(&world).sessions_refused.of(RefusalReason::Memory) > 10_000);
    assert_eq!(stats(&world).packets_sent, 0);
    world.run(secs(70));
    assert_eq!(world.engine.gauges().memory, 0);
    world.assert_nothing_left();
}

#[test]
fn while_draining_open_sessions_finish_and_new_ones_are_refused() {
    let talk = [
        says(100),
        Server(50),
        Pause(secs(5)),
        says(3000),
        Server(70),
        ClientFin,
        ServerFin,
    ];
    let mut world = stage(answers_like(&talk), &talk);
    world.call(at(secs(2)), |world| world.engine.drain());
    world.capture(Live::new(at(secs(3)), PORT + 1).play(&talk));
    // One whose beginning was not seen is not begun either.
    let midway = Wire::new(PORT + 2);
    world.capture(vec![
        (at(secs(3)), midway.data(1000, 900, b"old")),
        (at(secs(4)), midway.answer(900, 1003, 300)),
        (at(secs(5)), midway.data(1003, 1200, b"turn")),
    ]);
    world.run(secs(60));
    assert_eq!(
        stats(&world).sessions_refused.of(RefusalReason::Draining),
        1
    );
    assert_complete(&mut world, &talk);
}

#[test]
fn at_shutdown_every_target_is_reset_at_once_and_every_replica_counted() {
    let talk = [says(100), Server(50), Pause(secs(500)), ClientFin];
    let mut world = stage(answers_like(&talk), &talk);
    for i in 1..10u16 {
        world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(&talk));
    }
    // One that has only said SYN, and one that is held back.
    world.run(secs(10));
    world.to_target.loss = 100.0;
    world.capture(Live::new(at(secs(10)), PORT + 10).play(&talk));
    let opening = Wire::new(PORT + 11);
    world.capture(vec![(at(secs(10)), opening.syn())]);
    world.run(ms(500));
    world.to_target.loss = 0.0;
    let now = world.now;
    world.engine.set_open(now, false);
    world.capture(Live::new(now, PORT + 12).play(&talk));
    world.run(ms(500));
    assert_eq!(world.engine.gauges().replicas_waiting, 1);
    let sent = world.sent.len();
    let now = world.now;
    world.engine.shutdown(now);
    world.run(ms(0));
    let resets = &world.sent[sent..];
    assert_eq!(resets.len(), 10);
    assert!(
        resets
            .iter()
            .all(|(time, p)| *time == now && p.header.flags.has(Flags::RST))
    );
    world.run(ms(1));
    assert!((0..10).all(|i| world.target(PORT + i).ended == Ended::Reset));
    assert_eq!(stats(&world).replicas_aborted.of(AbortReason::Shutdown), 12);
    // What comes by afterwards begins nothing.
    world.capture(vec![(at(secs(12)), opening.ack(0, 0))]);
    world.capture(Live::new(at(secs(13)), PORT + 20).play(&talk));
    world.run(secs(5));
    assert_eq!(stats(&world).replicas_opened, 12);
    world.assert_nothing_left();
}

#[test]
fn shutting_down_twice_or_without_sessions_does_no_harm() {
    let mut world = World::new(config(), 1);
    let now = world.now;
    world.engine.shutdown(now);
    world.engine.shutdown(now);
    world.run(secs(1));
    assert!(world.sent.is_empty());
    world.assert_nothing_left();
}

#[test]
fn timers_of_many_short_sessions_do_not_pile_up() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = with_memory(512 << 20);
    world.behaviour = answers_like(&talk);
    for i in 0..10_000u16 {
        world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(&talk));
    }
    world.run(secs(20));
    assert_eq!(stats(&world).replicas_completed, 10_000);
    assert!(world.wakeups < 12 * 10_000, "{}", world.wakeups);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn segments_of_strangers_to_which_the_live_server_says_nothing_are_soon_forgotten() {
    let mut world = World::new(config(), 1);
    for port in 1000..3000u16 {
        let mut live = Live::new(at(ms(0)), port);
        live.handshake = port % 2 == 0;
        let packets = live.play(&[says(10)]);
        let of_client = packets
            .into_iter()
            .filter(|(_, packet)| packet.tuple.destination == LIVE);
        // A SYN, or data out of nothing.
        world.capture(of_client.take(1).collect());
    }
    world.run(secs(1));
    assert_eq!(world.engine.gauges().sessions, 2000);
    world.run(secs(10));
    assert_eq!(world.engine.gauges().sessions, 0);
    assert!(world.targets.is_empty());
}

#[test]
fn a_session_met_midway_of_which_the_live_server_has_spoken_is_kept_while_it_is_idle() {
    let mut world = World::new(config(), 1);
    let talk = [
        says(300),
        Server(500),
        Pause(secs(60)),
        says(200),
        Server(40),
    ];
    let mut live = Live::new(at(ms(0)), PORT);
    live.handshake = false;
    world.behaviour = answers_like(&talk);
    world.capture(live.play(&talk));
    world.run(secs(30));
    assert_eq!(world.engine.gauges().sessions, 1);
    world.run(secs(60));
    assert_eq!(world.engine.stats().bytes_delivered, 200);
}

//! Bytes that capture lost, sessions that were set aside, and how both go on.

use millrace_engine::{AbortReason, Config, Intensity, RefusalReason, Relief};

use crate::sim::target::Ended;
use crate::sim::{Behaviour, Live, Packet, World, at, bytes, config, ms, secs};
use crate::talk::{PORT, Wire, captured, elapsed, says, sent_with, stats};
use millrace_engine::Time;
use millrace_wire::{Flags, Seq};

use crate::sim::Action::{ClientFin, Pause, Server};

/// What each of the target's connections got, in order.
fn received(world: &World) -> Vec<&[u8]> {
    world
        .targets
        .iter()
        .map(|target| &target.received[..])
        .collect()
}

fn handshake(wire: &Wire) -> Vec<(u64, Packet)> {
    vec![(0, wire.syn()), (0, wire.syn_ack()), (1, wire.ack(0, 0))]
}

#[test]
fn the_turn_behind_a_hole_goes_on_at_once_when_the_hole_is_given_up() {
    let wire = Wire::new(PORT);
    let mut segments = handshake(&wire);
    segments.extend([
        (10, wire.data(0, 0, b"one.")),
        (11, wire.answer(0, 4, 10)),
        // "two." was not captured; its answer was.
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
        (16, wire.data(14, 30, b"four.")),
        (17, wire.answer(30, 19, 10)),
        (18, wire.fin(19, 40)),
        (19, wire.server(Flags::ACK | Flags::FIN, 40, 20, 0)),
    ]);
    let mut world = captured(
        Behaviour {
            answers: vec![(4, 10), (6, 10), (11, 10)],
            ..Behaviour::default()
        },
        segments,
    );
    world.run(secs(10));
    assert_eq!(received(&world), [&b"one."[..], b"three.four."]);
    assert_eq!(world.targets[0].ended, Ended::Reset);
    assert_eq!(world.targets[1].ended, Ended::Fin);
    let stats = stats(&world);
    assert_eq!((stats.sessions_captured, stats.sessions_resumed), (1, 1));
    assert_eq!((stats.bytes_captured, stats.bytes_missing), (15, 4));
    assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (15, 15));
    assert_eq!(stats.sessions_ended, 1);
    assert_eq!(stats.replicas_completed, 1);
    assert_eq!(stats.replicas_aborted.of(AbortReason::CaptureGap), 1);
    world.assert_nothing_left();
}

#[test]
fn a_session_with_a_hole_is_watched_until_its_next_turn() {
    let wire = Wire::new(PORT);
    let mut segments = handshake(&wire);
    segments.extend([
        (10, wire.data(0, 0, b"one.")),
        (11, wire.answer(0, 4, 10)),
        // The head of a long message was lost; the rest is no turn.
        (12, wire.data(100, 10, &bytes(1, 100))),
        (13, wire.answer(10, 200, 10)),
        (2000, wire.data(200, 20, b"next.")),
        (2001, wire.answer(20, 205, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [&b"one."[..], b"next."]);
    let stats = stats(&world);
    assert_eq!(stats.bytes_missing, 96);
    assert_eq!(stats.bytes_captured, 109);
    assert_eq!(stats.bytes_wanted - stats.bytes_delivered, 100);
    assert_eq!(stats.sessions_resumed, 1);
}

#[test]
fn with_only_from_syn_a_gap_ends_the_session() {
    let wire = Wire::new(PORT);
    let mut segments = handshake(&wire);
    segments.extend([
        (10, wire.data(0, 0, b"one.")),
        (13, wire.answer(0, 8, 10)),
        (2000, wire.data(8, 10, b"three.")),
    ]);
    let mut world = World::new(
        Config {
            only_from_syn: true,
            ..config()
        },
        1,
    );
    let timed = segments
        .into_iter()
        .map(|(millis, it)| (at(ms(millis)), it));
    world.capture(timed.collect());
    world.run(secs(10));
    assert_eq!(received(&world), [b"one."]);
    assert_eq!(stats(&world).sessions_resumed, 0);
    assert_eq!(stats(&world).bytes_missing, 4);
}

fn relief(admit: f64, keep: f64) -> Relief {
    Relief {
        admit: Intensity::from_ratio(admit),
        keep: Intensity::from_ratio(keep),
    }
}

#[test]
fn a_session_that_is_set_aside_delivers_what_it_has_and_comes_back_at_a_turn() {
    let turn = || [says(500), Server(300), Pause(secs(1))];
    let talk: Vec<_> = (0..10).flat_map(|_| turn()).chain([ClientFin]).collect();
    let mut world = World::new(config(), 1);
    world.behaviour = Behaviour {
        answers: (1..=10).map(|n| (500 * n, 300)).collect(),
        ..Behaviour::default()
    };
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(ms(2500));
    let now = world.now;
    world.engine.set_relief(now, relief(0.0, 0.0));
    world.run(secs(3));
    assert_eq!(stats(&world).sessions_set_aside, 1);
    let now = world.now;
    world.engine.set_relief(now, Relief::default());
    world.run(secs(60));
    assert_eq!(world.targets.len(), 2);
    assert_eq!(world.targets[0].received.len(), 1500);
    assert_eq!(world.targets[0].ended, Ended::Reset);
    assert_eq!(world.targets[1].ended, Ended::Fin);
    assert_eq!(world.targets[1].received.len(), 2000);
    let stats = stats(&world);
    assert_eq!((stats.bytes_set_aside, stats.sessions_resumed), (1500, 1));
    assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (3500, 3500));
    assert_eq!(stats.replicas_aborted.of(AbortReason::SetAside), 1);
    assert_eq!(stats.sessions_ended, 1);
    world.assert_nothing_left();
}

#[test]
fn who_is_set_aside_first_comes_back_last_and_new_sessions_go_before() {
    let mut world = World::new(config(), 1);
    let turn = || [says(100), Server(100), Pause(secs(1))];
    let talk: Vec<_> = (0..60).flat_map(|_| turn()).collect();
    for i in 0..200 {
        world.capture(Live::new(at(ms(i)), PORT + i as u16).play(&talk));
    }
    world.behaviour = Behaviour {
        answers: (1..=60).map(|n| (100 * n, 100)).collect(),
        ..Behaviour::default()
    };
    world.run(secs(5));
    assert_eq!(world.engine.gauges().sessions_copied, 200);
    let mut copied = Vec::new();
    for keep in [0.75, 0.5, 0.25, 0.5, 0.75, 1.0] {
        let now = world.now;
        world.engine.set_relief(now, relief(0.0, keep));
        world.run(secs(5));
        copied.push(world.engine.gauges().sessions_copied);
    }
    assert!(copied[0] > copied[1] && copied[1] > copied[2], "{copied:?}");
    assert_eq!(
        (copied[3], copied[4], copied[5]),
        (copied[1], copied[0], 200)
    );

    // Nobody new while `admit` is 0.
    let start = world.now;
    let late: Vec<_> = Live::new(start + ms(1), 40_000).play(&turn());
    world.capture(late);
    world.run(secs(5));
    let refused = &stats(&world).sessions_refused;
    assert_eq!(refused.of(RefusalReason::Overload), 1);
}

#[test]
fn a_lost_syn_costs_nothing_where_the_syn_ack_was_captured() {
    let wire = Wire::new(PORT);
    let segments = vec![
        (0, wire.syn_ack()),
        (1, wire.ack(0, 0)),
        (2, wire.data(0, 0, b"whole")),
        (3, wire.answer(0, 5, 10)),
        (4, wire.fin(5, 10)),
        (5, wire.server(Flags::ACK | Flags::FIN, 10, 6, 0)),
    ];
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [b"whole"]);
    assert_eq!(stats(&world).sessions_captured, 1);
    assert_eq!(stats(&world).sessions_midway, 0);
    assert_eq!(stats(&world).replicas_completed, 1);
}

#[test]
fn a_port_used_again_without_its_handshake_is_not_taken_for_a_hole_of_gigabytes() {
    let first = Wire::new(PORT);
    for distance in [900_000_000u32, 2_009_055_648, 3_000_000_000] {
        let second = Wire {
            client_isn: first.client_isn.add(distance),
            server_isn: Seq(0x7000_0000),
            ..first
        };
        let mut segments = handshake(&first);
        segments.extend([
            (2, first.data(0, 0, b"old")),
            (3, first.answer(0, 3, 10)),
            // Its end and the next handshake were not captured.
            (100, second.data(0, 0, b"one.")),
            (101, second.answer(0, 4, 10)),
            (102, second.data(4, 10, b"two.")),
            (103, second.answer(10, 8, 10)),
            (104, second.data(8, 20, b"three.")),
        ]);
        let mut world = captured(Behaviour::default(), segments);
        world.run(secs(40));
        assert_eq!(received(&world), [&b"old"[..], b"two.three."], "{distance}");
        assert_eq!(stats(&world).bytes_missing, 0, "{distance}");
    }
}

#[test]
fn a_session_over_its_share_of_memory_comes_back_at_a_later_turn() {
    let limit = 1 << 20;
    let mut world = World::new(
        Config {
            memory_limit: limit,
            ..config()
        },
        1,
    );
    // The target takes the first byte and no more for a while.
    world.behaviour = Behaviour {
        window: 1000,
        stall: Some((1, secs(3))),
        ..Behaviour::default()
    };
    let talk = [
        says(10),
        Server(10),
        says(600_000),
        Server(10),
        Pause(secs(5)),
        says(200),
        Server(10),
        ClientFin,
    ];
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(60));
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::Memory), 1);
    assert_eq!(stats.sessions_resumed, 1);
    let last = world.targets.last().unwrap();
    assert_eq!((last.received.len(), last.ended), (200, Ended::Fin));
    let resets = sent_with(&world, Flags::RST);
    let first: Time = resets[0].0;
    assert!(elapsed(first) < 3000, "at once");
}

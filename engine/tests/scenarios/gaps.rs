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

/// A connection whose first turn, "one.", is answered with ten bytes.
fn one_turn(wire: &Wire) -> Vec<(u64, Packet)> {
    let mut segments = handshake(wire);
    segments.push((10, wire.data(0, 0, b"one.")));
    segments.push((11, wire.answer(0, 4, 10)));
    segments
}

#[test]
fn the_turn_behind_a_hole_goes_on_at_once_when_the_hole_is_given_up() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
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

/// Of a connection of which "one." arrived, and then these segments and "three." at 8, nothing but the four bytes between
/// is lost.
#[track_caller]
fn assert_one_turn_is_lost(wire: &Wire, lost: Vec<(u64, Packet)>, ack: u8) {
    let mut segments = one_turn(wire);
    segments.extend(lost);
    segments.extend([
        (15, wire.data(8, ack.into(), b"three.")),
        (16, wire.answer(ack.into(), 14, 10)),
        (18, wire.fin(14, u32::from(ack) + 10)),
        (
            19,
            wire.server(Flags::ACK | Flags::FIN, i32::from(ack) + 10, 15, 0),
        ),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(received(&world), [&b"one."[..], b"three."]);
    assert_eq!(stats(&world).bytes_missing, 4);
    world.assert_nothing_left();
}

#[test]
fn a_turn_lost_with_the_first_part_of_its_answer_costs_no_other() {
    let wire = Wire::new(PORT);
    let lost = vec![
        // "two." and ten bytes of its answer were not captured.
        (13, wire.answer(20, 8, 10)),
        (14, wire.ack(4, 30)),
    ];
    assert_one_turn_is_lost(&wire, lost, 30);
}

#[test]
fn a_turn_lost_with_the_last_part_of_its_answer_costs_no_other() {
    let wire = Wire::new(PORT);
    let lost = vec![
        // "two." was not captured, nor were ten more bytes of its answer, which "three." acknowledges.
        (13, wire.answer(10, 8, 10)),
    ];
    assert_one_turn_is_lost(&wire, lost, 30);
}

#[test]
fn a_turn_lost_with_its_whole_answer_costs_only_the_next_one() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        // "two." and its answer were not captured: what "three." acknowledges shows it, and the answer to that.
        (15, wire.data(8, 20, b"three.")),
        (16, wire.answer(20, 14, 10)),
        (18, wire.data(14, 30, b"four.")),
        (19, wire.answer(30, 19, 10)),
        (20, wire.fin(19, 40)),
        (21, wire.server(Flags::ACK | Flags::FIN, 40, 20, 0)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(received(&world), [&b"one."[..], b"four."]);
    assert_eq!(stats(&world).bytes_missing, 4);
    world.assert_nothing_left();
}

#[test]
fn a_session_with_a_hole_is_watched_until_its_next_turn() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
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
fn a_forged_segment_behind_a_hole_costs_no_turn_when_the_hole_is_given_up() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        // The head of a long message was lost.
        (12, wire.data(100, 10, &bytes(1, 100))),
        (13, wire.answer(10, 200, 10)),
        // Somebody has guessed the client's number, and not the live server's.
        (99, wire.data(200, 60_000_000, b"EVIL.")),
        (100, wire.server(Flags::ACK, 20, 200, 0)),
        (2600, wire.data(200, 20, b"next.")),
        (2601, wire.answer(20, 205, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [&b"one."[..], b"next."]);
    assert_eq!(stats(&world).segments_out_of_window, 1);
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

#[test]
fn the_rest_of_a_message_whose_head_was_only_acknowledged_is_no_turn() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (12, wire.ack(4, 10)),
        // "HEAD" (4..8) was lost; its pure acknowledgement was captured.
        (20, wire.answer(10, 8, 0)),
        // The rest of the same message.
        (25, wire.data(8, 10, b"BODY")),
        (26, wire.answer(10, 12, 10)),
        (30, wire.data(12, 20, b"next.")),
        (31, wire.answer(20, 17, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [&b"one."[..], b"next."]);
}

#[test]
fn the_rest_of_a_message_is_no_turn_for_one_who_watches() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (12, wire.ack(4, 10)),
        (20, wire.answer(10, 9, 0)),
        // A slow upload: the body comes after the grace.
        (3000, wire.data(9, 10, b"BODY")),
        (3001, wire.answer(10, 13, 10)),
        (3030, wire.data(13, 20, b"next.")),
        (3031, wire.answer(20, 18, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [&b"one."[..], b"next."]);
}

/// A recording of these segments, replayed to its end.
fn replayed_to_its_end(segments: &[(u64, Packet)]) -> World {
    let recorded = millrace_engine::Recorded::default();
    let mut world = World::new(
        Config {
            recorded: Some(recorded),
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        answers: vec![(4, 10), (6, 10)],
        ..Behaviour::default()
    };
    let now = world.now;
    for (when, packet) in segments {
        let at = at(ms(*when));
        world.engine.segment(now, at, &packet.view());
    }
    world.engine.end_of_recording(now);
    world.run(secs(20));
    world
}

#[test]
fn the_end_of_a_recording_keeps_the_end_that_was_captured_behind_a_hole() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
        (18, wire.fin(14, 30)),
        (19, wire.server(Flags::ACK | Flags::FIN, 30, 15, 0)),
    ]);
    let world = replayed_to_its_end(&segments);
    assert_eq!(received(&world), [&b"one."[..], b"three."]);
    assert_eq!(world.targets[1].ended, Ended::Fin);
}

#[test]
fn what_follows_a_hole_is_cut_by_the_end_of_a_recording_and_no_gap() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
    ]);
    let world = replayed_to_its_end(&segments);
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::CaptureGap), 1);
    assert_eq!(stats.replicas_completed, 1);
}

#[test]
fn many_holes_do_not_cost_a_grace_each() {
    let wire = Wire::new(PORT);
    let mut segments = handshake(&wire);
    let (mut c, mut s, mut t) = (0i32, 0i32, 10u64);
    for turn in 0..60 {
        if turn % 3 != 1 {
            segments.push((t, wire.data(c, s as u32, b"turn")));
        }
        c += 4;
        segments.push((t + 1, wire.answer(s, c as u32, 10)));
        s += 10;
        t += 10;
    }
    let mut world = captured(
        Behaviour {
            answers: (1..60).map(|n| (4 * n, 10)).collect(),
            ..Behaviour::default()
        },
        segments,
    );
    let mut last = 0;
    for step in 0..1000 {
        world.run(ms(100));
        let got: usize = world.targets.iter().map(|t| t.received.len()).sum();
        if got == 160 {
            last = step;
            break;
        }
        last = step;
    }
    println!(
        "all delivered after {} ms; replicas {}",
        last * 100,
        stats(&world).replicas_opened
    );
    assert!(last < 40, "{last}");
}

#[test]
fn a_stray_segment_makes_no_gigabytes_missing() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (12, wire.data(100, 10, &bytes(1, 100))),
        (13, wire.answer(10, 200, 10)),
        // From nowhere.
        (1500, wire.data(1_500_000_000, 20, b"x")),
        (2000, wire.data(200, 20, b"next.")),
        (2001, wire.answer(20, 205, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(20));
    assert_eq!(received(&world), [&b"one."[..], b"next."]);
    assert_eq!(stats(&world).bytes_missing, 96);
}

#[test]
fn what_was_stopped_stays_stopped() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        // "two." lost, answered
        (13, wire.answer(10, 8, 10)),
        (3000, wire.data(8, 20, b"three.")),
        (3001, wire.answer(20, 14, 10)),
        (3100, wire.data(14, 30, b"four.")),
        (3101, wire.answer(30, 19, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(ms(500));
    let now = world.now;
    world.engine.stop_replicas(now);
    world.run(secs(20));
    assert_eq!(world.targets.len(), 1);
    assert_eq!(stats(&world).sessions_resumed, 0);
}

#[test]
fn what_was_stopped_is_not_set_aside() {
    let turn = || [says(500), Server(300), Pause(secs(1))];
    let talk: Vec<_> = (0..10).flat_map(|_| turn()).chain([ClientFin]).collect();
    let mut world = World::new(config(), 1);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(ms(2500));
    let now = world.now;
    world.engine.stop_replicas(now);
    world.engine.set_relief(now, relief(0.0, 0.0));
    world.run(secs(1));
    let now = world.now;
    world.engine.set_relief(now, Relief::default());
    world.run(secs(20));
    assert_eq!(stats(&world).sessions_set_aside, 0);
    assert_eq!(world.targets.len(), 1);
}

#[test]
fn thousands_of_holes_cost_neither_the_stack_nor_thousands_of_connections() {
    let wire = Wire::new(PORT);
    let mut world = World::new(
        Config {
            memory_limit: 4 << 20,
            ..config()
        },
        1,
    );
    for (when, p) in handshake(&wire) {
        world.engine.segment(world.now, at(ms(when)), &p.view());
    }
    world.run(ms(20));
    let now = world.now;
    let (mut c, mut s) = (0i32, 0i32);
    for turn in 0..60_000 {
        if turn % 2 == 1 {
            let p = wire.data(c, s as u32, b"turn");
            world.engine.segment(now, now, &p.view());
        }
        c += 4;
        let p = wire.answer(s, c as u32, 10);
        world.engine.segment(now, now, &p.view());
        s += 10;
    }
    let opened = stats(&world).replicas_opened;
    assert!(opened < 1000, "{opened}");
    assert!(world.engine.gauges().memory < 5 << 20);
}

#[test]
fn what_is_missing_of_a_session_that_is_set_aside_is_counted() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([(13, wire.answer(10, 108, 10))]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(ms(500));
    let now = world.now;
    world.engine.set_relief(now, relief(0.0, 0.0));
    world.run(secs(400));
    let stats = stats(&world);
    assert_eq!(stats.bytes_missing + stats.bytes_set_aside, 104);
}

#[test]
fn a_gap_is_no_latency_of_the_live_server() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
        (516, wire.data(14, 30, b"four.")),
        (517, wire.answer(30, 19, 10)),
        (1600, wire.data(19, 40, b"five.")),
        (1601, wire.answer(40, 24, 10)),
        (1700, wire.fin(24, 50)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    let last = &stats(&world).live_latency.last_byte;
    assert!(last.max() < 50_000, "{}", last.max());
}

#[test]
fn while_memory_is_full_nobody_comes_back() {
    let mut world = World::new(
        Config {
            memory_limit: 1 << 20,
            ..config()
        },
        1,
    );
    for i in 0..7u16 {
        let port = 20_000 + i;
        world.behaviours.insert(
            port,
            Behaviour {
                window: 1000,
                stall: Some((1, secs(100))),
                ..Behaviour::default()
            },
        );
        world.capture(Live::new(at(ms(i as u64)), port).play(&[
            says(100_000),
            Pause(secs(1)),
            says(35_000),
            Pause(secs(100)),
        ]));
    }
    let wire = Wire::new(30_000);
    world.behaviours.insert(
        30_000,
        Behaviour {
            window: 1000,
            stall: Some((1, secs(100))),
            ..Behaviour::default()
        },
    );
    let mut segments = handshake(&wire);
    segments.push((5000, wire.data(0, 0, &bytes(1, 200_000))));
    world.capture(segments.into_iter().map(|(w, p)| (at(ms(w)), p)).collect());
    let turn = || [says(50), Server(30), Pause(ms(100))];
    let talk: Vec<_> = (0..100).flat_map(|_| turn()).chain([ClientFin]).collect();
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(15));
    assert!(stats(&world).sessions_resumed < 5);
}

#[test]
fn a_reset_of_the_live_server_behind_a_hole_keeps_the_turns_before_it() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
        (20, wire.server(Flags::RST | Flags::ACK, 30, 14, 0)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(received(&world), [&b"one."[..], b"three."]);
}

#[test]
fn while_draining_nothing_goes_on_behind_a_hole() {
    let wire = Wire::new(PORT);
    let mut segments = one_turn(&wire);
    segments.extend([
        (13, wire.answer(10, 8, 10)),
        (14, wire.data(8, 20, b"three.")),
        (15, wire.answer(20, 14, 10)),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(ms(100));
    world.engine.drain();
    let now = world.now;
    world.engine.set_intensity(Intensity::from_ratio(0.0));
    world.engine.set_relief(now, relief(0.0, 1.0));
    world.run(secs(10));
    assert_eq!(received(&world), [&b"one."[..]]);
}

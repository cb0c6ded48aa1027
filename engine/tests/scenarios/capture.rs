//! What capture delivers: lines 1 to 10.

use millrace_engine::{AbortReason, Config, Service};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq};

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, LIVE, Live, TARGET, World, at, bytes, config, ms, secs, v4};
use crate::talk::*;
use Action::*;

// 1: segments out of order, duplicated, seen on two interfaces.

#[test]
fn segments_captured_out_of_order_arrive_in_order_and_once() {
    let talk = [
        says(30_000),
        Server(500),
        says(20_000),
        Server(10),
        ClientFin,
    ];
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    // Neighbours change places, over up to four segments.
    for i in (4..packets.len() - 3).step_by(2) {
        let (one, other) = (packets[i].0, packets[i + 3].0);
        packets[i].0 = other;
        packets[i + 3].0 = one;
    }
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk);
    world.capture(packets);
    world.run(secs(20));
    assert_eq!(stats(&world).bytes_repeated, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn segments_seen_on_two_interfaces_are_delivered_once() {
    let talk = [says(5000), Server(500), says(700), Server(10), ClientFin];
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    let twice: Vec<_> = packets
        .iter()
        .map(|(t, p)| (*t + ms(0), p.clone()))
        .collect();
    packets.extend(twice);
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk);
    world.capture(packets);
    world.run(secs(20));
    assert_eq!(stats(&world).sessions_captured, 1);
    assert_eq!(stats(&world).bytes_repeated, 5700);
    assert_eq!(stats(&world).bytes_differing, 0);
    assert_complete(&mut world, &talk);
}

// 2: client retransmissions, with the same and with shifted boundaries, with differing bytes.

#[test]
fn client_retransmissions_with_any_boundaries_add_nothing() {
    let wire = Wire::new(PORT);
    let mut segments: Vec<_> = vec![(0, wire.syn()), (0, wire.syn_ack()), (1, wire.ack(0, 0))];
    segments.extend([
        (2, wire.data(0, 0, b"abcdef")),
        (3, wire.data(0, 0, b"abcdef")),
        (4, wire.data(3, 0, b"defghi")),
        (5, wire.data(0, 0, b"abcdefghijkl")),
        (6, wire.data(5, 0, b"f")),
        (7, wire.fin(12, 0)),
        (8, wire.fin(12, 0)),
        (8, wire.client(Flags::ACK | Flags::FIN, 9, 0, b"jkl")),
    ]);
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"abcdefghijkl");
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    assert_eq!(stats(&world).bytes_captured, 12);
    assert_eq!(stats(&world).bytes_repeated, 6 + 3 + 9 + 1 + 3);
    assert_eq!(stats(&world).bytes_differing, 0);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn an_overlap_with_differing_bytes_keeps_the_first_copy_and_is_counted() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour {
            // Keeps the first bytes in the engine, so that it can compare.
            window: 2,
            window_scale: None,
            ..Behaviour::default()
        },
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (2, wire.data(0, 0, b"abcdef")),
            (2, wire.data(4, 0, b"XYgh")),
            (2, wire.data(10, 0, b"kl")),
            (2, wire.data(8, 0, b"ijZZ")),
            (3, wire.fin(12, 0)),
        ],
    );
    world.run(secs(30));
    assert_eq!(world.received(PORT), b"abcdefghijkl");
    assert!(
        stats(&world).bytes_differing >= 2,
        "{}",
        stats(&world).bytes_differing
    );
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// 3: gaps.

#[test]
fn a_gap_that_is_filled_later_holds_back_what_follows_and_no_more() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour {
            answers: vec![(18, 5)],
            ..Behaviour::default()
        },
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (10, wire.data(0, 0, b"first ")),
            (11, wire.data(13, 0, b"third")),
            (500, wire.data(6, 0, b"second ")),
            (510, wire.answer(0, 18, 5)),
            (520, wire.fin(18, 5)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"first second third");
    assert!(elapsed(sent_at(&world, PORT, 5)) < 20);
    assert!((500..520).contains(&elapsed(sent_at(&world, PORT, 13))));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_gap_that_the_live_server_acknowledged_ends_the_session_as_capture_loss() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (10, wire.data(0, 0, b"first ")),
            (11, wire.data(13, 0, b"third")),
            (12, wire.answer(0, 18, 5)),
            (3000, wire.data(18, 5, b"more")),
            (3001, wire.fin(22, 5)),
        ],
    );
    world.run(secs(10));
    assert_eq!(
        world.received(PORT),
        b"first ",
        "never anything behind the gap"
    );
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    let resets = sent_with(&world, Flags::RST);
    assert!(
        (1000..1200).contains(&elapsed(resets[0].0)),
        "{}",
        elapsed(resets[0].0)
    );
    assert_aborted(&mut world, AbortReason::CaptureGap);
}

#[test]
fn a_gap_before_the_clients_reset_is_capture_loss() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (10, wire.data(0, 0, b"first ")),
            (11, wire.reset(13)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"first ");
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_aborted(&mut world, AbortReason::CaptureGap);
}

#[test]
fn a_gap_before_a_fin_that_nobody_ever_acknowledged_is_given_up_when_idle() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (10, wire.data(0, 0, b"first ")),
            (11, wire.fin(13, 0)),
        ],
    );
    world.run(secs(3000));
    assert_eq!(
        world.engine.gauges().replicas,
        1,
        "the hole may still be filled"
    );
    world.run(secs(700));
    assert_eq!(world.received(PORT), b"first ");
    assert_aborted(&mut world, AbortReason::Idle);
}

// 4: capture starts in the middle of a session.

#[test]
fn a_session_met_midway_is_picked_up_at_its_next_turn() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.data(70_000, 900, b"the end of a message")),
            (1, wire.answer(900, 70_020, 300)),
            (5, wire.data(70_020, 1200, b"a whole turn, ")),
            (5, wire.data(70_034, 1200, b"in two segments")),
            (6, wire.answer(1200, 70_049, 300)),
            (9, wire.data(70_049, 1500, b"and one more")),
            (10, wire.fin(70_061, 1500)),
        ],
    );
    world.run(secs(30));
    assert_eq!(
        world.received(PORT),
        b"a whole turn, in two segmentsand one more"
    );
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    assert_eq!(stats(&world).sessions_midway, 1);
    assert_eq!(stats(&world).bytes_refused, 20);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn nothing_is_sent_of_a_message_that_capture_met_inside() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            // An upload that goes on and on, the server acknowledging without a word.
            (0, wire.data(1000, 0, b"aaaa")),
            (1, wire.answer(0, 1004, 0)),
            (200, wire.data(1004, 0, b"bbbb")),
            (201, wire.data(1008, 0, b"cccc")),
            // An answer to a part of it only.
            (202, wire.answer(0, 1008, 10)),
            (203, wire.data(1012, 10, b"dddd")),
            // A retransmission does not begin a turn.
            (204, wire.answer(10, 1016, 10)),
            (205, wire.data(1012, 20, b"dddd")),
            // Nor does a client that has not seen the whole answer.
            (206, wire.answer(20, 1016, 10)),
            (207, wire.data(1016, 20, b"eeee")),
            (208, wire.fin(1020, 30)),
        ],
    );
    world.run(secs(10));
    assert!(world.sent.is_empty());
    assert_eq!(stats(&world).sessions_captured, 0);
    assert_eq!(stats(&world).bytes_refused, 24);
    world.assert_nothing_left();
}

#[test]
fn with_only_from_syn_a_session_met_midway_is_ignored() {
    let wire = Wire::new(PORT);
    let mut world = World::new(
        Config {
            only_from_syn: true,
            ..config()
        },
        1,
    );
    world.capture(vec![
        (at(ms(0)), wire.data(1000, 900, b"old")),
        (at(ms(1)), wire.answer(900, 1003, 300)),
        (at(ms(5)), wire.data(1003, 1200, b"turn")),
    ]);
    world.run(secs(1));
    assert!(world.sent.is_empty());
    assert_eq!(world.engine.gauges().sessions, 0);
    assert_eq!(stats(&world).bytes_refused, 7);
    world.assert_nothing_left();
}

// 5: super-packets, cut packets. (Decoding of frames and fragments: wire/tests/roundtrip.rs.)

#[test]
fn a_super_packet_is_cut_to_the_targets_segment_size() {
    let data = bytes(5, 180_000);
    let talk = [Client(data), Server(100), ClientFin];
    let mut live = Live::new(at(ms(0)), PORT);
    live.segment = 180_000; // BIG TCP: one captured packet
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk);
    world.capture(live.play(&talk));
    world.run(secs(20));
    // 1460 of the target's MSS, less 12 bytes of timestamps.
    assert_eq!(world.target(PORT).largest_payload, 1448);
    assert_eq!(stats(&world).client_segments, 2 + 1 + 1);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_cut_packet_is_completed_by_its_retransmission() {
    let wire = Wire::new(PORT);
    let mut cut = wire.data(0, 0, b"a message that capture has cut");
    cut.payload.truncate(10);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (2, cut),
            (100, wire.data(0, 0, b"a message that capture has cut")),
            (101, wire.fin(30, 0)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"a message that capture has cut");
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_cut_packet_that_never_comes_whole_is_capture_loss_and_no_garbage() {
    let wire = Wire::new(PORT);
    let mut cut = wire.data(0, 0, b"a message that capture has cut");
    cut.payload.truncate(10);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (2, cut),
            (3, wire.answer(0, 30, 40)),
            (4, wire.data(30, 40, b"next")),
            (5, wire.fin(34, 40)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"a message ");
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_aborted(&mut world, AbortReason::CaptureGap);
}

// 6: wraps.

#[test]
fn sequence_numbers_of_client_and_live_server_may_wrap() {
    let talk = [
        says(9000),
        Server(9000),
        says(9000),
        Server(9000),
        ClientFin,
    ];
    let mut live = Live::new(at(ms(0)), PORT);
    live.client_isn = Seq(u32::MAX - 4000);
    live.server_isn = Seq(u32::MAX - 10_000);
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk);
    world.capture(live.play(&talk));
    world.run(secs(20));
    assert_eq!(stats(&world).gate_overridden + stats(&world).gate_quiet, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn sequence_numbers_towards_the_target_and_back_may_wrap() {
    let talk = [
        says(9000),
        Server(9000),
        says(9000),
        Server(9000),
        ClientFin,
    ];
    let probe = replay(answers_like(&talk), &talk);
    let isn = sent_with(&probe, Flags::SYN)[0].1.header.seq;
    // The initial number is a clock of 4 µs: wait until it stands just before the wrap.
    let wait = std::time::Duration::from_micros(4 * u64::from(u32::MAX - 5000 - isn.0));
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk);
    world.capture(Live::new(at(wait), PORT).play(&talk));
    world.run(wait + secs(20));
    let isn = sent_with(&world, Flags::SYN)[0].1.header.seq;
    assert!(isn.0 > u32::MAX - 6000, "{isn:?}");
    assert_complete(&mut world, &talk);
}

#[test]
fn timestamps_may_wrap_on_both_sides() {
    let pause = [Pause(ms(40))];
    let mut talk = Vec::new();
    for _ in 0..5 {
        talk.extend([says(300), Server(300)]);
        talk.extend(pause.clone());
    }
    talk.push(ClientFin);
    // The engine's clock counts milliseconds modulo 2^32.
    let now = at(ms(0)).as_micros() / 1000;
    let wait = ms((1 << 32) - now % (1 << 32) - 100);
    let mut world = World::new(config(), 1);
    world.behaviour = Behaviour {
        timestamp_base: 0,
        ..answers_like(&talk)
    };
    world.capture(Live::new(at(wait), PORT).play(&talk));
    world.run(wait + secs(20));
    let values = |p: &crate::sim::Packet| p.header.options.timestamps.unwrap().0;
    assert!(values(&world.sent[0].1) > u32::MAX - 1000);
    assert!(values(&world.sent.last().unwrap().1) < 1000);
    // What the target's clock showed came back, never an older value after a newer one.
    let echoes = &world.target(PORT).echoes;
    assert!(echoes.len() > 5, "{echoes:?}");
    assert!(
        echoes
            .windows(2)
            .all(|pair| Seq(pair[1]).after(Seq(pair[0]))),
        "{echoes:?}"
    );
    assert!(echoes.first() > echoes.last(), "wrapped: {echoes:?}");
    assert_complete(&mut world, &talk);
}

// 7: repeated SYNs and ports that are used again.

#[test]
fn a_retransmitted_syn_is_the_same_session() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (1000, wire.syn()),
            (3000, wire.syn()),
            (3001, wire.syn_ack()),
            (3002, wire.ack(0, 0)),
            (3003, wire.syn()),
            (3004, wire.data(0, 0, b"hello")),
            (3005, wire.fin(5, 0)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"hello");
    assert_eq!(stats(&world).sessions_captured, 1);
    assert_eq!(world.targets.len(), 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_port_used_again_while_the_old_replica_is_open_is_another_session_and_both_are_replayed() {
    // The target is slow: its answer to the first turn takes a second, so the old replica is
    // still at it when the client comes back with the same port.
    let talk = [
        says(100),
        Server(50),
        says(200),
        Server(50),
        ClientFin,
        ServerFin,
    ];
    let mut world = stage(
        Behaviour {
            answer_delay: secs(1),
            ..answers_like(&talk)
        },
        &talk,
    );
    let again = [says(300), ClientFin, ServerFin];
    let mut second = Live::new(at(ms(100)), PORT);
    second.client_isn = Seq(4_000_000_000);
    world.capture(second.play(&again));
    world.run(secs(20));
    assert_eq!(world.targets.len(), 2);
    assert_eq!(world.targets[0].received, said(&talk));
    assert_eq!(world.targets[1].received, said(&again));
    assert_eq!(world.targets[0].tuple.source.port, PORT);
    assert_ne!(
        world.targets[1].tuple.source.port, PORT,
        "the old flow is in use"
    );
    assert!(
        world
            .targets
            .iter()
            .all(|target| target.ended == Ended::Fin)
    );
    assert_eq!(stats(&world).sessions_captured, 2);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_port_used_again_after_the_end_keeps_its_flow_with_higher_numbers() {
    // What a target in TIME-WAIT wants to see (RFC 6191): a higher number or timestamp.
    let talk = [says(50_000), ClientFin, ServerFin];
    for pause in [30, 300, 3000] {
        let mut world = stage(Behaviour::default(), &talk);
        let mut second = Live::new(at(ms(pause)), PORT);
        second.client_isn = Seq(1);
        world.capture(second.play(&talk));
        world.run(secs(20));
        assert_eq!(world.targets.len(), 2, "after {pause} ms");
        for target in &world.targets {
            assert_eq!(target.tuple.source.port, PORT);
            assert!(target.received == said(&talk), "after {pause} ms");
        }
        let syns = sent_with(&world, Flags::SYN);
        let stamp = |i: usize| Seq(syns[i].1.header.options.timestamps.unwrap().0);
        assert!(syns[1].1.header.seq.after(syns[0].1.header.seq));
        assert!(stamp(1).after(stamp(0)));
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn late_segments_of_an_old_connection_do_not_end_the_new_one_on_its_port() {
    let old = Wire::new(PORT);
    let new = Wire {
        client_isn: old.client_isn.add(1_000_000),
        server_isn: old.server_isn.add(1_000_000),
        ..old
    };
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, old.syn()),
            (0, old.syn_ack()),
            (1, old.ack(0, 0)),
            (2, old.data(0, 0, b"old")),
            (3, old.fin(3, 0)),
            (100, new.syn()),
            // While the handshake is under way, and after it.
            (101, old.reset(4)),
            (101, old.server(Flags::RST | Flags::ACK, 0, 4, 0)),
            (102, new.syn_ack()),
            (103, new.ack(0, 0)),
            (104, old.fin(3, 0)),
            (105, old.reset(4)),
            (106, old.data(0, 0, b"old")),
            (110, new.data(0, 0, b"new")),
            (111, new.fin(3, 0)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.targets.len(), 2);
    assert_eq!(world.targets[0].received, b"old");
    assert_eq!(world.targets[1].received, b"new");
    assert!(
        world
            .targets
            .iter()
            .all(|target| target.ended == Ended::Fin)
    );
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn an_open_session_whose_client_comes_back_with_a_new_syn_delivers_what_it_has() {
    let old = Wire::new(PORT);
    let new = Wire {
        client_isn: old.client_isn.add(1_000_000),
        server_isn: old.server_isn.add(1_000_000),
        ..old
    };
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, old.syn()),
            (0, old.syn_ack()),
            (1, old.ack(0, 0)),
            (2, old.data(0, 0, b"all that was said")),
            // The client's host was cut off and started again.
            (5000, new.syn()),
            (5001, new.syn_ack()),
            (5002, new.ack(0, 0)),
            (5003, new.data(0, 0, b"new")),
            (5004, new.fin(3, 0)),
        ],
    );
    world.run(secs(20));
    assert_eq!(world.targets[0].received, b"all that was said");
    assert_eq!(
        world.targets[0].ended,
        Ended::Reset,
        "as the live connection was cut"
    );
    assert_eq!(world.targets[1].received, b"new");
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// 8: two services.

#[test]
fn the_same_client_port_to_two_services_is_two_sessions() {
    let other = Endpoint::new(LIVE.ip, 443);
    let other_target = Endpoint::new(v4(21), 9443);
    let mut config = config();
    config.services.push(Service {
        live_ip: Some(other.ip),
        live_port: other.port,
        target: other_target,
    });
    let talks = [
        [says(4000), Server(100), ClientFin],
        [says(5000), Server(9), ClientFin],
    ];
    let mut world = World::new(config, 1);
    for (talk, live) in talks.iter().zip([LIVE, other]) {
        let mut session = Live::new(at(ms(0)), PORT);
        session.live = live;
        world.capture(session.play(talk));
    }
    world.run(secs(20));
    for (talk, to) in talks.iter().zip([TARGET, other_target]) {
        let target = world
            .targets
            .iter()
            .find(|target| target.tuple.destination == to);
        let target = target.expect("both targets got a connection");
        assert!(target.received == said(talk));
        assert_eq!(
            target.tuple.source.port, PORT,
            "ports differ by target anyway"
        );
        assert_eq!(target.ended, Ended::Fin);
    }
    assert_eq!(world.targets.len(), 2);
    assert_eq!(stats(&world).sessions_captured, 2);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// 9: Fast Open and urgent data.

#[test]
fn data_in_the_syn_is_delivered_once_whether_the_live_server_took_it_or_not() {
    for taken in [true, false] {
        let wire = Wire::new(PORT);
        let mut segments = vec![(0, wire.client(Flags::SYN, -1, 0, b"fast "))];
        segments[0].1.payload_len = 5;
        segments.push((
            1,
            wire.server(Flags::SYN | Flags::ACK, -1, if taken { 5 } else { 0 }, 0),
        ));
        segments.push((2, wire.ack(if taken { 5 } else { 0 }, 0)));
        if !taken {
            segments.push((2, wire.data(0, 0, b"fast ")));
        }
        segments.push((3, wire.data(5, 0, b"open")));
        segments.push((4, wire.fin(9, 0)));
        let mut world = captured(Behaviour::default(), segments);
        world.run(secs(10));
        assert_eq!(world.received(PORT), b"fast open");
        assert_eq!(stats(&world).bytes_captured, 9);
        let syn = &sent_with(&world, Flags::SYN)[0].1;
        assert_eq!(
            syn.payload_len, 0,
            "towards the target it waits for the handshake"
        );
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn urgent_data_ends_the_session_counted_and_sends_no_garbage() {
    let wire = Wire::new(PORT);
    let mut urgent = wire.client(Flags::ACK | Flags::URG, 7, 0, b"!");
    urgent.header.urgent = 1;
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (2, wire.data(0, 0, b"regular")),
            (100, urgent),
            (101, wire.data(8, 0, b"and on")),
            (102, wire.fin(14, 0)),
        ],
    );
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"regular");
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_aborted(&mut world, AbortReason::Urgent);
}

// 10: keepalive probes of the client.

#[test]
fn keepalive_probes_of_the_client_send_no_byte() {
    let wire = Wire::new(PORT);
    let mut world = captured(
        Behaviour::default(),
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            // Before the first byte: with none, and with one byte of garbage.
            (1000, wire.ack(-1, 0)),
            (2000, wire.data(-1, 0, b"\0")),
            (3000, wire.data(0, 0, b"hello")),
            (4000, wire.ack(4, 0)),
            (5000, wire.data(4, 0, b"\0")),
            (5001, wire.answer(0, 5, 0)),
            (6000, wire.data(4, 0, b"\0")),
        ],
    );
    world.run(ms(2900));
    let before = world.sent.len();
    assert_eq!(before, 2, "SYN and ACK, nothing for the probes");
    world.run(ms(3900) - ms(2900));
    let before = world.sent.len();
    world.run(secs(60));
    assert_eq!(world.sent.len(), before, "nothing for the probes");
    world.capture(vec![(at(secs(70)), wire.fin(5, 0))]);
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"hello");
    assert_eq!(stats(&world).bytes_captured, 5);
    assert_eq!(stats(&world).bytes_sent, 5);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// Other traffic.

#[test]
fn a_tuple_of_no_service_is_not_copied() {
    let mut wire = Wire::new(PORT);
    wire.tuple = FourTuple::new(wire.tuple.source, Endpoint::new(LIVE.ip, 81));
    let mut world = captured(
        Behaviour::default(),
        vec![(0, wire.syn()), (1, wire.ack(0, 0))],
    );
    world.run(secs(1));
    assert!(world.sent.is_empty());
    assert_eq!(stats(&world).segments_unowned, 2);
    world.assert_nothing_left();
}

//! What capture delivers: lines 1 to 5.

use millrace_engine::{AbortReason, Config};
use millrace_wire::Flags;

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, Live, World, at, bytes, config, ms, secs};
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
fn a_gap_that_the_live_server_acknowledged_costs_its_turn_as_capture_loss() {
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
        (1000..2200).contains(&elapsed(resets[0].0)),
        "{}",
        elapsed(resets[0].0)
    );
    // The turn behind it is whole, and goes on a connection of its own.
    assert_eq!(world.targets.len(), 2);
    assert_eq!(world.targets[1].received, b"more");
    assert_eq!(stats(&world).sessions_resumed, 1);
    assert_eq!(stats(&world).bytes_missing, 7);
    assert_eq!(
        stats(&world).replicas_aborted.of(AbortReason::CaptureGap),
        1
    );
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
    world.run(secs(70));
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
    assert_eq!(world.targets[1].received, b"next");
    assert_eq!(
        stats(&world).replicas_aborted.of(AbortReason::CaptureGap),
        1
    );
}

//! Segments that somebody else sent in a client's or the live server's name, or that were meant for another connection,
//! in every phase of a session; and ordinary traffic that looks like them.

use millrace_engine::AbortReason;
use millrace_wire::{Flags, Seq};

use crate::sim::target::Ended;
use crate::sim::{Behaviour, Packet, World, at, config, ms, secs};
use crate::talk::*;

/// A number that the live server never sent.
const NEVER_SENT: u32 = 0x1234_5678;

type Segments = Vec<(u64, Packet)>;

fn begin(wire: &Wire) -> Segments {
    vec![(0, wire.syn()), (0, wire.syn_ack()), (1, wire.ack(0, 0))]
}

/// Turn `n`: a hundred bytes, and a hundred in answer.
fn turn(wire: &Wire, when: u64, n: u8) -> Segments {
    let before = u32::from(n) * 100;
    let request = [b'a' + n; 100];
    vec![
        (when, wire.data(before as i32, before, &request)),
        (when + 1, wire.answer(before as i32, before + 100, 100)),
        (when + 2, wire.ack(before as i32 + 100, before + 100)),
    ]
}

/// Three turns at these times, and the end.
fn turns(wire: &Wire, when: [u64; 3]) -> Segments {
    let turns = (0..).zip(when).flat_map(|(n, when)| turn(wire, when, n));
    let end = when[2] + 100;
    let end = vec![
        (end, wire.fin(300, 300)),
        (end + 1, wire.server(Flags::ACK | Flags::FIN, 300, 301, 0)),
        (end + 1, wire.ack(301, 301)),
    ];
    turns.chain(end).collect()
}

fn whole() -> Vec<u8> {
    [[b'a'; 100], [b'b'; 100], [b'c'; 100]].concat()
}

fn answering() -> Behaviour {
    Behaviour {
        answers: vec![(100, 100), (200, 100), (300, 100)],
        ..Behaviour::default()
    }
}

fn seen(segments: Segments) -> World {
    let mut segments = segments;
    segments.sort_by_key(|(when, _)| *when);
    let mut world = captured(answering(), segments);
    world.run(secs(100));
    world
}

/// The session is replayed once, as it was, whatever else these segments hold.
#[track_caller]
fn assert_whole(segments: Segments) {
    let mut world = seen(segments);
    let its: Vec<_> = world
        .targets
        .iter()
        .filter(|target| target.tuple.source.port == PORT)
        .collect();
    assert_eq!(its.len(), 1, "connections");
    assert!(its[0].received == whole(), "{:?}", its[0].received);
    assert_eq!(its[0].ended, Ended::Fin);
    assert_eq!(stats(&world).bytes_missing, 0);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

/// Three turns with this between the first and the second.
#[track_caller]
fn assert_whole_with(more: impl Fn(&Wire) -> Segments) {
    let wire = Wire::new(PORT);
    let parts = [begin(&wire), turns(&wire, [10, 3000, 3100]), more(&wire)];
    assert_whole(parts.concat());
}

fn urgent(wire: &Wire, offset: i32, ack: u32) -> Packet {
    let mut packet = wire.client(Flags::ACK | Flags::URG | Flags::PSH, offset, ack, b"!");
    packet.header.urgent = 1;
    packet
}

#[test]
fn a_handshake_that_the_live_server_has_rejected_opens_nothing() {
    let wire = Wire::new(PORT);
    let mut reset = wire.server(Flags::RST, NEVER_SENT as i32, 0, 0);
    reset.header.ack = Seq(0);
    let forged = wire.data(0, NEVER_SENT, &[b'X'; 100]);
    let opening = vec![(0, wire.syn()), (1, wire.syn_ack())];
    for more in [
        vec![(2, forged.clone()), (3, reset)],
        vec![(2, forged)],
        vec![(2, wire.ack(0, NEVER_SENT))],
    ] {
        let mut world = seen([opening.clone(), more].concat());
        assert!(world.targets.is_empty());
        assert_eq!(stats(&world).sessions_captured, 0);
        world.assert_nothing_left();
    }
}

#[test]
fn what_acknowledges_bytes_that_were_never_sent_replaces_nothing() {
    // Challenged, and not: older kernels drop it in silence.
    for challenged in [true, false] {
        for (offset, len) in [(100, 50), (130, 50), (50, 100), (100, 150)] {
            assert_whole_with(|wire| {
                let forged = wire.data(offset, NEVER_SENT, &vec![b'X'; len]);
                let challenge = challenged.then(|| (51, wire.answer(100, 100, 0)));
                Vec::from_iter([(50, forged)].into_iter().chain(challenge))
            });
        }
    }
    assert_whole_with(|wire| vec![(50, wire.fin(100, NEVER_SENT))]);
}

#[test]
fn many_forged_segments_at_once_are_judged_as_one_is() {
    assert_whole_with(|wire| {
        let forged = |n: i32| (50, wire.data(100 + 2 * n, NEVER_SENT, b"X"));
        let challenge = |_| (50, wire.answer(100, 100, 0));
        (0..100)
            .map(forged)
            .chain((0..100).map(challenge))
            .collect()
    });
}

#[test]
fn an_acknowledgement_bears_out_no_forged_segment_beside_a_genuine_one() {
    let wire = Wire::new(PORT);
    let answers = vec![
        (50, wire.data(100, NEVER_SENT, &[b'X'; 150])),
        (51, wire.answer(100, 100, 0)),
        (60, wire.data(100, 100, &[b'b'; 100])),
        // Fifty more were not captured.
        (61, wire.answer(100, 200, 50)),
        (70, wire.data(200, 200, &[b'c'; 100])),
        (71, wire.answer(200, 300, 100)),
        (72, wire.ack(300, 300)),
    ];
    let end = turns(&wire, [0, 0, 0]).split_off(9);
    assert_whole([begin(&wire), turn(&wire, 10, 0), answers, end].concat());
}

#[test]
fn urgent_data_that_the_live_server_would_not_take_ends_nothing() {
    assert_whole_with(|wire| vec![(50, urgent(wire, 1_000_000_000, 100))]);
    assert_whole_with(|wire| {
        vec![
            (50, urgent(wire, 100, NEVER_SENT)),
            (51, wire.answer(100, 100, 0)),
        ]
    });
}

#[test]
fn a_syn_bears_no_data_into_an_open_connection() {
    for (flags, offset) in [(Flags::SYN | Flags::ACK, 99), (Flags::SYN, -1)] {
        assert_whole_with(|wire| {
            let forged = wire.client(flags | Flags::PSH, offset, 100, &[b'X'; 140]);
            vec![(50, forged), (51, wire.answer(100, 100, 0))]
        });
    }
}

#[test]
fn a_syn_ack_nobody_asked_for_ends_no_connection() {
    assert_whole_with(|wire| {
        let flags = Flags::SYN | Flags::ACK;
        vec![(50, wire.server(flags, 777_777, 1_000_000, 0))]
    });
}

#[test]
fn a_syn_ack_whose_syn_was_lost_begins_a_connection_once_its_client_speaks() {
    let old = Wire::new(PORT);
    let mut new = old;
    new.client_isn = old.client_isn.add(1 << 24);
    new.server_isn = old.server_isn.add(777_777);
    let mut next = begin(&new);
    next.remove(0);
    let next = next.into_iter().map(|(when, packet)| (when + 300, packet));
    let parts = [
        begin(&old),
        turn(&old, 10, 0),
        next.collect(),
        turns(&new, [310, 320, 330]),
    ];
    let world = seen(parts.concat());
    let received: Vec<_> = world.targets.iter().map(|it| it.received.len()).collect();
    assert_eq!(received, [100, 300]);
}

#[test]
fn a_syn_ack_for_another_syn_tells_nothing_of_the_live_servers_numbers() {
    for offset in [0x3000_0000, -0x3000_0000] {
        let wire = Wire::new(PORT);
        let foreign = wire.server(Flags::SYN | Flags::ACK, offset, 77, 0);
        let begin = vec![
            (0, wire.syn()),
            (0, foreign),
            (1, wire.syn_ack()),
            (2, wire.ack(0, 0)),
        ];
        let world = seen([begin, turns(&wire, [10, 3000, 6000])].concat());
        for n in 0..3 {
            let late = elapsed(sent_at(&world, PORT, n * 100)) - [10, 3000, 6000][n as usize];
            assert!(late < 10, "turn {n} is {late} ms late");
        }
    }
}

#[test]
fn a_byte_of_keepalive_before_the_client_has_spoken_is_no_stray() {
    let wire = Wire::new(PORT);
    let probe = vec![
        (2000, wire.client(Flags::ACK, -1, 0, b"\0")),
        (2001, wire.answer(0, 0, 0)),
    ];
    assert_whole([begin(&wire), probe, turns(&wire, [3000, 3050, 3100])].concat());
}

#[test]
fn a_stray_number_that_the_stream_reaches_later_is_the_streams() {
    let wire = Wire::new(PORT);
    let mut segments = begin(&wire);
    segments.push((5, wire.data(399_950, 0, &[b'X'; 50])));
    segments.push((6, wire.answer(0, 0, 0)));
    for n in 0..500_u32 {
        let when = 10 + u64::from(n);
        segments.push((when, wire.data(1000 * n as i32, 0, &[b'a'; 1000])));
        segments.push((when, wire.answer(0, 1000 * (n + 1), 0)));
    }
    segments.push((2000, wire.fin(500_000, 0)));
    let world = seen(segments);
    assert!(world.received(PORT) == [b'a'; 500_000]);
}

#[test]
fn far_words_in_the_live_servers_name_bear_each_other_out_in_nothing() {
    let reset = |wire: &Wire| wire.server(Flags::RST, 5_000_000, 100, 0);
    assert_whole_with(|wire| (50..53).map(|when| (when, reset(wire))).collect());
    assert_whole_with(|wire| {
        let ack = wire.answer(5_000_000, 100, 0);
        vec![(50, ack.clone()), (51, ack), (52, reset(wire))]
    });
}

#[test]
fn a_forged_number_does_not_keep_a_session_from_its_next_turn() {
    let wire = Wire::new(PORT);
    for stray in [
        wire.data(100_000_000, 100, &[b'X'; 50]),
        wire.answer(100, 100_000_000, 50),
    ] {
        // Met in its middle.
        let parts = [
            turn(&wire, 10, 0),
            vec![(50, stray)],
            turn(&wire, 3000, 1),
            turn(&wire, 3050, 2),
            turn(&wire, 3100, 3),
        ];
        let world = seen(parts.concat());
        assert!(world.received(PORT).len() >= 200);
        assert_eq!(stats(&world).bytes_missing, 0);
    }
}

#[test]
fn what_is_forged_while_the_syn_ack_is_missing_ends_nothing() {
    let forged: [fn(&Wire) -> Packet; 3] = [
        |wire| {
            let mut syn = wire.syn();
            syn.header.seq = syn.header.seq.add(701_418_713);
            syn
        },
        |wire| wire.fin(80_605_993, 0),
        |wire| urgent(wire, 80_605_993, 0),
    ];
    for forged in forged {
        // Another session shows that live servers are captured at all.
        let other = Wire::new(PORT + 1);
        let wire = Wire::new(PORT);
        let opening = vec![(5, wire.syn()), (6, wire.ack(0, 0)), (7, forged(&wire))];
        let other = [begin(&other), turns(&other, [2, 50, 60])].concat();
        assert_whole([other, opening, turns(&wire, [10, 20, 30])].concat());
    }
}

#[test]
fn a_forged_first_word_of_the_live_server_tells_nothing_of_its_numbers() {
    let wire = Wire::new(PORT);
    let opening = vec![
        (0, wire.syn()),
        (1, wire.ack(0, 0)),
        (2, wire.answer(127_000_000, 0, 50)),
    ];
    assert_whole([opening, turns(&wire, [10, 20, 30])].concat());
}

#[test]
fn late_copies_of_a_connection_whose_end_was_half_captured_begin_nothing() {
    let wire = Wire::new(PORT);
    let mut turns = turns(&wire, [10, 20, 30]);
    // The live server's FIN.
    turns.remove(10);
    let late = vec![
        (7000, wire.syn()),
        (7001, wire.ack(0, 0)),
        (7002, wire.data(0, 0, &[b'a'; 100])),
    ];
    assert_whole([begin(&wire), turns, late].concat());
}

#[test]
fn a_late_acknowledgement_passes_over_no_genuine_fin() {
    let wire = Wire::new(PORT);
    let end = vec![
        (30, wire.data(200, 200, &[b'c'; 100])),
        // Forty more were not captured.
        (31, wire.answer(200, 300, 60)),
        (40, wire.fin(300, 300)),
        (42, wire.ack(301, 301)),
        (700, wire.answer(0, 100, 0)),
    ];
    assert_whole([begin(&wire), turn(&wire, 10, 0), turn(&wire, 20, 1), end].concat());
}

#[test]
fn a_port_that_is_used_again_after_a_gap_and_a_doubtful_reset_is_copied() {
    let old = Wire::new(PORT);
    let mut new = old;
    new.client_isn = old.client_isn.add(1 << 24);
    new.server_isn = old.server_isn.add(777_777);
    // The second request was not captured, nor the last answer before the live server's RST.
    let mut second = turn(&old, 20, 1);
    second.remove(0);
    let reset = old.server(Flags::RST | Flags::ACK, 400, 300, 0);
    let next = begin(&new).into_iter();
    let parts = [
        begin(&old),
        turn(&old, 10, 0),
        second,
        turn(&old, 30, 2),
        vec![(40, reset)],
        next.map(|(when, packet)| (when + 300, packet)).collect(),
        turns(&new, [310, 320, 330]),
    ];
    let world = seen(parts.concat());
    let last = world.targets.last().unwrap();
    assert!(last.received == whole());
    assert_eq!(last.ended, Ended::Fin);
}

#[test]
fn a_reset_behind_a_missed_answer_that_the_client_has_seen_counts_at_once() {
    let wire = Wire::new(PORT);
    let end = vec![
        (20, wire.data(100, 100, &[b'b'; 100])),
        // Fifty more were not captured.
        (21, wire.answer(100, 200, 50)),
        (22, wire.ack(200, 200)),
        (30, wire.server(Flags::RST | Flags::ACK, 200, 200, 0)),
    ];
    let mut world = captured(
        answering(),
        [begin(&wire), turn(&wire, 10, 0), end].concat(),
    );
    world.run(secs(5));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
}

#[test]
fn where_clients_alone_are_captured_a_fin_shows_what_is_missing() {
    let wire = Wire::new(PORT);
    let segments = vec![
        (0, wire.syn()),
        (1, wire.ack(0, 0)),
        (10, wire.data(0, 0, &[b'a'; 100])),
        (30, wire.fin(200, 200)),
    ];
    let mut world = seen(segments);
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::CaptureGap), 1);
    assert_eq!(stats.bytes_missing, 100);
    world.assert_nothing_left();
}

#[test]
fn an_outage_longer_than_the_window_is_a_gap_and_no_other_connection() {
    let wire = Wire::new(PORT);
    let sent = 300_000;
    let after = (0..4).flat_map(|n: u32| {
        let (when, seq) = (500 + 10 * u64::from(n), sent + 100 * n);
        let request = wire.data(seq as i32, 100 + 100 * n, &[b'x'; 100]);
        let answer = wire.answer(100 + 100 * n as i32, seq + 100, 100);
        [(when, request), (when + 1, answer)]
    });
    let world = seen([begin(&wire), turn(&wire, 10, 0), after.collect()].concat());
    let stats = stats(&world);
    assert_eq!((stats.sessions_captured, stats.sessions_midway), (1, 0));
    assert_eq!(stats.sessions_resumed, 1);
    assert!(stats.bytes_missing >= 299_900, "{}", stats.bytes_missing);
}

#[test]
fn where_the_live_server_is_not_captured_any_more_nothing_is_late() {
    let wire = Wire::new(PORT);
    let mut segments = begin(&wire);
    for n in 0..3 {
        let mut turn = turn(&wire, 1000 * u64::from(n) + 10, n);
        turn.remove(1);
        segments.extend(turn);
    }
    let world = seen(segments);
    for n in 0..3 {
        let late = elapsed(sent_at(&world, PORT, n * 100)) - (1000 * n + 10);
        assert!(late < 10, "turn {n} is {late} ms late");
    }
}

#[test]
fn doubts_take_memory_and_give_it_back() {
    let mut world = World::new(config(), 1);
    let wires: Vec<Wire> = (0..100).map(|n| Wire::new(20_000 + n)).collect();
    let feed = |world: &mut World, packet: Packet| {
        let now = at(ms(1));
        world.engine.segment(now, now, &packet.view());
    };
    for wire in &wires {
        begin(wire)
            .into_iter()
            .for_each(|(_, it)| feed(&mut world, it));
    }
    let before = world.engine.gauges().memory;
    for wire in &wires {
        feed(&mut world, wire.answer(9000, 0, 10));
    }
    let doubted = world.engine.gauges().memory;
    assert!(doubted >= before + 100 * 100, "{before}, then {doubted}");
    for wire in &wires {
        feed(&mut world, wire.answer(0, 0, 9000));
        feed(&mut world, wire.answer(9000, 0, 10));
    }
    assert_eq!(world.engine.gauges().memory, before);
}

#[test]
fn two_forged_segments_do_not_bear_each_other_out() {
    assert_whole_with(|wire| {
        vec![
            (50, wire.data(100, NEVER_SENT, &[b'X'; 6])),
            (50, wire.ack(106, NEVER_SENT)),
        ]
    });
}

#[test]
fn where_clients_alone_are_captured_a_long_answer_delays_nothing() {
    let wire = Wire::new(PORT);
    let mut segments = vec![(0, wire.syn()), (1, wire.ack(0, 0))];
    for n in 0..4_u32 {
        let seen = if n == 0 { 0 } else { 20_000_000 + 100 * n };
        let request = [b'a'; 100];
        segments.push((
            10 + 1000 * u64::from(n),
            wire.data(100 * n as i32, seen, &request),
        ));
    }
    let world = seen(segments);
    for n in 0..4 {
        let late = elapsed(sent_at(&world, PORT, n * 100)) - (10 + 1000 * n);
        assert!(late < 10, "turn {n} is {late} ms late");
    }
}

#[test]
fn a_port_that_is_used_again_is_copied_though_its_servers_words_are_not_captured() {
    // Another one's are.
    let other = Wire::new(PORT + 1);
    let old = Wire::new(PORT);
    let mut new = old;
    new.client_isn = old.client_isn.add(1 << 24);
    let parts = [
        begin(&other),
        vec![
            (5, old.syn()),
            (6, old.ack(0, 0)),
            (10, old.data(0, 0, &[b'a'; 100])),
            (500, new.syn()),
            (501, new.ack(0, 0)),
            (510, new.data(0, 0, &[b'b'; 100])),
            (520, new.data(100, 100, &[b'c'; 100])),
        ],
    ];
    let world = seen(parts.concat());
    let received: Vec<_> = world.targets.iter().map(|it| it.received.len()).collect();
    assert_eq!(received.iter().sum::<usize>(), 300, "{received:?}");
}

#[test]
fn megabytes_lost_behind_the_syn_ack_are_a_gap() {
    let wire = Wire::new(PORT);
    let lost = 2_000_000;
    let after = (0..40).flat_map(|n: u32| {
        let (when, seq) = (500 + 10 * u64::from(n), lost + 100 * n);
        let request = wire.data(seq as i32, 100 * n, &[b'x'; 100]);
        let answer = wire.answer(100 * n as i32, seq + 100, 100);
        [(when, request), (when + 1, answer)]
    });
    let world = seen([begin(&wire)[..2].to_vec(), after.collect()].concat());
    let stats = stats(&world);
    assert!(stats.bytes_wanted >= 3700, "{}", stats.bytes_wanted);
}

#[test]
fn a_request_whose_answers_are_not_captured_any_more_goes_after_a_moment() {
    let wire = Wire::new(PORT);
    let mut segments = begin(&wire);
    segments.extend(turn(&wire, 10, 0));
    for n in 1..4_u32 {
        let request = [b'x'; 100];
        let data = wire.data(100 * n as i32, 100 * n, &request);
        segments.push((5000 * u64::from(n), data));
    }
    let world = seen(segments);
    for n in 1..4 {
        let late = elapsed(sent_at(&world, PORT, n * 100)) - 5000 * n;
        assert!(late < 1100, "turn {n} is {late} ms late");
    }
}

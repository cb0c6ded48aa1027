//! Which bytes are of which connection: wraps, ports used again, two services, Fast Open, urgent
//! data, keepalives. Lines 6 to 10.

use millrace_engine::{AbortReason, LiveAddress, RefusalReason, Service};
use millrace_wire::{Endpoint, Flags, FourTuple, Mptcp, Seq};

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, LIVE, Live, Packet, TARGET, World, at, config, ms, secs, v4};
use crate::talk::*;
use Action::*;

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
fn a_live_server_that_still_knows_an_old_connection_does_not_confuse_the_new_one() {
    let new = Wire::new(PORT);
    let old = Wire {
        client_isn: new.client_isn.add(1_000_000),
        server_isn: new.server_isn.add(1_000_000),
        ..new
    };
    let mut world = captured(
        Behaviour {
            answers: vec![(3, 50), (6, 50)],
            ..Behaviour::default()
        },
        vec![
            (0, new.syn()),
            // It challenges (RFC 5961 4.2), the client resets that connection and tries again.
            (1, old.server(Flags::ACK, 700, 40, 0)),
            (2, old.reset(40)),
            (1000, new.syn()),
            (1001, new.syn_ack()),
            (1002, new.ack(0, 0)),
            (1003, new.data(0, 0, b"one")),
            (1004, new.answer(0, 3, 50)),
            (1005, new.data(3, 50, b"two")),
            (1006, new.answer(50, 6, 50)),
            (1007, new.fin(6, 100)),
            (9000, new.server(Flags::ACK | Flags::FIN, 100, 7, 0)),
        ],
    );
    world.run(secs(20));
    assert_eq!(world.targets[0].received, b"onetwo");
    let stats = stats(&world);
    assert_eq!((stats.gate_passed, stats.gate_quiet), (3, 0));
    assert_eq!(stats.replicas_completed, 1);
    assert_eq!((stats.live_turns_answered, stats.bytes_missing), (2, 0));
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
        live: LiveAddress::At(other.ip),
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

#[test]
fn what_lies_before_urgent_data_is_delivered_though_its_target_is_slow_or_it_came_out_of_order() {
    let wire = Wire::new(PORT);
    let mut urgent = wire.client(Flags::ACK | Flags::URG, 7, 0, b"!");
    urgent.header.urgent = 1;
    let slow = Behaviour {
        accept_delay: secs(2),
        ..Behaviour::default()
    };
    let mut world = captured(
        slow,
        vec![
            (0, wire.syn()),
            (0, wire.syn_ack()),
            (1, wire.ack(0, 0)),
            (2, urgent),
            (3, wire.data(0, 0, b"regular")),
            (4, wire.data(8, 0, b"and on")),
        ],
    );
    world.run(secs(20));
    assert_eq!(world.received(PORT), b"regular");
    assert_aborted(&mut world, AbortReason::Urgent);
}

// Multipath TCP.

#[test]
fn a_connection_that_a_second_subflow_joins_is_copied_until_then_and_neither_is_afterwards() {
    let first = Wire::new(PORT);
    let mut second = Wire::new(PORT + 1);
    second.client_isn = second.client_isn.add(9999);
    let with = |mut packet: Packet, option| {
        packet.header.options.mptcp = Some(option);
        packet
    };
    // The token is the hash of the live server's key.
    let joins = Mptcp::Join(Some(0xaf55_70f5));
    let mut segments = vec![
        (
            0,
            with(
                first.syn(),
                Mptcp::Capable {
                    version: 1,
                    key: None,
                },
            ),
        ),
        (
            0,
            with(
                first.syn_ack(),
                Mptcp::Capable {
                    version: 1,
                    key: Some(0),
                },
            ),
        ),
        (
            1,
            with(
                first.ack(0, 0),
                Mptcp::Capable {
                    version: 1,
                    key: Some(7),
                },
            ),
        ),
        (2, with(first.data(0, 0, b"one subflow"), Mptcp::Other)),
        (3, first.answer(0, 11, 100)),
        (100, with(second.syn(), joins)),
        (100, with(second.syn_ack(), Mptcp::Join(None))),
        (101, with(second.ack(0, 0), Mptcp::Join(None))),
    ];
    for n in 0..5 {
        let when = 200 + 10 * n as u64;
        let (at, answered) = (n * 5, n as u32 * 10);
        segments.push((
            when,
            with(second.data(at, answered, b"every"), Mptcp::Other),
        ));
        segments.push((when + 1, second.answer(answered as i32, at as u32 + 5, 10)));
        segments.push((
            when + 2,
            with(first.data(11 + at, 100 + answered, b"other"), Mptcp::Other),
        ));
        segments.push((
            when + 3,
            first.answer(100 + answered as i32, at as u32 + 16, 10),
        ));
    }
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(world.targets.len(), 1);
    assert_eq!(world.received(PORT), b"one subflow");
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_eq!(stats(&world).replicas_aborted.of(AbortReason::Mptcp), 1);
    assert_eq!(stats(&world).sessions_refused.of(RefusalReason::Mptcp), 1);
}

#[test]
fn a_connection_with_one_subflow_is_plain_tcp() {
    let wire = Wire::new(PORT);
    let mut segments = vec![
        (0, wire.syn()),
        (0, wire.syn_ack()),
        (1, wire.ack(0, 0)),
        (2, wire.data(0, 0, b"hello")),
        (3, wire.answer(0, 5, 10)),
        (4, wire.fin(5, 10)),
        (5, wire.server(Flags::ACK | Flags::FIN, 10, 6, 0)),
    ];
    for (_, packet) in &mut segments {
        packet.header.options.mptcp = Some(Mptcp::Other);
    }
    segments[0].1.header.options.mptcp = Some(Mptcp::Capable {
        version: 1,
        key: None,
    });
    segments[1].1.header.options.mptcp = Some(Mptcp::Capable {
        version: 1,
        key: Some(0),
    });
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(world.received(PORT), b"hello");
    let syn = &world.sent[0].1.header;
    assert_eq!(syn.options.mptcp, None);
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

//! What was captured and the peer did not accept: RSTs and SYNs that are challenged, late repetitions, and
//! acknowledgements that come before what they acknowledge.

use millrace_wire::Flags;

use crate::sim::target::Ended;
use crate::sim::{Behaviour, Packet, World, secs};
use crate::talk::*;

/// One request and its answer, each 100 bytes long, at `n` of them before.
fn turn(wire: &Wire, when: u64, n: u32) -> Vec<(u64, Packet)> {
    let before = n * 100;
    vec![
        (
            when,
            wire.data(before as i32, before, &[b'a' + n as u8; 100]),
        ),
        (when + 1, wire.answer(before as i32, before + 100, 100)),
        (when + 2, wire.ack(before as i32 + 100, before + 100)),
    ]
}

fn begin(wire: &Wire) -> Vec<(u64, Packet)> {
    vec![(0, wire.syn()), (0, wire.syn_ack()), (1, wire.ack(0, 0))]
}

fn close(wire: &Wire, when: u64, n: u32) -> Vec<(u64, Packet)> {
    let all = n * 100;
    vec![
        (when, wire.fin(all as i32, all)),
        (
            when + 1,
            wire.server(Flags::ACK | Flags::FIN, all as i32, all + 1, 0),
        ),
        (when + 1, wire.ack(all as i32 + 1, all + 1)),
    ]
}

fn answering() -> Behaviour {
    Behaviour {
        answers: vec![(100, 100), (200, 100), (300, 100)],
        ..Behaviour::default()
    }
}

/// Three turns and the end, with more between the first and the second.
fn with(wire: &Wire, more: Vec<(u64, Packet)>) -> World {
    let parts = [
        begin(wire),
        turn(wire, 10, 0),
        more,
        turn(wire, 200, 1),
        turn(wire, 300, 2),
        close(wire, 400, 3),
    ];
    captured(answering(), parts.concat())
}

/// All three turns arrived in one connection that ended as the client's did.
fn assert_whole(mut world: World) {
    world.run(secs(60));
    assert_eq!(world.targets.len(), 1);
    assert_eq!(world.received(PORT).len(), 300);
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    assert_eq!(stats(&world).sessions_captured, 1);
    assert_eq!(stats(&world).bytes_missing, 0);
    world.assert_all_delivered();
}

#[test]
fn what_a_reset_carries_is_no_part_of_the_stream() {
    let wire = Wire::new(PORT);
    let reset = wire.client(Flags::RST | Flags::ACK, 100, 100, b"connection timed out");
    let parts = [begin(&wire), turn(&wire, 10, 0), vec![(20, reset)]];
    let mut world = captured(answering(), parts.concat());
    world.run(secs(10));
    assert_eq!(world.received(PORT), [b'a'; 100]);
    assert_eq!(world.target(PORT).ended, Ended::Reset);
}

#[test]
fn a_reset_of_the_client_that_is_not_at_the_next_byte_ends_nothing_if_the_connection_goes_on() {
    for offset in [40, 101, 150, 260, 40_000] {
        let wire = Wire::new(PORT);
        let challenge = wire.answer(100, 100, 0);
        let world = with(&wire, vec![(50, wire.reset(offset)), (51, challenge)]);
        assert_whole(world);
    }
}

#[test]
fn a_reset_of_the_live_server_that_is_not_at_the_next_byte_ends_nothing_if_the_connection_goes_on()
{
    for offset in [20, 101, 5000] {
        let wire = Wire::new(PORT);
        let reset = wire.server(Flags::RST | Flags::ACK, offset, 100, 0);
        assert_whole(with(&wire, vec![(50, reset)]));
    }
}

#[test]
fn a_reset_that_is_not_at_the_next_byte_counts_when_nothing_follows_for_a_minute() {
    let wire = Wire::new(PORT);
    for reset in [
        wire.reset(150),
        wire.reset(40),
        wire.server(Flags::RST, 5000, 100, 0),
    ] {
        let parts = [begin(&wire), turn(&wire, 10, 0), vec![(50, reset)]];
        let mut world = captured(Behaviour::default(), parts.concat());
        world.run(secs(59));
        assert_eq!(world.target(PORT).ended, Ended::Open);
        world.run(secs(10));
        assert_eq!(world.target(PORT).ended, Ended::Reset);
    }
}

#[test]
fn a_syn_on_an_open_connection_is_a_challenge_and_no_end() {
    let mut wire = Wire::new(PORT);
    let old = wire;
    for difference in [1 << 20, 0u32.wrapping_sub(1 << 20)] {
        wire.client_isn = old.client_isn.add(difference);
        assert_whole(with(
            &old,
            vec![(50, wire.syn()), (51, old.answer(100, 100, 0))],
        ));
    }
}

#[test]
fn a_syn_that_the_live_server_accepts_begins_another_connection_whatever_its_numbers() {
    for difference in [1 << 30, 0u32.wrapping_sub(1 << 20)] {
        let old = Wire::new(PORT);
        let mut new = old;
        new.client_isn = old.client_isn.add(difference);
        new.server_isn = old.server_isn.add(777_777);
        let at = |offset: u64, packets: Vec<(u64, Packet)>| {
            packets
                .into_iter()
                .map(move |(when, packet)| (when + offset, packet))
        };
        let mut segments: Vec<_> = [begin(&old), turn(&old, 10, 0)].concat();
        segments.extend(at(
            500,
            [begin(&new), turn(&new, 10, 0), close(&new, 100, 1)].concat(),
        ));
        let mut world = captured(Behaviour::default(), segments);
        world.run(secs(60));
        assert_eq!(stats(&world).sessions_captured, 2);
        let received: Vec<_> = world
            .targets
            .iter()
            .map(|it| (it.received.len(), it.ended))
            .collect();
        assert_eq!(received, [(100, Ended::Reset), (100, Ended::Fin)]);
    }
}

#[test]
fn repetitions_of_a_connection_that_is_over_begin_and_end_nothing() {
    // A second tap is up to ten seconds late, and the client uses its port again meanwhile.
    for late in [1, 2_500, 10_000] {
        let old = Wire::new(PORT);
        let mut new = old;
        new.client_isn = old.client_isn.add(1 << 24);
        new.server_isn = old.server_isn.add(777_777);
        let first = [begin(&old), turn(&old, 10, 0), close(&old, 100, 1)].concat();
        let later = |by: u64, packets: Vec<(u64, Packet)>| {
            packets
                .into_iter()
                .map(move |(when, packet)| (when + by, packet))
        };
        let mut segments = first.clone();
        segments.extend(later(late, first));
        segments.extend(later(3_000, begin(&new)));
        for n in 0..10 {
            segments.extend(later(3_000, turn(&new, 100 + 1000 * u64::from(n), n)));
        }
        segments.extend(later(3_000, close(&new, 11_000, 10)));
        let mut world = captured(Behaviour::default(), segments);
        world.run(secs(90));
        assert_eq!(stats(&world).sessions_captured, 2, "{late}");
        let received: Vec<_> = world
            .targets
            .iter()
            .map(|it| (it.received.len(), it.ended))
            .collect();
        assert_eq!(received, [(100, Ended::Fin), (1000, Ended::Fin)], "{late}");
        assert_eq!(stats(&world).bytes_missing, 0);
    }
}

#[test]
fn what_the_live_server_acknowledges_before_it_is_captured_is_no_gap() {
    // Two recorders, one for each direction, whose clocks are three seconds apart.
    for (clients_late, servers_late) in [(3000, 0), (0, 3000)] {
        let wire = Wire::new(PORT);
        let parts = [
            begin(&wire),
            turn(&wire, 10, 0),
            turn(&wire, 200, 1),
            turn(&wire, 300, 2),
        ];
        let all = [parts.concat(), close(&wire, 400, 3)].concat();
        let skewed = all.into_iter().map(|(when, packet)| {
            let of_client = packet.tuple.destination.port == 80;
            (
                when + if of_client {
                    clients_late
                } else {
                    servers_late
                },
                packet,
            )
        });
        assert_whole(captured(answering(), skewed.collect()));
    }
}

#[test]
fn clients_alone_are_picked_up_in_their_middle_by_what_they_acknowledge() {
    let wire = Wire::new(PORT);
    let clients = |n: u32| {
        turn(&wire, 100 * u64::from(n), n)
            .into_iter()
            .filter(|(_, packet)| packet.tuple.destination.port == 80)
    };
    let mut world = captured(Behaviour::default(), (1..6).flat_map(clients).collect());
    world.run(secs(60));
    let received = &world.targets[0].received;
    assert_eq!(
        (received.len(), received[0]),
        (400, b'c'),
        "from the second whole request on"
    );
    assert_eq!(stats(&world).sessions_midway, 1);
}

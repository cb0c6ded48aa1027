//! Replicas and their flows: many of one session, addresses and ports, what is negotiated with
//! whom, and interceptors that come and go.

use std::collections::{HashMap, HashSet};

use millrace_engine::{
    AbortReason, Config, FlowRef, Intensity, LiveAddress, RefusalReason, ReplicaKey, SourcePool,
    Time,
};
use millrace_wire::{Endpoint, Flags, Seq, TcpOptions};

use crate::sim::target::Ended;
use crate::sim::{
    Action, Behaviour, Live, Packet, TARGET, World, at, bytes, client, config, ms, secs, v4, v6,
};
use crate::talk::*;
use Action::*;

fn talk() -> Vec<Action> {
    vec![
        says(300),
        Server(500),
        says(5000),
        Server(40),
        ClientFin,
        ServerFin,
    ]
}

fn world_of(replicas: u16) -> World {
    let mut world = World::new(
        Config {
            intensity: Intensity::replicas(replicas),
            ..config()
        },
        1,
    );
    world.behaviour = answers_like(&talk());
    world
}

// Replicas.

#[test]
fn three_replicas_share_one_stored_stream_and_each_delivers_all() {
    let talk = [Client(bytes(1, 400_000)), Server(500), ClientFin, ServerFin];
    let mut world = world_of(3);
    world.behaviour = Behaviour {
        window: 3000,
        ..answers_like(&talk)
    };
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(ms(10));
    let gauges = world.engine.gauges();
    assert_eq!((gauges.sessions, gauges.replicas), (1, 3));
    assert!(
        gauges.backlog <= 400_000 && gauges.memory < 500_000,
        "stored once: {gauges:?}"
    );
    world.run(secs(60));
    assert_eq!(world.targets.len(), 3);
    let ports: HashSet<_> = world.targets.iter().map(|t| t.tuple.source).collect();
    assert_eq!(ports.len(), 3, "three flows");
    assert!(
        ports.contains(&client(PORT)),
        "one of them the client's own"
    );
    for target in &world.targets {
        assert!(target.received == said(&talk));
        assert_eq!(target.ended, Ended::Fin);
    }
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_replica_that_its_target_resets_does_not_disturb_its_siblings() {
    let mut world = world_of(3);
    world.behaviours.insert(
        PORT,
        Behaviour {
            reset_after: Some(300),
            ..Behaviour::default()
        },
    );
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(secs(60));
    assert_eq!(
        stats(&world).replicas_aborted.of(AbortReason::TargetReset),
        1
    );
    assert_eq!(stats(&world).replicas_completed, 2);
    let whole = world.targets.iter().filter(|t| t.received == said(&talk()));
    assert_eq!(whole.count(), 2);
    world.assert_nothing_left();
}

#[test]
fn what_the_slowest_replica_still_needs_is_kept_for_it() {
    let talk = [Client(bytes(1, 300_000)), Server(500), ClientFin, ServerFin];
    let mut world = world_of(2);
    world.behaviour = answers_like(&talk);
    world.behaviours.insert(
        PORT,
        Behaviour {
            stall: Some((10_000, secs(20))),
            window: 10_000,
            ..answers_like(&talk)
        },
    );
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(10));
    assert_eq!(stats(&world).replicas_completed, 1);
    assert!(world.engine.gauges().backlog > 280_000);
    world.run(secs(60));
    assert!(world.targets.iter().all(|t| t.received == said(&talk)));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// Flows.

#[test]
fn two_replicas_never_share_a_flow_however_many_clients_come_by() {
    // Two pool addresses, 40 clients with the same port, 3 replicas each, ports used again.
    let mut world = World::new(
        Config {
            intensity: Intensity::replicas(3),
            sources: SourcePool::Ranges(vec![(v4(100), v4(101))]),
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        answer_delay: ms(30),
        ..answers_like(&talk())
    };
    for round in 0..3 {
        for last in 1..=40 {
            let mut live = Live::new(at(ms(round * 40 + u64::from(last))), PORT);
            live.client = Endpoint::new(v4(150 + last), PORT);
            live.client_isn = Seq(1000 * u32::from(last) + round as u32 * 77_777);
            world.capture(live.play(&talk()));
        }
    }
    // The world itself asserts that no flow is opened twice at a time.
    world.run(secs(60));
    assert_eq!(world.targets.len(), 360);
    for target in &world.targets {
        assert!(target.received == said(&talk()));
        assert!([v4(100), v4(101)].contains(&target.tuple.source.ip));
    }
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn when_no_address_of_the_targets_family_is_there_sessions_are_refused_and_counted() {
    let mut world = World::new(
        Config {
            sources: SourcePool::Ranges(vec![(v6(1), v6(9))]),
            ..config()
        },
        1,
    );
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(secs(10));
    assert!(world.sent.is_empty());
    assert_eq!(stats(&world).sessions_captured, 1);
    assert_eq!(stats(&world).replicas_refused.of(RefusalReason::Sources), 1);
    assert_eq!(stats(&world).replicas_opened, 0);
    world.assert_nothing_left();
}

#[test]
fn the_flow_id_of_an_old_replica_is_not_taken_for_a_new_one() {
    let mut world = world_of(1);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(ms(2));
    let old: Vec<ReplicaKey> = world.replica_keys();
    world.run(secs(20));
    // The same place is used by another replica now, on the same flow.
    let mut again = Live::new(at(secs(20)), PORT);
    again.client_isn = Seq(99);
    world.capture(again.play(&talk()));
    world.run(ms(2));
    let new = world.replica_keys();
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_ne!(old[0].flow_id(), new[0].flow_id());
    let before = stats(&world).target_headers_unknown;
    let syn_ack = world.targets[1].isn();
    for id in [old[0].flow_id(), 0, u64::MAX, 1 << 32] {
        let mut reset = Packet {
            tuple: world.targets[1].tuple.reversed(),
            header: Default::default(),
            payload: Vec::new(),
            payload_len: 0,
        };
        reset.header.flags = Flags::RST | Flags::ACK;
        reset.header.seq = syn_ack.add(1);
        let now = world.now;
        world
            .engine
            .target_header(now, FlowRef::Id(id), &reset.header, 0);
    }
    assert_eq!(stats(&world).target_headers_unknown, before + 4);
    world.run(secs(20));
    assert!(world.targets[1].received == said(&talk()));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_flow_that_another_copier_owns_is_given_up_and_the_replica_begins_anew_on_another() {
    let mut world = world_of(1);
    world.to_target.loss = 100.0;
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(ms(2));
    let key = world.replica_keys()[0];
    let now = world.now;
    assert!(world.engine.flow_conflict(now, key));
    world.to_target.loss = 0.0;
    world.run(secs(20));
    assert_eq!(stats(&world).replicas_moved, 1);
    assert_eq!(world.targets.len(), 1);
    assert_ne!(world.targets[0].tuple.source.port, PORT);
    assert!(world.targets[0].received == said(&talk()));
    // Once it is established, a conflict comes too late.
    let mut other = Live::new(at(secs(21)), PORT + 1);
    other.client_isn = Seq(5);
    world.capture(other.play(&[says(100), Pause(secs(5)), ClientFin, ServerFin]));
    world.run(secs(3));
    let key = world.replica_keys()[0];
    let now = world.now;
    assert!(!world.engine.flow_conflict(now, key));
    world.run(secs(20));
    assert_eq!(stats(&world).replicas_moved, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_client_on_the_loopback_address_is_replaced_or_refused() {
    let loopback = Endpoint::new("127.0.0.1".parse().unwrap(), PORT);
    for stand_in in [vec![], vec![v4(77)]] {
        let mut world = World::new(
            Config {
                loopback_clients: stand_in.clone(),
                ..config()
            },
            1,
        );
        world.behaviour = answers_like(&talk());
        let mut live = Live::new(at(ms(0)), PORT);
        live.client = loopback;
        world.capture(live.play(&talk()));
        world.run(secs(20));
        if stand_in.is_empty() {
            assert!(world.sent.is_empty());
            assert_eq!(
                stats(&world).replicas_refused.of(RefusalReason::Loopback),
                1
            );
        } else {
            assert_eq!(world.targets[0].tuple.source, Endpoint::new(v4(77), PORT));
            world.assert_all_delivered();
        }
        world.assert_nothing_left();
    }
}

// What is negotiated, and with whom.

#[test]
fn options_and_numbers_are_those_of_the_target_never_the_live_ones() {
    let talk = talk();
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    let live_options = TcpOptions {
        mss: Some(8960),
        window_scale: Some(11),
        sack_permitted: true,
        timestamps: Some((0xdead_0001, 0xbeef_0001)),
        ..TcpOptions::default()
    };
    for (_, packet) in &mut packets {
        packet.header.options = live_options;
    }
    let live_numbers: HashSet<u32> = packets
        .iter()
        .flat_map(|(_, p)| [p.header.seq.0, p.header.ack.0])
        .collect();
    let mut world = world_of(1);
    world.capture(packets);
    world.run(secs(20));
    let clock = |time: Time| (time.as_micros() / 1000) as u32;
    for (time, packet) in &world.sent {
        let options = packet.header.options;
        let (value, echo) = options.timestamps.expect("agreed on");
        assert_eq!(value, clock(*time), "the engine's own clock");
        let theirs = 12_345u32.wrapping_add(clock(*time)).wrapping_sub(echo);
        assert!(echo == 0 || theirs < 100, "the target's clock");
        if packet.header.flags.has(Flags::SYN) {
            assert_eq!(options.mss, Some(1460));
            assert_eq!(options.window_scale, Some(7));
        } else {
            assert_eq!((options.mss, options.window_scale), (None, None));
        }
        assert!(!live_numbers.contains(&packet.header.seq.0));
    }
    assert_complete(&mut world, &talk);
}

#[test]
fn over_ipv6_everything_is_the_same_but_for_the_sizes() {
    let talk = [Client(bytes(3, 60_000)), Server(5000), ClientFin, ServerFin];
    let mut config = config();
    let (live, target) = (Endpoint::new(v6(10), 80), Endpoint::new(v6(20), 8080));
    config.services[0].live = LiveAddress::At(live.ip);
    config.services[0].target = target;
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk);
    let mut session = Live::new(at(ms(0)), PORT);
    session.client = Endpoint::new(v6(1), PORT);
    session.live = live;
    world.capture(session.play(&talk));
    world.run(secs(20));
    assert_eq!(world.targets[0].tuple.destination, target);
    assert_eq!(world.sent[0].1.header.options.mss, Some(1440));
    assert_eq!(world.target(PORT).largest_payload, 1440 - 12);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_without_window_scale_is_sent_no_more_than_it_granted() {
    let talk = [Client(bytes(3, 300_000)), Server(5), ClientFin, ServerFin];
    for (scale, window) in [
        (None, 65_535),
        (Some(0), 20_000),
        (Some(3), 100_000),
        (Some(14), 1 << 20),
    ] {
        let mut world = world_of(1);
        world.behaviour = Behaviour {
            window_scale: scale,
            window,
            ..answers_like(&talk)
        };
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(60));
        assert_eq!(world.target(PORT).window_violations, 0, "scale {scale:?}");
        assert_complete(&mut world, &talk);
    }
}

// Interceptors that are not there (yet).

#[test]
fn five_thousand_sessions_that_were_held_back_are_released_step_by_step_and_all_delivered() {
    let talk = [says(300), Server(500), ClientFin, ServerFin];
    let mut world = world_of(1);
    world.behaviour = answers_like(&talk);
    let start = at(ms(0));
    world.engine.set_open(start, false);
    for i in 0..5000u16 {
        world.capture(Live::new(at(ms(u64::from(i % 1000))), PORT + i).play(&talk));
    }
    world.run(secs(10));
    assert!(
        world.sent.is_empty(),
        "nothing before an interceptor is there"
    );
    assert_eq!(world.engine.gauges().replicas_waiting, 5000);
    assert_eq!(world.flows.len(), 5000, "announced already");
    let now = world.now;
    world.engine.set_open(now, true);
    world.run(secs(30));
    let mut per_tick: HashMap<u64, usize> = HashMap::new();
    for (time, _) in sent_with(&world, Flags::SYN) {
        *per_tick.entry(time.as_micros() / 1000).or_default() += 1;
    }
    let most = per_tick.values().max().unwrap();
    assert!(
        *most <= 4,
        "a target's accept queue is short: {most} at once"
    );
    assert_eq!(world.targets.len(), 5000);
    assert_eq!(world.engine.gauges().replicas_waiting, 0);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn those_that_were_held_back_are_caught_up_with_although_many_more_come() {
    let talk = [says(300), Server(500), ClientFin, ServerFin];
    let mut world = world_of(1);
    world.keep_sent = false;
    world.behaviour = answers_like(&talk);
    world.engine.set_open(at(ms(0)), false);
    // 5000 in a second, for six seconds, the first three of which they are held back.
    for i in 0..30_000u16 {
        let when = std::time::Duration::from_micros(u64::from(i) * 200);
        world.capture(Live::new(at(when), PORT + i).play(&talk));
    }
    world.run(secs(3));
    assert!(world.engine.gauges().replicas_waiting > 14_000);
    let now = world.now;
    world.engine.set_open(now, true);
    world.run(ms(2900));
    let late = world.engine.gauges().replicas_waiting;
    assert!(late < 8000, "{late} still wait");
    world.run(secs(30));
    assert_eq!(world.engine.gauges().replicas_waiting, 0);
    world.assert_nothing_left();
}

/// When the pieces of the first request went out, for each client port.
fn pieces(world: &World) -> HashMap<u16, Vec<millrace_engine::Time>> {
    let mut pieces: HashMap<u16, Vec<_>> = HashMap::new();
    for (time, packet) in world.sent.iter().filter(|(_, p)| p.payload_len > 0) {
        let port = packet.tuple.source.port;
        pieces.entry(port).or_default().push(*time);
    }
    pieces
}

#[test]
fn in_a_crowd_the_first_segment_goes_alone_until_the_target_knows_the_connection() {
    // A target without room for handshakes answers with SYN cookies, and resets a connection of
    // which it sees the second segment before it had room for the first.
    let talk = [says(5000), Server(500), ClientFin, ServerFin];
    let mut world = world_of(1);
    world.behaviour = answers_like(&talk);
    world.engine.set_open(at(ms(0)), false);
    for i in 0..100u16 {
        world.capture(Live::new(at(ms(i.into())), PORT + i).play(&talk));
    }
    world.run(secs(1));
    let now = world.now;
    world.engine.set_open(now, true);
    world.run(secs(20));
    let there_and_back = world.to_target.delay + world.to_copier.delay;
    let pieces = pieces(&world);
    assert_eq!(pieces.len(), 100);
    for (port, times) in pieces {
        assert!(times[1] >= times[0] + there_and_back, "{port}: {times:?}");
        assert_eq!(times[1], times[2], "{port}: then all at once");
    }
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn after_a_lost_syn_the_first_segment_goes_alone_and_otherwise_all_at_once() {
    let talk = [says(5000), Server(500), ClientFin, ServerFin];
    for lost in [true, false] {
        let mut world = world_of(1);
        world.behaviour = answers_like(&talk);
        world.drop_to_target = if lost { vec![0] } else { Vec::new() };
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(20));
        let times = &pieces(&world)[&PORT];
        assert_eq!(times[1] > times[0], lost, "{times:?}");
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn sessions_that_end_while_they_are_held_back_are_delivered_all_the_same() {
    let mut world = world_of(1);
    let start = at(ms(0));
    world.engine.set_open(start, false);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(secs(3000));
    let now = world.now;
    world.engine.set_open(now, true);
    world.run(secs(20));
    assert_complete(&mut world, &talk());
}

/// A load of keep-alive sessions, through an outage of the interceptor.
fn survive_an_outage(span: std::time::Duration) {
    let mut talk = Vec::new();
    for _ in 0..20 {
        talk.extend([says(500), Server(3000), Pause(ms(100))]);
    }
    talk.extend([ClientFin, ServerFin]);
    let mut world = world_of(1);
    world.behaviour = answers_like(&talk);
    for i in 0..100u16 {
        // Some are open already, some begin during the outage, some after it.
        let when = ms(u64::from(i) * 100);
        world.capture(Live::new(at(when), PORT + i).play(&talk));
    }
    world.call(at(secs(3)), |world| {
        world.interceptor_up = false;
        let now = world.now;
        world.engine.set_open(now, false);
    });
    world.call(at(secs(3) + span), |world| {
        world.interceptor_up = true;
        let now = world.now;
        world.engine.set_open(now, true);
    });
    world.run(secs(3) + span + secs(60));
    for i in 0..100 {
        assert!(world.received(PORT + i) == said(&talk), "session {i}");
        assert_eq!(world.target(PORT + i).ended, Ended::Fin);
    }
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn an_interceptor_that_is_gone_for_5_seconds_loses_no_session() {
    survive_an_outage(secs(5));
}

#[test]
fn an_interceptor_that_is_gone_for_60_seconds_loses_no_session() {
    survive_an_outage(secs(60));
}

#[test]
fn an_interceptor_that_is_gone_and_nobody_noticed_loses_no_session_either() {
    // The engine is not told: only TCP's own timers are at work.
    let mut world = world_of(1);
    let talk = talk();
    for i in 0..50u16 {
        world.capture(Live::new(at(ms(u64::from(i) * 100)), PORT + i).play(&talk));
    }
    world.call(at(secs(1)), |world| world.interceptor_up = false);
    world.call(at(secs(6)), |world| world.interceptor_up = true);
    world.run(secs(120));
    assert!((0..50).all(|i| world.received(PORT + i) == said(&talk)));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn after_an_outage_everything_outstanding_is_tried_again_within_a_fraction_of_a_second() {
    let talk = [
        says(100),
        Server(50),
        says(60),
        Server(9),
        ClientFin,
        ServerFin,
    ];
    let mut world = world_of(1);
    world.behaviour = answers_like(&talk);
    world.to_copier.delay = ms(2);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.call(at(ms(4)), |world| world.interceptor_up = false);
    world.call(at(secs(50)), |world| {
        world.interceptor_up = true;
        let now = world.now;
        world.engine.set_open(now, false);
        world.engine.set_open(now, true);
    });
    world.run(secs(51));
    assert!(
        elapsed(sent_at(&world, PORT, 100)) < 50_900,
        "not after a backed-off minute"
    );
    world.run(secs(60));
    assert_complete(&mut world, &talk);
}

#[test]
fn an_outage_almost_as_long_as_the_answer_timeout_leaves_time_for_the_retry() {
    // Nothing comes from the target unless it is asked again.
    let talk = [says(100), Pause(secs(200)), ClientFin, ServerFin];
    let mut world = world_of(1);
    world.behaviour = answers_like(&talk);
    world.to_copier.delay = secs(1);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.call(at(ms(1200)), |world| {
        world.interceptor_up = false;
        let now = world.now;
        world.engine.set_open(now, false);
    });
    world.call(at(ms(120_500)), |world| {
        world.interceptor_up = true;
        let now = world.now;
        world.engine.set_open(now, true);
    });
    world.run(secs(400));
    assert_complete(&mut world, &talk);
}

#[test]
fn the_targets_own_address_is_never_taken_for_a_live_service() {
    // Target and live service on one port; the copier's own packets pass its capture.
    let mut config = config();
    config.services[0].live = LiveAddress::Host;
    config.services[0].live_port = TARGET.port;
    let mut wire = Wire::new(PORT);
    wire.tuple.destination = TARGET;
    let mut world = World::new(config, 1);
    world.capture(vec![(at(ms(0)), wire.syn()), (at(ms(1)), wire.ack(0, 0))]);
    world.run(secs(1));
    assert!(world.sent.is_empty());
    world.assert_nothing_left();
}

//! Copies that come back as live traffic.

use millrace_engine::{AbortReason, Config, LiveAddress, Misdirection, RefusalReason, Service};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq};

use crate::sim::{LIVE, Live, Packet, TARGET, World, at, client, config, ms, secs};
use crate::talk::*;

fn talk() -> Vec<crate::sim::Action> {
    use crate::sim::Action::*;
    vec![says(300), Server(500), says(200), Server(40)]
}

fn syn(from: Endpoint, seq: Seq) -> Packet {
    let mut live = Live::new(at(ms(0)), 1);
    live.push_client(Flags::SYN, seq, Seq(0), Vec::new());
    let (_, mut packet) = live.packets.remove(0);
    packet.tuple = FourTuple::new(from, LIVE);
    packet
}

/// Nothing goes to the target any more.
fn assert_silent(world: &mut World) {
    let before = world.sent.len();
    world.capture(Live::new(world.now, PORT + 99).play(&talk()));
    world.run(secs(60));
    let after: Vec<_> = world.sent.iter().skip(before).collect();
    assert!(after.is_empty(), "{after:?}");
    let refused = world
        .engine
        .stats()
        .replicas_refused
        .of(RefusalReason::Misdirected);
    assert!(refused > 0);
}

#[test]
fn a_target_that_leads_to_the_live_service_is_stopped_by_the_first_packet_without_a_reset() {
    let mut world = World::new(config(), 1);
    world.to_target.loss = 100.0;
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(ms(100));
    let copy = world.sent[0].1.clone();
    assert_eq!(
        (copy.tuple.destination, copy.header.flags),
        (TARGET, Flags::SYN)
    );
    // The balancer sends it on to the live server, where it is captured.
    world.capture(vec![(world.now, syn(copy.tuple.source, copy.header.seq))]);
    world.run(secs(1));
    assert_eq!(world.misdirected, [(TARGET, Misdirection::OwnPacket)]);
    assert_eq!(world.sent.len(), 1, "{:?}", world.sent);
    let stats = world.engine.stats();
    assert_eq!(stats.replicas_aborted.of(AbortReason::Misdirected), 1);
    assert_eq!(stats.sessions_refused.of(RefusalReason::Misdirected), 1);
    assert_eq!(
        world.engine.gauges().sessions,
        1,
        "the client's is not hurt"
    );
    let now = world.now;
    world.engine.set_target_open(now, 0, true);
    assert_silent(&mut world);
}

#[test]
fn a_probe_that_comes_back_as_a_clients_stops_the_service() {
    let mut world = World::new(config(), 1);
    let probe = client(PORT + 50);
    world.engine.note_probe(TARGET, probe, Seq(700));
    world.capture(vec![(at(ms(1)), syn(probe, Seq(701)))]);
    world.run(ms(10));
    assert_eq!(world.misdirected, [], "a client's own on that port");
    world.capture(vec![(world.now, syn(probe, Seq(700)))]);
    world.run(ms(10));
    assert_eq!(world.misdirected, [(TARGET, Misdirection::OwnPacket)]);
    assert_silent(&mut world);
}

#[test]
fn of_two_targets_the_one_that_leads_back_is_stopped() {
    let mut config = config();
    let other = Endpoint::new(TARGET.ip, TARGET.port + 1);
    config.services.push(Service {
        live: LiveAddress::At(LIVE.ip),
        live_port: 81,
        target: other,
    });
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk());
    // A copy of the second service's comes back at the first.
    let probe = client(PORT + 50);
    world.engine.note_probe(other, probe, Seq(700));
    world.capture(vec![(at(ms(1)), syn(probe, Seq(700)))]);
    world.run(ms(10));
    assert_eq!(world.misdirected, [(other, Misdirection::OwnPacket)]);
    world.capture(Live::new(world.now, PORT).play(&talk()));
    world.run(secs(30));
    assert_eq!(world.target(PORT).received, said(&talk()));
}

#[test]
fn a_target_that_calls_the_live_service_is_not_copied_and_the_others_are() {
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk());
    for n in 0..3 {
        let mut live = Live::new(at(ms(0)), PORT + n);
        live.client.ip = TARGET.ip;
        world.capture(live.play(&talk()));
    }
    world.capture(Live::new(at(ms(1)), PORT + 9).play(&talk()));
    world.run(secs(30));
    assert_eq!(
        world.misdirected,
        [(TARGET, Misdirection::TargetIsClient)],
        "said once"
    );
    assert_eq!(world.targets.len(), 1);
    assert_eq!(world.target(PORT + 9).received, said(&talk()));
    let stats = world.engine.stats();
    assert_eq!(stats.sessions_refused.of(RefusalReason::Misdirected), 3);
}

#[test]
fn clients_behind_a_gateway_with_the_targets_address_are_copied_if_that_is_said() {
    let config = Config {
        copy_targets: true,
        ..config()
    };
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk());
    let mut live = Live::new(at(ms(0)), PORT);
    live.client.ip = TARGET.ip;
    world.capture(live.play(&talk()));
    world.run(secs(30));
    assert_eq!(world.misdirected, []);
    assert_eq!(world.target(PORT).received, said(&talk()));
}

//! First contact and the ways behind a director: targets that are held back, addresses for probes,
//! address translation, and interceptors that come back one by one.

use std::net::IpAddr;
use std::time::Duration;

use millrace_engine::{
    AbortReason, ClientKind, Config, LiveAddress, ReplicaKey, Service, SourcePool,
};
use millrace_wire::{Endpoint, Flags};

use crate::sim::target::Ended;
use crate::sim::{LIVE, Live, TARGET, World, at, client, config, ms, secs, v4};
use crate::talk::*;

fn talk() -> Vec<crate::sim::Action> {
    use crate::sim::Action::*;
    vec![
        says(300),
        Server(500),
        says(5000),
        Server(40),
        ClientFin,
        ServerFin,
    ]
}

const LIVE_TOO: Endpoint = Endpoint::new(LIVE.ip, 81);
const TARGET_TOO: Endpoint = Endpoint::new(v4(21), 8080);

fn two_targets() -> Config {
    let mut config = config();
    config.services.push(Service {
        live: LiveAddress::At(LIVE_TOO.ip),
        live_port: LIVE_TOO.port,
        target: TARGET_TOO,
    });
    config
}

fn to_the_other(port: u16) -> Live {
    let mut live = Live::new(at(ms(0)), port);
    live.live = LIVE_TOO;
    live
}

#[test]
fn a_target_that_is_held_back_gets_nothing_and_then_everything() {
    let mut world = World::new(two_targets(), 1);
    world.behaviour = answers_like(&talk());
    let now = world.now;
    world.engine.set_target_open(now, 0, false);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.capture(to_the_other(PORT + 1).play(&talk()));
    world.run(secs(5));
    assert_eq!(world.targets.len(), 1, "the other target is not held back");
    assert_eq!(world.target(PORT + 1).tuple.destination, TARGET_TOO);
    assert_eq!(world.engine.gauges().replicas_waiting, 1);
    let now = world.now;
    world.engine.set_target_open(now, 0, true);
    world.run(secs(30));
    assert_eq!(world.target(PORT).received, said(&talk()));
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn what_waits_for_one_target_does_not_take_the_memory_of_the_others() {
    let mut config = two_targets();
    config.memory_limit = 2 << 20;
    let mut world = World::new(config, 1);
    world.keep_sent = false;
    world.behaviour = answers_like(&talk());
    let now = world.now;
    world.engine.set_target_open(now, 0, false);
    for number in 0..2000u16 {
        let start = at(secs(40) + ms(2 * u64::from(number)));
        let mut live = to_the_other(PORT + number);
        live.now = start;
        world.capture(Live::new(start, PORT + number).play(&talk()));
        world.capture(live.play(&talk()));
    }
    world.run(secs(100));
    let stats = world.engine.stats();
    assert_eq!(stats.sessions_refused.total(), 0);
    let given_up = stats.replicas_aborted.of(AbortReason::Unproven);
    let waiting = world.engine.gauges().replicas_waiting as u64;
    assert!(given_up > 1000 && waiting > 20, "{given_up}, {waiting}");
    assert_eq!(given_up + waiting, 2000);
    assert_eq!(stats.replicas_completed, 2000, "the other target's");
    let now = world.now;
    world.engine.set_target_open(now, 0, true);
    world.run(secs(60));
    assert_eq!(world.engine.stats().replicas_completed, 2000 + waiting);
}

#[test]
fn a_probe_bears_the_address_of_a_client_that_waits_and_never_a_replicas_port() {
    let mut world = World::new(config(), 1);
    let now = world.now;
    world.engine.set_target_open(now, 0, false);
    assert_eq!(
        world.engine.waiting_clients(0, ClientKind::Outside, 9),
        [] as [IpAddr; 0]
    );
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(ms(100));
    assert_eq!(
        world.engine.waiting_clients(0, ClientKind::Outside, 9),
        [client(PORT).ip]
    );
    let one = Some(client(PORT).ip);
    for micros in 0..500 {
        let at = world.now + Duration::from_micros(micros);
        let source = world.engine.probe_source(at, 0, one).unwrap();
        assert_eq!(source.ip, client(PORT).ip);
        assert_ne!(source.port, PORT);
        assert!(source.port >= 1024);
    }
    assert_eq!(world.engine.probe_source(now, 0, None), None, "whose?");
    assert_eq!(
        world.engine.probe_source(now, 9, one),
        None,
        "no such service"
    );
}

#[test]
fn a_client_all_of_whose_ports_wait_for_first_contact_can_be_probed_for_all_the_same() {
    let mut world = World::new(config(), 1);
    let now = world.now;
    world.engine.set_target_open(now, 0, false);
    // As behind a balancer that has one address; two are enough to run out if the share is small.
    for port in 1024..=u16::MAX {
        let mut live = Live::new(at(ms(0)), port);
        live.shake_hands();
        world.capture(live.play(&[]));
    }
    world.run(secs(1));
    let now = world.now;
    let source = world
        .engine
        .probe_source(now, 0, Some(client(1).ip))
        .unwrap();
    assert!((512..1024).contains(&source.port), "{source}");
}

#[test]
fn a_probe_of_a_pool_needs_no_client() {
    let pool = SourcePool::Ranges(vec![(v4(100), v4(101))]);
    let mut world = World::new(
        Config {
            sources: pool,
            ..config()
        },
        1,
    );
    let now = world.now;
    let source = world.engine.probe_source(now, 0, None).unwrap();
    assert!([v4(100), v4(101)].contains(&source.ip));
}

#[test]
fn behind_address_translation_answers_are_known_by_the_replicas_side() {
    let mut world = World::new(
        Config {
            nat: true,
            ..config()
        },
        1,
    );
    world.behaviour = answers_like(&talk());
    world.answers_from = Some(Endpoint::new(v4(77), 18_080));
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.run(ms(5));
    let keys = world.replica_keys();
    assert!(keys.iter().all(|key| world.engine.is_connected(*key)));
    world.run(secs(30));
    assert_eq!(world.target(PORT).received, said(&talk()));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn behind_address_translation_no_two_replicas_share_a_source() {
    let mut world = World::new(
        Config {
            nat: true,
            ..two_targets()
        },
        1,
    );
    world.behaviour = answers_like(&talk());
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.capture(to_the_other(PORT).play(&talk()));
    world.run(ms(5));
    let sources: Vec<_> = world.targets.iter().map(|it| it.tuple.source).collect();
    assert_eq!(sources.len(), 2);
    assert_ne!(sources[0], sources[1], "one client's port at two targets");
    world.run(secs(30));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn only_what_an_interceptor_may_have_missed_is_tried_again_when_it_is_back() {
    let mut world = World::new(config(), 1);
    // Neither answer reaches the copier.
    world.interceptor_up = false;
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    world.capture(Live::new(at(ms(1)), PORT + 1).play(&talk()));
    world.run(ms(500));
    let keys: Vec<ReplicaKey> = world.replica_keys();
    assert!(keys.iter().all(|key| !world.engine.is_connected(*key)));
    let mine = *keys
        .iter()
        .find(|key| world.flows[*key].source == client(PORT))
        .unwrap();
    let before = world.sent.len();
    let now = world.now;
    world.engine.path_restored(now, |key| key == mine);
    world.run(ms(250));
    let again = &world.sent[before..];
    assert!(!again.is_empty());
    assert_eq!(TARGET, again[0].1.tuple.destination);
    assert!(
        again.iter().all(|(_, it)| it.tuple.source == client(PORT)),
        "the other waits for its timer"
    );
}

#[test]
fn while_nothing_may_be_sent_what_came_in_is_acknowledged_once_and_nothing_else_is_said() {
    let mut world = World::new(config(), 1);
    world.behaviour = answers_like(&talk());
    world.capture(Live::new(at(ms(0)), PORT).play(&talk()));
    let mut said = Vec::new();
    // Until something of an answer has come in whose acknowledgement may wait for more.
    for _ in 0..1000 {
        world.run(Duration::from_micros(100));
        let now = world.now;
        world.engine.acknowledge(now, true, |transmit| {
            said.push((transmit.header, transmit.payload_len()));
        });
        if !said.is_empty() {
            break;
        }
    }
    assert_eq!(said.len(), 1, "one connection");
    let header = said[0].0;
    assert_eq!((header.flags, header.window, said[0].1), (Flags::ACK, 0, 0));
    let now = world.now;
    for all in [true, false] {
        world
            .engine
            .acknowledge(now, all, |_| panic!("it is said already"));
    }
    world.run(secs(30));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

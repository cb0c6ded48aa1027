//! The allocator against what it promises.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Config, LiveAddress, Service};
use crate::source::share::Block;
use crate::source::{Share, SourcePool};

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from(0xc612_0000 + n).into()
}

fn at(seconds: u64) -> Time {
    Time::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn service(live_port: u16, target_port: u16) -> Service {
    Service {
        live: LiveAddress::Host,
        live_port,
        target: Endpoint::new(v4(9), target_port),
    }
}

fn config(addresses: u32) -> Config {
    let sources = match addresses {
        0 => SourcePool::Clients,
        _ => SourcePool::Ranges(vec![(v4(256), v4(255 + addresses))]),
    };
    Config {
        // The first two go to the same target.
        services: vec![service(80, 8080), service(81, 8080), service(82, 8082)],
        sources,
        ..Config::default()
    }
}

fn take(allocator: &mut Allocator, now: Time, client: Endpoint, random: u64) -> Option<Taken> {
    allocator.take(now, client, 0, &v4(9), split_mix(random))
}

#[test]
fn a_client_keeps_its_port_while_nobody_else_has_it() {
    let mut allocator = Allocator::new(config(0).source_rules());
    let client = Endpoint::new(v4(1), 40_000);
    let first = take(&mut allocator, at(0), client, 1).unwrap();
    assert_eq!(first.source, client);
    let second = take(&mut allocator, at(0), client, 2).unwrap();
    assert_eq!(second.source.ip, client.ip);
    assert!(second.source.port != client.port && second.source.port >= 1024);
    // Back at once, it is the client's own affair.
    allocator.release(at(1), 0, client);
    let back = take(&mut allocator, at(1), client, 3).unwrap();
    assert_eq!(back.source, client);
    // What another replica had before rests, even if a client comes with that very port.
    allocator.release(at(2), 0, second.source);
    let other = take(&mut allocator, at(2), second.source, 4).unwrap();
    assert_ne!(other.source, second.source);
}

#[test]
fn the_same_source_serves_two_targets_but_not_two_services_of_one_target() {
    let mut allocator = Allocator::new(config(1).source_rules());
    let client = Endpoint::new(v4(1), 40_000);
    let target = v4(9);
    let mut of = |service| {
        allocator
            .take(at(0), client, service, &target, 1)
            .unwrap()
            .source
    };
    let (first, same_target, other_target) = (of(0), of(1), of(2));
    assert_ne!(first, same_target);
    assert_eq!(first, other_target);
    // With destination NAT on the way the target does not tell flows apart.
    let mut allocator = Allocator::new(
        Config {
            nat: true,
            ..config(1)
        }
        .source_rules(),
    );
    let mut of = |service| {
        allocator
            .take(at(0), client, service, &target, 1)
            .unwrap()
            .source
    };
    assert_ne!(of(0), of(2));
}

#[test]
fn address_families_are_not_mixed_without_a_pool() {
    let v6 = Endpoint::new("2001:db8::1".parse().unwrap(), 40_000);
    assert_eq!(
        take(&mut Allocator::new(config(0).source_rules()), at(0), v6, 1),
        None
    );
    let source = take(&mut Allocator::new(config(3).source_rules()), at(0), v6, 1)
        .unwrap()
        .source;
    assert!(source.ip >= v4(256) && source.ip <= v4(258));
}

/// 100,000 clients, seven replicas each, into ten addresses: 645,120 find a place, the rest is
/// refused, and there is room again once some have ended.
#[test]
fn a_hundred_thousand_clients_fill_ten_addresses_until_refusal_and_recover() {
    let mut allocator = Allocator::new(config(10).source_rules());
    let mut alive = HashSet::new();
    let mut order = Vec::new();
    let mut refused = 0;
    for n in 0..100_000u32 {
        let client = Endpoint::new(v4(0x1_0000 + n / 1000), (n % 1000) as u16 + 30_000);
        for replica in 0..7 {
            match take(&mut allocator, at(0), client, u64::from(n * 7 + replica)) {
                Some(taken) => {
                    assert!(alive.insert(taken.source), "{:?} twice", taken.source);
                    order.push(taken.source);
                }
                None => refused += 1,
            }
        }
    }
    assert_eq!((alive.len(), refused), (645_120, 54_880));
    // Those that end make room, and it is found although it rests.
    for source in order.drain(..1000) {
        alive.remove(&source);
        allocator.release(at(1), 0, source);
    }
    for n in 0..1000 {
        let taken = take(&mut allocator, at(1), Endpoint::new(v4(1), 30_000), n).unwrap();
        assert!(taken.early && alive.insert(taken.source));
        order.push(taken.source);
    }
    assert_eq!(
        take(&mut allocator, at(1), Endpoint::new(v4(1), 30_000), 1),
        None
    );
    // With all of them gone and rested nothing is remembered, and nothing is early.
    for source in order {
        allocator.release(at(2), 0, source);
    }
    for n in 0..100 {
        let taken = take(&mut allocator, at(200), Endpoint::new(v4(1), 30_000), n).unwrap();
        assert!(!taken.early);
    }
    assert!(allocator.addresses.ports.len() <= 10);
}

#[test]
fn a_thousand_replicas_of_one_client_find_a_thousand_ports() {
    for addresses in [0, 1, 10] {
        let mut allocator = Allocator::new(config(addresses).source_rules());
        let mut alive = HashSet::new();
        let client = Endpoint::new(v4(1), 40_000);
        for n in 0..1000 {
            let taken = take(&mut allocator, at(0), client, n).unwrap();
            assert!(alive.insert(taken.source) && !taken.early);
        }
    }
}

#[test]
fn what_is_left_to_others_is_given_out_no_more_and_later_again() {
    let mut allocator = Allocator::new(config(3).source_rules());
    let client = Endpoint::new(v4(1), 40_000);
    let all = Block {
        first: 1,
        last: u16::MAX,
    };
    let some = Block {
        first: 30_000,
        last: 50_000,
    };
    let others = [(v4(256), v4(256), all), (v4(257), v4(257), some)];
    allocator.yield_to_others(&others);
    let mut seen = HashSet::new();
    for n in 0..5000 {
        let source = take(&mut allocator, at(0), client, n).unwrap().source;
        assert!(seen.insert(source));
        assert_ne!(source.ip, v4(256));
        assert!(
            source.ip != v4(257) || !some.contains(source.port),
            "{source:?}"
        );
    }
    // What another copier still has in its own part is never given out, even if all else is in use.
    allocator.yield_to_others(&[(v4(256), v4(257), all)]);
    let taken: Vec<_> = (2000..3000)
        .map(|port| Endpoint::new(v4(258), port))
        .collect();
    let is_new = |source: &&Endpoint| !seen.contains(*source);
    let taken: HashSet<Endpoint> = taken.iter().filter(is_new).copied().collect();
    for source in &taken {
        allocator.set_taken(0, *source, true);
    }
    let mut n = 0;
    while let Some(it) = take(&mut allocator, at(0), client, n) {
        assert!(it.source.ip == v4(258) && !taken.contains(&it.source));
        n += 1;
    }
    assert!(n > 50_000);
    for source in &taken {
        allocator.set_taken(0, *source, false);
        let given = take(&mut allocator, at(0), client, n).unwrap().source;
        assert_eq!(given, *source);
    }
    allocator.yield_to_others(&[]);
    let again = take(&mut allocator, at(1), client, 1).unwrap().source;
    assert!(again.ip < v4(258));
}

#[test]
fn an_instance_goes_on_outside_its_share_when_that_is_in_use() {
    let mut allocator = Allocator::new(
        Config {
            share: Share::instance(2),
            ..config(0)
        }
        .source_rules(),
    );
    let client = Endpoint::new(v4(1), 40_000);
    let mut alive = HashSet::new();
    let mut inside = 0;
    for n in 0..1000 {
        let taken = take(&mut allocator, at(0), client, n).unwrap();
        assert!(alive.insert(taken.source) && !taken.early);
        let own = (1024 + 2 * 63..1024 + 3 * 63).contains(&taken.source.port);
        inside += usize::from(own);
        assert_eq!(own, n < 63);
    }
    assert_eq!(inside, 63);
}

#[test]
fn addresses_of_clients_that_never_come_back_are_forgotten() {
    let mut allocator = Allocator::new(config(0).source_rules());
    for n in 0..10_000 {
        let client = Endpoint::new(v4(n), 40_000);
        take(&mut allocator, at(u64::from(n)), client, 1).unwrap();
        allocator.release(at(u64::from(n)), 0, client);
    }
    let kept = allocator.addresses.ports.len();
    assert!(kept < 300, "one client a second, a minute's rest: {kept}");
    assert_eq!(allocator.addresses.used, 0);
}

#[test]
fn without_rest_a_port_is_free_at_once() {
    let config = Config {
        port_rest: Duration::ZERO,
        ..config(1)
    };
    let mut allocator = Allocator::new(config.source_rules());
    let client = Endpoint::new(v4(1), 40_000);
    let first = take(&mut allocator, at(0), client, 1).unwrap();
    allocator.release(at(0), 0, first.source);
    assert_eq!(take(&mut allocator, at(0), client, 1), Some(first));
}

#[derive(Clone, Debug)]
enum Step {
    /// A session of this client with so many replicas.
    Begin(u16, u8),
    /// One of those alive, counted from here, ends.
    End(usize),
    /// Seconds go by.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u16>(), 1..6u8).prop_map(|(client, n)| Step::Begin(client, n)),
        3 => any::<usize>().prop_map(Step::End),
        1 => (0..40u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Several copiers with a share each, sessions that come and go: no source is ever given out
    /// twice, none rests too short while there is another, each keeps to its share, and a refusal
    /// means that the share is used up.
    #[test]
    fn no_two_replicas_alive_share_a_source_whatever_the_pool_and_the_shares(
        addresses in 0..6u32,
        shares in prop_oneof![Just(1u16), 2..5u16, Just(1024u16)],
        steps in proptest::collection::vec((0..4u16, step()), 1..400),
        seed in any::<u64>(),
    ) {
        let config = |index| Config { share: Share::new(index % shares, shares), ..config(addresses) };
        let mut copiers: Vec<_> = (0..4).map(|i| (config(i), Allocator::new(config(i).source_rules()))).collect();
        let mut alive: Vec<(usize, Endpoint)> = Vec::new();
        let mut taken_by: HashMap<Endpoint, usize> = HashMap::new();
        let mut ended: HashMap<Endpoint, u64> = HashMap::new();
        let mut own_last: HashSet<Endpoint> = HashSet::new();
        let (mut now, mut random) = (0, seed);
        for (who, step) in steps {
            let who = usize::from(who % shares.min(4));
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::End(n) => if let Some(n) = n.checked_rem(alive.len()) {
                    let (who, source) = alive.swap_remove(n);
                    taken_by.remove(&source);
                    ended.insert(source, now);
                    copiers[who].1.release(at(now), 0, source);
                }
                Step::Begin(client, replicas) => for _ in 0..replicas {
                    random = split_mix(random);
                    // Few clients, so that they meet.
                    let client = Endpoint::new(v4(u32::from(client % 3)), 1024 + client / 3 % 50);
                    let space = copiers[who].0.space(true);
                    let capacity = space.capacity();
                    match take(&mut copiers[who].1, at(now), client, random) {
                        Some(Taken { source, early }) => {
                            prop_assert_eq!(taken_by.insert(source, who), None, "{:?} twice", source);
                            prop_assert!(space.allows(source.port));
                            prop_assert_eq!(addresses == 0, source.ip == client.ip);
                            let own = addresses == 0 && source == client && own_last.contains(&source);
                            let rested = ended.get(&source).is_none_or(|since| now - since >= 60);
                            prop_assert!(rested || early || own, "{:?} did not rest", source);
                            if addresses == 0 && source == client {
                                own_last.insert(source);
                            } else {
                                own_last.remove(&source);
                            }
                            alive.push((who, source));
                        }
                        None => {
                            let mine = alive.iter().filter(|(owner, source)| {
                                *owner == who && (addresses > 0 || source.ip == client.ip)
                            });
                            let room = capacity.addresses.unwrap_or(1) * u128::from(capacity.per_address);
                            prop_assert_eq!(mine.count() as u128, room);
                        }
                    }
                },
            }
        }
    }
}

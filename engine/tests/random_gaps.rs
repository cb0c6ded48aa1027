//! Ten thousand random sessions of which capture loses random segments: what a target gets is, per
//! connection, a run of whole turns and at most one that is cut, and every turn that was captured
//! whole arrives, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_engine::Config;
use sim::target::Ended;
use sim::{Action, Live, Rng, World, at, config, ms, secs};

/// Length of what a turn begins with: session, number and length.
const HEAD: usize = 12;

/// A turn that says what it is.
fn turn(session: u32, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = [session, number, len as u32]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect::<Vec<u8>>();
    bytes.extend((0..len).map(|i| (i as u32 ^ session ^ (number << 4)) as u8));
    bytes
}

fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_be_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap())
}

/// Reads what one connection got: the turns that are whole, and whether one was cut.
fn read(received: &[u8]) -> (Vec<(u32, u32)>, bool) {
    let (mut rest, mut whole) = (received, Vec::new());
    while rest.len() >= HEAD {
        let (session, number, len) = (word(rest, 0), word(rest, 1), word(rest, 2) as usize);
        let all = turn(session, number, len);
        let here = rest.len().min(all.len());
        assert!(
            rest[..here] == all[..here],
            "bytes that no client sent there"
        );
        if here < all.len() {
            break;
        }
        whole.push((session, number));
        rest = &rest[here..];
    }
    (whole, !rest.is_empty())
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(
        Config {
            // Targets here never answer: the gate would only wait for its own bounds.
            gate: rng.chance(10.0),
            ..config()
        },
        seed,
    );
    let mut whole: BTreeMap<(u32, u32), bool> = BTreeMap::new();
    for session in 0..20 {
        let turns = rng.between(1, 12) as u32;
        let mut actions = Vec::new();
        let mut ends = Vec::new();
        let mut sent = 0;
        for number in 0..turns {
            let len = match rng.chance(15.0) {
                true => rng.between(0, 60_000),
                false => rng.between(0, 1200),
            };
            let bytes = turn(session, number, len as usize);
            sent += bytes.len() as u64;
            ends.push(sent);
            actions.push(Action::Client(bytes));
            actions.push(Action::Server(rng.between(1, 3000)));
            if rng.chance(20.0) {
                let pause = rng.between(0, 2_000_000);
                actions.push(Action::Pause(Duration::from_micros(pause)));
            }
        }
        actions.push(Action::ClientFin);
        let mut live = Live::new(at(ms(rng.between(0, 400))), 10_000 + session as u16 * 7);
        live.segment = [1460, 536, 20_000][rng.between(0, 2) as usize];
        let first = live.client_isn.add(1);
        let mut packets = live.play(&actions);
        let loss = [1.0, 5.0, 30.0][rng.between(0, 2) as usize];
        let live_loss = [0.0, 0.0, 5.0][rng.between(0, 2) as usize];
        let mut lost = Vec::new();
        packets.retain(|(_, packet)| {
            let from_client = packet.tuple.source.port >= 10_000;
            let drop = match from_client {
                true => packet.payload_len > 0 && rng.chance(loss),
                false => packet.payload_len > 0 && rng.chance(live_loss),
            };
            if drop && from_client {
                let start = packet.header.seq.offset_near(first, 0).unwrap();
                lost.push(start..start + packet.payload_len as u64);
            }
            !drop
        });
        let mut start = 0;
        for (number, end) in ends.into_iter().enumerate() {
            let is_lost = lost.iter().any(|it| it.start < end && it.end > start);
            // Without all of the live server's headers a turn may not be known as one.
            let must_arrive = !is_lost && live_loss == 0.0;
            whole.insert((session, number as u32), must_arrive);
            start = end;
        }
        world.capture(packets);
    }
    world.run(secs(900));
    let mut got: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for target in &world.targets {
        let (turns, cut) = read(&target.received);
        for pair in turns.windows(2) {
            let next = (pair[0].0, pair[0].1 + 1);
            assert_eq!(pair[1], next, "seed {seed}: a run of one client's turns");
        }
        assert!(
            !(cut && target.ended == Ended::Fin),
            "seed {seed}: a cut one that seems whole"
        );
        for turn in turns {
            *got.entry(turn).or_default() += 1;
        }
    }
    for (turn, must_arrive) in &whole {
        let times = got.get(turn).copied().unwrap_or(0);
        assert!(times <= 1, "seed {seed}: {turn:?} arrived {times} times");
        assert!(
            times == 1 || !must_arrive,
            "seed {seed}: {turn:?} did not arrive"
        );
    }
    let stats = world.engine.stats();
    assert!(stats.bytes_delivered <= stats.bytes_wanted, "seed {seed}");
    world.assert_nothing_left();
}

macro_rules! seeds {
    ($($name:ident: $range:expr),*) => {
        $(#[test] fn $name() { ($range).for_each(run); })*
    };
}

// 500 worlds of 20 sessions.
seeds!(gaps_0: 0..125, gaps_1: 125..250, gaps_2: 250..375, gaps_3: 375..500);

//! Ten thousand random sessions over random networks to random targets: every byte arrives, and
//! a run is repeated bit for bit from its seed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod sim;

use std::time::Duration;

use sim::{Action, Behaviour, Link, Live, Rng, World, at, bytes, config, ms, secs};

struct Plan {
    actions: Vec<Action>,
    sent: Vec<u8>,
    behaviour: Behaviour,
}

/// A random conversation, and a target that can hold it.
fn plan(rng: &mut Rng, seed: u64) -> Plan {
    let mut actions = Vec::new();
    let mut sent = Vec::new();
    let mut answers = Vec::new();
    let greeting = if rng.chance(10.0) {
        rng.between(1, 200)
    } else {
        0
    };
    if greeting > 0 {
        actions.push(Action::Server(greeting));
    }
    for turn in 0..rng.between(1, 5) {
        let len = if rng.chance(10.0) {
            rng.between(1, 60_000)
        } else {
            rng.between(1, 900)
        };
        let data = bytes(seed ^ turn, len as usize);
        sent.extend_from_slice(&data);
        actions.push(Action::Client(data));
        let answer = if rng.chance(10.0) {
            rng.between(0, 80_000)
        } else {
            rng.between(0, 2000)
        };
        if answer > 0 {
            actions.push(Action::Server(answer));
        }
        // A new version may answer something else.
        let theirs = if rng.chance(15.0) {
            rng.between(1, 2000)
        } else {
            answer
        };
        answers.push((sent.len() as u64, theirs));
        if rng.chance(20.0) {
            actions.push(Action::Pause(Duration::from_micros(
                rng.between(0, 300_000),
            )));
        }
    }
    let server_first = rng.chance(30.0);
    if server_first {
        actions.push(Action::ServerFin);
    }
    actions.push(match rng.between(0, 9) {
        0 => Action::ClientReset,
        1 => Action::ServerReset,
        _ => Action::ClientFin,
    });
    let behaviour = Behaviour {
        mss: [Some(1460), Some(536), None, Some(9000)][rng.between(0, 3) as usize],
        window_scale: [Some(7), None, Some(0)][rng.between(0, 2) as usize],
        timestamps: rng.chance(70.0),
        sack: rng.chance(70.0),
        window: [1 << 20, 65_535, 3000, 500][rng.between(0, 3) as usize],
        stall: rng
            .chance(10.0)
            .then(|| (rng.between(1, 3000), ms(rng.between(1, 3000)))),
        greeting,
        answers,
        answer_delay: Duration::from_micros(rng.between(0, 20_000)),
        answer_pause: Duration::from_micros(if rng.chance(10.0) { 50_000 } else { 0 }),
        ..Behaviour::default()
    };
    Plan {
        actions,
        sent,
        behaviour,
    }
}

fn link(rng: &mut Rng) -> Link {
    Link {
        delay: Duration::from_micros(rng.between(50, 5000)),
        jitter: Duration::from_micros([0, 0, 2000][rng.between(0, 2) as usize]),
        loss: [0.0, 0.0, 1.0, 5.0, 10.0][rng.between(0, 4) as usize],
        duplication: [0.0, 0.0, 3.0][rng.between(0, 2) as usize],
    }
}

/// What capture delivers of a conversation: segments out of order, repeated, cut anew.
fn disturb(rng: &mut Rng, packets: &mut Vec<(millrace_engine::Time, sim::Packet)>) {
    if !rng.chance(30.0) {
        return;
    }
    let copies: Vec<_> = packets
        .iter()
        .filter(|_| rng.chance(10.0))
        .map(|(time, packet)| (*time + Duration::from_micros(700), packet.clone()))
        .collect();
    packets.extend(copies);
    for (time, packet) in packets.iter_mut() {
        if packet.payload_len > 0 && rng.chance(10.0) {
            *time = *time + Duration::from_micros(rng.between(0, 300));
        }
    }
}

/// One network with twenty sessions; gives a digest of everything that was sent.
fn run(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let mut world = World::new(config(), seed);
    world.to_target = link(&mut rng);
    world.to_copier = link(&mut rng);
    let mut expected = Vec::new();
    for i in 0..20u16 {
        let plan = plan(&mut rng, seed * 100 + u64::from(i));
        let port = 10_000 + i * 7;
        let mut live = Live::new(at(ms(rng.between(0, 400))), port);
        live.segment = [1460, 536, 20_000, 65_000][rng.between(0, 3) as usize];
        let mut packets = live.play(&plan.actions);
        disturb(&mut rng, &mut packets);
        world.behaviours.insert(port, plan.behaviour);
        world.capture(packets);
        expected.push((port, plan.sent));
    }
    world.run(secs(600));
    for (port, sent) in expected {
        assert!(
            world.received(port) == sent,
            "seed {seed}: stream of port {port} differs"
        );
    }
    for target in &world.targets {
        assert_eq!(
            target.window_violations, 0,
            "seed {seed}: sent beyond the window"
        );
    }
    let stats = world.engine.stats();
    assert_eq!(
        stats.bytes_delivered, stats.bytes_captured,
        "seed {seed}: bytes delivered"
    );
    assert_eq!(
        stats.replicas_completed, 20,
        "seed {seed}: {:?}",
        stats.replicas_aborted
    );
    let mut digest = 0u64;
    for (time, packet) in &world.sent {
        for word in [
            time.as_micros(),
            u64::from(packet.header.seq.0),
            u64::from(packet.header.ack.0),
            packet.payload_len as u64,
        ] {
            digest = (digest ^ word)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        }
    }
    world.assert_nothing_left();
    digest
}

fn runs(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        run(seed);
    }
}

// Ten tests of 1,000 sessions each, so that they run on all cores.
macro_rules! thousand {
    ($($name:ident $first:expr),*) => {
        $(#[test] fn $name() { runs($first..$first + 50); })*
    };
}

thousand! {
    sessions_0 0, sessions_1 50, sessions_2 100, sessions_3 150, sessions_4 200,
    sessions_5 250, sessions_6 300, sessions_7 350, sessions_8 400, sessions_9 450
}

#[test]
fn a_run_is_repeated_bit_for_bit_from_its_seed() {
    for seed in [3, 77, 401] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(3), run(4));
}

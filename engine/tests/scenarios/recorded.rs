//! Recordings: fed all at once, with the times of the recording beside those of the run.

use std::collections::BTreeSet;

use millrace_engine::{AbortReason, Config, Intensity, Recorded};

use crate::sim::rng::Rng;
use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, Live, Packet, World, at, config, ms, secs};
use crate::talk::*;
use Action::*;

fn recorded(speed: f64, pause: Option<u64>) -> Config {
    Config {
        recorded: Some(Recorded {
            speed,
            longest_pause: pause.map(ms),
        }),
        // What is fed at once is behind from the start.
        keep_pauses: true,
        ..config()
    }
}

fn world(speed: f64, pause: Option<u64>, talk: &[Action]) -> World {
    let mut world = World::new(recorded(speed, pause), 1);
    world.behaviour = answers_like(talk);
    world
}

/// Hands all packets over at the world's present; their times are an hour past.
fn feed(world: &mut World, packets: &[(millrace_engine::Time, Packet)]) {
    let now = world.now;
    for (time, packet) in packets {
        world
            .engine
            .segment(now, *time - secs(3600), &packet.view());
    }
}

fn turns(think: u64) -> Vec<Action> {
    let mut talk = Vec::new();
    for _ in 0..10 {
        talk.extend([says(100), Server(1000), Pause(ms(think))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

/// The recording ends, and everything was delivered.
fn assert_complete_at_the_end(world: &mut World, talk: &[Action]) {
    let now = world.now;
    world.engine.end_of_recording(now);
    assert_complete(world, talk);
}

/// How long the replay of ten turns with 100 ms between them takes, in milliseconds.
fn taken(speed: f64, pause: Option<u64>) -> u64 {
    let talk = turns(100);
    let mut world = world(speed, pause, &talk);
    feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(30));
    assert_complete_at_the_end(&mut world, &talk);
    let last = sent_with(&world, millrace_wire::Flags::FIN)[0].0;
    elapsed(last)
}

#[test]
fn a_recording_that_is_fed_at_once_keeps_think_times_divided_by_the_speed() {
    assert!((1000..1200).contains(&taken(1.0, None)));
    assert!((100..250).contains(&taken(10.0, None)));
    assert!((2000..2300).contains(&taken(0.5, None)));
    assert!((300..450).contains(&taken(1.0, Some(30))));
    assert!(taken(f64::INFINITY, None) < 50);
}

#[test]
fn however_fast_it_is_fed_no_turn_goes_before_the_answer_to_the_one_before() {
    let talk = turns(100);
    let mut world = world(f64::INFINITY, None, &talk);
    world.behaviour.answer_delay = ms(200);
    feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(30));
    for turn in 1..10 {
        let gap = sent_at(&world, PORT, turn * 100).since(sent_at(&world, PORT, (turn - 1) * 100));
        assert!(gap >= ms(200), "turn {turn}: {gap:?}");
    }
    assert_eq!(stats(&world).gate_passed, 11);
    assert_complete_at_the_end(&mut world, &talk);
}

#[test]
fn a_session_that_the_recordings_end_cuts_is_delivered_until_there() {
    let talk = [says(300), Server(500), says(5000)];
    let mut world = world(1.0, None, &talk);
    feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
    let now = world.now;
    world.engine.end_of_recording(now);
    world.run(secs(30));
    assert_eq!(world.received(PORT), said(&talk));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_eq!(stats(&world).sessions_cut, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn what_a_recording_never_held_is_a_capture_gap_at_its_end() {
    let talk = [says(1000), Server(500), says(6000), Server(100)];
    let mut world = world(1.0, None, &talk);
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    let lost = packets.iter().position(|(_, p)| p.payload.len() == 1460);
    packets.remove(lost.unwrap() + 1);
    feed(&mut world, &packets);
    // The recording goes no further, so time alone does not make it final.
    world.run(secs(100));
    assert_eq!(stats(&world).replicas_aborted.total(), 0);
    let now = world.now;
    world.engine.end_of_recording(now);
    world.run(secs(30));
    let aborted = &stats(&world).replicas_aborted;
    assert_eq!(aborted.of(AbortReason::CaptureGap), 1);
    assert!(stats(&world).bytes_delivered < stats(&world).bytes_captured);
    assert_eq!(stats(&world).replicas_completed, 0);
    world.assert_nothing_left();
}

#[test]
fn the_same_recording_again_is_another_session() {
    let talk = turns(1);
    let mut world = world(f64::INFINITY, None, &talk);
    let packets = Live::new(at(ms(0)), PORT).play(&talk);
    for _ in 0..3 {
        feed(&mut world, &packets);
        let now = world.now;
        world.engine.end_of_recording(now);
        world.run(secs(10));
    }
    assert_eq!(stats(&world).sessions_captured, 3);
    assert_eq!(stats(&world).sessions_cut, 0);
    assert_eq!(world.targets.len(), 3);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_recording_that_is_held_back_for_hours_loses_nothing() {
    let talk = turns(1);
    let mut world = world(1.0, None, &talk);
    let packets = Live::new(at(ms(0)), PORT).play(&talk);
    // In the middle of the handshake, behind a gap, and between two turns.
    for part in packets.chunks(packets.len() / 7) {
        let mut part = part.to_vec();
        part.reverse();
        feed(&mut world, &part);
        world.run(secs(7200));
    }
    assert_complete_at_the_end(&mut world, &talk);
}

#[test]
fn what_cannot_be_replayed_of_a_recordings_beginning_is_counted() {
    let talk = [says(300), Server(500)];
    let mut world = world(1.0, None, &talk);
    let mut syn = Live::new(at(ms(0)), PORT).play(&talk);
    syn.truncate(1);
    feed(&mut world, &syn);
    let mut midway = Live::new(at(ms(0)), PORT + 1);
    midway.handshake = false;
    feed(&mut world, &midway.play(&talk));
    let now = world.now;
    world.engine.end_of_recording(now);
    let counted = stats(&world);
    assert_eq!(
        (counted.sessions_unopened, counted.sessions_unpicked),
        (1, 1)
    );
    assert_eq!((counted.bytes_refused, counted.sessions_captured), (300, 0));
    world.assert_nothing_left();
}

/// Feeds these packets and lets the recording end.
fn fed(world: &mut World, packets: &[(millrace_engine::Time, Packet)]) {
    feed(world, packets);
    world.run(secs(10));
    let now = world.now;
    world.engine.end_of_recording(now);
    world.run(secs(100));
}

#[test]
fn a_lost_request_is_missing_bytes_whoever_tells_of_it() {
    let talk = [
        says(300),
        Server(500),
        says(1000),
        Server(100),
        Pause(secs(5)),
        ClientFin,
        ServerFin,
    ];
    let whole = Live::new(at(ms(0)), PORT).play(&talk);
    let lost = |(_, packet): &&(_, Packet)| packet.payload.len() != 1000;
    let holed: Vec<_> = whole.iter().filter(lost).cloned().collect();
    assert_eq!(holed.len(), whole.len() - 1);
    let from_client = |(_, packet): &&(_, Packet)| packet.tuple.source.port == PORT;
    let clients: Vec<_> = holed.iter().filter(from_client).cloned().collect();
    // The live server has acknowledged it, and its client's FIN lies behind it: also without the
    // server's side, and where the recording ends before the FIN.
    let until = holed.iter().position(|(t, _)| *t > at(secs(2))).unwrap();
    for packets in [&holed[..], &clients, &holed[..until]] {
        let mut world = world(1.0, None, &talk);
        fed(&mut world, packets);
        let counted = stats(&world);
        assert_eq!((counted.bytes_captured, counted.bytes_missing), (300, 1000));
        assert_aborted(&mut world, AbortReason::CaptureGap);
    }
}

#[test]
fn whatever_capture_loses_and_targets_do_every_byte_is_captured_or_missing_and_counted_once() {
    let mut with_loss = 0;
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let mut talk = Vec::new();
        for _ in 0..rng.between(1, 4) {
            talk.push(says(rng.between(1, 6000) as usize));
            talk.push(Server(rng.between(1, 3000)));
        }
        talk.push(match rng.between(0, 2) {
            0 => ClientFin,
            1 => ClientReset,
            _ => ServerReset,
        });
        let sent = said(&talk).len() as u64;
        let mut world = World::new(
            Config {
                intensity: Intensity::replicas(rng.between(1, 2) as u16),
                ..recorded(f64::INFINITY, None)
            },
            seed,
        );
        world.behaviour = answers_like(&talk);
        match rng.between(0, 3) {
            0 => world.behaviour.refuse = true,
            1 => world.behaviour.reset_after = Some(rng.between(1, sent)),
            2 => world.behaviour.fin_after = Some(rng.between(1, sent)),
            _ => {}
        }
        let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
        packets.retain(|(_, packet)| packet.payload.is_empty() || !rng.chance(20.0));
        for index in 3..packets.len() - 1 {
            if rng.chance(20.0) {
                packets.swap(index, index - 1);
            }
            if rng.chance(10.0) {
                packets.insert(index, packets[index].clone());
            }
        }
        let (begin, rest) = packets.split_at(rng.between(0, packets.len() as u64) as usize);
        feed(&mut world, begin);
        world.run(ms(rng.between(0, 3000)));
        feed(&mut world, rest);
        world.run(ms(rng.between(0, 3000)));
        let now = world.now;
        world.engine.end_of_recording(now);
        world.run(secs(60));
        let counted = stats(&world);
        let (captured, missing) = (counted.bytes_captured, counted.bytes_missing);
        assert_eq!(
            captured + missing + counted.bytes_refused,
            sent,
            "seed {seed}: {captured} captured, {missing} missing"
        );
        with_loss += u32::from(missing > 0);
        assert!(
            counted.bytes_delivered <= counted.bytes_wanted,
            "seed {seed}"
        );
        world.assert_nothing_left();
    }
    assert!(with_loss > 200, "{with_loss}");
}

#[test]
fn what_the_snap_length_cut_is_missing() {
    let talk = [says(300), Server(500), says(200), Server(9), ClientFin];
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    for (_, packet) in &mut packets {
        packet.payload.truncate(120);
    }
    let clients: Vec<_> = packets
        .iter()
        .filter(|(_, packet)| packet.tuple.source.port == PORT)
        .cloned()
        .collect();
    // Nothing but its length tells of the rest of the last one.
    for packets in [&packets[..], &clients, &clients[..3]] {
        let mut world = world(1.0, None, &talk);
        fed(&mut world, packets);
        let sent = if packets.len() == 3 { 300 } else { 500 };
        let counted = stats(&world);
        assert_eq!(
            counted.bytes_captured + counted.bytes_missing,
            sent,
            "{} of {sent} are missing",
            counted.bytes_missing
        );
        // Where the live server's answers show where the second turn begins, its head goes too.
        let heads = if world.targets.len() > 1 { 2 } else { 1 };
        let counted = stats(&world);
        assert_eq!(counted.bytes_delivered, 120 * heads);
        let aborted = &counted.replicas_aborted;
        assert_eq!(aborted.of(AbortReason::CaptureGap), heads);
        assert_eq!((aborted.total(), counted.replicas_completed), (heads, 0));
        world.assert_nothing_left();
    }
}

#[test]
fn what_lies_before_a_gap_is_delivered_though_the_recording_ends_at_once() {
    let talk = [says(300), Server(500), says(1000), Server(100), ClientFin];
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    packets.retain(|(_, packet)| packet.payload.len() != 1000);
    let mut world = world(1.0, None, &talk);
    feed(&mut world, &packets);
    let now = world.now;
    world.engine.end_of_recording(now);
    world.run(secs(100));
    assert_eq!(world.received(PORT).len(), 300);
    assert_eq!(stats(&world).bytes_missing, 1000);
    assert_aborted(&mut world, AbortReason::CaptureGap);
}

#[test]
fn segments_out_of_order_are_not_missing() {
    let talk = turns(1);
    let mut world = world(1.0, None, &talk);
    let mut packets = Live::new(at(ms(0)), PORT).play(&talk);
    packets[3..].reverse();
    fed(&mut world, &packets);
    assert_eq!(stats(&world).bytes_missing, 0);
    assert_eq!(stats(&world).bytes_captured, 1000);
}

#[test]
fn every_round_chooses_the_same_sessions_and_brings_them_from_other_ports() {
    let talk = turns(1);
    let mut config = recorded(f64::INFINITY, None);
    config.intensity = Intensity::from_ratio(0.3);
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk);
    let mut ports = BTreeSet::new();
    let mut captured = BTreeSet::new();
    for _ in 0..4 {
        let before = stats(&world).sessions_captured;
        for client in 0..50u16 {
            let seen = stats(&world).sessions_captured;
            feed(&mut world, &Live::new(at(ms(0)), PORT + client).play(&talk));
            if stats(&world).sessions_captured > seen {
                captured.insert(client);
            }
        }
        assert_eq!(
            stats(&world).sessions_captured - before,
            captured.len() as u64
        );
        let now = world.now;
        world.engine.end_of_recording(now);
        world.run(secs(10));
    }
    assert!((5..25).contains(&captured.len()), "{}", captured.len());
    assert_eq!(stats(&world).bytes_left_out, 0, "as it was at the start");
    ports.extend(world.targets.iter().map(|t| t.tuple.source.port));
    assert_eq!(ports.len(), 4 * captured.len());
    world.assert_nothing_left();
}

#[test]
fn what_is_left_out_by_less_than_the_first_intensity_is_told_from_the_rest() {
    let talk = turns(1);
    let mut world = world(f64::INFINITY, None, &talk);
    world.engine.set_intensity(Intensity::ZERO);
    feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
    let counted = stats(&world);
    assert_eq!(
        (counted.bytes_unchosen, counted.bytes_left_out),
        (1000, 1000)
    );
}

#[test]
fn a_session_is_busy_until_its_target_has_answered_and_its_end_is_taken() {
    let talk = [says(100), Server(50), says(100), Server(50), ClientFin];
    let mut world = World::new(
        Config {
            intensity: Intensity::replicas(3),
            ..recorded(f64::INFINITY, None)
        },
        1,
    );
    world.behaviour = Behaviour {
        answer_delay: secs(2),
        ..answers_like(&talk)
    };
    let packets = Live::new(at(ms(0)), PORT).play(&talk);
    let second = packets.iter().rposition(|(_, p)| p.payload.len() == 100);
    let (first, rest) = packets.split_at(second.unwrap());
    assert!(!world.engine.may_begin(&first[2].1.view()));
    feed(&mut world, &first[..2]);
    assert!(world.engine.may_begin(&first[2].1.view()));
    feed(&mut world, &first[2..]);
    let busy = |world: &World| world.engine.gauges().sessions_busy;
    for (after, expected) in [(0, 1), (1, 1), (2, 0)] {
        world.run(secs(after));
        assert_eq!(busy(&world), expected, "{after} s");
    }
    feed(&mut world, rest);
    assert_eq!(busy(&world), 1);
    world.run(secs(1));
    assert_eq!(busy(&world), 1, "the second answer");
    world.run(secs(5));
    assert_eq!(busy(&world), 0);
    let now = world.now;
    world.engine.end_of_recording(now);
    world.assert_nothing_left();
}

#[test]
fn a_session_is_busy_while_its_target_takes_its_time_but_not_for_ever() {
    let talk = [says(100), Server(50)];
    for (delay, until, gate) in [(6, 6, true), (3600, 10, true), (6, 0, false)] {
        let mut world = World::new(
            Config {
                gate,
                ..recorded(f64::INFINITY, None)
            },
            1,
        );
        world.behaviour = answers_like(&talk);
        world.behaviour.answer_delay = secs(delay);
        feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(until).saturating_sub(ms(100)));
        assert_eq!(world.engine.gauges().sessions_busy, 1, "{delay} s");
        world.run(ms(200));
        assert_eq!(world.engine.gauges().sessions_busy, 0, "{delay} s");
    }
}

#[test]
fn a_silence_ends_no_copy_that_is_not_there_yet_or_waits_for_its_answer() {
    for talk in [vec![], vec![says(100), Server(50)]] {
        let mut world = world(f64::INFINITY, None, &talk);
        world.behaviour.answer_delay = secs(3);
        feed(&mut world, &Live::new(at(ms(0)), PORT).play(&talk));
        for (later, port) in [(10_000, 1), (10_010, 2)] {
            let other = Live::new(at(secs(later)), PORT + port).play(&turns(1));
            feed(&mut world, &other);
            let now = world.now;
            world.engine.timeout(now);
            world.run(secs(2));
        }
        assert_eq!(
            stats(&world).replicas_aborted.total(),
            u64::from(talk.is_empty())
        );
        assert_eq!(stats(&world).replicas_established, 3);
    }
}

#[test]
fn handshakes_with_data_that_never_complete_hold_nothing_up_and_are_forgotten() {
    let mut world = world(f64::INFINITY, None, &[]);
    let mut syn = Wire::new(PORT).syn();
    (syn.payload, syn.payload_len) = (vec![7; 1000], 1000);
    feed(&mut world, &[(at(ms(0)), syn)]);
    assert_eq!(world.engine.gauges().backlog, 0, "no target waits for it");
    let later = turns(1);
    feed(&mut world, &Live::new(at(secs(100)), PORT + 1).play(&later));
    let now = world.now;
    world.engine.timeout(now);
    assert_eq!(stats(&world).sessions_unopened, 1);
    assert_eq!(world.engine.gauges().sessions, 1);
}

#[test]
fn what_lies_before_a_silence_or_a_gap_is_delivered_however_fast_it_is_read() {
    let silence = [says(300), Server(50), Pause(secs(9000)), says(200)];
    let mut silent = Live::new(at(ms(0)), PORT).play(&silence);
    silent.truncate(silent.len() - 1);
    let mut gap = Live::new(at(ms(0)), PORT + 1).play(&[
        says(300),
        Server(50),
        says(1000),
        Server(50),
        Pause(secs(5)),
        ClientFin,
    ]);
    gap.retain(|(_, packet)| packet.payload.len() != 1000);
    let later = Live::new(at(secs(20_000)), PORT + 2).play(&turns(1));
    let mut world = world(f64::INFINITY, None, &silence);
    let mut packets = [silent, gap].concat();
    packets.sort_by_key(|(time, _)| *time);
    // Everything is there before the target has answered the first SYN.
    feed(&mut world, &packets);
    feed(&mut world, &later);
    let now = world.now;
    world.engine.timeout(now);
    world.run(secs(30));
    assert_eq!(world.received(PORT).len(), 300);
    assert_eq!(world.received(PORT + 1).len(), 300);
    // What follows in the recording tells that nothing more comes of them.
    feed(
        &mut world,
        &Live::new(at(secs(20_010)), PORT + 3).play(&turns(1)),
    );
    world.run(secs(30));
    let aborted = &stats(&world).replicas_aborted;
    assert_eq!(aborted.of(AbortReason::Idle), 1);
    assert_eq!(aborted.of(AbortReason::CaptureGap), 1);
    assert_eq!(stats(&world).bytes_missing, 1000);
}

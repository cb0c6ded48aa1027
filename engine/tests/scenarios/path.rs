//! The way to the target and back: lines 11 to 15.

use millrace_engine::{AbortReason, Config, Owed};
use millrace_wire::{Flags, Seq};

use crate::sim::{Action, Behaviour, Link, Live, World, at, config, ms, secs};
use crate::talk::*;
use Action::*;

/// The number of the `n`-th packet (from 0) that fits, among those that the engine sent.
fn number_of(world: &World, n: usize, fits: impl Fn(&crate::sim::Packet) -> bool) -> u64 {
    let mut hits = world.sent.iter().enumerate().filter(|(_, (_, p))| fits(p));
    hits.nth(n).expect("such a packet was sent").0 as u64
}

/// Plays a conversation once without loss, and again with the packet lost that `pick` names.
fn replay_losing(talk: &[Action], pick: impl Fn(&World) -> Vec<u64>) -> World {
    let smooth = replay(answers_like(talk), talk);
    let lost = pick(&smooth);
    let mut world = stage(answers_like(talk), talk);
    world.drop_to_target = lost;
    world.run(secs(60));
    world
}

// 11: loss.

#[test]
fn a_lost_syn_is_sent_again_after_a_second() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay_losing(&talk, |_| vec![0]);
    let syns = sent_with(&world, Flags::SYN);
    assert_eq!(syns.len(), 2);
    assert_eq!(syns[1].0.since(syns[0].0), secs(1), "RFC 6298 (2.1)");
    assert_eq!(syns[0].1.header.seq, syns[1].1.header.seq);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_lost_last_segment_costs_a_probe_and_no_time_out() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay_losing(&talk, |w| vec![number_of(w, 0, |p| p.payload_len > 0)]);
    let data: Vec<_> = world
        .sent
        .iter()
        .filter(|(_, p)| p.payload_len > 0)
        .collect();
    assert_eq!(data.len(), 2);
    assert!(data[1].0.since(data[0].0) < ms(25));
    assert_eq!(stats(&world).bytes_retransmitted, 100);
    assert_eq!(stats(&world).retransmission_timeouts, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_lost_probe_of_the_tail_leaves_it_to_the_time_out() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay_losing(&talk, |w| {
        let first = number_of(w, 0, |p| p.payload_len > 0);
        vec![first, first + 1]
    });
    assert_eq!(stats(&world).bytes_retransmitted, 200);
    assert_eq!(stats(&world).retransmission_timeouts, 1);
    assert!(elapsed(sent_with(&world, Flags::FIN)[0].0) < 260);
    assert_complete(&mut world, &talk);
}

#[test]
fn the_lost_tail_of_an_upload_costs_no_time_out() {
    let talk = [says(20_000), Server(50), ClientFin, ServerFin];
    let data = |p: &crate::sim::Packet| p.payload_len > 0;
    for lost in [1, 2, 3] {
        let mut world = replay_losing(&talk, |w| {
            let count = w.sent.iter().filter(|(_, p)| data(p)).count();
            (1..=lost).map(|n| number_of(w, count - n, data)).collect()
        });
        assert_eq!(stats(&world).retransmission_timeouts, 0, "{lost} lost");
        assert!(
            elapsed(sent_with(&world, Flags::FIN)[0].0) < 60,
            "{lost} lost"
        );
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn a_lost_fin_is_sent_again() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let fin = |p: &crate::sim::Packet| p.header.flags.has(Flags::FIN);
    let mut world = replay_losing(&talk, |w| vec![number_of(w, 0, fin)]);
    assert_eq!(sent_with(&world, Flags::FIN).len(), 2);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_lost_last_acknowledgement_is_repeated_when_the_targets_fin_comes_again() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let smooth = replay(answers_like(&talk), &talk);
    let last = smooth.sent.len() as u64 - 1;
    let mut world = stage(answers_like(&talk), &talk);
    // Three of them: the time to answer the FIN begins anew with each.
    world.drop_to_target = vec![last, last + 1, last + 2];
    world.run(secs(60));
    let acks = &world.sent[last as usize..];
    assert_eq!(acks.len(), 4, "{acks:?}");
    let seqs: Vec<Seq> = acks.iter().map(|(_, p)| p.header.seq).collect();
    assert!(seqs.iter().all(|seq| *seq == seqs[0]));
    assert_complete(&mut world, &talk);
}

/// Requests, an upload and a download, at a loss in percent each way.
fn replay_at_loss(loss: f64) {
    let talks = [
        vec![says(200), Server(300), ClientFin, ServerFin],
        vec![says(100_000), Server(300), ClientFin, ServerFin],
        vec![
            says(300),
            Server(200_000),
            says(400),
            Server(5),
            ClientFin,
            ServerFin,
        ],
    ];
    for (seed, to_target, to_copier) in [(1, loss, 0.0), (2, 0.0, loss), (3, loss, loss)] {
        let mut world = World::new(config(), seed);
        world.to_target.loss = to_target;
        world.to_copier.loss = to_copier;
        for i in 0..60u16 {
            let talk = &talks[usize::from(i) % 3];
            world.behaviours.insert(PORT + i, answers_like(talk));
            world.capture(Live::new(at(ms(u64::from(i))), PORT + i).play(talk));
        }
        world.run(secs(900));
        for i in 0..60u16 {
            let talk = &talks[usize::from(i) % 3];
            assert!(world.received(PORT + i) == said(talk), "session {i}");
        }
        assert_eq!(stats(&world).replicas_completed, 60);
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn everything_arrives_at_1_percent_loss() {
    replay_at_loss(1.0);
}

#[test]
fn everything_arrives_at_5_percent_loss() {
    replay_at_loss(5.0);
}

#[test]
fn everything_arrives_at_20_percent_loss() {
    replay_at_loss(20.0);
}

// 12: lost response headers.

#[test]
fn lost_response_headers_are_made_up_for_by_what_follows_them() {
    let talk = [
        says(100),
        Server(10_000),
        says(200),
        Server(50),
        ClientFin,
        ServerFin,
    ];
    // SYN-ACK; acknowledgement and first segments of the answer; a segment in its middle; the FIN.
    for lost in [
        vec![0],
        vec![1, 2],
        vec![5],
        vec![3, 4, 5, 6, 7],
        vec![10, 11],
    ] {
        let mut world = stage(answers_like(&talk), &talk);
        world.drop_to_copier = lost.clone();
        world.run(secs(60));
        assert_eq!(stats(&world).bytes_answered, 10_050, "lost {lost:?}");
        assert!(arrived_at(&world, PORT, 100) > arrived_at(&world, PORT, 0));
        assert_eq!(stats(&world).gate_overridden, 0, "lost {lost:?}");
        let took = elapsed(sent_with(&world, Flags::FIN)[0].0);
        // A lost SYN-ACK costs the target's time-out.
        assert!(took < 1200, "lost {lost:?}: {took} ms");
        assert_complete(&mut world, &talk);
    }
}

// 13: reordering and duplication.

#[test]
fn reordering_and_duplication_both_ways_change_nothing() {
    let talk = [
        says(50_000),
        Server(50_000),
        says(300),
        Server(9),
        ClientFin,
        ServerFin,
    ];
    for seed in 0..20 {
        let mut world = World::new(config(), seed);
        world.behaviour = answers_like(&talk);
        let link = Link {
            jitter: ms(3),
            duplication: 20.0,
            ..Link::default()
        };
        (world.to_target, world.to_copier) = (link, link);
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(120));
        assert_eq!(stats(&world).bytes_answered, 50_009, "seed {seed}");
        assert_complete(&mut world, &talk);
    }
}

// 14: a late SYN-ACK.

#[test]
fn a_syn_ack_that_is_four_seconds_late_opens_one_connection() {
    let talk = [
        says(100),
        Server(50),
        says(70),
        Server(60),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(
        Behaviour {
            accept_delay: secs(4),
            ..answers_like(&talk)
        },
        &talk,
    );
    let syns = sent_with(&world, Flags::SYN);
    assert!(syns.len() >= 2, "repeated meanwhile");
    assert!(
        syns.iter()
            .all(|(_, p)| p.header.seq == syns[0].1.header.seq)
    );
    assert_eq!(stats(&world).replicas_established, 1);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_syn_ack_that_never_comes_is_a_timeout_and_leaves_nothing() {
    let talk = [says(100), ClientFin, ServerFin];
    let mut world = stage(Behaviour::default(), &talk);
    world.interceptor_up = false;
    world.run(secs(300));
    let syns = sent_with(&world, Flags::SYN);
    assert!((6..=12).contains(&syns.len()), "backed off: {}", syns.len());
    assert_eq!(stats(&world).bytes_sent, 0);
    assert_timed_out(&mut world, Owed::Handshake);
}

#[test]
fn a_syn_ack_after_the_replica_gave_up_is_answered_with_a_reset() {
    let talk = [says(100), ClientFin, ServerFin];
    let mut world = World::new(
        Config {
            answer_timeout: secs(3),
            ..config()
        },
        1,
    );
    world.to_copier.delay = ms(3500);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(20));
    let resets = sent_with(&world, Flags::RST);
    assert!(!resets.is_empty());
    assert_timed_out(&mut world, Owed::Handshake);
}

// 15: refusals, and connections of an earlier life.

#[test]
fn a_target_that_refuses_is_asked_once_more_and_then_counted() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            refuse: true,
            ..Behaviour::default()
        },
        &talk,
    );
    assert_eq!(sent_with(&world, Flags::SYN).len(), 2);
    assert_eq!(world.sent.len(), 2, "nothing but SYNs");
    assert_aborted(&mut world, AbortReason::Refused);
}

#[test]
fn a_refusal_that_an_old_connection_of_the_flow_answers_costs_nothing() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            half_closed: true,
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(sent_with(&world, Flags::SYN).len(), 2);
    assert!(
        elapsed(arrived_at(&world, PORT, 0)) < 20,
        "at once, without a time-out"
    );
    assert_complete(&mut world, &talk);
}

#[test]
fn a_challenge_from_an_old_connection_is_reset_and_the_syn_tried_again() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            stale: Some(Seq(123_456)),
            ..answers_like(&talk)
        },
        &talk,
    );
    let (when, reset) = &sent_with(&world, Flags::RST)[0];
    assert_eq!(
        reset.header.seq,
        Seq(123_456),
        "the number that the challenge asked for"
    );
    assert!(elapsed(*when) < 10);
    assert!(
        elapsed(arrived_at(&world, PORT, 0)) < 20,
        "at once, without a time-out"
    );
    assert_eq!(stats(&world).stale_connections_reset, 1);
    assert_complete(&mut world, &talk);
}

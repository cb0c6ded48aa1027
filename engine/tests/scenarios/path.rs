//! The way to the target and back: lines 11 to 19.

use millrace_engine::{AbortReason, Config};
use millrace_wire::{Flags, Seq};

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, Link, Live, World, at, bytes, config, ms, secs};
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
fn a_lost_segment_of_data_is_sent_again_after_the_retransmission_timeout() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay_losing(&talk, |w| vec![number_of(w, 0, |p| p.payload_len > 0)]);
    let data: Vec<_> = world
        .sent
        .iter()
        .filter(|(_, p)| p.payload_len > 0)
        .collect();
    assert_eq!(data.len(), 2);
    assert!(data[1].0.since(data[0].0) < ms(250));
    assert_eq!(stats(&world).bytes_retransmitted, 100);
    assert_eq!(stats(&world).retransmission_timeouts, 1);
    assert_complete(&mut world, &talk);
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
fn lost_response_headers_are_recovered_by_the_targets_retransmission() {
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
    assert_aborted(&mut world, AbortReason::Timeout);
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
    assert_aborted(&mut world, AbortReason::Timeout);
}

// 15: refusals, and connections of an earlier life.

#[test]
fn a_target_that_refuses_is_counted_and_not_asked_again() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            refuse: true,
            ..Behaviour::default()
        },
        &talk,
    );
    assert_eq!(world.sent.len(), 1, "one SYN");
    assert_aborted(&mut world, AbortReason::Refused);
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

// 16: limits that the target sets.

#[test]
fn a_target_with_mss_536_and_no_options_gets_all_in_its_own_terms() {
    let talk = [says(30_000), Server(3000), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            mss: Some(536),
            window_scale: None,
            timestamps: false,
            sack: false,
            window: 4000,
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(world.target(PORT).largest_payload, 536);
    assert_eq!(world.target(PORT).window_violations, 0);
    for (_, packet) in world
        .sent
        .iter()
        .filter(|(_, p)| !p.header.flags.has(Flags::SYN))
    {
        assert_eq!(packet.header.options.timestamps, None);
        assert!(packet.header.options.sack.is_empty());
        assert_eq!(packet.header.options.window_scale, None);
    }
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_offers_no_mss_gets_the_default() {
    let talk = [says(30_000), Server(3000), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            mss: None,
            timestamps: false,
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(world.target(PORT).largest_payload, 536, "RFC 9293 3.7.1");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_of_one_byte_is_filled_byte_by_byte() {
    let talk = [says(300), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            window: 1,
            window_scale: Some(0),
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(world.target(PORT).window_violations, 0);
    assert_eq!(world.target(PORT).largest_payload, 1);
    assert_eq!(stats(&world).retransmission_timeouts, 0, "no stall");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_that_shrinks_does_not_lose_what_was_under_way() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            window: 20_000,
            shrink: Some((5000, 2000)),
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(world.target(PORT).window_violations, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_that_closes_and_opens_again_goes_on_at_once() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            window: 10_000,
            stall: Some((20_000, secs(3))),
            ..answers_like(&talk)
        },
        &talk,
    );
    // Until the window opened nothing but probes; then everything within a few round trips.
    assert!(
        stats(&world).window_probes >= 2,
        "{}",
        stats(&world).window_probes
    );
    let last = arrived_at(&world, PORT, 59_999);
    assert!((3000..3100).contains(&elapsed(last)), "{}", elapsed(last));
    assert_complete(&mut world, &talk);
}

#[test]
fn a_lost_window_update_is_found_by_a_probe() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = stage(
        Behaviour {
            window: 10_000,
            stall: Some((20_000, secs(3))),
            ..answers_like(&talk)
        },
        &talk,
    );
    // Nothing comes back while the window opens.
    world.call(at(ms(2900)), |world| world.interceptor_up = false);
    world.call(at(ms(3100)), |world| world.interceptor_up = true);
    world.run(secs(60));
    let last = elapsed(arrived_at(&world, PORT, 59_999));
    assert!((3100..8000).contains(&last), "{last}");
    assert_complete(&mut world, &talk);
}

#[test]
fn what_was_lost_beyond_a_window_that_shrank_to_nothing_is_sent_again_when_it_opens() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = stage(
        Behaviour {
            window: 10_000,
            stall: Some((20_000, secs(20))),
            ..answers_like(&talk)
        },
        &talk,
    );
    // A loss just before the window closes: something is in flight while it is closed.
    world.drop_to_target = vec![22, 23];
    world.run(secs(60));
    let last = elapsed(arrived_at(&world, PORT, 59_999));
    assert!((20_000..21_000).contains(&last), "{last}");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_that_is_closed_when_the_client_speaks_after_a_long_silence_is_waited_for() {
    // The window closed with the last answer; five minutes later the client goes on.
    let talk = [
        says(5000),
        Server(50),
        Pause(secs(300)),
        says(700),
        Server(5),
        ClientFin,
    ];
    let mut world = stage(
        Behaviour {
            stall: Some((5000, secs(310))),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(400));
    let arrived = elapsed(arrived_at(&world, PORT, 5000));
    assert!((310_000..312_000).contains(&arrived), "{arrived}");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_that_never_opens_is_given_up_in_the_end() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = stage(
        Behaviour {
            window: 10_000,
            stall: Some((20_000, secs(1_000_000))),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(600));
    assert_eq!(
        world.engine.gauges().replicas,
        1,
        "the target still answers probes"
    );
    world.run(secs(3600));
    assert!(world.received(PORT) == &said(&talk)[..world.received(PORT).len()]);
    assert_aborted(&mut world, AbortReason::Timeout);
}

// 17: partial acknowledgements, several losses in one flight.

#[test]
fn segments_of_which_only_a_part_is_taken_are_completed() {
    for sack in [true, false] {
        let talk = [says(40_000), Server(50), ClientFin, ServerFin];
        let mut world = replay(
            Behaviour {
                halve: 5,
                sack,
                ..answers_like(&talk)
            },
            &talk,
        );
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn two_segments_lost_in_one_flight_are_recovered_without_a_timeout() {
    for sack in [true, false] {
        let talk = [says(100_000), Server(50), ClientFin, ServerFin];
        let mut world = stage(
            Behaviour {
                sack,
                ..answers_like(&talk)
            },
            &talk,
        );
        world.drop_to_target = vec![30, 32];
        world.run(secs(60));
        let stats = stats(&world);
        assert_eq!(stats.retransmission_timeouts, 0, "sack {sack}");
        assert_eq!(stats.fast_retransmits, 1, "sack {sack}");
        assert_eq!(
            stats.bytes_retransmitted,
            2 * 1448,
            "sack {sack}: those two, no more"
        );
        assert_complete(&mut world, &talk);
    }
}

// 18: sizes and sending.

#[test]
fn a_path_that_swallows_large_packets_is_found_out() {
    let talk = [says(30_000), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            path_payload: Some(1000),
            ..answers_like(&talk)
        },
        &talk,
    );
    assert!(world.target(PORT).largest_payload <= 1000);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_packet_refused_as_too_long_lowers_the_size_for_everybody_on_that_path() {
    let talk = [says(30_000), Server(50), ClientFin, ServerFin];
    let mut world = stage(answers_like(&talk), &talk);
    world.mtu = Some(1400);
    world.capture(Live::new(at(secs(10)), PORT + 1).play(&talk));
    world.run(secs(60));
    // 1400 less 20 of IP, 20 of TCP and 12 of timestamps.
    assert_eq!(world.target(PORT).largest_payload, 1348);
    let first = sent_at(&world, PORT, 0);
    assert!(elapsed(first) < 1000, "{}", elapsed(first));
    // The second session knows from its beginning.
    let syns = sent_with(&world, Flags::SYN);
    assert_eq!(syns[1].1.header.options.mss, Some(1360));
    assert!(elapsed(arrived_at(&world, PORT + 1, 0)) < 10_050);
    assert!(world.received(PORT) == said(&talk));
    assert!(world.received(PORT + 1) == said(&talk));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn jumbo_packets_shrink_step_by_step_until_they_fit() {
    let talk = [Client(bytes(1, 200_000)), Server(50), ClientFin, ServerFin];
    let mut world = World::new(
        Config {
            max_packet: 9000,
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        mss: Some(8960),
        ..answers_like(&talk)
    };
    world.mtu = Some(1300);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(60));
    assert_eq!(world.target(PORT).largest_payload, 1280 - 52);
    assert_complete(&mut world, &talk);
}

#[test]
fn sends_that_fail_count_as_loss_and_are_made_good() {
    // EPERM or ENOBUFS: a firewall for a while, or a full queue.
    let talk = [
        says(30_000),
        Server(50),
        says(100),
        Server(5),
        ClientFin,
        ServerFin,
    ];
    for refused in [1, 2, 5] {
        let mut world = stage(answers_like(&talk), &talk);
        world.refuse_sends = refused;
        world.run(secs(60));
        assert_complete(&mut world, &talk);
    }
    for refused in [1, 2, 5, 12] {
        let mut world = stage(answers_like(&talk), &talk);
        world.call(at(ms(3)), move |world| world.refuse_sends = refused);
        world.run(secs(60));
        assert_complete(&mut world, &talk);
    }
}

// 19: keepalive probes of the target.

#[test]
fn keepalive_probes_of_the_target_are_answered_and_the_session_goes_on() {
    let talk = [
        says(100),
        Server(50),
        Pause(secs(100)),
        says(70),
        Server(6),
        ClientFin,
    ];
    let mut world = stage(
        Behaviour {
            keepalive: Some(secs(10)),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(200));
    assert_eq!(world.target(PORT).keepalives_answered, 10);
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    assert_complete(&mut world, &talk);
}

#[test]
fn keepalive_probes_before_the_target_has_said_anything_are_answered() {
    let talk = [Pause(secs(35)), says(70), Server(6), ClientFin, ServerFin];
    let mut world = stage(
        Behaviour {
            keepalive: Some(secs(10)),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(100));
    assert_eq!(world.target(PORT).keepalives_answered, 3);
    assert_complete(&mut world, &talk);
}

#[test]
fn keepalive_probes_do_not_keep_a_target_that_never_closes_for_ever() {
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    let mut world = stage(
        Behaviour {
            keepalive: Some(secs(10)),
            closes_after_client: false,
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(30));
    assert_eq!(world.engine.gauges().replicas, 1);
    world.run(secs(60));
    assert_eq!(world.engine.gauges().replicas, 0);
    assert!(
        !sent_with(&world, Flags::RST).is_empty(),
        "and the target is told"
    );
    assert_eq!(stats(&world).replicas_completed, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

//! Windows, sizes and partial acknowledgements: lines 16 to 19.

use millrace_engine::{Config, Owed};
use millrace_wire::Flags;

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, Live, World, at, bytes, config, ms, secs};
use crate::talk::*;
use Action::*;

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
fn what_a_target_threw_away_while_its_window_was_closed_is_sent_again_when_it_opens() {
    let talk = [says(60_000), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            window: 10_000,
            stall: Some((5000, secs(20))),
            drops_while_stalled: true,
            // And it opens less wide than before.
            shrink: Some((5000, 2000)),
            ..answers_like(&talk)
        },
        &talk,
    );
    let last = elapsed(arrived_at(&world, PORT, 59_999));
    assert!((20_000..21_000).contains(&last), "{last}");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_window_that_is_closed_when_the_client_speaks_after_a_long_silence_is_waited_for() {
    // The window closed with the last answer; five minutes later the client goes on, and five
    // minutes later still the window opens. The wait begins when there is something to wait for.
    let talk = [
        says(5000),
        Server(50),
        Pause(secs(300)),
        says(700),
        Server(5),
        ClientFin,
        ServerFin,
    ];
    let mut world = World::new(
        Config {
            answer_timeout: secs(20),
            idle_timeout: secs(400),
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        stall: Some((5000, secs(600))),
        ..answers_like(&talk)
    };
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(700));
    let arrived = elapsed(arrived_at(&world, PORT, 5000));
    assert!((600_000..601_000).contains(&arrived), "{arrived}");
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
    assert_timed_out(&mut world, Owed::Window);
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
    assert_eq!(stats(&world).black_holes, 1);
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

//! How connections end: lines 26 and 27.

use millrace_engine::{AbortReason, Config, LiveAddress, Owed};
use millrace_wire::{Endpoint, Flags};

use crate::sim::target::Ended;
use crate::sim::{Action, Behaviour, LIVE, Live, World, at, config, ms, secs, v4};
use crate::talk::*;
use Action::*;

// 26: the client ends first.

#[test]
fn a_client_fin_is_sent_after_the_answer_and_acknowledged_both_ways() {
    let talk = [says(100), Server(5000), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            answer_delay: ms(400),
            ..answers_like(&talk)
        },
        &talk,
    );
    let fins = sent_with(&world, Flags::FIN);
    assert_eq!(fins.len(), 1);
    assert!(
        (400..420).contains(&elapsed(fins[0].0)),
        "{}",
        elapsed(fins[0].0)
    );
    assert!(sent_with(&world, Flags::RST).is_empty());
    assert_complete(&mut world, &talk);
}

#[test]
fn a_half_close_hears_a_long_answer_to_its_end() {
    // The client says it is done, and the answer takes five minutes, with pauses of 100 s.
    let mut talk = vec![says(100), ClientFin];
    for _ in 0..3 {
        talk.extend([Pause(secs(100)), Server(1000), ClientAck]);
    }
    talk.push(ServerFin);
    let mut world = stage(
        Behaviour {
            closes_after_client: false,
            chatter: Some((secs(100), 1000, 3)),
            ..Behaviour::default()
        },
        &talk,
    );
    world.call(at(secs(301)), |world| world.close_target(PORT));
    world.run(secs(400));
    assert_eq!(stats(&world).bytes_answered, 3000);
    assert!(elapsed(sent_with(&world, Flags::FIN)[0].0) < 100);
    assert!(sent_with(&world, Flags::RST).is_empty(), "never cut");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_half_close_towards_a_target_that_never_answers_is_cut_after_the_live_connection_is_over() {
    let talk = [
        says(100),
        ClientFin,
        Pause(secs(200)),
        Server(1000),
        ServerFin,
    ];
    let mut world = stage(
        Behaviour {
            closes_after_client: false,
            ..Behaviour::default()
        },
        &talk,
    );
    world.run(secs(250));
    assert!(
        sent_with(&world, Flags::RST).is_empty(),
        "the live connection was open till 200 s"
    );
    world.run(secs(50));
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!((260_000..261_000).contains(&reset), "{reset}");
    assert!(world.received(PORT) == said(&talk));
    assert_eq!(stats(&world).replicas_completed, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_client_reset_after_the_answer_resets_the_target() {
    let talk = [says(100), Server(50), ClientReset];
    let mut world = replay(answers_like(&talk), &talk);
    assert!(world.received(PORT) == said(&talk));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    assert_eq!(stats(&world).replicas_completed, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_client_reset_while_waiting_goes_out_once_all_bytes_are_acknowledged() {
    // The client gives up 5 ms after its request; the answer would take a second.
    let talk = [says(30_000), Pause(ms(5)), ClientReset];
    let mut world = replay(
        Behaviour {
            answer_delay: secs(1),
            answers: vec![(30_000, 5000)],
            ..Behaviour::default()
        },
        &talk,
    );
    assert!(
        world.received(PORT) == said(&talk),
        "every byte, then the reset"
    );
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!(reset < 50, "{reset}");
    assert_eq!(stats(&world).bytes_answered, 0);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_client_reset_in_the_middle_of_the_answer_ends_the_targets_answer_too() {
    let talk = [says(100), Server(3000), Pause(secs(1)), ClientReset];
    let mut world = replay(
        Behaviour {
            answers: vec![(100, 3000)],
            chatter: Some((ms(100), 1000, 1000)),
            ..Behaviour::default()
        },
        &talk,
    );
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!(
        reset < 2100,
        "a second of the client's own, and no hearing out: {reset}"
    );
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_reset_that_is_lost_is_repeated() {
    let talk = [says(100), Server(50), ClientReset];
    let smooth = replay(answers_like(&talk), &talk);
    let number = smooth
        .sent
        .iter()
        .position(|(_, p)| p.header.flags.has(Flags::RST));
    let mut world = stage(answers_like(&talk), &talk);
    world.drop_to_target = vec![number.unwrap() as u64];
    world.run(secs(10));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_client_that_resets_after_its_fin_does_the_same_here() {
    // It closed with unread data on the way: FIN, then RST for what came.
    let talk = [says(100), Server(50), ClientFin, Server(5000), ClientReset];
    let mut world = replay(
        Behaviour {
            answers: vec![(100, 50)],
            closes_after_client: false,
            chatter: Some((ms(50), 1000, 100)),
            ..Behaviour::default()
        },
        &talk,
    );
    assert!(!sent_with(&world, Flags::RST).is_empty());
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!(reset < 100, "{reset}");
    assert!(world.received(PORT) == said(&talk));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

// 26: the live server ends first.

#[test]
fn a_live_server_that_closes_first_and_a_target_that_does_too() {
    let talk = [says(100), Server(50), ServerFin, ClientFin];
    let mut world = replay(
        Behaviour {
            fin_after: Some(100),
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(stats(&world).gate_overridden, 0);
    assert!(sent_with(&world, Flags::RST).is_empty());
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_does_not_close_as_the_live_server_did_gets_the_clients_fin_all_the_same() {
    let talk = [says(100), Server(50), ServerFin, ClientFin];
    let mut world = replay(answers_like(&talk), &talk);
    let fin = elapsed(sent_with(&world, Flags::FIN)[0].0);
    assert!(
        fin < 1000,
        "the answer without its FIN has gone quiet: {fin}"
    );
    assert_complete(&mut world, &talk);
}

#[test]
fn a_live_server_that_resets_cuts_the_target_after_a_quiet_second() {
    let talk = [says(100), Server(50), ServerReset];
    let mut world = replay(answers_like(&talk), &talk);
    assert!(world.received(PORT) == said(&talk));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!((1000..1100).contains(&reset), "{reset}");
    assert_eq!(stats(&world).replicas_completed, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_live_server_that_resets_cuts_a_target_that_would_go_on_for_ever() {
    let talk = [says(100), Server(50), ServerReset];
    let mut world = stage(
        Behaviour {
            chatter: Some((ms(300), 100, 100_000)),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(100));
    assert_eq!(world.target(PORT).ended, Ended::Reset);
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!((60_000..61_000).contains(&reset), "{reset}");
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_target_that_resets_where_the_live_server_did_is_complete() {
    let talk = [says(100), ServerReset];
    let mut world = replay(
        Behaviour {
            reset_after: Some(100),
            ..Behaviour::default()
        },
        &talk,
    );
    assert!(world.received(PORT) == said(&talk));
    assert_eq!(stats(&world).replicas_completed, 1);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn a_target_that_resets_a_moment_before_the_live_server_does_is_complete() {
    for (pause, complete) in [(100, true), (3000, false)] {
        let talk = [says(100), Pause(ms(pause)), ServerReset];
        let mut world = replay(
            Behaviour {
                reset_after: Some(100),
                ..Behaviour::default()
            },
            &talk,
        );
        assert!(world.received(PORT) == said(&talk));
        if complete {
            assert_eq!(stats(&world).replicas_completed, 1);
            assert_eq!(stats(&world).replicas_aborted.total(), 0);
            world.assert_nothing_left();
        } else {
            assert_aborted(&mut world, AbortReason::TargetReset);
        }
    }
}

#[test]
fn a_client_that_speaks_after_its_target_has_reset_was_not_reset_by_the_live_server() {
    let talk = [says(100), Pause(ms(100)), says(100), ServerReset];
    let mut world = replay(
        Behaviour {
            reset_after: Some(100),
            ..Behaviour::default()
        },
        &talk,
    );
    assert_eq!(world.received(PORT).len(), 100);
    assert_aborted(&mut world, AbortReason::TargetReset);
}

// 26: the target ends first.

#[test]
fn a_target_that_resets_in_the_middle_is_counted_and_never_continued() {
    let talk = [
        says(30_000),
        Server(50),
        says(100),
        Server(9),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(
        Behaviour {
            reset_after: Some(5000),
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(
        world.targets.len(),
        1,
        "no new connection in the middle of a message"
    );
    assert!(world.received(PORT).len() < 30_000);
    assert_aborted(&mut world, AbortReason::TargetReset);
}

#[test]
fn a_target_that_closes_its_side_first_still_gets_the_rest() {
    // Half-close from the target: it goes on reading.
    let talk = [
        says(100),
        Server(50),
        Pause(ms(100)),
        says(5000),
        Server(7),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(
        Behaviour {
            fin_after: Some(100),
            answers: vec![(100, 50)],
            ..Behaviour::default()
        },
        &talk,
    );
    let gap = sent_at(&world, PORT, 100).since(sent_at(&world, PORT, 0));
    assert!(
        gap < ms(110),
        "it can answer no more, so nothing is waited for: {gap:?}"
    );
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_closes_an_idle_connection_which_the_client_uses_again_is_counted_as_closed() {
    let talk = [
        says(100),
        Server(50),
        Pause(secs(30)),
        says(90),
        Server(5),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(
        Behaviour {
            close_idle: Some(secs(10)),
            reset_when_closed: true,
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_eq!(
        world.targets.len(),
        1,
        "never continued by another connection"
    );
    assert_eq!(world.received(PORT).len(), 100);
    assert_eq!(stats(&world).bytes_delivered, 100);
    assert!((30_000..30_020).contains(&elapsed(sent_at(&world, PORT, 100))));
    assert_aborted(&mut world, AbortReason::TargetClosed);
}

#[test]
fn a_target_that_closes_an_idle_connection_which_the_client_then_closes_is_complete() {
    let talk = [says(100), Server(50), Pause(secs(30)), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            close_idle: Some(secs(10)),
            reset_when_closed: true,
            ..answers_like(&talk)
        },
        &talk,
    );
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_never_acknowledges_what_it_got_is_a_timeout() {
    let talk = [
        says(100),
        Server(50),
        says(90),
        Server(5),
        ClientFin,
        ServerFin,
    ];
    let mut world = stage(answers_like(&talk), &talk);
    world.call(at(ms(2)), |world| world.interceptor_up = false);
    world.run(secs(200));
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!((119_000..121_000).contains(&reset), "{reset}");
    assert_timed_out(&mut world, Owed::Acknowledgement);
}

// 27: simultaneous close, and both sides gone.

#[test]
fn a_simultaneous_close_ends_both_sides() {
    // The FINs of client and target cross.
    let talk = [says(100), Server(50), ClientFin, ServerFin];
    for delay in [0, 200, 400, 500, 600, 700, 800, 1000] {
        let mut world = stage(
            Behaviour {
                answer_delay: std::time::Duration::from_micros(100),
                ..answers_like(&talk)
            },
            &talk,
        );
        let when = at(ms(3) + std::time::Duration::from_micros(delay));
        world.call(when, |world| world.close_target(PORT));
        world.run(secs(30));
        assert!(sent_with(&world, Flags::RST).is_empty());
        assert_eq!(sent_with(&world, Flags::FIN).len(), 1);
        assert!(world.target(PORT).fin_acked(), "delay {delay}");
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn a_live_connection_of_which_both_sides_vanish_is_timed_out_counted_and_freed() {
    let talk = [says(100), Server(50)];
    let mut world = stage(answers_like(&talk), &talk);
    world.run(secs(3500));
    assert_eq!(world.engine.gauges().sessions, 1);
    assert!(sent_with(&world, Flags::RST).is_empty());
    world.run(secs(200));
    assert_eq!(world.engine.gauges().sessions, 0);
    assert_eq!(world.target(PORT).ended, Ended::Reset, "the target is told");
    assert!(world.received(PORT) == said(&talk));
    assert_aborted(&mut world, AbortReason::Idle);
}

#[test]
fn a_shorter_idle_limit_is_kept_to() {
    let talk = [says(100), Server(50)];
    let mut world = World::new(
        Config {
            idle_timeout: secs(20),
            ..config()
        },
        1,
    );
    world.behaviour = answers_like(&talk);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(30));
    let reset = elapsed(sent_with(&world, Flags::RST)[0].0);
    assert!((20_000..20_100).contains(&reset), "{reset}");
    assert_aborted(&mut world, AbortReason::Idle);
}

#[test]
fn handshakes_that_never_complete_are_not_replayed_and_forgotten() {
    let wire = Wire::new(PORT);
    let mut segments = vec![(0, wire.syn()), (0, wire.syn_ack())];
    let refused = Wire::new(PORT + 1);
    segments.push((0, refused.syn()));
    segments.push((1, refused.server(Flags::RST | Flags::ACK, -1, 0, 0)));
    let aborted = Wire::new(PORT + 2);
    segments.push((0, aborted.syn()));
    segments.push((0, aborted.syn_ack()));
    segments.push((1, aborted.reset(0)));
    let mut world = captured(Behaviour::default(), segments);
    world.run(secs(10));
    assert_eq!(world.engine.gauges().sessions, 1);
    world.run(secs(60));
    assert_eq!(world.engine.gauges().sessions, 0);
    assert!(world.sent.is_empty());
    assert_eq!(stats(&world).sessions_captured, 0);
    world.assert_nothing_left();
}

/// A service that is followed, at LIVE now, with one session that stays open.
fn followed(talk: &[Action]) -> World {
    let mut config = config();
    config.services[0].live = LiveAddress::Followed;
    config.followed = vec![vec![LIVE.ip]];
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(talk);
    world.capture(Live::new(at(ms(0)), PORT).play(talk));
    world
}

#[test]
fn a_connection_to_an_address_that_is_gone_ends_after_what_was_captured_of_it() {
    let talk = [says(100), Server(200), ClientAck, Pause(secs(4)), says(50)];
    let mut world = followed(&talk);
    // Addresses that come, and news of the same ones, change nothing of it.
    let other = Endpoint::new(v4(11), LIVE.port).ip;
    world.call(at(secs(1)), move |world| {
        world
            .engine
            .set_followed(at(secs(1)), 0, vec![other, LIVE.ip, other]);
    });
    world.run(secs(5));
    assert!(sent_with(&world, Flags::FIN).is_empty());
    world.call(at(secs(10)), move |world| {
        world.engine.set_followed(at(secs(10)), 0, vec![other]);
    });
    world.run(secs(20));
    let fin = elapsed(sent_with(&world, Flags::FIN)[0].0);
    assert!((10_000..10_100).contains(&fin), "{fin}");
    assert_complete(&mut world, &talk);
}

#[test]
fn connections_to_other_addresses_than_those_that_are_followed_are_none_of_the_service() {
    let talk = [says(100), Server(200), ClientFin, ServerFin];
    let mut world = followed(&talk);
    world.engine.set_followed(at(ms(0)), 0, Vec::new());
    world.run(secs(5));
    assert!(world.sent.is_empty());
    assert_eq!(stats(&world).sessions_captured, 0);
    // What does not exist is not followed either.
    world.engine.set_followed(at(secs(5)), 7, vec![LIVE.ip]);
    world.assert_nothing_left();
}

#[test]
fn a_half_closed_connection_to_an_address_that_is_gone_ends_too() {
    let talk = [says(100), Server(200), ClientFin];
    let mut world = followed(&talk);
    world.behaviour.closes_after_client = false;
    world.call(at(secs(10)), move |world| {
        world.engine.set_followed(at(secs(10)), 0, Vec::new());
    });
    world.run(secs(9));
    assert_eq!(world.engine.gauges().sessions, 1);
    // The target keeps its side open: nobody waits for it much longer.
    world.run(secs(120));
    assert_eq!(world.engine.gauges().sessions, 0);
    assert!(world.received(PORT) == said(&talk));
    world.assert_nothing_left();
}

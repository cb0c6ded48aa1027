//! When each turn goes out: lines 20 to 25, and the gate turned off.

use millrace_engine::{Config, Time};

use crate::sim::{Action, Behaviour, Live, Packet, World, at, bytes, config, ms, secs};
use crate::talk::*;
use Action::*;

/// When the target had sent this many bytes of its answers and the engine could know: the first
/// time that an acknowledgement covered them.
fn acknowledged_at(world: &World, answered: u64) -> millrace_engine::Time {
    let isn = world.targets[0].isn();
    let covers = |p: &crate::sim::Packet| {
        p.header
            .ack
            .offset_near(isn.add(1), 0)
            .is_some_and(|ack| ack >= answered && ack < 1 << 30)
    };
    let hit = world.sent.iter().skip(1).find(|(_, p)| covers(p));
    hit.expect("the answer was acknowledged").0
}

/// Ten requests of 100 bytes with answers of 1000, 5 ms apart at the live server.
fn ten_turns() -> Vec<Action> {
    let mut talk = Vec::new();
    for _ in 0..10 {
        talk.extend([says(100), Server(1000), Pause(ms(5))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

// 20: a target slower or faster than the live server.

#[test]
fn a_copy_that_is_behind_pauses_less_until_it_has_caught_up_unless_pauses_are_kept() {
    // Answers take 4 ms longer than live, and clients pause for 10 ms; it begins 200 ms late.
    let talk = sixty_turns();
    for keep_pauses in [false, true] {
        let mut world = world_that_keeps(keep_pauses);
        world.behaviour = Behaviour {
            answer_delay: ms(4),
            ..answers_like(&talk)
        };
        world.engine.set_target_open(world.now, 0, false);
        let packets = Live::new(at(ms(0)), PORT).play(&talk);
        let asks = |(_, packet): &&(_, crate::sim::Packet)| !packet.payload.is_empty();
        let live = elapsed(packets.iter().rfind(asks).unwrap().0);
        world.capture(packets);
        world.call(at(ms(200)), |world| {
            let now = world.now;
            world.engine.set_target_open(now, 0, true);
        });
        world.run(secs(30));
        let took = elapsed(sent_at(&world, PORT, 5900));
        match keep_pauses {
            false => assert!((live..live + 10).contains(&took), "{took} and {live}"),
            true => assert!(took > live + 350, "{took}"),
        }
        assert_complete(&mut world, &talk);
    }
}

/// The lag at this quantile, in milliseconds.
fn lag(world: &World, quantile: f64) -> u64 {
    let lag = &world.engine.stats().turn_lag;
    assert_eq!(lag.len(), 60, "turns");
    lag.value_at_quantile(quantile) / 1000
}

/// Sixty requests with answers of 1000 bytes, 10 ms apart at the live server.
fn sixty_turns() -> Vec<Action> {
    let mut talk = Vec::new();
    for _ in 0..60 {
        talk.extend([says(100), Server(1000), Pause(ms(10))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

/// A world whose copies keep pauses though they are behind, or not.
fn world_that_keeps(keep_pauses: bool) -> World {
    let config = Config {
        keep_pauses,
        ..config()
    };
    World::new(config, 1)
}

#[test]
fn what_the_target_takes_longer_is_no_lag_of_the_copier() {
    let talk = sixty_turns();
    for keep_pauses in [false, true] {
        let mut world = world_that_keeps(keep_pauses);
        world.behaviour = Behaviour {
            answer_delay: ms(50),
            ..answers_like(&talk)
        };
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(60));
        assert!(lag(&world, 1.0) <= 2, "{}", lag(&world, 1.0));
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn what_answers_waited_before_they_are_heard_is_lag_and_no_latency() {
    let talk = sixty_turns();
    let play = |waited, keep_pauses| {
        let mut world = world_that_keeps(keep_pauses);
        world.behaviour = Behaviour {
            answer_delay: ms(20),
            ..answers_like(&talk)
        };
        world.engine.set_heard_ago(waited);
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(60));
        let latency = world.engine.stats().target_latency.first_byte.clone();
        let lag = lag(&world, 1.0);
        assert_complete(&mut world, &talk);
        (latency.value_at_quantile(0.5), lag)
    };
    let (at_once, lag) = play(ms(0), false);
    assert!(at_once >= 20_000 && lag <= 2, "{at_once} {lag}");
    for (keep_pauses, lags) in [(false, 1..16), (true, 200..310)] {
        let (waited, lag) = play(ms(5), keep_pauses);
        let less = at_once.abs_diff(waited + 5000);
        // Two significant digits.
        assert!(less <= 300, "{at_once} {waited}");
        assert!(lags.contains(&lag), "{keep_pauses}: {lag}");
    }
}

/// What was captured between these milliseconds is looked at behind them.
fn stands_still(world: &mut World, from: u64, until: u64, packets: Vec<(Time, Packet)>) {
    for (captured, packet) in packets {
        let still = (at(ms(from))..at(ms(until))).contains(&captured);
        let taken = if still { at(ms(until)) } else { captured };
        world.call(taken, move |world| {
            world.engine.set_waited(taken.since(captured));
            world.engine.segment(world.now, captured, &packet.view());
        });
    }
}

#[test]
fn a_copier_that_stands_still_lags_by_as_much_until_it_has_caught_up() {
    let talk = sixty_turns();
    for (from, keep_pauses) in [(0, false), (0, true), (300, false), (300, true)] {
        let mut world = world_that_keeps(keep_pauses);
        world.behaviour = answers_like(&talk);
        let packets = Live::new(at(ms(0)), PORT).play(&talk);
        stands_still(&mut world, from, from + 300, packets);
        world.run(secs(60));
        let (least, most) = (lag(&world, 0.0), lag(&world, 1.0));
        let last = lag(&world, 0.6);
        assert!((250..=310).contains(&most), "{from}: {most}");
        match keep_pauses {
            false => assert!(least <= 6, "{from}: {least}"),
            true => assert!(last >= 200, "{from}: {last}"),
        }
        assert_complete(&mut world, &talk);
    }
}

#[test]
fn copies_of_a_session_stay_apart_though_all_of_it_waited_to_be_taken_in() {
    let talk = sixty_turns();
    let config = Config {
        intensity: "3".parse().unwrap(),
        spread: ms(100),
        ..config()
    };
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk);
    for (captured, packet) in Live::new(at(ms(0)), PORT).play(&talk) {
        world.call(captured + secs(1), move |world| {
            world.engine.set_waited(secs(1));
            world.engine.segment(world.now, captured, &packet.view());
        });
    }
    world.run(secs(60));
    let requests = world.sent.iter().filter(|(_, it)| !it.payload.is_empty());
    let times: std::collections::BTreeSet<Time> = requests.map(|(time, _)| *time).collect();
    assert!(times.len() > 170, "{} of 180", times.len());
}

#[test]
fn a_clock_that_is_set_is_no_lag_and_leaves_copies_apart() {
    let talk = sixty_turns();
    let config = Config {
        intensity: "3".parse().unwrap(),
        spread: ms(100),
        ..config()
    };
    let mut world = World::new(config, 1);
    world.behaviour = answers_like(&talk);
    // Time stamps are a second older than they are.
    for (captured, packet) in Live::new(at(ms(2000)), PORT).play(&talk) {
        world.call(captured, move |world| {
            let stamp = captured - secs(1);
            world.engine.segment(world.now, stamp, &packet.view());
        });
    }
    world.run(secs(60));
    let lag = &world.engine.stats().turn_lag;
    assert!(lag.max() < 6_000, "{}", lag.max());
    let requests = world.sent.iter().filter(|(_, it)| !it.payload.is_empty());
    let times: std::collections::BTreeSet<Time> = requests.map(|(time, _)| *time).collect();
    assert!(
        times.len() > 170,
        "{} of 180 requests at times of their own",
        times.len()
    );
}

#[test]
fn a_target_ten_times_slower_gets_nothing_before_its_turn() {
    let talk = ten_turns();
    let mut world = replay(
        Behaviour {
            answer_delay: ms(30),
            ..answers_like(&talk)
        },
        &talk,
    );
    for turn in 1..10 {
        let sent = sent_at(&world, PORT, turn * 100);
        let answered = acknowledged_at(&world, turn * 1000);
        assert!(
            sent >= answered,
            "turn {turn} before the answer to the one before"
        );
        let gap = sent.since(sent_at(&world, PORT, (turn - 1) * 100));
        // Its client's pauses of 5 ms are shortened: it is behind.
        assert!((ms(30)..ms(36)).contains(&gap), "turn {turn}: {gap:?}");
    }
    assert_eq!(stats(&world).gate_passed, 11);
    assert_eq!(stats(&world).gate_quiet + stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_slow_target_holds_no_more_memory_than_what_it_has_not_taken() {
    // 2,000 keep-alive turns at a target that is ten times slower; what is acknowledged is free.
    let mut talk = Vec::new();
    for _ in 0..2000 {
        talk.extend([says(1000), Server(100), Pause(ms(1))]);
    }
    talk.extend([ClientFin, ServerFin]);
    let mut world = stage(
        Behaviour {
            answer_delay: ms(30),
            ..answers_like(&talk)
        },
        &talk,
    );
    world.run(secs(6));
    let captured = stats(&world).bytes_captured;
    let delivered = stats(&world).bytes_delivered;
    assert_eq!(captured, 2_000_000);
    assert!(delivered < 250_000, "it lags: {delivered}");
    let gauges = world.engine.gauges();
    assert!(gauges.backlog < captured - delivered + 4096, "{gauges:?}");
    assert!(gauges.memory < 2_500_000, "{gauges:?}");
    world.run(secs(30));
    let later = world.engine.gauges();
    assert!(later.backlog < gauges.backlog / 2, "{later:?}");
    world.run(secs(60));
    assert_complete(&mut world, &talk);
}

#[test]
fn a_faster_target_still_sees_the_clients_own_pace() {
    let talk = ten_turns();
    let mut world = replay(
        Behaviour {
            answer_delay: ms(0),
            ..answers_like(&talk)
        },
        &talk,
    );
    for turn in 1..10 {
        let gap = sent_at(&world, PORT, turn * 100).since(sent_at(&world, PORT, turn * 100 - 100));
        assert!(gap >= ms(5), "turn {turn}: think time kept: {gap:?}");
    }
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_answers_less_is_not_waited_for_long() {
    let talk = ten_turns();
    let mut behaviour = answers_like(&talk);
    for answer in &mut behaviour.answers {
        answer.1 = 600;
    }
    let mut world = replay(behaviour, &talk);
    // The answer is over when it has gone quiet, and how long that takes is learned.
    assert_eq!(stats(&world).gate_quiet, 10);
    assert_eq!(stats(&world).gate_overridden, 0);
    let last = sent_at(&world, PORT, 900).since(sent_at(&world, PORT, 800));
    assert!(last < ms(12), "{last:?}");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_that_answers_more_is_heard_out_and_the_surplus_is_no_later_answer() {
    let talk = ten_turns();
    let mut behaviour = answers_like(&talk);
    behaviour.answers[0].1 = 50_000;
    let mut world = replay(behaviour, &talk);
    for turn in 2..10u64 {
        let answered = acknowledged_at(&world, 50_000 + (turn - 1) * 1000);
        assert!(sent_at(&world, PORT, turn * 100) >= answered, "turn {turn}");
    }
    assert_complete(&mut world, &talk);
}

// 21: pipelining.

#[test]
fn pipelined_requests_of_one_segment_stay_one_segment() {
    let talk = [says(900), Server(3000), ClientFin, ServerFin];
    // Three requests of 300 bytes in one go; the target answers each on its own.
    let mut world = replay(
        Behaviour {
            answers: vec![(300, 1000), (600, 1000), (900, 1000)],
            ..Behaviour::default()
        },
        &talk,
    );
    let data: Vec<_> = world
        .sent
        .iter()
        .filter(|(_, p)| p.payload_len > 0)
        .collect();
    assert_eq!(data.len(), 1);
    assert_complete(&mut world, &talk);
}

#[test]
fn requests_that_did_not_wait_for_an_answer_do_not_wait_here() {
    let talk = [
        says(100),
        Pause(ms(2)),
        says(110),
        Pause(ms(50)),
        says(120),
        Server(3000),
        ClientFin,
        ServerFin,
    ];
    // The target says nothing before it has all three, and takes its time.
    let mut world = replay(
        Behaviour {
            answers: vec![(330, 3000)],
            answer_delay: ms(500),
            ..Behaviour::default()
        },
        &talk,
    );
    let gap = sent_at(&world, PORT, 210).since(sent_at(&world, PORT, 100));
    assert!(
        (ms(50)..ms(53)).contains(&gap),
        "the client's own pause: {gap:?}"
    );
    assert!(sent_at(&world, PORT, 100).since(sent_at(&world, PORT, 0)) < ms(5));
    assert_eq!(stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

// 22: the server speaks first.

#[test]
fn the_clients_first_bytes_wait_for_the_targets_greeting_and_then_go_at_once() {
    let talk = [
        Server(90),
        says(100),
        Server(50),
        says(60),
        Server(70),
        ClientFin,
        ServerFin,
    ];
    let mut behaviour = answers_like(&talk);
    assert_eq!(behaviour.greeting, 90);
    // The greeting comes 700 ms after the connection.
    behaviour.greeting = 0;
    behaviour.chatter = Some((ms(700), 90, 1));
    let mut world = replay(behaviour, &talk);
    let first = elapsed(sent_at(&world, PORT, 0));
    assert!((700..715).contains(&first), "{first}");
    assert_eq!(stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_target_without_a_greeting_is_waited_for_a_bounded_time() {
    let talk = [Server(90), says(100), Server(50), ClientFin, ServerFin];
    let mut world = replay(
        Behaviour {
            answers: vec![(100, 50)],
            ..Behaviour::default()
        },
        &talk,
    );
    let first = elapsed(sent_at(&world, PORT, 0));
    assert!((10_000..10_100).contains(&first), "{first}");
    assert_eq!(stats(&world).gate_overridden, 1);
    assert_complete(&mut world, &talk);
}

// 23: Expect: 100-continue.

#[test]
fn a_body_waits_for_a_late_100_continue() {
    let talk = [
        says(150),
        Server(25),
        says(5000),
        Server(300),
        ClientFin,
        ServerFin,
    ];
    let mut behaviour = answers_like(&talk);
    behaviour.answer_delay = secs(2);
    let mut world = replay(behaviour, &talk);
    let body = elapsed(sent_at(&world, PORT, 150));
    assert!((2000..2020).contains(&body), "{body}");
    assert_eq!(stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_body_goes_after_a_bounded_time_when_100_continue_never_comes_from_the_target() {
    let talk = [
        says(150),
        Server(25),
        says(5000),
        Server(300),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(
        Behaviour {
            answers: vec![(5150, 300)],
            ..Behaviour::default()
        },
        &talk,
    );
    let body = elapsed(sent_at(&world, PORT, 150));
    assert!((10_000..10_100).contains(&body), "{body}");
    assert_eq!(stats(&world).gate_overridden, 1);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_body_that_was_sent_without_100_continue_keeps_the_clients_pause() {
    // curl waits for a second, then sends the body anyway.
    let talk = [
        says(150),
        Pause(secs(1)),
        says(5000),
        Server(300),
        ClientFin,
        ServerFin,
    ];
    let mut world = replay(answers_like(&talk), &talk);
    let gap = sent_at(&world, PORT, 150).since(sent_at(&world, PORT, 0));
    assert!((ms(999)..ms(1010)).contains(&gap), "{gap:?}");
    assert_eq!(stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

// 24: streams.

#[test]
fn a_streaming_answer_with_long_pauses_draws_no_early_next_request() {
    // Live: five pieces, 8 s apart. The target's are 20 s apart.
    let mut talk = vec![says(100)];
    for _ in 0..5 {
        talk.extend([Server(1000), Pause(secs(8))]);
    }
    talk.extend([says(100), Server(50), ClientFin, ServerFin]);
    let mut world = stage(
        Behaviour {
            answers: vec![(100, 1000), (200, 50)],
            chatter: Some((secs(20), 1000, 4)),
            ..Behaviour::default()
        },
        &talk,
    );
    world.run(secs(200));
    assert!(sent_at(&world, PORT, 100) >= acknowledged_at(&world, 5000));
    assert_eq!(stats(&world).gate_quiet + stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_long_poll_is_waited_for_as_long_as_the_live_server_took() {
    // 90 s at the live server, 100 s at the target.
    let talk = [
        says(100),
        Pause(secs(90)),
        Server(50),
        says(100),
        Server(60),
        ClientFin,
        ServerFin,
    ];
    let mut world = stage(
        Behaviour {
            answers: vec![(200, 60)],
            chatter: Some((secs(100), 50, 1)),
            ..Behaviour::default()
        },
        &talk,
    );
    world.run(secs(400));
    let second = elapsed(sent_at(&world, PORT, 100));
    assert!((100_000..100_100).contains(&second), "{second}");
    assert_eq!(stats(&world).gate_overridden, 0);
    assert_complete(&mut world, &talk);
}

#[test]
fn a_full_duplex_stream_does_not_deadlock_and_keeps_up() {
    // Both sides talk all the time, neither waits: 200 messages each way, 10 ms apart, the live
    // server's in between. The target says less than half as much, in its own time.
    let mut talk = Vec::new();
    for _ in 0..200 {
        talk.extend([says(80), Pause(ms(5)), Server(60), Pause(ms(5))]);
    }
    talk.extend([ClientFin, ServerFin]);
    let mut world = stage(
        Behaviour {
            chatter: Some((ms(25), 60, 80)),
            ..Behaviour::default()
        },
        &talk,
    );
    world.run(secs(60));
    assert!(world.received(PORT).len() == 16_000);
    let last = elapsed(sent_at(&world, PORT, 15_999));
    assert!(last < 45_000, "{last}");
    assert_complete(&mut world, &talk);
}

#[test]
fn a_stream_to_a_silent_target_goes_on_with_ever_shorter_waits() {
    let mut talk = Vec::new();
    for _ in 0..100 {
        talk.extend([says(80), Server(60), Pause(ms(5))]);
    }
    talk.extend([ClientFin, ServerFin]);
    let mut world = replay(Behaviour::default(), &talk);
    let waits: Vec<_> = (1..100)
        .map(|i| sent_at(&world, PORT, i * 80).since(sent_at(&world, PORT, i * 80 - 80)))
        .collect();
    assert!((secs(10)..ms(10_100)).contains(&waits[0]), "{:?}", waits[0]);
    assert!(waits[50] < ms(110), "{:?}", waits[50]);
    assert_complete(&mut world, &talk);
}

// 25: idle.

#[test]
fn a_session_idle_for_longer_than_the_answer_timeout_is_kept_while_it_is_open() {
    let talk = [
        says(100),
        Server(50),
        Pause(secs(1800)),
        says(90),
        Server(5),
        ClientFin,
        ServerFin,
    ];
    let mut world = stage(answers_like(&talk), &talk);
    world.run(secs(1700));
    let sent = world.sent.len();
    assert_eq!(world.engine.gauges().replicas, 1);
    world.run(secs(200));
    assert!(sent < world.sent.len());
    assert!(
        world.wakeups < 40,
        "nothing to do while idle: {}",
        world.wakeups
    );
    assert_complete(&mut world, &talk);
}

// The gate turned off (-W).

#[test]
fn with_the_gate_off_turns_follow_each_other_as_they_were_captured() {
    let talk = ten_turns();
    let mut world = World::new(
        Config {
            gate: false,
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        answer_delay: secs(1),
        ..answers_like(&talk)
    };
    let captured = Live::new(at(ms(0)), PORT).play(&talk);
    let times: Vec<_> = captured
        .iter()
        .filter(|(_, p)| !p.payload.is_empty())
        .map(|(time, _)| *time)
        .collect();
    world.capture(captured);
    world.run(secs(60));
    for (turn, captured) in times.iter().enumerate().skip(1) {
        let sent = sent_at(&world, PORT, turn as u64 * 100);
        assert_eq!(sent, *captured, "turn {turn}");
    }
    assert_complete(&mut world, &talk);
}

#[test]
fn with_the_gate_off_an_upload_is_still_bound_by_the_targets_window() {
    let talk = [Client(bytes(9, 300_000)), Server(10), ClientFin, ServerFin];
    let mut world = World::new(
        Config {
            gate: false,
            ..config()
        },
        1,
    );
    world.behaviour = Behaviour {
        window: 5000,
        ..answers_like(&talk)
    };
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(60));
    assert_eq!(world.target(PORT).window_violations, 0);
    assert_complete(&mut world, &talk);
}

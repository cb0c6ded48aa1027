//! What is told of sampled sessions.

use std::time::Duration;

use millrace_engine::{AbortReason, Answer, Config, Intensity, Told, ToldReplica, ToldTurn};

use crate::sim::{Action, Behaviour, Link, Live, World, at, config, ms, secs};
use crate::talk::*;
use Action::*;

/// A world in which this share of the sessions is sampled.
fn world(sampled: f64, behaviour: Behaviour) -> World {
    let config = Config {
        sampled: Intensity::from_ratio(sampled),
        ..config()
    };
    let mut world = World::new(config, 1);
    world.behaviour = behaviour;
    world
}

/// Takes all that was told.
fn told(world: &mut World) -> (Vec<ToldTurn>, Vec<ToldReplica>) {
    let (mut turns, mut replicas) = (Vec::new(), Vec::new());
    while let Some(told) = world.engine.poll_told() {
        match told {
            Told::Turn(turn) => turns.push(*turn),
            Told::Replica(replica) => replicas.push(*replica),
        }
    }
    (turns, replicas)
}

/// Three requests that the live server answers after 5 ms each, 20 ms apart.
fn three_turns() -> Vec<Action> {
    let mut talk = Vec::new();
    for len in [100, 200, 3000] {
        talk.extend([says(len), Pause(ms(5)), Server(1000), Pause(ms(20))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

#[test]
fn each_turn_of_a_sampled_session_is_told_with_both_latencies_and_then_its_replica() {
    let talk = three_turns();
    let mut world = world(
        1.0,
        Behaviour {
            answer_delay: ms(9),
            ..answers_like(&talk)
        },
    );
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(10));
    assert_complete(&mut world, &talk);
    let (turns, replicas) = told(&mut world);
    let bytes: Vec<_> = turns.iter().map(|it| (it.number, it.bytes)).collect();
    assert_eq!(bytes, [(0, 100), (1, 200), (2, 3000)]);
    for turn in &turns {
        assert_eq!((turn.delivered, turn.answered), (turn.bytes, 1000));
        assert_eq!(turn.answer, Some(Answer::Whole));
        assert_eq!((turn.aborted, turn.retransmitted), (None, 0));
        let live = turn.live_first.unwrap();
        assert!((ms(5)..ms(7)).contains(&live), "{live:?}");
        let (first, last) = turn.target.unwrap();
        assert!(
            (ms(9)..ms(11)).contains(&first) && first <= last,
            "{first:?}"
        );
        assert!(turn.lag.unwrap() < ms(3), "{:?}", turn.lag);
        assert!(turn.captured_at <= turn.sent_at);
        assert!(turn.ended_at.since(turn.sent_at) >= last);
    }
    let late = turns[2].sent_at.since(turns[2].captured_at);
    assert!(late >= ms(4), "the target is slower: {late:?}");
    let [replica] = &replicas[..] else {
        panic!("{replicas:?}");
    };
    assert_eq!((replica.turns, replica.bytes), (3, 3300));
    assert_eq!((replica.delivered, replica.aborted), (3300, None));
    assert!(turns.iter().all(|turn| turn.teller == replica.teller));
    assert_eq!(replica.teller.live.source.port, PORT);
    assert!(replica.established_at.unwrap() > replica.teller.begun_at);
}

#[test]
fn only_the_sampled_share_of_the_sessions_is_told_and_it_changes_nothing_of_what_is_sent() {
    let talk = three_turns();
    let play = |share: f64| {
        let mut world = world(share, answers_like(&talk));
        for port in 0..200 {
            world.capture(Live::new(at(ms(u64::from(port))), PORT + port).play(&talk));
        }
        world.run(secs(10));
        let (turns, replicas) = told(&mut world);
        (format!("{:?}", world.sent), turns.len(), replicas.len())
    };
    let (sent, turns, replicas) = play(0.0);
    assert_eq!((turns, replicas), (0, 0));
    assert_eq!(play(1.0), (sent.clone(), 600, 200));
    let (as_well, turns, replicas) = play(0.1);
    assert_eq!(as_well, sent);
    assert!((8..40).contains(&replicas), "{replicas}");
    assert_eq!(turns, 3 * replicas, "all turns of a session or none");
}

#[test]
fn retransmissions_belong_to_the_turn_that_needed_them() {
    let talk = three_turns();
    let mut world = world(1.0, answers_like(&talk));
    // SYN, ACK, the first request, its answer's acknowledgement: then the second request.
    world.to_target = Link {
        loss: 20.0,
        ..Link::default()
    };
    for port in 0..20 {
        world.capture(Live::new(at(ms(0)), PORT + port).play(&talk));
    }
    world.run(secs(60));
    let (turns, replicas) = told(&mut world);
    let again: u32 = turns.iter().map(|turn| turn.retransmitted).sum();
    let in_all: u32 = replicas.iter().map(|it| it.retransmitted).sum();
    assert!(again > 0 && again <= in_all, "{again} of {in_all}");
    let stats = world.engine.stats();
    assert!(u64::from(in_all) <= stats.packets_retransmitted);
}

#[test]
fn a_target_that_never_answers_a_turn_is_told_with_the_reason_why_its_replica_ended() {
    let talk = [
        says(100),
        Server(500),
        Pause(ms(30)),
        says(50),
        Pause(secs(200)),
    ];
    let behaviour = Behaviour {
        reset_after: Some(1),
        ..answers_like(&talk)
    };
    let mut world = world(1.0, behaviour);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(100));
    let (turns, replicas) = told(&mut world);
    let turn = turns.last().unwrap();
    assert_eq!(turn.target, None);
    assert_eq!(turn.aborted, Some(AbortReason::TargetReset), "{turns:?}");
    assert_eq!(replicas.len(), 1);
    assert_eq!(replicas[0].aborted, Some(AbortReason::TargetReset));
}

#[test]
fn a_target_that_accepts_nothing_is_told_without_a_turn() {
    let talk = three_turns();
    let behaviour = Behaviour {
        refuse: true,
        ..answers_like(&talk)
    };
    let mut world = world(1.0, behaviour);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(100));
    let (turns, replicas) = told(&mut world);
    assert!(turns.is_empty(), "{turns:?}");
    let [replica] = &replicas[..] else {
        panic!("{replicas:?}");
    };
    assert_eq!(replica.established_at, None);
    assert_eq!(replica.aborted, Some(AbortReason::Refused));
    assert_eq!((replica.turns, replica.delivered), (0, 0));
}

#[test]
fn what_nobody_takes_is_counted_and_costs_the_copy_nothing() {
    let talk = three_turns();
    let mut world = world(1.0, answers_like(&talk));
    for port in 0..1500 {
        world.capture(
            Live::new(
                at(Duration::from_micros(u64::from(port) * 500)),
                PORT + port,
            )
            .play(&talk),
        );
    }
    world.run(secs(20));
    let stats = world.engine.stats();
    assert_eq!(stats.replicas_completed, 1500);
    let untold = stats.untold;
    let (turns, replicas) = told(&mut world);
    assert_eq!((turns.len() + replicas.len()) as u64 + untold, 4 * 1500);
    assert!(untold > 0);
}

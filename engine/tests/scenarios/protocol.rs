//! Replicas that are played by protocol modules.

use std::sync::{Arc, Mutex};

use millrace_engine::protocol::{
    Beginning, ClientEnd, Conversation, Failure, FailureKind, Protocol, Script, Turn,
};
use millrace_engine::{AbortReason, Config, Intensity, RefusalReason};

use crate::sim::{
    Action, Behaviour, Link, Live, Packet, World, answer_byte, at, bytes, config, ms, secs,
};
use crate::talk::*;
use Action::*;

/// What conversations have heard of their targets, in the order in which they began.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// How the conversations of a module behave.
#[derive(Clone, Default)]
struct Manner {
    /// They listen to the target.
    listens: bool,
    /// What goes before each of the client's pieces.
    prefix: &'static [u8],
    /// Nothing is played before the target has said so many bytes.
    greeting: usize,
    /// They listen no longer than until the target has said so many bytes.
    enough: Option<usize>,
    /// They fail at a piece that holds this byte, or panic.
    fails_at: Option<u8>,
    panics: bool,
    /// They can begin in the middle.
    anywhere: bool,
}

struct Module {
    manner: Manner,
    heard: Heard,
}

impl Protocol for Module {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        if beginning == Beginning::Turn && !self.manner.anywhere {
            return None;
        }
        let mut heard = self.heard.lock().unwrap();
        heard.push(Vec::new());
        Some(Box::new(Speaker {
            manner: self.manner.clone(),
            number: heard.len() - 1,
            heard: self.heard.clone(),
            held: Vec::new(),
            end: None,
        }))
    }
}

struct Speaker {
    manner: Manner,
    number: usize,
    heard: Heard,
    held: Vec<(Option<Turn>, Vec<u8>)>,
    end: Option<(ClientEnd, Option<Turn>)>,
}

impl Speaker {
    fn is_greeted(&self) -> bool {
        self.has_heard() >= self.manner.greeting
    }

    fn has_heard(&self) -> usize {
        self.heard.lock().unwrap()[self.number].len()
    }

    fn play(&mut self, script: &mut Script<'_>) {
        if !self.is_greeted() {
            return;
        }
        for (turn, bytes) in self.held.drain(..) {
            if let Some(turn) = turn {
                script.turn(turn);
            }
            script.play(self.manner.prefix);
            script.play(&bytes);
        }
        if let Some((end, turn)) = self.end.take() {
            if let Some(turn) = turn {
                script.turn(turn);
            }
            script.end(end);
        }
    }
}

impl Conversation for Speaker {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if self
            .manner
            .fails_at
            .is_some_and(|byte| bytes.contains(&byte))
        {
            assert!(!self.manner.panics, "as it was told to");
            let text = "a byte that it cannot stand";
            return Err(Failure::new(FailureKind::Unsupported, text));
        }
        self.held.push((turn, bytes.to_vec()));
        self.play(script);
        Ok(())
    }

    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        self.end = Some((end, turn));
        self.play(script);
        Ok(())
    }

    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure> {
        self.heard.lock().unwrap()[self.number].extend_from_slice(bytes);
        self.play(script);
        Ok(())
    }

    fn wants_answers(&self) -> bool {
        let enough = self.manner.enough;
        self.manner.listens && enough.is_none_or(|enough| self.has_heard() < enough)
    }
}

/// A world whose service has such a module, and what its conversations hear.
fn world(config: Config, seed: u64, manner: Manner) -> (World, Heard) {
    let mut world = World::new(config, seed);
    let heard = Heard::default();
    let module = Module {
        manner,
        heard: heard.clone(),
    };
    world.engine.set_protocol(0, Box::new(module));
    (world, heard)
}

fn some_talk() -> Vec<Action> {
    let mut talk = vec![Server(70)];
    for turn in 0..6 {
        talk.extend([says(100 + 4000 * turn), Server(3000), Pause(ms(7))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

fn lossy() -> Link {
    Link {
        jitter: ms(2),
        loss: 4.0,
        duplication: 2.0,
        ..Link::default()
    }
}

fn expected(len: usize) -> Vec<u8> {
    (0..len as u64).map(answer_byte).collect()
}

#[test]
fn a_conversation_that_repeats_the_client_plays_the_same_packets_at_the_same_times() {
    let talk = some_talk();
    let ends = [ClientFin, ClientReset, ServerReset];
    for (seed, end) in (1..).zip(ends) {
        let mut talk = talk.clone();
        let place = talk.len() - 2;
        talk[place] = end;
        let run = |mut world: World| {
            world.behaviour = answers_like(&talk);
            (world.to_target, world.to_copier) = (lossy(), lossy());
            world.capture(Live::new(at(ms(0)), PORT).play(&talk));
            world.run(secs(120));
            world.assert_all_delivered();
            let sent: Vec<_> = world
                .sent
                .iter()
                .map(|(at, packet): &(_, Packet)| (*at, packet.header, packet.payload.clone()))
                .collect();
            world.assert_nothing_left();
            sent
        };
        let plain = run(World::new(config(), seed));
        let (played, _) = world(config(), seed, Manner::default());
        assert_eq!(plain, run(played));
    }
}

#[test]
fn whatever_is_lost_on_the_way_a_conversation_hears_every_byte_of_the_target_once_and_in_order() {
    for seed in 1..20 {
        let manner = Manner {
            listens: true,
            ..Manner::default()
        };
        let (mut world, heard) = world(config(), seed, manner);
        let talk = some_talk();
        world.behaviour = answers_like(&talk);
        (world.to_target, world.to_copier) = (lossy(), lossy());
        world.payloads_lost = 10.0;
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        world.run(secs(300));
        world.assert_all_delivered();
        assert_eq!(world.received(PORT), said(&talk));
        assert_eq!(*heard.lock().unwrap(), [expected(70 + 6 * 3000)]);
        world.assert_nothing_left();
    }
}

#[test]
fn a_script_may_be_longer_than_what_the_client_sent_and_wait_for_a_greeting() {
    let manner = Manner {
        listens: true,
        prefix: b"hello ",
        greeting: 70,
        ..Manner::default()
    };
    let (mut world, _) = world(config(), 1, manner);
    let talk = [
        Server(70),
        says(10),
        Server(50),
        says(20),
        Server(50),
        ClientFin,
        ServerFin,
    ];
    world.behaviour = Behaviour {
        greeting: 70,
        answers: vec![(16, 50), (42, 50)],
        answer_delay: ms(3),
        ..Behaviour::default()
    };
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(60));
    let mut wanted = b"hello ".to_vec();
    wanted.extend(bytes(10, 10));
    wanted.extend(b"hello ");
    wanted.extend(bytes(20, 20));
    assert_eq!(world.received(PORT), wanted);
    let stats = stats(&world);
    assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (42, 42));
    assert_eq!((stats.bytes_captured, stats.replicas_completed), (30, 1));
    world.assert_nothing_left();
}

#[test]
fn what_a_conversation_has_heard_enough_of_is_acknowledged_by_its_length_alone() {
    let manner = Manner {
        listens: true,
        greeting: 70,
        enough: Some(70),
        ..Manner::default()
    };
    let (mut world, heard) = world(config(), 1, manner);
    world.behaviour = Behaviour {
        greeting: 70,
        answers: vec![(10, 9000), (30, 9000)],
        answer_delay: ms(3),
        ..Behaviour::default()
    };
    let talk = [
        Server(70),
        says(10),
        Server(9000),
        says(20),
        Server(9000),
        ClientFin,
        ServerFin,
    ];
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(60));
    assert_eq!(world.heard_enough, 1, "it is said once");
    assert_eq!(heard.lock().unwrap()[0].len(), 70);
    let stats = stats(&world);
    assert_eq!((stats.replicas_completed, stats.bytes_delivered), (1, 30));
    world.assert_nothing_left();
}

#[test]
fn a_conversation_that_fails_or_panics_ends_its_replica_alone() {
    for panics in [false, true] {
        let manner = Manner {
            fails_at: Some(0xee),
            panics,
            ..Manner::default()
        };
        let (mut world, _) = world(config(), 1, manner);
        let talk = [
            says(100),
            Server(10),
            says(100),
            Server(10),
            ClientFin,
            ServerFin,
        ];
        let good: Vec<_> = talk
            .iter()
            .map(|action| match action {
                Client(bytes) => Client(vec![7; bytes.len()]),
                other => other.clone(),
            })
            .collect();
        let mut bad = good.clone();
        bad[2] = Client(vec![0xee; 100]);
        world.behaviour = answers_like(&talk);
        for (port, talk) in [(PORT, &good), (PORT + 1, &bad), (PORT + 2, &good)] {
            world.capture(Live::new(at(ms(0)), port).play(talk));
        }
        world.run(secs(60));
        let stats = stats(&world);
        assert_eq!(stats.replicas_aborted.of(AbortReason::Protocol), 1);
        assert_eq!(stats.replicas_completed, 2);
        assert!(world.received(PORT + 1).iter().all(|byte| *byte == 7));
        let why = match panics {
            true => "the protocol module panicked",
            false => "a byte that it cannot stand",
        };
        assert_eq!(world.failures, [why]);
        assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (600, 400));
        world.assert_nothing_left();
    }
}

#[test]
fn a_session_met_in_its_middle_is_refused_where_no_conversation_can_begin_there() {
    for anywhere in [false, true] {
        let manner = Manner {
            anywhere,
            ..Manner::default()
        };
        let (mut world, _) = world(config(), 1, manner);
        let talk = some_talk();
        world.behaviour = answers_like(&talk);
        let packets = Live::new(at(ms(0)), PORT).play(&talk);
        world.capture(packets.into_iter().skip(12).collect());
        world.run(secs(200));
        let stats = stats(&world);
        let refused = stats.replicas_refused.of(RefusalReason::Protocol);
        assert_eq!(
            (refused, stats.replicas_opened),
            (u64::from(!anywhere), u64::from(anywhere))
        );
        // What its client sent is missing at the target, as if it had been copied byte for byte.
        let undelivered = stats.bytes_wanted - stats.bytes_delivered;
        assert_eq!(undelivered, if anywhere { 0 } else { stats.bytes_captured });
        world.run(secs(4000));
        assert_eq!(world.engine.gauges().memory, 0);
    }
}

#[test]
fn several_replicas_are_played_by_a_conversation_each() {
    let config = Config {
        intensity: Intensity::replicas(3),
        ..config()
    };
    let manner = Manner {
        listens: true,
        ..Manner::default()
    };
    let (mut world, heard) = world(config, 1, manner);
    let talk = some_talk();
    world.behaviour = answers_like(&talk);
    (world.to_target, world.to_copier) = (lossy(), lossy());
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(300));
    world.assert_all_delivered();
    assert_eq!(*heard.lock().unwrap(), vec![expected(70 + 6 * 3000); 3]);
    assert!(
        world
            .targets
            .iter()
            .all(|target| target.received == said(&talk))
    );
    world.assert_nothing_left();
}

#[test]
fn a_conversation_that_waits_in_vain_is_given_up_once_nothing_was_heard_for_the_idle_time_out() {
    for answers in [70, 0] {
        let manner = Manner {
            listens: true,
            greeting: 1000,
            ..Manner::default()
        };
        let (mut world, _) = world(config(), 1, manner);
        let talk = [Server(70), says(1000), Server(50), ClientFin, ServerFin];
        world.behaviour = Behaviour {
            greeting: answers,
            ..Behaviour::default()
        };
        world.capture(Live::new(at(ms(0)), PORT).play(&talk));
        let idle = world.engine.config().idle_timeout;
        world.run(idle / 2);
        assert_eq!(world.engine.gauges().replicas, 1);
        world.run(idle);
        let stats = stats(&world);
        assert_eq!(stats.replicas_aborted.of(AbortReason::Protocol), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn what_ends_a_session_ends_its_scripts_too() {
    let manner = Manner {
        listens: true,
        // More than the target says: everything is held for ever.
        greeting: 1000,
        ..Manner::default()
    };
    let (mut world, _) = world(config(), 1, manner);
    let talk = [Server(70), says(10_000), Server(50), ClientFin, ServerFin];
    world.behaviour = answers_like(&talk);
    world.capture(Live::new(at(ms(0)), PORT).play(&talk));
    world.run(secs(10));
    assert!(world.received(PORT).is_empty());
    let now = world.now;
    world.engine.shutdown(now);
    world.run(secs(60));
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::Shutdown), 1);
    assert_eq!(world.engine.gauges().memory, 0);
}

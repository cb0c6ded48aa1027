//! Protocol modules that hear the live server, hold the client back, and know where answers end.

use std::sync::{Arc, Mutex};

use millrace_engine::protocol::{
    Beginning, Conversation, Failure, FailureKind, Live, Protocol, Script, Turn, TurnNumber,
};
use millrace_engine::{AbortReason, Config, Recorded, Time};
use millrace_wire::{Flags, Seq};

use crate::sim::{
    Action, Behaviour, Link, Live as LiveSide, Packet, World, answer_byte, at, config, ms, secs,
};
use crate::talk::*;
use Action::*;

/// What a conversation was told of both sides of the live connection, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Client(usize),
    Live(Vec<u8>),
    Missing(u64),
}

type Log = Arc<Mutex<Vec<Told>>>;

/// Repeats what the client says.
#[derive(Clone, Default)]
struct Module {
    log: Log,
    /// The client is held back until the target has said so much.
    greeting: u64,
    /// How long each answer of the target is: turns are told by it.
    answer: Option<u64>,
    /// It fails once the target has said so much.
    refused: Option<u64>,
}

struct Repeater {
    module: Module,
    /// Bytes of the target.
    heard: u64,
    turn: Option<TurnNumber>,
}

impl Protocol for Module {
    fn begin(&self, _: Beginning) -> Option<Box<dyn Conversation>> {
        Some(Box::new(Repeater {
            module: self.clone(),
            heard: 0,
            turn: None,
        }))
    }

    fn hears_live(&self) -> bool {
        true
    }
}

impl Repeater {
    fn note(&self, told: Told) {
        self.module.log.lock().unwrap().push(told);
    }
}

impl Conversation for Repeater {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        self.note(Told::Client(bytes.len()));
        if let Some(turn) = turn {
            let is_told = self.module.answer.is_some() && !script.is_empty();
            let turn = match is_told {
                true => turn.until_told(),
                false => turn,
            };
            self.turn = Some(script.turn(turn));
        }
        match bytes.starts_with(b"leave out") {
            true => script.leave_out(),
            false => script.play(bytes),
        }
        Ok(())
    }

    fn on_live(&mut self, live: Live<'_>, _: &mut Script<'_>) -> Result<(), Failure> {
        self.note(match live {
            Live::Bytes(bytes) => Told::Live(bytes.to_vec()),
            Live::Missing { bytes } => Told::Missing(bytes),
        });
        Ok(())
    }

    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure> {
        self.heard += bytes.len() as u64;
        let is_whole = |answer: u64| self.heard.is_multiple_of(answer);
        if self.module.answer.is_some_and(is_whole)
            && let Some(turn) = self.turn.take()
        {
            script.answered(turn);
        }
        match self.module.refused.is_some_and(|at| self.heard >= at) {
            true => Err(Failure::new(FailureKind::Login, "it refuses")),
            false => Ok(()),
        }
    }

    fn wants_answers(&self) -> bool {
        let Module {
            greeting,
            answer,
            refused,
            ..
        } = &self.module;
        *greeting > 0 || answer.is_some() || refused.is_some()
    }

    fn holds_client(&self) -> bool {
        self.heard < self.module.greeting
    }
}

/// The session as it is captured where the live server's payload is kept, too.
fn captured_whole(talk: &[Action]) -> Vec<(Time, Packet)> {
    let mut packets = LiveSide::new(at(ms(0)), PORT).play(talk);
    let mut first: Option<Seq> = None;
    for (_, packet) in &mut packets {
        if packet.tuple.destination.port != PORT {
            continue;
        }
        let seq = packet.header.seq;
        if packet.header.flags.has(Flags::SYN) {
            first = Some(seq.add(1));
        }
        let start = seq.offset_near(first.unwrap(), 0).unwrap_or(0);
        let len = packet.payload_len as u64;
        packet.payload = (start..start + len).map(answer_byte).collect();
    }
    packets
}

fn world(module: &Module) -> World {
    let mut world = World::new(config(), 1);
    world.engine.set_protocol(0, Box::new(module.clone()));
    world
}

/// Whatever pieces things were told in, they are joined here.
fn told(log: &Log) -> Vec<Told> {
    let mut joined: Vec<Told> = Vec::new();
    for one in log.lock().unwrap().drain(..) {
        match (joined.last_mut(), one) {
            (Some(Told::Client(before)), Told::Client(len)) => *before += len,
            (Some(Told::Live(before)), Told::Live(bytes)) => before.extend(bytes),
            (Some(Told::Missing(before)), Told::Missing(bytes)) => *before += bytes,
            (_, one) => joined.push(one),
        }
    }
    joined
}

fn answer(from: u64, to: u64) -> Told {
    Told::Live((from..to).map(answer_byte).collect())
}

fn talk() -> Vec<Action> {
    let mut talk = vec![Server(70)];
    for _ in 0..3 {
        talk.extend([says(100), Server(3000), Pause(ms(7))]);
    }
    talk.extend([ClientFin, ServerFin]);
    talk
}

/// What is told of [`talk`] behind its greeting.
fn turns_of_talk() -> Vec<Told> {
    let turn = |n: u64| {
        let said = answer(70 + n * 3000, 70 + (n + 1) * 3000);
        [Told::Client(100), said]
    };
    (0..3).flat_map(turn).collect()
}

#[test]
fn what_the_live_server_says_is_heard_before_what_its_client_says_to_it() {
    let module = Module::default();
    let mut world = world(&module);
    world.behaviour = answers_like(&talk());
    world.capture(captured_whole(&talk()));
    world.run(secs(60));
    let mut expected = vec![answer(0, 70)];
    expected.extend(turns_of_talk());
    assert!(told(&module.log) == expected);
    world.assert_all_delivered();
    world.assert_nothing_left();
}

/// What happens to packets on their way into the engine.
type Mangle = fn(&mut Vec<(Time, Packet)>);

#[test]
fn what_capture_has_missed_of_the_live_server_is_told_before_the_client_goes_on() {
    // Both packets in the middle of the first answer of three, in another order, and headers alone.
    let cases: [(&str, Mangle, Vec<Told>); 3] = [
        (
            "lost",
            |packets| packets.retain(|(_, packet)| packet.payload_len != 1001),
            vec![answer(70, 1070), Told::Missing(1001), answer(2071, 3070)],
        ),
        (
            "late",
            |packets| {
                let is_it = |(_, packet): &(Time, Packet)| packet.payload_len == 1001;
                let place = packets.iter().position(is_it).unwrap();
                let time = packets[place].0;
                packets[place].0 = packets[place + 1].0;
                packets[place + 1].0 = time;
                packets.swap(place, place + 1);
            },
            vec![answer(70, 3070)],
        ),
        (
            "cut",
            |packets| {
                let long = |(_, packet): &&mut (Time, Packet)| packet.payload_len == 1001;
                for (_, packet) in packets.iter_mut().filter(long) {
                    packet.payload.truncate(20);
                }
            },
            vec![answer(70, 1090), Told::Missing(981), answer(2071, 3070)],
        ),
    ];
    for (name, mangle, first_answer) in cases {
        let module = Module::default();
        let mut world = world(&module);
        let talk = [
            Server(70),
            says(10),
            Server(1000),
            Server(1001),
            Server(999),
            says(20),
            Server(50),
            ClientFin,
            ServerFin,
        ];
        world.behaviour = answers_like(&talk);
        let mut packets = captured_whole(&talk);
        mangle(&mut packets);
        world.capture(packets);
        world.run(secs(60));
        let mut expected = vec![answer(0, 70), Told::Client(10)];
        expected.extend(first_answer);
        expected.extend([Told::Client(20), answer(3070, 3120)]);
        assert!(told(&module.log) == expected, "{name}");
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn a_client_that_is_held_back_goes_on_when_the_target_has_said_enough() {
    let module = Module {
        greeting: 70,
        ..Module::default()
    };
    let mut world = world(&module);
    world.behaviour = answers_like(&talk());
    // The target's way is so long that the client's whole session has passed by then.
    let slow = Link {
        delay: secs(1),
        ..Link::default()
    };
    (world.to_target, world.to_copier) = (slow, slow);
    world.capture(captured_whole(&talk()));
    world.run(ms(1900));
    assert!(told(&module.log) == [answer(0, 70)]);
    world.run(secs(60));
    // What both sides have said meanwhile is told in the order in which it was captured.
    assert!(told(&module.log) == turns_of_talk());
    assert_eq!(world.received(PORT), said(&talk()));
    world.assert_all_delivered();
    world.assert_nothing_left();
}

#[test]
fn what_a_client_that_is_held_back_says_is_missing_where_its_target_never_takes_it() {
    let module = Module {
        greeting: 71,
        ..Module::default()
    };
    let mut world = world(&module);
    world.behaviour = answers_like(&talk());
    world.capture(captured_whole(&talk()));
    world.run(secs(1));
    assert_eq!(stats(&world).bytes_wanted, 0);
    let now = world.now;
    world.engine.shutdown(now);
    world.run(secs(60));
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::Shutdown), 1);
    assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (300, 0));
    assert_eq!(world.engine.gauges().memory, 0);
}

#[test]
fn a_target_that_never_says_what_is_waited_for_is_given_up_while_its_client_goes_on() {
    let module = Module {
        greeting: 71,
        ..Module::default()
    };
    let mut world = world(&module);
    let mut talk = vec![Server(70)];
    for _ in 0..30 {
        talk.extend([says(100), Server(3000), Pause(secs(10))]);
    }
    world.behaviour = Behaviour {
        greeting: 70,
        ..Behaviour::default()
    };
    world.capture(captured_whole(&talk));
    let patience = world.engine.config().answer_timeout;
    world.run(patience - secs(1));
    assert_eq!(world.engine.gauges().replicas, 1);
    world.run(secs(10));
    let stats = stats(&world);
    assert_eq!(stats.replicas_aborted.of(AbortReason::Protocol), 1);
    assert_eq!(stats.conversations_failed.of(FailureKind::Silent), 1);
    assert_eq!(stats.bytes_wanted, stats.bytes_captured);
    let held = world.engine.gauges().memory;
    world.run(secs(170));
    let now = world.engine.gauges().memory;
    assert!(now <= held, "{now} {held}: nobody hears the live server");
}

#[test]
fn what_client_and_live_server_say_is_told_in_order_however_late_the_client_is_captured() {
    for late in [ms(0), ms(2), ms(20)] {
        let module = Module::default();
        let mut world = world(&module);
        let talk = [
            Server(70),
            says(10),
            Server(1000),
            Pause(ms(50)),
            says(20),
            Server(60),
            Pause(ms(50)),
            says(30),
            Server(50),
            Pause(ms(50)),
            ClientFin,
            ServerFin,
        ];
        world.behaviour = answers_like(&talk);
        let mut packets = captured_whole(&talk);
        for (time, packet) in &mut packets {
            if packet.tuple.source.port == PORT && packet.payload_len > 0 {
                *time = *time + late;
            }
        }
        world.capture(packets);
        world.run(secs(60));
        let expected = [
            answer(0, 70),
            Told::Client(10),
            answer(70, 1070),
            Told::Client(20),
            answer(1070, 1130),
            Told::Client(30),
            answer(1130, 1180),
        ];
        assert!(told(&module.log) == expected, "{late:?}");
        world.assert_all_delivered();
    }
}

#[test]
fn a_recording_waits_for_a_conversation_that_waits_for_its_target() {
    for (greeting, busy) in [(71, 1), (70, 0)] {
        let module = Module {
            greeting,
            ..Module::default()
        };
        let recorded = Recorded {
            speed: 1.0,
            longest_pause: None,
        };
        let config = Config {
            recorded: Some(recorded),
            ..config()
        };
        let mut world = World::new(config, 1);
        world.engine.set_protocol(0, Box::new(module));
        world.behaviour = answers_like(&talk());
        let now = world.now;
        for (time, packet) in captured_whole(&talk()) {
            world.engine.segment(now, time - secs(3600), &packet.view());
        }
        world.run(secs(3));
        assert_eq!(world.engine.gauges().sessions_busy, busy);
    }
}

#[test]
fn a_turn_that_is_told_waits_for_a_pause_in_the_answer_however_long() {
    let talk = [
        says(100),
        Server(3000),
        says(100),
        Server(3000),
        ClientFin,
        ServerFin,
    ];
    for told_by in [Some(8000), None] {
        let module = Module {
            answer: told_by,
            ..Module::default()
        };
        let mut world = world(&module);
        // The half of an answer is longer than the live one, and the rest comes five seconds later.
        world.behaviour = Behaviour {
            answers: vec![(100, 8000), (200, 8000)],
            answer_pause: secs(5),
            ..Behaviour::default()
        };
        world.capture(captured_whole(&talk));
        world.run(secs(60));
        let went = elapsed(sent_at(&world, PORT, 100));
        match told_by {
            Some(_) => assert!((5000..5100).contains(&went), "{went} ms"),
            None => assert!(went < 5000, "{went} ms"),
        }
        world.assert_all_delivered();
        world.assert_nothing_left();
    }
}

#[test]
fn nobody_waits_for_an_answer_to_what_a_module_leaves_out() {
    let leave_out = || Client(b"leave out".to_vec());
    let module = Module::default();
    let mut world = world(&module);
    let talk = [
        leave_out(),
        Server(500),
        says(10),
        Server(50),
        leave_out(),
        Server(900),
        leave_out(),
        Server(900),
        says(10),
        Server(60),
        says(10),
        Server(70),
        ClientFin,
        ServerFin,
    ];
    world.behaviour = Behaviour {
        answers: vec![(10, 50), (20, 60), (30, 70)],
        answer_delay: ms(3),
        ..Behaviour::default()
    };
    world.capture(captured_whole(&talk));
    world.run(secs(60));
    let stats = stats(&world);
    assert_eq!(stats.requests_left_out, 3);
    assert_eq!((stats.bytes_wanted, stats.bytes_delivered), (30, 30));
    assert_eq!(stats.replicas_completed, 1);
    // Every answer was as long as that of the live server to the same: no turn went out by a guess.
    assert_eq!((stats.gate_quiet, stats.gate_overridden), (0, 0));
    world.assert_nothing_left();
}

#[test]
fn why_a_conversation_failed_is_counted_by_its_kind() {
    let module = Module {
        refused: Some(1000),
        ..Module::default()
    };
    let mut world = world(&module);
    world.behaviour = answers_like(&talk());
    world.capture(captured_whole(&talk()));
    world.run(secs(60));
    let failed = &stats(&world).conversations_failed;
    assert_eq!((failed.of(FailureKind::Login), failed.total()), (1, 1));
    assert_eq!(world.failures, ["it refuses"]);
    world.assert_nothing_left();
}

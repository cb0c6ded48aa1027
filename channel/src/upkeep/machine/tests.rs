//! Streams in simulated time, with a contract of five words.

use super::*;
use crate::upkeep::{Backoff, Taken};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Hello,
    Ping(u64),
}

enum Heard {
    Welcome,
    StrangeVersion,
    Word,
    Pong(u64),
    Refused { passes: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct No {
    passes: bool,
}

impl Refusal for No {
    fn reason(&self) -> &str {
        "it would cut\noff ssh"
    }

    fn passes(&self) -> bool {
        self.passes
    }
}

/// Notes what happens to it.
#[derive(Debug, Default)]
struct Notes {
    words: usize,
    pongs: Vec<BootTime>,
    ended: Vec<(String, bool)>,
}

impl Contract for Notes {
    type Outgoing = Said;
    type Incoming = Heard;
    type Pong = ();
    type Refusal = No;

    fn first(&mut self) -> Said {
        Said::Hello
    }

    fn judge(&mut self, answer: Option<Heard>) -> Result<(), End<No>> {
        match answer {
            Some(Heard::Welcome) => Ok(()),
            Some(Heard::StrangeVersion) => {
                Err(End::Failed("it speaks protocol version 99".to_owned()))
            }
            Some(Heard::Refused { passes }) => Err(End::Refused(No { passes })),
            Some(Heard::Word | Heard::Pong(_)) | None => Err(End::Failed("no Welcome".to_owned())),
        }
    }

    fn take(&mut self, message: Heard) -> Taken<Self> {
        match message {
            Heard::Pong(nonce) => return Ok(Some((nonce, ()))),
            Heard::Refused { passes } => return Err(End::Refused(No { passes })),
            Heard::Word => self.words += 1,
            Heard::Welcome | Heard::StrangeVersion => {}
        }
        Ok(None)
    }

    fn ping(&mut self, nonce: u64) -> Said {
        Said::Ping(nonce)
    }

    fn pong(&mut self, (): (), asked_at: BootTime) {
        self.pongs.push(asked_at);
    }

    fn ended(&mut self, _: End<No>, reason: &str, was_up: bool) {
        self.ended.push((reason.to_owned(), was_up));
    }
}

const FIRST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(2);

/// A stream and its clock. Waits are not shortened.
struct World {
    machine: Machine<Notes>,
    now: BootTime,
}

impl World {
    /// An attempt has just begun.
    fn begun() -> Self {
        let terms = Terms {
            peer: "interceptor rs1:1".to_owned(),
            until: "it is back",
            answer_within: Duration::from_secs(6),
            no_answer: "no answer to Hello".to_owned(),
            ended: "it ended the stream",
            ping_every: SLOWEST,
            pong: "Pong",
            backoff: Backoff {
                first: FIRST,
                max: SLOWEST,
            },
        };
        let mut world = World {
            machine: Machine::new(Notes::default(), terms, || 0),
            now: BootTime::from_ms(1_000_000),
        };
        let begun = [Action::Connect, Action::Send(Said::Hello)];
        assert_eq!(world.machine.tick(world.now), begun);
        world
    }

    fn up() -> Self {
        let mut world = Self::begun();
        assert_eq!(world.hears(Heard::Welcome), []);
        assert!(world.machine.is_up());
        world
    }

    fn hears(&mut self, message: Heard) -> Vec<Action<Said>> {
        self.machine.heard(Some(message), self.now)
    }

    fn breaks(&mut self, reason: &str) -> Vec<Action<Said>> {
        self.machine.failed(reason.to_owned(), self.now)
    }

    /// Goes on to the next deadline; how long that took, and what is done then.
    fn waits(&mut self) -> (Duration, Vec<Action<Said>>) {
        let deadline = self.machine.deadline().unwrap();
        let waited = deadline.since(self.now);
        if let Some(before) = deadline.ms().checked_sub(1)
            && !waited.is_zero()
        {
            assert_eq!(self.machine.tick(BootTime::from_ms(before)), []);
        }
        self.now = deadline;
        (waited, self.machine.tick(deadline))
    }

    /// How long the next attempt, which begins by itself, is put off.
    fn again_after(&mut self) -> Duration {
        let (waited, actions) = self.waits();
        assert_eq!(actions, [Action::Connect, Action::Send(Said::Hello)]);
        waited
    }

    fn last_end(&self) -> (&str, bool) {
        let (reason, was_up) = self.machine.contract.ended.last().unwrap();
        (reason, *was_up)
    }
}

fn warned(of: &str) -> Vec<Action<Said>> {
    let said = format!("interceptor rs1:1: {of}; trying again until it is back");
    vec![Action::HangUp, Action::Warn(said)]
}

fn noted(of: &str, attempt: u32) -> Vec<Action<Said>> {
    let said = format!("interceptor rs1:1: {of}; attempt {attempt}");
    vec![Action::HangUp, Action::Debug(said)]
}

#[test]
fn an_answer_in_a_strange_version_is_no_stream_and_is_warned_of_once() {
    let mut world = World::begun();
    let reason = "it speaks protocol version 99";
    assert_eq!(world.hears(Heard::StrangeVersion), warned(reason));
    assert_eq!(world.last_end(), (reason, false));
    assert!(!world.machine.is_up());
    for (failures, wait) in [(2, 50), (3, 100), (4, 200)] {
        assert_eq!(world.again_after(), Duration::from_millis(wait));
        let actions = world.hears(Heard::StrangeVersion);
        assert_eq!(actions, noted(reason, failures));
    }
    world.again_after();
    assert_eq!(world.breaks("no route"), warned("no route"));
    // What was said before that is news again.
    world.again_after();
    assert_eq!(world.hears(Heard::StrangeVersion), warned(reason));
}

#[test]
fn a_first_message_that_is_not_answered_is_waited_for_as_long_as_the_terms_say() {
    let mut world = World::begun();
    let (waited, actions) = world.waits();
    assert_eq!(waited, Duration::from_secs(6));
    assert_eq!(actions, warned("no answer to Hello"));
    assert_eq!(world.last_end(), ("no answer to Hello", false));
    assert_eq!(world.hears(Heard::Welcome), [], "that is too late");
    assert!(!world.machine.is_up());
    assert_eq!(world.again_after(), FIRST);
    assert_eq!(world.machine.heard(None, world.now), warned("no Welcome"));
}

#[test]
fn a_peer_is_pinged_again_when_it_has_answered_and_hangs_when_it_does_not() {
    let mut world = World::up();
    assert_eq!(
        world.waits(),
        (Duration::ZERO, vec![Action::Send(Said::Ping(1))])
    );
    let asked_at = world.now;
    world.hears(Heard::Word);
    for pong in [0, 2, 1, 1] {
        assert_eq!(world.hears(Heard::Pong(pong)), []);
    }
    assert_eq!(
        world.machine.contract.pongs,
        [asked_at],
        "one answer counts"
    );
    assert_eq!(world.waits(), (SLOWEST, vec![Action::Send(Said::Ping(2))]));
    let mut silent = Duration::ZERO;
    let last = loop {
        world.hears(Heard::Word);
        let (waited, actions) = world.waits();
        silent += waited;
        if !actions.is_empty() {
            break actions;
        }
    };
    assert_eq!(silent, Duration::from_secs(22), "the first look after 20 s");
    assert_eq!(last, warned("no Pong for 20s: it hangs"));
    assert_eq!(world.last_end(), ("no Pong for 20s: it hangs", true));
    assert!(world.machine.contract.words > 5);
}

#[test]
fn after_a_standstill_of_this_side_the_peer_is_heard_before_it_is_said_to_hang() {
    for answers in [true, false] {
        let mut world = World::up();
        world.waits();
        world.now = world.now.after(Duration::from_secs(60));
        assert_eq!(world.machine.tick(world.now), []);
        if answers {
            assert_eq!(world.hears(Heard::Pong(1)), []);
            assert_eq!(world.waits().1, vec![Action::Send(Said::Ping(2))]);
        } else {
            assert_eq!(world.waits().1, warned("no Pong for 20s: it hangs"));
        }
    }
}

#[test]
fn who_refuses_is_asked_at_the_slowest_pace_and_who_ends_may_be_back_at_once() {
    let reason = "refused: it would cut off ssh";
    let mut world = World::begun();
    let refused = world.hears(Heard::Refused { passes: false });
    assert_eq!(refused, warned(reason));
    assert_eq!(world.again_after(), SLOWEST);
    let mut world = World::up();
    assert_eq!(world.hears(Heard::Refused { passes: true }), warned(reason));
    assert_eq!(world.last_end(), (reason, true));
    assert_eq!(world.again_after(), FIRST);
}

#[test]
fn a_stream_that_breaks_at_once_is_no_success() {
    let mut world = World::up();
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert_eq!(world.breaks("reset"), warned("reset"));
        waits.push(world.again_after().as_millis());
        world.hears(Heard::Welcome);
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000]);
    // Nor is one that never came up, however long that took.
    world.breaks("reset");
    world.again_after();
    world.now = world.now.after(Duration::from_secs(5));
    world.breaks("no route");
    assert_eq!(world.again_after(), SLOWEST);
    // One that lasted is.
    world.hears(Heard::Welcome);
    world.now = world.now.after(SLOWEST);
    assert_eq!(
        world.machine.heard(None, world.now),
        warned("it ended the stream")
    );
    assert_eq!(world.again_after(), FIRST);
}

#[test]
fn a_stream_that_is_closed_while_it_connects_is_over() {
    let mut world = World::begun();
    let over = [Action::HangUp, Action::Stop];
    assert_eq!(world.machine.close(world.now), over);
    assert_eq!(world.last_end(), ("closed", false));
    assert_eq!(world.machine.deadline(), None);
    assert_eq!(world.hears(Heard::Welcome), []);
    assert_eq!(world.breaks("reset"), []);
    assert_eq!(world.machine.tick(world.now.after(SLOWEST)), []);
    assert_eq!(world.machine.contract.ended.len(), 1);
}

#[test]
fn a_stream_that_is_closed_between_attempts_has_nothing_to_end() {
    let mut world = World::begun();
    world.breaks("no route");
    assert_eq!(world.machine.close(world.now), [Action::Stop]);
    assert_eq!(world.machine.contract.ended.len(), 1);
}

#[test]
fn a_stream_that_is_up_and_closed_says_so() {
    let mut world = World::up();
    assert_eq!(
        world.machine.close(world.now),
        [Action::HangUp, Action::Stop]
    );
    assert_eq!(world.last_end(), ("closed", true));
}

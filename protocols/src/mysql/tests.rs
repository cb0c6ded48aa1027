//! Whole sessions, in pieces of all sizes: what is played, which turns wait for what, and how it ends.

mod logins;
mod requests;

use std::collections::VecDeque;

use millrace_engine::protocol::FailureKind;
use proptest::prelude::*;

use super::answers::tests::said;
use super::auth::{Exchange, NATIVE, Scramble};
use super::greeting::tests::greeting;
use super::packets::packet;
use super::response::Response;
use super::response::tests::{USUAL, response};
use super::wire::capability;
use super::{
    Accounts, Arc, Beginning, ClientEnd, Failure, MySql, Player, Protocol as _, Settings,
    WriteGuard, auth, commands,
};
use crate::stage::{Pace, Stage};
use crate::writes::{Ledger, Rules};

/// What a player did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Played {
    bytes: Vec<u8>,
    /// Each with where it stands, and what it waits for.
    turns: Vec<(usize, u32, Pace)>,
    answered: Vec<usize>,
    left_out: usize,
    end: Option<ClientEnd>,
}

impl Stage for Played {
    type Turn = u32;
    type Number = usize;

    fn is_settled(&self, _: u32) -> bool {
        true
    }

    fn turn(&mut self, turn: u32, gate: Pace) -> usize {
        self.turns.push((self.bytes.len(), turn, gate));
        self.turns.len() - 1
    }

    fn answered(&mut self, number: usize) {
        self.answered.push(number);
    }

    fn play(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn leave_out(&mut self) {
        self.left_out += 1;
    }

    fn end(&mut self, end: ClientEnd) {
        self.end = self.end.or(Some(end));
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The client had waited, and says this.
    Turn(Vec<u8>),
    /// It says this.
    More(Vec<u8>),
    /// The live server says this.
    Live(Vec<u8>),
    /// It was not captured.
    Missing,
    /// The target says this.
    Target(Vec<u8>),
    TargetEnds,
    End,
}
use Step::{End, Live, Missing, More, Target, TargetEnds, Turn};

const LIVE_SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";
const SCRAMBLE: &[u8; 20] = b"01234567890123456789";
const OK: &[u8] = b"\x00\x00\x00\x02\x00\x00\x00";
const EOF: &[u8] = b"\xfe\x00\x00\x02\x00";
const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied";
const ALL: u32 = USUAL | capability::LOCAL_FILES | capability::MULTI_STATEMENTS;

fn settings(rules: Rules) -> Settings {
    let accounts = Accounts::parse("app@right").unwrap();
    Settings {
        accounts: Arc::new(accounts),
        guard: WriteGuard::new(Arc::new(rules), Arc::new(Ledger::default())),
        ..Settings::default()
    }
}

/// A statement, a piece, and what the live server says while the client is held.
const MOST_KEPT: usize = (64 << 10) + (16 << 10) + (64 << 10);

/// Plays a session in such pieces, as the engine does: what is captured waits while the client is held.
fn play(
    settings: &Settings,
    beginning: Beginning,
    steps: &[Step],
    piece: usize,
) -> (Played, Result<(), Failure>) {
    let mut player = Player::<u32, usize>::new(Arc::new(settings.clone()), beginning);
    let mut played = Played::default();
    let mut waiting: VecDeque<(bool, Option<u32>, Vec<u8>)> = VecDeque::new();
    let (mut turns, mut ended) = (0, false);
    let mut go = || {
        for step in steps {
            match step {
                Turn(bytes) | More(bytes) | Live(bytes) => {
                    let is_live = matches!(step, Live(_));
                    let mut turn = matches!(step, Turn(_)).then_some(turns);
                    turns += u32::from(turn.is_some());
                    for bytes in bytes.chunks(piece) {
                        waiting.push_back((is_live, turn.take(), bytes.to_vec()));
                    }
                }
                Missing => waiting.push_back((true, None, Vec::new())),
                Target(bytes) => {
                    for bytes in bytes.chunks(piece) {
                        player.on_target(bytes, &mut played)?;
                    }
                }
                TargetEnds => player.on_target_end(&mut played)?,
                End => ended = true,
            }
            assert!(player.held() <= MOST_KEPT + piece);
            while !player.holds_client()
                && let Some((is_live, turn, bytes)) = waiting.pop_front()
            {
                match (is_live, bytes.is_empty()) {
                    (true, true) => player.on_live_missing(),
                    (true, false) => player.on_live(&bytes)?,
                    (false, _) => player.on_client(&bytes, turn, &mut played)?,
                }
            }
            if ended && waiting.is_empty() {
                player.on_client_end(ClientEnd::Fin, None, &mut played)?;
            }
        }
        Ok(())
    };
    let result = go();
    (played, result)
}

/// The same in pieces of all sizes.
fn check(
    settings: &Settings,
    beginning: Beginning,
    steps: &[Step],
) -> (Played, Result<(), Failure>) {
    let whole = play(settings, beginning, steps, 16 << 10);
    for piece in (1..40).chain([100, 1000]) {
        let cut = play(settings, beginning, steps, piece);
        assert_eq!(cut.0.bytes, whole.0.bytes, "in pieces of {piece}");
        assert_eq!(cut, whole, "in pieces of {piece}");
    }
    whole
}

fn live_login() -> Vec<u8> {
    response(USUAL).encode(NATIVE, &[9; 20])
}

/// The steps up to the first command.
fn login(target: u32) -> Vec<Step> {
    vec![
        Live(packet(0, &greeting(ALL, 0, NATIVE, LIVE_SCRAMBLE))),
        Target(packet(0, &greeting(target, 0, NATIVE, SCRAMBLE))),
        Turn(packet(1, &live_login())),
        Live(packet(2, OK)),
        Target(packet(2, OK)),
    ]
}

fn target_login() -> Vec<u8> {
    let proof = Exchange::new(NATIVE, &Scramble::new(SCRAMBLE), "right").proof();
    packet(1, &response(USUAL).encode(NATIVE, &proof))
}

fn command(number: u8, rest: &[u8]) -> Vec<u8> {
    packet(0, &[&[number], rest].concat())
}

fn query(text: &str) -> Vec<u8> {
    command(commands::QUERY, text.as_bytes())
}

fn with(first: Vec<Step>, then: impl IntoIterator<Item = Step>) -> Vec<Step> {
    first.into_iter().chain(then).collect()
}

/// A session whose log-in is done: what was played after it, without failure.
fn commands_of(rules: Rules, then: impl IntoIterator<Item = Step>) -> Played {
    let steps = with(login(ALL), then);
    let (mut played, result) = check(&settings(rules), Beginning::Connection, &steps);
    assert_eq!(result, Ok(()));
    let first = target_login();
    assert_eq!(played.bytes.get(..first.len()), Some(&first[..]));
    played.bytes.drain(..first.len());
    played
        .turns
        .iter_mut()
        .for_each(|turn| turn.0 = turn.0.saturating_sub(first.len()));
    played
}

fn failure(steps: &[Step]) -> FailureKind {
    let (_, result) = check(&settings(Rules::default()), Beginning::Connection, steps);
    result.unwrap_err().kind
}

fn prepared(id: u32) -> Vec<u8> {
    let [a, b, c, d] = id.to_le_bytes();
    said(&[&[0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0]])
}

fn numbered(number: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    command(number, &[&id.to_le_bytes()[..], rest].concat())
}

fn prepare(text: &str) -> Vec<u8> {
    command(commands::STMT_PREPARE, text.as_bytes())
}

const EXECUTE: &[u8] = b"\x00\x01\x00\x00\x00";

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0u8..4, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(n, it)| packet(n, &it)),
        (
            prop::sample::select(vec![3u8, 0x11, 0x16, 0x17, 0x19, 0x1c, 0xfa]),
            any::<[u8; 6]>()
        )
            .prop_map(|(n, it)| command(n, &it)),
        Just(said(&[OK])),
        Just(prepared(1)),
        Just(query("LOAD")),
        Just(said(&[b"\xfb"])),
    ];
    (0..8, bytes).prop_map(|(kind, bytes)| match kind {
        0 | 1 => Turn(bytes),
        2 => More(bytes),
        3 | 4 => Live(bytes),
        5 => Missing,
        6 => Target(bytes),
        _ => Target(said(&[OK])),
    })
}

proptest! {
    /// Whatever either side says, nothing panics.
    #[test]
    fn any_session_is_played_or_fails(
        then in prop::collection::vec(any_step(), 0..30),
        is_logged_in in any::<bool>(),
        piece in 1usize..60,
    ) {
        let first = if is_logged_in { login(ALL) } else { Vec::new() };
        let steps = with(first, then);
        for beginning in [Beginning::Connection, Beginning::Turn] {
            let _ = play(&settings(Rules::default()), beginning, &steps, piece);
        }
    }
}

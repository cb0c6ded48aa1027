//! Whole sessions, in pieces of all sizes: what is played, which turns wait for what, and how it ends.

use std::collections::VecDeque;

use millrace_engine::protocol::FailureKind;
use proptest::prelude::*;

use super::answers::tests::said;
use super::auth::{Exchange, NATIVE, Scramble};
use super::greeting::tests::greeting;
use super::packets::packet;
use super::response::Response;
use super::response::tests::{USUAL, response};
use super::stage::{Gate, Stage};
use super::wire::capability;
use super::{
    Accounts, Arc, Beginning, ClientEnd, Failure, MySql, Player, Protocol as _, Settings,
    WriteGuard, auth, commands,
};
use crate::writes::{Ledger, Rules};

/// What a player did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Played {
    bytes: Vec<u8>,
    /// Each with where it stands, and what it waits for.
    turns: Vec<(usize, u32, Gate)>,
    answered: Vec<usize>,
    left_out: usize,
    end: Option<ClientEnd>,
}

impl Stage for Played {
    type Turn = u32;
    type Number = usize;

    fn turn(&mut self, turn: u32, gate: Gate) -> usize {
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

#[test]
fn a_login_bears_the_targets_password_and_commands_follow_it() {
    let played = commands_of(
        Rules::default(),
        [
            Turn(query("SELECT 1")),
            Live(said(&[OK])),
            Turn(command(0x0E, b"")),
            Target(said(&[OK])),
            Target(said(&[OK])),
            End,
        ],
    );
    assert_eq!(
        played.bytes,
        [query("SELECT 1"), command(0x0E, b"")].concat()
    );
    let second = query("SELECT 1").len();
    // The log-in was answered; the second command waits until the first one was.
    assert_eq!(
        played.turns,
        [
            (0, 0, Gate::Over),
            (0, 1, Gate::Over),
            (second, 2, Gate::UntilTold)
        ]
    );
    assert_eq!(played.answered, [2]);
    assert_eq!(played.end, Some(ClientEnd::Fin));
}

#[test]
fn both_sides_may_switch_and_the_target_may_want_the_password_itself() {
    let switch = |scramble: &[u8]| [b"\xfecaching_sha2_password\0", scramble, b"\0"].concat();
    let steps = [
        Live(packet(0, &greeting(ALL, 0, NATIVE, LIVE_SCRAMBLE))),
        Turn(packet(1, &live_login())),
        Live(packet(2, &switch(LIVE_SCRAMBLE))),
        Turn(packet(3, &[5; 32])),
        Live(packet(4, b"\x01\x04")),
        Turn(packet(5, b"\x02")),
        Turn(query("SELECT 1")),
        Target(packet(0, &greeting(ALL, 0, NATIVE, SCRAMBLE))),
        Target(packet(2, &switch(SCRAMBLE))),
        Target(packet(4, b"\x01\x04")),
        Target(packet(6, OK)),
    ];
    let (played, result) = check(&settings(Rules::default()), Beginning::Connection, &steps);
    assert_eq!(result, Ok(()));
    let proof = Exchange::new(auth::CACHING_SHA2, &Scramble::new(SCRAMBLE), "right").proof();
    let expected = [
        target_login(),
        packet(3, &proof),
        packet(5, b"\x02"),
        query("SELECT 1"),
    ];
    assert_eq!(played.bytes, expected.concat());
}

#[test]
fn log_ins_that_cannot_be_played_fail_by_their_kind() {
    let begin = [
        Live(packet(
            0,
            &greeting(ALL | capability::COMPRESS, 0, NATIVE, LIVE_SCRAMBLE),
        )),
        Target(packet(0, &greeting(ALL, 0, NATIVE, SCRAMBLE))),
    ];
    let of = |response: Response| {
        with(
            begin.to_vec(),
            [Turn(packet(1, &response.encode(NATIVE, b"")))],
        )
    };
    let other = Response {
        user: b"other".to_vec(),
        ..response(USUAL)
    };
    assert_eq!(failure(&of(other)), FailureKind::Account);
    let encrypted = response(USUAL | capability::SSL);
    assert_eq!(failure(&of(encrypted)), FailureKind::Encrypted);
    let compressed = of(response(USUAL | capability::COMPRESS));
    assert_eq!(failure(&compressed), FailureKind::Compressed);
    // The live server does not compress.
    let mut fine = compressed.clone();
    fine[0] = Live(packet(0, &greeting(ALL, 0, NATIVE, LIVE_SCRAMBLE)));
    let (_, result) = check(&settings(Rules::default()), Beginning::Connection, &fine);
    assert_eq!(result, Ok(()));
    // It was not captured.
    assert_eq!(failure(&compressed[1..]), FailureKind::Compressed);
}

#[test]
fn a_refusal_is_a_failure_of_the_target_only_where_the_live_server_accepted() {
    let refused = |live: Option<&[u8]>, then: Step| {
        let mut steps = login(ALL);
        steps.truncate(3);
        steps.extend(live.map(|it| Live(packet(2, it))));
        steps.push(Target(packet(2, DENIED)));
        steps.push(then);
        check(&settings(Rules::default()), Beginning::Connection, &steps)
    };
    let (played, result) = refused(Some(DENIED), End);
    assert_eq!(result, Ok(()));
    assert_eq!(played.end, Some(ClientEnd::Fin));
    assert_eq!(refused(None, End).1, Ok(()));
    let kind = |it: (Played, Result<(), Failure>)| it.1.unwrap_err();
    let failure = kind(refused(Some(OK), End));
    assert_eq!(failure.kind, FailureKind::Login);
    assert_eq!(failure.text, "the target refuses the log-in: error 1045");
    let late = kind(refused(None, Turn(query("SELECT 1"))));
    assert_eq!(late.kind, FailureKind::Login);
    let mut early = login(ALL);
    early.truncate(4);
    early.push(TargetEnds);
    assert_eq!(self::failure(&early), FailureKind::Login);
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

#[test]
fn statements_bear_the_targets_numbers_which_are_waited_for() {
    let execute = |id| numbered(commands::STMT_EXECUTE, id, EXECUTE);
    let close = |id| numbered(commands::STMT_CLOSE, id, b"");
    let played = commands_of(
        Rules::default(),
        [
            Turn(prepare("SELECT 1")),
            Live(prepared(70)),
            Turn([execute(70), close(70)].concat()),
            Live(said(&[OK])),
            Turn(prepare("SELECT 2")),
            Live(prepared(71)),
            Target(prepared(3)),
            Target(said(&[OK])),
            Target(prepared(9)),
            Turn(execute(71)),
        ],
    );
    let expected = [
        prepare("SELECT 1"),
        execute(3),
        close(3),
        prepare("SELECT 2"),
        execute(9),
    ];
    assert_eq!(played.bytes, expected.concat());
}

#[test]
fn numbers_that_were_not_captured_are_inferred_or_refused() {
    let execute = |id| numbered(commands::STMT_EXECUTE, id, EXECUTE);
    let then = |used: u32| {
        [
            Turn(prepare("SELECT 1")),
            Live(prepared(70)),
            Turn(prepare("SELECT 2")),
            Missing,
            Turn(prepare("SELECT 3")),
            Missing,
            Target(prepared(7)),
            Target(prepared(8)),
            Target(prepared(9)),
            Turn(execute(used)),
        ]
    };
    for (used, id) in [(70, 7), (71, 8), (72, 9), (u32::MAX, 9)] {
        let played = commands_of(Rules::default(), then(used));
        assert!(played.bytes.ends_with(&execute(id)));
    }
    let unknown = with(login(ALL), then(73));
    assert_eq!(failure(&unknown), FailureKind::Unsupported);
    // With nothing to count from it may be any of several.
    let deaf: Vec<_> = then(71)
        .into_iter()
        .filter(|it| !matches!(it, Live(_)))
        .collect();
    assert_eq!(failure(&with(login(ALL), deaf)), FailureKind::Unsupported);
}

#[test]
fn what_writes_is_left_out_with_all_that_belongs_to_it() {
    let rules = Rules {
        read_only: true,
        ..Rules::default()
    };
    let execute = |id| numbered(commands::STMT_EXECUTE, id, EXECUTE);
    let played = commands_of(
        rules,
        [
            Turn(query("DELETE FROM t")),
            Live(said(&[OK])),
            Turn(query("SELECT 1")),
            Live(said(&[OK])),
            Target(said(&[OK])),
            Turn(prepare("INSERT INTO t VALUES (?)")),
            Live(prepared(1)),
            Turn(execute(1)),
            Live(said(&[OK])),
            Turn(query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
            Live(said(&[b"\xfbx"])),
            Turn([packet(2, b"1\n"), packet(3, b"")].concat()),
            Live(packet(4, OK)),
            Turn(command(0x06, b"shop")),
            Live(said(&[OK])),
            Turn(query("SELECT 2")),
        ],
    );
    assert_eq!(
        played.bytes,
        [query("SELECT 1"), query("SELECT 2")].concat()
    );
    assert_eq!(played.left_out, 5);
    assert!(played.turns.iter().all(|(_, _, gate)| *gate == Gate::Over));
}

#[test]
fn files_are_played_to_a_target_that_asks_with_its_numbers() {
    let load = query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t");
    let file = |from: u8| [packet(from, b"1\n"), packet(from + 1, b"")].concat();
    let steps = |answer: Vec<u8>| {
        [
            Turn(load.clone()),
            Live(said(&[b"\xfbx"])),
            Turn(file(2)),
            Live(packet(4, OK)),
            Turn(query("SELECT 1")),
            Target(answer),
            Target(packet(6, OK)),
        ]
    };
    let asked = commands_of(Rules::default(), steps(packet(3, b"\xfbx")));
    assert_eq!(
        asked.bytes,
        [load.clone(), file(4), query("SELECT 1")].concat()
    );
    let refused = commands_of(Rules::default(), steps(packet(1, DENIED))[..6].to_vec());
    assert_eq!(refused.bytes, [load.clone(), query("SELECT 1")].concat());
    // The live server did not ask: an empty file.
    let mut none = steps(packet(1, b"\xfbx")).to_vec();
    none.drain(1..4);
    none.insert(1, Live(said(&[DENIED])));
    none.insert(2, Turn(query("SELECT 1")));
    none.remove(3);
    none.insert(3, Target(packet(1, b"\xfbx")));
    let played = commands_of(Rules::default(), none);
    assert_eq!(
        played.bytes,
        [load, packet(2, b""), query("SELECT 1")].concat()
    );
}

#[test]
fn the_user_may_change() {
    let change = |proof: &[u8]| {
        let mut out = b"app\0\x14".to_vec();
        out.extend_from_slice(proof);
        out.extend_from_slice(b"shop\0\x2d\0mysql_native_password\0\x00");
        command(commands::CHANGE_USER, &out)
    };
    let switch = [b"\xfemysql_native_password\0", &LIVE_SCRAMBLE[..], b"\0"].concat();
    let played = commands_of(
        Rules::default(),
        [
            Turn(change(&[9; 20])),
            Live(said(&[OK])),
            Turn(query("SELECT 1")),
            Target(packet(1, &switch)),
            Target(packet(3, OK)),
        ],
    );
    let proof = |scramble| Exchange::new(NATIVE, &Scramble::new(scramble), "right").proof();
    let expected = [
        change(&proof(SCRAMBLE)),
        packet(2, &proof(LIVE_SCRAMBLE)),
        query("SELECT 1"),
    ];
    assert_eq!(played.bytes, expected.concat());
}

#[test]
fn a_session_picked_up_in_the_middle_logs_in_first() {
    let steps = |first: Vec<u8>| {
        [
            Turn(first),
            Target(packet(0, &greeting(ALL, 0, NATIVE, SCRAMBLE))),
            Target(packet(2, OK)),
            Live(said(&[OK])),
            Target(said(&[OK])),
        ]
    };
    let midway = |first| check(&settings(Rules::default()), Beginning::Turn, &steps(first));
    let (played, result) = midway(query("SELECT 1"));
    assert_eq!(result, Ok(()));
    let login = &played.bytes[..played.bytes.len() - query("SELECT 1").len()];
    let sent = Response::parse(&login[4..]).unwrap();
    assert_eq!(sent.user, b"app");
    assert!(played.bytes.ends_with(&query("SELECT 1")));
    // Query attributes are known by their form.
    let (same, _) = midway(command(commands::QUERY, b"\x00\x01SELECT 1"));
    assert_eq!(same.bytes, played.bytes);
    for strange in [
        packet(3, b"x"),
        command(0x77, b""),
        numbered(commands::STMT_EXECUTE, 1, EXECUTE),
    ] {
        assert_eq!(
            midway(strange).1.unwrap_err().kind,
            FailureKind::Unsupported
        );
    }
    let module = MySql::new(Settings::default());
    assert!(module.begin(Beginning::Turn).is_none());
}

#[test]
fn turns_go_by_the_live_answers_once_the_targets_are_not_understood() {
    let played = commands_of(
        Rules::default(),
        [
            Turn(query("SELECT 1")),
            Turn(query("SELECT 2")),
            Target(said(&[b""])),
            Turn(query("SELECT 3")),
        ],
    );
    let gates: Vec<_> = played.turns.iter().map(|(_, _, gate)| *gate).collect();
    assert_eq!(
        gates,
        [Gate::Over, Gate::Over, Gate::UntilTold, Gate::Counted]
    );
    assert_eq!(played.answered, [2]);
}

#[test]
fn long_statements_pass_and_write_where_their_end_is_not_known() {
    let long = query(&format!("SELECT '{}'", "x".repeat(200_000)));
    let then = || {
        [
            Turn(long.clone()),
            Live(said(&[OK])),
            Target(said(&[OK])),
            Turn(query("SELECT 1")),
        ]
    };
    let steps = with(login(ALL), then());
    let (played, result) = play(
        &settings(Rules::default()),
        Beginning::Connection,
        &steps,
        999,
    );
    assert_eq!(result, Ok(()));
    assert_eq!(
        played.bytes,
        [target_login(), long.clone(), query("SELECT 1")].concat()
    );
    let rules = Rules {
        read_only: true,
        ..Rules::default()
    };
    let (played, _) = play(&settings(rules), Beginning::Connection, &steps, 999);
    assert_eq!(played.bytes, [target_login(), query("SELECT 1")].concat());
    assert_eq!(played.left_out, 1);
}

#[test]
fn replication_is_not_played() {
    let steps = with(login(ALL), [Turn(command(0x12, b"")), Target(said(&[EOF]))]);
    assert_eq!(failure(&steps), FailureKind::Unsupported);
}

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

//! What follows a log-in.

use super::*;

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
    assert!(
        played
            .turns
            .iter()
            .all(|(_, _, gate)| *gate == Pace::Answered)
    );
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
        [Pace::Answered, Pace::Answered, Pace::Told, Pace::Counted]
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

#[test]
fn attributes_of_queries_are_taken_out_for_a_target_that_does_not_know_them() {
    let attributes = capability::QUERY_ATTRIBUTES;
    let of = |live: Option<u32>, target: u32, said: &[u8]| {
        let login = response(USUAL | attributes).encode(NATIVE, &[9; 20]);
        let live = live.map(|it| Live(packet(0, &greeting(it, 0, NATIVE, LIVE_SCRAMBLE))));
        let steps = [
            Target(packet(0, &greeting(target, 0, NATIVE, SCRAMBLE))),
            Turn(packet(1, &login)),
            Target(packet(2, OK)),
            Turn(command(commands::QUERY, said)),
        ];
        let steps = with(live.into_iter().collect(), steps);
        let (played, result) = check(&settings(Rules::default()), Beginning::Connection, &steps);
        assert_eq!(result, Ok(()));
        played.bytes
    };
    let with_them = b"\x00\x01SELECT 1";
    let bare = query("SELECT 1");
    let both = of(Some(ALL | attributes), ALL | attributes, with_them);
    assert!(both.ends_with(&command(commands::QUERY, with_them)));
    assert!(of(Some(ALL | attributes), ALL, with_them).ends_with(&bare));
    assert!(of(Some(ALL), ALL | attributes, b"SELECT 1").ends_with(&bare));
    // The live server's greeting was not captured.
    assert!(of(None, ALL | attributes, with_them).ends_with(&bare));
    assert!(of(None, ALL | attributes, b"SELECT 1").ends_with(&bare));
}

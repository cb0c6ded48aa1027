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

#[test]
fn numbers_are_not_inferred_behind_what_may_have_prepared_others() {
    let execute = |id| numbered(commands::STMT_EXECUTE, id, EXECUTE);
    let long = format!("SELECT '{}", "x".repeat(70 << 10));
    let behind = |second: &str, executed: Vec<u8>| {
        let steps = [
            Turn(prepare("SELECT 1")),
            Live(prepared(1)),
            Turn(prepare(second)),
            Live(prepared(2)),
            Target(prepared(1)),
            Target(prepared(2)),
            Turn(executed),
            Live(said(&[OK])),
            Target(said(&[OK])),
            Turn(prepare("SELECT 2")),
            Missing,
            Turn(prepare("SELECT 3")),
            Missing,
            Target(prepared(3)),
            Target(prepared(4)),
            Turn(execute(4)),
        ];
        let steps = with(login(ALL), steps);
        let settings = settings(Rules::default());
        play(&settings, Beginning::Connection, &steps, 999).1
    };
    assert_eq!(behind("SELECT 0", execute(2)), Ok(()));
    assert_eq!(behind("CALL p()", execute(1)), Ok(()));
    let kind = |it: Result<(), Failure>| it.map_err(|it| it.kind);
    let unsupported = Err(FailureKind::Unsupported);
    // The procedure may have counted one.
    assert_eq!(kind(behind("CALL p()", execute(2))), unsupported);
    assert_eq!(kind(behind("SELECT /*!1 a*/", execute(2))), unsupported);
    assert_eq!(kind(behind(&long, execute(2))), unsupported);
    for text in ["CALL p()", "SELECT '\\''", &long] {
        assert_eq!(kind(behind("SELECT 0", query(text))), unsupported);
    }
}

#[test]
fn commands_that_are_not_known_to_read_are_writes() {
    let rules = Rules {
        read_only: true,
        ..Rules::default()
    };
    let ledger = Arc::new(Ledger::default());
    let settings = Settings {
        guard: WriteGuard::new(Arc::new(rules), ledger.clone()),
        ..settings(Rules::default())
    };
    let asked = |number| [Turn(command(number, b"")), Live(said(&[OK]))];
    let strange = [0x00, 0x0B, 0x0D, 0x0F, 0x10, 0x14, 0x1D, 0x22, 0x80, 0xFF];
    let steps = with(login(ALL), strange.into_iter().flat_map(asked));
    let (played, result) = play(&settings, Beginning::Connection, &steps, 999);
    assert_eq!(result, Ok(()));
    assert_eq!(played.bytes, target_login());
    let counts = ledger.counts();
    assert_eq!(counts.len(), strange.len());
    assert_eq!(counts["COM_13"].left_out, 1);
    // Those pass.
    let known = [0x02, 0x04, 0x09, 0x0A, 0x0E, 0x1B, 0x1F];
    let asked = |number| [Turn(command(number, b"")), Target(said(&[OK]))];
    let steps = with(login(ALL), known.into_iter().flat_map(asked));
    let (played, _) = play(&settings, Beginning::Connection, &steps, 999);
    let expected: Vec<_> = known.iter().flat_map(|it| command(*it, b"")).collect();
    assert_eq!(played.bytes, [target_login(), expected].concat());
}

#[test]
fn statements_are_counted_when_they_are_executed() {
    let execute = |id| numbered(commands::STMT_EXECUTE, id, EXECUTE);
    for (read_only, left_out) in [(true, 4), (false, 0)] {
        let rules = Rules {
            read_only,
            ..Rules::default()
        };
        let ledger = Arc::new(Ledger::default());
        let settings = Settings {
            guard: WriteGuard::new(Arc::new(rules), ledger.clone()),
            ..settings(Rules::default())
        };
        let steps = [
            Turn(prepare("DELETE FROM a")),
            Live(prepared(1)),
            Turn(prepare("DELETE FROM b")),
            Live(prepared(2)),
            Target(prepared(1)),
            Target(prepared(2)),
            Turn(execute(2)),
            Turn(execute(2)),
        ];
        let steps = with(
            login(ALL),
            steps
                .into_iter()
                .filter(|it| !read_only || !matches!(it, Target(_))),
        );
        let (played, result) = play(&settings, Beginning::Connection, &steps, 999);
        assert_eq!((played.left_out, result), (left_out, Ok(())));
        let counts = ledger.counts();
        assert_eq!(counts.len(), 1);
        let counts = counts["DELETE FROM b"];
        assert_eq!(counts.sent + counts.left_out, 2);
        assert_eq!(counts.left_out == 2, read_only);
    }
}

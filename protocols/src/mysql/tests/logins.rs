//! Log-ins, of either side.

use super::*;

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
            (0, 0, Pace::Answered),
            (0, 1, Pace::Answered),
            (second, 2, Pace::Told)
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
    assert_eq!(super::failure(&early), FailureKind::Login);
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
fn what_a_client_says_to_a_target_that_is_gone_is_not_played() {
    let (first, rest) = (live_login()[..40].to_vec(), live_login()[40..].to_vec());
    let head = packet(1, &live_login())[..4].to_vec();
    let steps = [
        Target(packet(0, &greeting(ALL, 0, NATIVE, SCRAMBLE))),
        Turn([head, first].concat()),
        TargetEnds,
        More(rest),
        End,
    ];
    let (played, result) = check(&settings(Rules::default()), Beginning::Connection, &steps);
    assert_eq!(result, Ok(()));
    assert_eq!((played.bytes.len(), played.end), (0, Some(ClientEnd::Fin)));
}

#[test]
fn clients_of_mariadb_log_in_at_servers_of_mysql_and_the_other_way() {
    let sent = |client: Response, target: u32, extended: u32| {
        let steps = [
            Live(packet(
                0,
                &greeting(client.capabilities, client.extended, NATIVE, LIVE_SCRAMBLE),
            )),
            Target(packet(0, &greeting(target, extended, NATIVE, SCRAMBLE))),
            Turn(packet(1, &client.encode(NATIVE, b""))),
        ];
        let (played, result) = check(&settings(Rules::default()), Beginning::Connection, &steps);
        assert_eq!(result, Ok(()));
        Response::parse(&played.bytes[4..]).unwrap()
    };
    let of_mysql = response(USUAL);
    let of_mariadb = Response {
        capabilities: USUAL & !capability::LONG_PASSWORD,
        extended: 0x1D,
        ..response(USUAL)
    };
    let mariadb = ALL & !capability::LONG_PASSWORD;
    assert_eq!(sent(of_mariadb.clone(), mariadb, 0x15).extended, 0x15);
    assert_eq!(sent(of_mariadb, ALL, 0).capabilities, USUAL);
    assert_eq!(sent(of_mysql.clone(), mariadb, 0x15), of_mysql);
    // What the target does not have is not asked for.
    let poor = ALL & !(capability::CONNECT_ATTRIBUTES | capability::PS_MULTI_RESULTS);
    let bare = sent(of_mysql, poor, 0);
    assert_eq!((bare.capabilities, bare.attributes), (USUAL & poor, None));
}

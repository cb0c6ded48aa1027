//! Values that the live server and the target have each of their own.

use super::*;

fn with_sid(value: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nSet-Cookie: sid={value}; Path=/\r\nContent-Length: 2\r\n\r\nok")
}

fn get_with(cookie: &str) -> String {
    format!("GET /me HTTP/1.1\r\nCookie: sid={cookie}\r\n\r\n")
}

#[test]
fn a_cookie_of_the_live_server_becomes_the_targets() {
    let (live, target) = (
        with_sid("LLLL"),
        with_sid("a longer one".replace(' ', "-").as_str()),
    );
    let request = get_with("LLLL");
    let other = get_with("UNKNOWN");
    let says = [
        Client(GET),
        Live(&live),
        Target(&target),
        Turn(&request),
        Live(OK),
        Target(OK),
        Turn(&other),
    ];
    let replaced = get_with("a-longer-one");
    assert_eq!(
        played(SID, &says),
        format!("{GET}<at once>{replaced}<at once>{other}")
    );
}

#[test]
fn a_request_waits_for_the_targets_value_and_so_does_what_follows() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let request = get_with("L");
    let says = [
        Client(GET),
        Live(&live),
        Turn(&request),
        Client(GET),
        Turn(POST),
        Target(&target),
        Target(OK),
        Target(OK),
        Fin,
    ];
    let text = played(SID, &says[..5]);
    assert_eq!(text, GET);
    let replaced = get_with("T");
    assert!(played(SID, &says).starts_with(&format!("{GET}<at once>{replaced}{GET}")));
    // The target does not give one: the client's goes, and nothing hangs.
    let none = [&says[..5], &[Target(OK)]].concat();
    assert!(played(SID, &none).starts_with(&format!("{GET}<at once>{request}{GET}")));
    let gone = [&says[..5], &[TargetEnd]].concat();
    assert!(played(SID, &gone).contains(&format!("{GET}<turn>{request}{GET}<turn>{POST}")));
}

#[test]
fn a_target_that_answers_before_the_live_server_makes_no_difference() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let request = get_with("L");
    let says = [Client(GET), Target(&target), Live(&live), Turn(&request)];
    assert_eq!(
        played(SID, &says),
        format!("{GET}<at once>{}", get_with("T"))
    );
}

#[test]
fn pipelined_answers_belong_to_their_requests() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let request = get_with("L");
    let first = [GET, "HEAD / HTTP/1.1\r\n\r\n", GET].concat();
    let to_head = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    let lives = [OK, to_head, &live].concat();
    let targets = [
        "HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n",
        to_head,
        &target,
    ]
    .concat();
    let says = [
        Client(&first),
        Live(&lives),
        Target(&targets),
        Turn(&request),
    ];
    assert_eq!(
        played(SID, &says),
        format!("{first}<at once>{}", get_with("T"))
    );
}

#[test]
fn after_missing_bytes_the_live_server_is_understood_again_at_the_next_turn() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let request = get_with("L");
    let says = [
        Client(GET),
        Live("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nxx"),
        Missing,
        Live("Set-Cookie: sid=no"),
        Target(OK),
        Turn(GET),
        Live(&live),
        Target(&target),
        Turn(&request),
    ];
    assert_eq!(
        played(SID, &says),
        format!("{GET}<at once>{GET}<at once>{}", get_with("T"))
    );
}

#[test]
fn after_missing_bytes_a_long_pause_does_not_tell_where_an_answer_begins() {
    let (bait, live, target) = (with_sid("BAIT"), with_sid("L"), with_sid("T"));
    let (of_bait, of_live) = (get_with("BAIT"), get_with("L"));
    let says = [
        Client(GET),
        Live("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nxx"),
        Missing,
        Target(OK),
        Pause(GET),
        // Still of the first answer.
        Live(&bait),
        Target(&target),
        Turn(&of_bait),
        Live(&live),
        Target(&target),
        Turn(&of_live),
    ];
    let replaced = get_with("T");
    assert_eq!(
        played(SID, &says),
        format!("{GET}<at once>{GET}<at once>{of_bait}<at once>{replaced}")
    );
}

#[test]
fn values_of_bodies_are_replaced_in_forms_whose_length_changes() {
    let page = |value: &str, cut: usize| {
        let text = format!("<form><input name=csrf value=\"{value}\"></form>");
        let (one, other) = text.split_at(cut);
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x};x=y\r\n{other}\r\n0\r\n\r\n",
            one.len(),
            other.len()
        )
    };
    let form = |value: &str| {
        let body = format!("a=1&csrf={value}");
        format!(
            "POST /form HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nX-CSRF: {value}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (live, target) = (page("live", 20), page("target-value", 30));
    let (request, replaced) = (form("live"), form("target-value"));
    let says = [
        Client(GET),
        Live(&live),
        Turn(&request),
        Target(&target),
        Live(OK),
        Turn(GET),
    ];
    let text = played(CSRF, &says);
    assert_eq!(text, format!("{GET}<at once>{replaced}<until told>{GET}"));
}

#[test]
fn values_are_replaced_in_chunked_json_and_paths() {
    let answer = |id: &str| {
        let body = format!("{{\"id\":{id}}}");
        format!(
            "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let order = "POST /orders HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    let (live, target) = (answer("17"), answer("2001"));
    let put = "PUT /orders/17 HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\n\
               Transfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n5\r\n: 17}\r\n0\r\nT: x\r\n\r\n";
    let replaced = "PUT /orders/2001 HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\n\
                    Transfer-Encoding: chunked\r\n\r\nb\r\n{\"a\": 2001}\r\n0\r\nT: x\r\n\r\n";
    let says = [
        Client(order),
        Live(&live),
        Target(&target),
        Turn(put),
        Client(GET),
    ];
    assert_eq!(
        played(CSRF, &says),
        format!("{order}<at once>{replaced}{GET}")
    );
    // What other requests are answered with is none of the rule's.
    let says = [
        Client(GET),
        Live(&live),
        Target(&target),
        Turn(put),
        Client(GET),
    ];
    assert_eq!(played(CSRF, &says), format!("{GET}<at once>{put}{GET}"));
}

#[test]
fn a_body_that_is_too_long_to_gather_passes_as_it_is() {
    let order = "POST /orders HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    let live = "HTTP/1.1 201 x\r\nContent-Length: 9\r\n\r\n{\"id\":17}";
    let target = "HTTP/1.1 201 x\r\nContent-Length: 9\r\n\r\n{\"id\":18}";
    let head = "PUT /x/17 HTTP/1.1\r\nContent-Type: a/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}17\r\n", " ".repeat(65_534));
    let body = format!("{}0\r\n\r\n", chunk.repeat(40));
    let terms = terms(CSRF, Rules::default());
    let mut session = Session::new(&terms, true);
    for say in [
        Client(order),
        Live(live),
        Target(target),
        Turn(head),
        Client(&body),
        Client(GET),
    ] {
        session.say(say, 16 * 1024);
        assert!(session.player.waiting <= MOST_WAITING);
    }
    let head = head.replace("17", "18");
    assert_eq!(session.text(), format!("{order}<at once>{head}{body}{GET}"));
}

#[test]
fn sessions_of_one_user_share_values_and_others_do_not() {
    let rule = "[[token]]\nfrom = 'header:X-Token'\nto = ['header:X-Token']\nkey = 'cookie:user'\n";
    let terms = terms(rule, Rules::default());
    let request = |user: &str, token: &str| {
        format!("GET / HTTP/1.1\r\nCookie: a=b; user={user}\r\nX-Token: {token}\r\n\r\n")
    };
    let answer =
        |token: &str| format!("HTTP/1.1 200 OK\r\nX-Token: {token}\r\nContent-Length: 0\r\n\r\n");
    let mut first = Session::new(&terms, true);
    for say in [
        Client(&request("ann", "0")),
        Live(&answer("1")),
        Target(&answer("one")),
    ] {
        first.say(say, 7);
    }
    for (user, token, expected) in [("ann", "1", "one"), ("bob", "1", "1"), ("ann", "2", "2")] {
        let mut other = Session::new(&terms, true);
        other.say(Client(&request(user, token)), 1000);
        assert_eq!(other.text(), request(user, expected));
    }
}

#[test]
fn values_that_could_end_a_line_are_not_taken() {
    let rule = "[[token]]\nfrom = 'cookie:a'\n";
    let answer = |value: &str| {
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: a={value}\r\nContent-Length: 0\r\n\r\n")
    };
    let (live, target) = (answer("x%20y"), answer("x%0d%0aEvil:%20y"));
    let request = "GET / HTTP/1.1\r\nX: x y\r\nY: x%20y\r\n\r\n";
    let says = [Client(GET), Live(&live), Target(&target), Turn(request)];
    let text = played(rule, &says);
    assert!(
        text.contains("X: x y\r\n") && !text.contains("\nEvil"),
        "{text}"
    );
}

#[test]
fn the_live_server_may_answer_what_the_engine_holds_back() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let (second, third) = (with_sid("L2"), with_sid("T2"));
    let (request, last) = (get_with("L"), get_with("L2"));
    for piece in [1, 5, 100_000] {
        let mut session = Session::new(&terms(SID, Rules::default()), true);
        for say in [
            Client(GET),
            Live(&live),
            Turn(&request),
            // Nothing of this reaches the player yet, but the answer does.
            Turn(GET),
            Live(OK),
            Live(&second),
            Target(&target),
            Target(OK),
            Turn(&last),
            Target(&third),
        ] {
            session.say(say, piece);
        }
        let text = session.text();
        assert!(text.contains(&get_with("T")), "{text}");
        assert!(text.contains(&get_with("T2")), "{text}");
    }
}

#[test]
fn what_the_live_server_said_before_a_session_was_picked_up_answers_nothing() {
    let (live, target) = (with_sid("L"), with_sid("T"));
    let mut session = Session::new(&terms(SID, Rules::default()), false);
    let request = get_with("L");
    for say in [
        Live("the end of an answer"),
        Turn(GET),
        Live(&live),
        Target(&target),
        Turn(&request),
    ] {
        session.say(say, 9);
    }
    assert!(session.text().ends_with(&get_with("T")));
}

#[test]
fn an_upgrade_is_known_from_the_live_servers_answer() {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: live\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let says = [
        Client(upgrade),
        Live(switch),
        Target(switch),
        Turn(GET),
        Live("x"),
        Target("y"),
        Turn("z"),
    ];
    let text = played(&format!("host = 'x'\n{SID}"), &says);
    let upgrade = upgrade.replace("live", "x");
    assert_eq!(text, format!("{upgrade}<turn>{GET}<turn>z"));
}

//! How requests are played, and when.

use super::*;

#[test]
fn without_rules_a_session_is_played_as_it_came_and_nobody_listens() {
    let text = played(
        "",
        &[Client(GET), Turn(POST), Client(CHUNKED), Turn(GET), Fin],
    );
    assert_eq!(text, format!("{GET}<turn>{POST}{CHUNKED}<turn>{GET}<fin>"));
    assert!(
        !Session::new(&terms("", Rules::default()), true)
            .player
            .listens()
    );
    let host = played(
        "host = 'test'",
        &[Client(GET), Client(CHUNKED), Client(POST)],
    );
    let all = [GET, CHUNKED, POST].concat();
    assert_eq!(host, all.replace("Host: live", "Host: test"));
}

#[test]
fn a_pause_within_a_body_stays_where_it_was() {
    let (head, body) = POST.split_at(POST.len() - 3);
    let text = played("", &[Client(head), Turn(body)]);
    assert_eq!(text, format!("{head}<turn>{body}"));
    // Within a head it precedes the request.
    let (start, end) = GET.split_at(7);
    let text = played("", &[Client(start), Turn(end)]);
    assert_eq!(text, format!("<turn>{GET}"));
}

#[test]
fn half_a_request_at_the_end_is_left_out() {
    let text = played("", &[Client(GET), Client("POST /x HTTP/1.1\r\nA: b"), Fin]);
    assert_eq!(text, format!("{GET}<left out><fin>"));
}

#[test]
fn requests_that_are_not_chosen_are_left_out_with_their_bodies() {
    let only = "only = ['GET /a*', 'PUT *']\nexcept = ['* *secret* X: y*']";
    let secret = "GET /a/secret HTTP/1.1\r\nx: yes\r\n\r\n";
    let says = [
        Client(POST),
        Turn(GET),
        Turn(POST),
        Turn(secret),
        Turn(CHUNKED),
    ];
    let text = played(only, &says);
    assert_eq!(
        text,
        format!("<left out><at once>{GET}<left out><left out><turn>{CHUNKED}")
    );
    let exact = format!("exact_ends = true\n{only}");
    let says = [
        Client(POST),
        Turn(GET),
        Turn(POST),
        Turn(CHUNKED),
        Target(OK),
        Turn(POST),
        Turn(GET),
        Target(OK),
    ];
    assert_eq!(
        played(&exact, &says),
        format!(
            "<left out><at once>{GET}<left out><until told>{CHUNKED}<told 2><left out><until told>{GET}<told 3>"
        )
    );
}

#[test]
fn what_writes_is_left_out_where_only_reading_is_allowed() {
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let guarded = |allow: &'static [&'static str], says: &[Say<'_>]| {
        played_with(|| terms("", read_only(allow)), says)
    };
    let text = guarded(&["put /c"], &[Client(GET), Turn(POST), Turn(CHUNKED)]);
    assert_eq!(text, format!("{GET}<left out><turn>{CHUNKED}"));
    let text = guarded(
        &[],
        &[
            Client(GET),
            Turn(upgrade),
            Turn("\u{1}\u{2}"),
            Turn(POST),
            Fin,
        ],
    );
    assert_eq!(text, format!("{GET}<left out><turn><fin>"));
    let text = guarded(&["GET /ws"], &[Client(upgrade), Turn("\u{1}"), Turn(POST)]);
    assert_eq!(text, format!("{upgrade}<turn>\u{1}<turn>{POST}"));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";
    assert_eq!(guarded(&[], &[Client(preface), Turn(POST)]), "<left out>");
}

#[test]
fn other_protocols_pass_as_they_are() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";
    assert_eq!(played("host = 'x'", &[Client(preface)]), preface);
    // Only at the beginning.
    let late = played("", &[Client(GET), Client(preface)]);
    assert_eq!(late, format!("{GET}<this is no request of HTTP/1>"));
    let h2c = "GET /a HTTP/1.1\r\nHost: live\r\nConnection: Upgrade\r\nUpgrade: x, h2c\r\n\r\n";
    assert_eq!(
        played("", &[Client(h2c), Turn(preface)]),
        format!("{h2c}<turn>{preface}")
    );
    // The server did not want it.
    let says = [Client(h2c), Turn(GET), Turn(GET)];
    let host = "host = 'x'";
    let new_get = GET.replace("live", "x");
    let new_h2c = h2c.replace("live", "x");
    assert_eq!(
        played(host, &says),
        format!("{new_h2c}<turn>{new_get}<turn>{new_get}")
    );
    let connect = "CONNECT a:443 HTTP/1.1\r\n\r\n";
    assert_eq!(
        played("", &[Client(connect), Turn(GET), Turn("\u{16}\u{3}")]),
        format!("{connect}<turn>{GET}<turn>\u{16}\u{3}")
    );
}

#[test]
fn an_offer_of_http_2_is_a_request_like_others() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";
    let h2c = "GET /a HTTP/1.1\r\nHost: live\r\nConnection: Upgrade, HTTP2-Settings\r\n\
               Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let guarded = |says: &[Say<'_>]| played_with(|| terms("", read_only(&[])), says);
    let text = guarded(&[Client(h2c), Turn(GET), Turn(GET), Turn(POST), Turn(GET)]);
    assert_eq!(
        text,
        format!("{GET}<turn>{GET}<turn>{GET}<left out><turn>{GET}")
    );
    // The live server took it up.
    for after in [preface, "\0\0\0\u{4}"] {
        let text = guarded(&[Client(h2c), Turn(after), Turn(GET), Turn("\0"), Fin]);
        assert_eq!(text, format!("{GET}<left out><turn><fin>"));
        assert_eq!(
            played("", &[Client(h2c), Turn(after), Turn("\0")]),
            format!("{GET}<the live server went on in HTTP/2, and the target was not asked to>")
        );
    }
    let written = h2c.replace("GET", "DELETE");
    let text = guarded(&[Client(&written), Turn(GET), Client(preface)]);
    assert_eq!(
        text,
        format!("<left out><at once>{GET}<this is no request of HTTP/1>")
    );
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n";
    let says = [Client(h2c), Live(switch), Target(OK), Turn(GET)];
    let rules = || terms(SID, read_only(&[]));
    assert_eq!(played_with(rules, &says), format!("{GET}<left out>"));
}

#[test]
fn what_follows_an_upgrade_that_was_left_out_is_judged_while_it_is_requests() {
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let connect = "CONNECT a:1 HTTP/1.1\r\n\r\n";
    let guarded = |says: &[Say<'_>]| played_with(|| terms("", read_only(&[])), says);
    let text = guarded(&[Client(upgrade), Turn(GET), Turn(POST), Turn(GET)]);
    assert_eq!(
        text,
        format!("<left out><at once>{GET}<left out><turn>{GET}")
    );
    let text = guarded(&[Client(upgrade), Turn("\u{1}"), Turn(GET)]);
    assert_eq!(text, "<left out>");
    assert_eq!(guarded(&[Client(connect), Turn(GET)]), "<left out>");
    // The live server is heard: what looks like a request is none.
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let rules = || terms(SID, read_only(&[]));
    let says = [Client(upgrade), Live(switch), Turn(GET)];
    assert_eq!(played_with(rules, &says), "<left out>");
}

#[test]
fn with_exact_ends_the_next_request_goes_when_the_answer_has_ended() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let head = "HEAD /a HTTP/1.1\r\n\r\n";
    let to_head = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    let says = [
        Client(GET),
        Turn(head),
        Target(chunked),
        Target(to_head),
        Turn(GET),
        Turn(GET),
        Target("HTTP/1.0 200 OK\r\n\r\nto the end"),
        TargetEnd,
        Turn(GET),
    ];
    assert_eq!(
        played("exact_ends = true", &says),
        format!(
            "{GET}<until told>{head}<told 1><at once>{GET}<until told>{GET}<told 3><turn>{GET}"
        )
    );
}

#[test]
fn a_body_that_waits_for_100_continue_goes_when_it_has_come() {
    let head = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let says = [
        Client(head),
        Turn("ab"),
        Target("HTTP/1.1 100 Continue\r\n\r\n"),
        Turn("cd"),
    ];
    let text = played("exact_ends = true", &says[..3]);
    assert!(
        text.starts_with(&format!("{head}<until told>ab<told 1>")),
        "{text}"
    );
    assert_eq!(played("", &says), format!("{head}<turn>ab<turn>cd"));
}

#[test]
fn pauses_of_a_body_wait_for_no_second_100_continue() {
    let head = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let says = [
        Client(head),
        Turn("a"),
        Target(interim),
        Turn("b"),
        Turn("cd"),
        Target(OK),
        Turn(GET),
    ];
    assert_eq!(
        played("exact_ends = true", &says),
        format!("{head}<until told>a<told 1><at once>b<at once>cd<at once>{GET}")
    );
    let says = [
        Client(head),
        Target(interim),
        Turn("ab"),
        Turn("cd"),
        Turn(GET),
        Target(OK),
    ];
    assert_eq!(
        played("exact_ends = true", &says),
        format!("{head}<at once>ab<at once>cd<until told>{GET}<told 3>")
    );
}

#[test]
fn a_server_that_breaks_the_protocol_is_not_heard_any_more() {
    let says = [Client(GET), Turn(GET), Target("+PONG\r\n\r\n"), Turn(GET)];
    assert_eq!(
        played("exact_ends = true", &says),
        format!("{GET}<until told>{GET}<told 1><turn>{GET}")
    );
}

#[test]
fn a_session_that_is_picked_up_within_a_request_ends() {
    let mut session = Session::new(&terms("", Rules::default()), false);
    session.say(Turn("{\"a\": 1}\r\n"), 100);
    assert_eq!(session.text(), "<this is no request of HTTP/1>");
    let mut session = Session::new(&terms("", Rules::default()), false);
    session.say(Turn(GET), 100);
    assert_eq!(session.text(), format!("<turn>{GET}"));
}

#[test]
fn many_requests_without_an_answer_wait() {
    let terms = terms("exact_ends = true", Rules::default());
    let mut session = Session::new(&terms, true);
    let all = GET.repeat(2000);
    session.say(Client(&all), 16 * 1024);
    assert!(session.player.holds());
    assert_eq!(session.text(), GET.repeat(512));
    session.say(Target(&OK.repeat(2000)), 1000);
    assert_eq!(session.text(), all);
    assert!(!session.player.holds());
}

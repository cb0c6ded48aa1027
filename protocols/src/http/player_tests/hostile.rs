//! Whoever wants more than its share.

use proptest::prelude::*;

use super::*;

#[test]
fn smuggled_requests_end_the_session_before_they_are_sent() {
    for (fields, body) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", "DELETE"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\n", "hello"),
        ("X: y\r\n Content-Length: 5\r\n", "hello"),
        ("Content-Length : 5\r\n", "hello"),
    ] {
        let evil = format!("POST /evil HTTP/1.1\r\n{fields}\r\n{body}DELETE /x HTTP/1.1\r\n\r\n");
        let text = played("", &[Client(GET), Client(&evil)]);
        assert!(text.starts_with(&format!("{GET}<")), "{text}");
        assert!(!text.contains("evil") && !text.contains("DELETE"), "{text}");
    }
    // What looks like a request within a body is none.
    let inner = "POST /b HTTP/1.1\r\nContent-Length: 22\r\n\r\nDELETE /x HTTP/1.1\r\n\r\n";
    let text = played_with(|| terms("", read_only(&[])), &[Client(inner), Client(GET)]);
    assert_eq!(text, format!("<left out>{GET}"));
}

#[test]
fn nobody_gets_past_the_rules_by_asking_for_another_protocol() {
    let evil = "POST /evil HTTP/1.1\r\nHost : x\r\nContent-Length: 0\r\n\r\n";
    for first in [
        "CONNECT a:443 HTTP/1.1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let rules = || {
            terms(
                "except = ['POST /evil']",
                read_only(&["GET *", "CONNECT *"]),
            )
        };
        for start in ["", "\r\n", "\r\n\r\n"] {
            let plain = format!("{start}{}", evil.replace(" :", ":"));
            let text = played_with(rules, &[Client(first), Turn(&plain), Turn(GET)]);
            assert_eq!(text, format!("{first}<left out><turn>{GET}"));
            let spaced = format!("{start}{evil}");
            let text = played_with(rules, &[Client(first), Turn(&spaced)]);
            assert_eq!(
                text,
                format!("{first}<a field of a request cannot be read>")
            );
        }
        let text = played_with(rules, &[Client(first), Turn("\u{16}\u{3}"), Turn(evil)]);
        assert_eq!(text, format!("{first}<turn>\u{16}\u{3}<turn>{evil}"));
    }
}

#[test]
fn requests_in_http_2_do_not_pass_the_rules_unseen() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let ask = |protocol: &str| {
        format!("GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n")
    };
    let (h2c, other) = (ask("x, H2C"), ask("x"));
    let except = || terms("except = ['POST *']", Rules::default());
    let text = played_with(except, &[Client(GET), Turn(&h2c), Turn(preface)]);
    assert_eq!(text, format!("{GET}<left out>"));
    let guarded = || terms("", read_only(&["GET *"]));
    let text = played_with(guarded, &[Client(&h2c), Turn(preface)]);
    assert_eq!(text, "<left out>");
    let text = played_with(guarded, &[Client(&other), Turn(preface)]);
    assert_eq!(text, format!("{other}<left out>"));
    let allowed = || terms("", read_only(&["GET *", "PRI *"]));
    let text = played_with(allowed, &[Client(&h2c), Turn(preface)]);
    assert_eq!(text, format!("{h2c}<turn>{preface}"));
}

#[test]
fn a_head_full_of_words_costs_little_however_much_is_unanswered() {
    let rule = "[[token]]\nfrom = 'header:A'\n";
    let mut session = Session::new(&terms(rule, Rules::default()), true);
    session.say(Client(&GET.repeat(500)), 16 * 1024);
    for number in 0..500 {
        let text = format!("HTTP/1.1 200 x\r\nA: v{number}\r\nContent-Length: 0\r\n\r\n");
        session.say(Live(&text), 1000);
    }
    let words = "a ".repeat(32_000);
    let start = std::time::Instant::now();
    let request = format!("GET /x HTTP/1.1\r\nX: {words}v499\r\n\r\n");
    session.say(Client(&request), 16 * 1024);
    assert!(session.player.holds());
    // Answers to others say nothing of it, in how small pieces ever they come.
    let answer = |value: &str| format!("HTTP/1.1 200 x\r\nA: {value}\r\nContent-Length: 0\r\n\r\n");
    session.say(Target(&answer("w").repeat(499)), 1);
    assert!(session.player.holds());
    session.say(Target(&answer("new")), 1);
    assert!(!session.player.holds());
    assert!(session.text().ends_with(" new\r\n\r\n"));
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_head_full_of_words_costs_little_however_many_rules_there_are() {
    let rules = "[[token]]\nfrom = 'header:A'\nshared = true\n".repeat(64);
    let mut session = Session::new(&terms(&rules, Rules::default()), true);
    let answer = |value: &str| format!("HTTP/1.1 200 x\r\nA: {value}\r\nContent-Length: 0\r\n\r\n");
    session.say(Client(GET), 1000);
    session.say(Live(&answer("live")), 1000);
    session.say(Target(&answer("new")), 1000);
    let words = "a ".repeat(32_000);
    let request = format!("GET /x HTTP/1.1\r\nX: {words}live\r\n\r\n");
    let start = std::time::Instant::now();
    session.say(Client(&request), 16 * 1024);
    assert!(session.text().ends_with(" new\r\n\r\n"));
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_millis(300), "{took:?}");
}

#[test]
fn memory_is_told_and_has_a_bound() {
    let rules = "[[token]]\nfrom = 'header:A'\n".repeat(8);
    let mut session = Session::new(&terms(&rules, Rules::default()), true);
    let new = session.player.memory();
    assert!(new < 10_000);
    session.say(
        Client(&"GET / HTTP/1.1\r\nB: b\r\n\r\n".repeat(500)),
        16 * 1024,
    );
    let value = "v".repeat(8_000);
    let answer = |value: &str| format!("HTTP/1.1 200 x\r\nA: {value}\r\nContent-Length: 0\r\n\r\n");
    for number in 0..500 {
        session.say(Live(&answer(&format!("{value}{number}"))), 1 << 20);
    }
    let held = session.player.memory();
    assert!((1 << 20..4 << 20).contains(&held), "{held}");
    session.say(Target(&answer("w").repeat(500)), 16 * 1024);
    let over = session.player.memory();
    // What is known of the values, and room for as many requests.
    assert!(over < 1 << 20, "{over}");
    let wait = format!("PUT /{value}499 HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
    session.say(Client(&wait[..4_000]), 16 * 1024);
    assert!(session.player.memory() >= over + 4_000);
}

/// What hostile sides may say.
fn noise() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let words = prop::sample::select(vec![
        GET,
        POST,
        CHUNKED,
        OK,
        "HTTP/1.1 ",
        "\r\n",
        "\r\n\r\n",
        "Content-Length: 3\r\n",
        "0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n",
        "HTTP/1.1 101 x\r\n\r\n",
        "Set-Cookie: sid=x\r\n",
        "Cookie: sid=x\r\n",
        "{\"id\":\"x\"",
        "<input name=csrf value=",
        "GET /x HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
        "Connection: upgrade\r\nUpgrade: y\r\n",
        "Content-Type: application/json\r\n",
    ]);
    let word = prop_oneof![
        4 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let text = prop::collection::vec(word, 1..6).prop_map(|words| words.concat());
    (0..7_u8, text)
}

proptest! {
    #[test]
    fn whatever_is_said_nothing_panics_and_little_is_kept(
        says in prop::collection::vec(noise(), 1..40),
        kind in 0..4_usize,
        is_whole: bool,
    ) {
        let settings = ["", "exact_ends = true", SID, CSRF][kind];
        let terms = terms(settings, read_only(&["PUT *", "GET *"]));
        let mut session = Session::new(&terms, is_whole);
        for (who, bytes) in says {
            match who {
                0 | 1 => session.bytes(&bytes, None, 50),
                2 => session.bytes(&bytes, Some(true), 50),
                3 => session.player.on_live(&bytes),
                4 | 5 => {
                    if session.result.is_ok() && session.player.listens() {
                        session.result = session.player.on_target(&bytes, &mut session.paper);
                    }
                    session.go_on();
                }
                _ => session.player.lose_live(),
            }
            prop_assert!(session.player.waiting <= MOST_WAITING);
            prop_assert!(session.player.memory() < 1 << 20);
        }
    }

    /// Of requests one after another exactly the chosen ones are played, however they are cut.
    #[test]
    fn the_chosen_requests_are_played_and_no_others(
        which in prop::collection::vec((0..6_usize, 0..200_usize), 0..20),
        piece in 1..300_usize,
        listens: bool,
    ) {
        let all = which.iter().map(|(kind, len)| {
            let body = "GET /b HTTP/1.1\r\n\r\n".repeat(11);
            let body = &body[..*len];
            match kind {
                0 => "GET /a HTTP/1.1\r\n\r\n".to_owned(),
                1 => "HEAD /b HTTP/1.0\r\nA: b\r\n\r\n".to_owned(),
                2 => format!("PUT /a HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"),
                3 => format!("PUT /b HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"),
                4 => format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n{:x}\r\n{body}x\r\n0\r\n\r\n", len + 1),
                _ => format!("POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x};e\r\n{body}x\r\n0\r\nT: x\r\n\r\n", len + 1),
            }
        });
        let all: Vec<String> = all.collect();
        let settings = format!("exact_ends = {listens}\nexcept = ['* /b']");
        let mut session = Session::new(&terms(&settings, Rules::default()), true);
        session.bytes(all.concat().as_bytes(), None, piece);
        let text = session.text().replace("<left out>", "");
        let chosen: Vec<_> = all.iter().filter(|it| it.contains("/a HTTP/1.1\r\n") && !it.starts_with("PUT /b") && !it.starts_with("POST /b")).cloned().collect();
        prop_assert_eq!(text, chosen.concat());
    }

    /// What is played without rules is what came, up to where it ends: never another request, never in other places.
    #[test]
    fn what_is_played_is_a_part_of_what_came(
        says in prop::collection::vec(noise(), 1..20),
        piece in 1..60_usize,
    ) {
        let all: Vec<u8> = says.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let mut session = Session::new(&terms("", Rules::default()), true);
        session.bytes(&all, None, piece);
        let played: Vec<u8> = session.paper.text.clone();
        // Empty lines before a request are not played.
        let strip = |text: &[u8]| -> Vec<u8> {
            text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
        };
        prop_assert!(strip(&all).starts_with(&strip(&played)));
    }
}

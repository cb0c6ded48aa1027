//! Whole sessions. Each is played in pieces of all sizes, and gives the same.

use proptest::prelude::*;

use super::*;
use crate::writes::Rules;
use Say::*;

/// What happens, in its order.
#[derive(Clone, Copy, Debug)]
enum Say<'a> {
    /// The client goes on.
    Client(&'a str),
    /// The client says this after an answer.
    Turn(&'a str),
    Live(&'a str),
    Missing,
    Target(&'a str),
    TargetEnd,
    Fin,
}

/// Writes all down: bytes as they are, the rest in `<>`. As in a script, a turn without a byte is none.
#[derive(Debug, Default)]
struct Paper {
    text: Vec<u8>,
    turns: usize,
    turn: Option<&'static str>,
}

impl Paper {
    fn note(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn begin_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.note(turn);
            self.turns += 1;
        }
    }
}

impl Stage<(), usize> for Paper {
    fn play(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.begin_turn();
            self.text.extend_from_slice(bytes);
        }
    }

    fn turn(&mut self, (): (), pace: Pace) -> usize {
        self.turn = Some(match pace {
            Pace::Counted => "<turn>",
            Pace::Told => "<until told>",
            Pace::Answered => "<at once>",
        });
        self.turns + 1
    }

    fn answered(&mut self, turn: usize) {
        self.note(&format!("<told {turn}>"));
    }

    fn leave_out(&mut self) {
        self.note("<left out>");
    }

    fn end(&mut self, _: ClientEnd) {
        self.begin_turn();
        self.note("<fin>");
    }
}

fn terms(settings: &str, rules: Rules) -> Arc<Terms> {
    let settings = Settings::parse(settings).unwrap();
    Arc::new(Terms {
        rules: settings.token.clone().into(),
        settings,
        guard: WriteGuard::new(Arc::new(rules), Arc::default()),
        shared: Arc::default(),
    })
}

/// A replica with what the engine keeps for it.
struct Session {
    player: Player<(), usize>,
    paper: Paper,
    kept: VecDeque<(Option<()>, Vec<u8>)>,
    result: Result<(), Failure>,
}

impl Session {
    fn new(terms: &Arc<Terms>, is_whole: bool) -> Self {
        Self {
            player: Player::new(terms.clone(), is_whole),
            paper: Paper::default(),
            kept: VecDeque::new(),
            result: Ok(()),
        }
    }

    fn say(&mut self, say: Say<'_>, piece: usize) {
        match say {
            Client(text) => self.client(text, None, piece),
            Turn(text) => self.client(text, Some(()), piece),
            Live(text) => text
                .as_bytes()
                .chunks(piece)
                .for_each(|bytes| self.player.on_live(bytes)),
            Missing => self.player.lose_live(),
            Target(text) => {
                for bytes in text.as_bytes().chunks(piece) {
                    if self.result.is_ok() && self.player.listens() {
                        self.result = self.player.on_target(bytes, &mut self.paper);
                    }
                    self.go_on();
                }
            }
            TargetEnd => {
                if self.result.is_ok() {
                    self.result = self.player.on_target_end(&mut self.paper);
                }
                self.go_on();
            }
            Fin => self
                .player
                .on_client_end(ClientEnd::Fin, None, &mut self.paper),
        }
    }

    fn client(&mut self, text: &str, turn: Option<()>, piece: usize) {
        self.bytes(text.as_bytes(), turn, piece);
    }

    fn bytes(&mut self, bytes: &[u8], mut turn: Option<()>, piece: usize) {
        for bytes in bytes.chunks(piece) {
            self.kept.push_back((turn.take(), bytes.to_vec()));
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        while self.result.is_ok() && !self.player.holds() {
            let Some((turn, bytes)) = self.kept.pop_front() else {
                break;
            };
            self.result = self.player.on_client(&bytes, turn, &mut self.paper);
        }
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.paper.text).into_owned();
        if let Err(failure) = &self.result {
            text.push_str(&format!("<{}>", failure.text));
        }
        text
    }
}

/// What is played, in pieces of any size.
fn played_with(terms: impl Fn() -> Arc<Terms>, says: &[Say<'_>]) -> String {
    let played = |piece| {
        let mut session = Session::new(&terms(), true);
        says.iter().for_each(|say| session.say(*say, piece));
        session.text()
    };
    let whole = played(100_000);
    for piece in 1..200 {
        assert_eq!(played(piece), whole, "pieces of {piece}");
    }
    whole
}

fn played(settings: &str, says: &[Say<'_>]) -> String {
    played_with(|| terms(settings, Rules::default()), says)
}

fn read_only(allow: &[&str]) -> Rules {
    Rules {
        read_only: true,
        allow: allow.iter().map(|it| it.parse().unwrap()).collect(),
        deny: Vec::new(),
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: live\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: live\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "PUT /c HTTP/1.1\r\nHost: live\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\nT: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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
    let h2c = "GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(
        played("", &[Client(h2c), Turn(preface)]),
        format!("{h2c}<turn>{preface}")
    );
    // The server did not want it.
    let says = [Client(h2c), Turn(GET), Turn(GET)];
    let host = "host = 'x'";
    let new_get = GET.replace("live", "x");
    let new_h2c = h2c.replace("\r\n\r\n", "\r\nHost: x\r\n\r\n");
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
fn whoever_answers_nonsense_is_not_listened_to() {
    let says = [Client(GET), Turn(GET), Target("+PONG\r\n\r\n"), Turn(GET)];
    assert_eq!(
        played("exact_ends = true", &says),
        format!("{GET}<until told>{GET}<told 1><turn>{GET}")
    );
}

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
fn a_session_that_is_picked_up_within_a_request_ends() {
    let mut session = Session::new(&terms("", Rules::default()), false);
    session.say(Turn("{\"a\": 1}\r\n"), 100);
    assert_eq!(session.text(), "<this is no request of HTTP/1>");
    let mut session = Session::new(&terms("", Rules::default()), false);
    session.say(Turn(GET), 100);
    assert_eq!(session.text(), format!("<turn>{GET}"));
}

const SID: &str = "[[token]]\nfrom = 'cookie:sid'\nto = ['cookie:sid']\n";

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

const CSRF: &str = "[[token]]\nfrom = 'field:csrf'\nto = ['form:csrf', 'header:X-Csrf']\n\
                    [[token]]\nfrom = 'json:id'\non = 'POST /orders'\nto = ['path', 'json']\n";

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

#[test]
fn an_upgrade_is_known_from_the_live_servers_answer() {
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
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
    let upgrade = upgrade.replace("\r\n\r\n", "\r\nHost: x\r\n\r\n");
    assert_eq!(text, format!("{upgrade}<turn>{GET}<turn>z"));
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
                2 => session.bytes(&bytes, Some(()), 50),
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
        }
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

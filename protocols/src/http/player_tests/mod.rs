//! Whole sessions: `sessions`, `tokens` (values of both servers), `hostile`. Each is played in pieces of all sizes, and gives the same.

mod hostile;
mod sessions;
mod tokens;

use super::super::settings::Settings;
use super::*;
use crate::writes::{Rules, WriteGuard};
use Say::*;

/// What happens, in its order.
#[derive(Clone, Copy, Debug)]
enum Say<'a> {
    /// The client goes on.
    Client(&'a str),
    /// The client says this after an answer.
    Turn(&'a str),
    /// The client says this after a long pause, while something was under way.
    Pause(&'a str),
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

impl Stage for Paper {
    /// Whether nothing was under way.
    type Turn = bool;
    type Number = usize;

    fn is_settled(&self, turn: bool) -> bool {
        turn
    }

    fn play(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.begin_turn();
            self.text.extend_from_slice(bytes);
        }
    }

    fn turn(&mut self, _: bool, pace: Pace) -> usize {
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
    player: Player<bool, usize>,
    paper: Paper,
    kept: VecDeque<(Option<bool>, Vec<u8>)>,
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
            Turn(text) => self.client(text, Some(true), piece),
            Pause(text) => self.client(text, Some(false), piece),
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

    fn client(&mut self, text: &str, turn: Option<bool>, piece: usize) {
        self.bytes(text.as_bytes(), turn, piece);
    }

    fn bytes(&mut self, bytes: &[u8], mut turn: Option<bool>, piece: usize) {
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

const SID: &str = "[[token]]\nfrom = 'cookie:sid'\nto = ['cookie:sid']\n";

const CSRF: &str = "[[token]]\nfrom = 'field:csrf'\nto = ['form:csrf', 'header:X-Csrf']\n\
                    [[token]]\nfrom = 'json:id'\non = 'POST /orders'\nto = ['path', 'json']\n";

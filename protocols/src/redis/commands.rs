//! The commands in what a client sends: each is named before anything of it is played, so that it can be left out, and
//! log-ins come whole. Everything else passes as it is, however large, and is never held longer than its name takes to be
//! known.
//!
//! A command is an array of bulk strings, `*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n`, or a line of words, `AUTH secret\r\n`
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use millrace_engine::protocol::{Failure, FailureKind};

use super::DEFAULT_USER;
use super::writes::naming_words;
use crate::accounts::Accounts;

/// The longest name of a command that can be a log-in.
const MOST_NAME: usize = 5;
/// The most arguments that a log-in has: HELLO 3 AUTH name password SETNAME name.
const MOST_ARGUMENTS: usize = 8;
/// The longest log-in. A longer command is none.
const MOST_HELD: usize = 16 << 10;
/// The longest name of a command, both words of some; what is longer is cut, and no command that anybody knows.
const LONGEST_NAME: usize = 64;
/// What stands for a line of words with quotes among them.
const QUOTED: &[u8] = b"(quoted)";
/// The longest line that a server takes (PROTO_INLINE_MAX_SIZE).
const MOST_LINE: usize = 64 << 10;
/// The largest bulk string (proto-max-bulk-len).
const MOST_BULK: u64 = 512 << 20;

fn malformed(text: &str) -> Failure {
    Failure::new(FailureKind::Malformed, text)
}

/// What is to be played.
pub(super) enum Part<'a> {
    /// A command of this name begins, in capitals. Whoever answers `false` gets nothing more of it.
    Begins(&'a str),
    /// Bytes, as they are.
    Bytes(&'a [u8]),
    /// A log-in.
    Login(Command),
}

/// A whole command that logs in.
#[derive(PartialEq, Eq)]
pub(super) struct Command {
    words: Vec<Vec<u8>>,
    place: Place,
}

/// Where the name and the password stand in a log-in; without a name it is the default user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    user: Option<usize>,
    password: usize,
}

impl Place {
    fn find(words: &[Vec<u8>]) -> Option<Self> {
        let is = |at: usize, name: &[u8]| {
            let word = words.get(at);
            word.is_some_and(|word| word.eq_ignore_ascii_case(name))
        };
        let (user, password) = match words.len() {
            2 if is(0, b"AUTH") => (None, 1),
            3 if is(0, b"AUTH") => (Some(1), 2),
            // HELLO protover [AUTH name password] [SETNAME name]
            len if is(0, b"HELLO") => {
                let auth = if is(2, b"SETNAME") { 4 } else { 2 };
                (
                    Some(auth + 1),
                    Some(auth + 2).filter(|at| is(auth, b"AUTH") && *at < len)?,
                )
            }
            _ => return None,
        };
        Some(Self { user, password })
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// The first line of a command.
    #[default]
    Command,
    /// The line that says how long an argument is, and so many arguments after it.
    Length(u64),
    /// So many bytes of an argument, its line end included, and so many arguments.
    Argument(u64, u64),
}

/// Reads what a client sends.
#[derive(Default)]
pub(super) struct Commands {
    next: Next,
    /// The line that is being read.
    line: Vec<u8>,
    /// The command so far, while it may be a log-in.
    held: Vec<u8>,
    /// Its arguments so far.
    words: Vec<Vec<u8>>,
    course: Course,
}

/// What becomes of the bytes of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Course {
    /// They are held: it has no name yet.
    #[default]
    Unnamed,
    /// They are held: it has a name, and may be a log-in.
    Named,
    /// They pass: it is no log-in.
    Passes,
    /// They are left out.
    LeftOut,
}

impl Commands {
    /// Reads on. Gives parts in their order; the answer to one that begins counts.
    ///
    /// # Errors
    /// It is not the protocol of Redis.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut give: impl FnMut(Part<'_>) -> bool,
    ) -> Result<(), Failure> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let taken = match self.next {
                Next::Argument(left, _) => {
                    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
                }
                Next::Command | Next::Length(_) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    end.map_or(bytes.len(), |end| end + 1)
                }
            };
            let (now, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
            bytes = rest;
            match self.course {
                Course::Passes => {
                    give(Part::Bytes(now));
                }
                Course::LeftOut => {}
                Course::Unnamed | Course::Named => self.held.extend_from_slice(now),
            }
            self.step(now)?;
            let is_over = self.next == Next::Command && self.line.is_empty();
            if self.course == Course::Unnamed {
                self.name(is_over, &mut give);
            }
            if is_over {
                self.end_command(&mut give);
            } else if self.course == Course::Named && !self.may_be_login() {
                self.course = Course::Passes;
                give(Part::Bytes(&self.held));
                self.held.clear();
                self.words.clear();
            }
        }
        Ok(())
    }

    /// Names the command once enough of it is there.
    fn name(&mut self, is_over: bool, give: &mut impl FnMut(Part<'_>) -> bool) {
        let is_begun = matches!(self.next, Next::Argument(..));
        let whole = self.words.len() - usize::from(is_begun && !is_over);
        let wanted = self.words.first().map_or(1, |name| naming_words(name));
        let is_long = self.words.iter().any(|word| word.len() > LONGEST_NAME);
        // Nothing at all is an empty line.
        if self.words.is_empty() || whole < wanted && !is_over && !is_long {
            return;
        }
        let words = self.words.iter().take(wanted).map(|word| {
            let head = word.get(..LONGEST_NAME).unwrap_or(word);
            String::from_utf8_lossy(head).to_ascii_uppercase()
        });
        let name = words.collect::<Vec<_>>().join(" ");
        self.course = match give(Part::Begins(&name)) {
            true => Course::Named,
            false => {
                self.held.clear();
                Course::LeftOut
            }
        };
    }

    /// Whether the words of the command are still wanted.
    const fn keeps_words(&self) -> bool {
        matches!(self.course, Course::Unnamed | Course::Named)
    }

    /// What is held of a command that does not end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn step(&mut self, now: &[u8]) -> Result<(), Failure> {
        match self.next {
            Next::Argument(left, more) => {
                if self.keeps_words()
                    && let Some(word) = self.words.last_mut()
                {
                    word.extend_from_slice(now);
                }
                let ends = (0u64..).zip(now).all(|(at, byte)| match left - at {
                    2 => *byte == b'\r',
                    1 => *byte == b'\n',
                    _ => true,
                });
                if !ends {
                    return Err(malformed("an argument is longer than it says"));
                }
                let left = left - now.len() as u64;
                if left > 0 {
                    self.next = Next::Argument(left, more);
                    return Ok(());
                }
                if let Some(word) = self.words.last_mut() {
                    word.truncate(word.len().saturating_sub(2));
                }
                self.next = after(more);
            }
            Next::Command | Next::Length(_) => {
                self.line.extend_from_slice(now);
                if self.line.len() > MOST_LINE {
                    return Err(malformed("a line is too long for Redis"));
                }
                if self.line.last() == Some(&b'\n') {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&line)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a line with its end. Servers look for the first CR, or for the LF, or stop at a NUL: a line that they would read
    /// in different ways is none.
    fn take_line(&mut self, whole: &[u8]) -> Result<(), Failure> {
        let is_inline = self.next == Next::Command && whole.first() != Some(&b'*');
        let line = whole.strip_suffix(b"\r\n");
        let line = match is_inline {
            true => line.or_else(|| whole.strip_suffix(b"\n")),
            false => line,
        };
        let line = line.filter(|line| !line.contains(&b'\r') && !line.contains(&0));
        let line = line.ok_or_else(|| malformed("a line does not end as lines do"))?;
        self.next = match self.next {
            Next::Length(more) => {
                let len = number(line, b'$').filter(|len| *len <= MOST_BULK);
                let len = len.ok_or_else(|| malformed("an argument has no length"))?;
                if self.keeps_words() {
                    self.words.push(Vec::new());
                }
                Next::Argument(len + 2, more)
            }
            Next::Command | Next::Argument(..) => match line.first() {
                // None at all, or less: nothing follows.
                Some(b'*') => match number(line, b'*') {
                    Some(count) => after(count),
                    None if line.get(1) == Some(&b'-') => Next::Command,
                    None => return Err(malformed("a command has no length")),
                },
                // Quotes make words of their own, and join others: it has a name that no command has. Who types them logs in
                // by hand.
                _ if line.iter().any(|byte| matches!(byte, b'"' | b'\'' | b'\\')) => {
                    self.words = vec![QUOTED.to_vec()];
                    Next::Command
                }
                _ => {
                    let words = line.split(u8::is_ascii_whitespace);
                    let words = words.filter(|word| !word.is_empty());
                    self.words = words.map(<[u8]>::to_vec).collect();
                    Next::Command
                }
            },
        };
        Ok(())
    }

    /// Whether the command that is held may turn out to be a log-in.
    fn may_be_login(&self) -> bool {
        if self.held.len() > MOST_HELD {
            return false;
        }
        let more = match self.next {
            Next::Command => 0,
            Next::Length(more) | Next::Argument(_, more) => more,
        };
        if self.words.len() as u64 + more > MOST_ARGUMENTS as u64 {
            return false;
        }
        match (self.words.as_slice(), self.next) {
            // An inline command ends with its line.
            ([], Next::Command) => true,
            ([], _) => true,
            ([name], Next::Argument(left, _)) => {
                name.len() + usize::try_from(left).unwrap_or(usize::MAX) <= MOST_NAME + 2
            }
            ([name, ..], _) => may_log_in(name),
        }
    }

    fn end_command(&mut self, give: &mut impl FnMut(Part<'_>) -> bool) {
        let words = std::mem::take(&mut self.words);
        let held = std::mem::take(&mut self.held);
        if matches!(
            std::mem::take(&mut self.course),
            Course::Passes | Course::LeftOut
        ) {
            return;
        }
        match Place::find(&words) {
            Some(place) => give(Part::Login(Command { words, place })),
            None => give(Part::Bytes(&held)),
        };
    }
}

/// What comes after an argument, or the first line, when so many arguments follow.
fn after(more: u64) -> Next {
    match more.checked_sub(1) {
        Some(then) => Next::Length(then),
        None => Next::Command,
    }
}

fn number(line: &[u8], sign: u8) -> Option<u64> {
    let digits = line.strip_prefix(&[sign])?;
    let is_plain = digits.first() != Some(&b'0') || digits.len() == 1;
    let is_number = !digits.is_empty() && is_plain && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

fn may_log_in(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"AUTH") || name.eq_ignore_ascii_case(b"HELLO")
}

impl Command {
    /// Whether it is a HELLO, which not every server knows.
    pub(super) fn is_hello(&self) -> bool {
        self.words
            .first()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"HELLO"))
    }

    /// The command with the password that its name has at the target, if it has one there.
    pub(super) fn with_passwords_of(mut self, accounts: &Accounts) -> Vec<u8> {
        let user = match self.place.user {
            Some(at) => self.words.get(at).map(Vec::as_slice),
            None => Some(DEFAULT_USER.as_bytes()),
        };
        let user = user.and_then(|user| std::str::from_utf8(user).ok());
        let right = user.and_then(|user| accounts.password(user));
        let right = right.map(|right| right.as_bytes().to_vec());
        if let (Some(right), Some(word)) = (right, self.words.get_mut(self.place.password)) {
            *word = right;
        }
        encode(&self.words)
    }
}

/// The command that logs in as the default user.
pub(super) fn auth(password: &str) -> Vec<u8> {
    encode(&[b"AUTH".to_vec(), password.as_bytes().to_vec()])
}

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse("default@right\napp@two words\n").unwrap()
    }

    /// What is played of what a client sends in these pieces.
    fn played<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, Failure> {
        let (mut commands, mut out) = (Commands::default(), Vec::new());
        for piece in pieces {
            commands.read(piece, |part| {
                match part {
                    Part::Begins(name) => return !name.starts_with("DEL"),
                    Part::Bytes(bytes) => out.extend_from_slice(bytes),
                    Part::Login(command) => out.extend(command.with_passwords_of(&accounts())),
                }
                true
            })?;
        }
        out.extend(commands.rest());
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn what_servers_may_read_in_another_way_is_refused_or_writes() {
        let begun = |said: &[u8]| {
            let mut names = Vec::new();
            let read = Commands::default().read(said, |part| {
                if let Part::Begins(name) = part {
                    names.push(name.to_owned());
                }
                true
            });
            read.map(|()| names)
        };
        // A server ends a line at its first CR, and skips two bytes.
        let smuggled = [
            &b"*2\r\n$3\r\nGET\r\n$28\r"[..],
            &[b'\r'; 18],
            b"\nAAAAAAAAAA*1\r\n$8\r\nFLUSHALL\r\nZZ",
        ];
        for refused in [
            &smuggled.concat()[..],
            b"*1 \r\n$4\r\nPING\r\n",
            b"*01\r\n$4\r\nPING\r\n",
            b"*1\r\n$4\nPING\r\n",
            b"*1\r\n$3\r\nPING\r\n",
            b"PING\0\r\n",
            b"PING\rFLUSHALL\r\n",
        ] {
            assert!(begun(refused).is_err(), "{refused:?}");
        }
        // Quotes end words, or go on with them: GET"DEL" is GETDEL.
        for quoted in ["GET\"DEL\" k\r\n", "SUNION'STORE' d a\n", "GE\\T k\r\n"] {
            assert_eq!(begun(quoted.as_bytes()).unwrap(), ["(QUOTED)"]);
        }
        assert_eq!(begun(b"get k\n PING \r\n").unwrap(), ["GET", "PING"]);
    }

    fn command(words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        String::from_utf8(encode(&words)).unwrap()
    }

    #[test]
    fn log_ins_bear_the_targets_password_and_all_else_is_as_it_was() {
        for (said, plays) in [
            (command(&["AUTH", "live"]), command(&["AUTH", "right"])),
            ("auth live\r\n".to_owned(), command(&["auth", "right"])),
            (
                command(&["AUTH", "app", "live"]),
                command(&["AUTH", "app", "two words"]),
            ),
            (
                command(&["AUTH", "other", "live"]),
                command(&["AUTH", "other", "live"]),
            ),
            (
                command(&["HELLO", "3", "AUTH", "app", "live", "SETNAME", "x"]),
                command(&["HELLO", "3", "AUTH", "app", "two words", "SETNAME", "x"]),
            ),
            (
                command(&["HELLO", "3", "SETNAME", "x", "AUTH", "app", "live"]),
                command(&["HELLO", "3", "SETNAME", "x", "AUTH", "app", "two words"]),
            ),
            (command(&["HELLO", "3"]), command(&["HELLO", "3"])),
            (
                command(&["HELLO", "3", "AUTH", "app"]),
                command(&["HELLO", "3", "AUTH", "app"]),
            ),
            ("AUTH \"a b\"\r\n".to_owned(), "AUTH \"a b\"\r\n".to_owned()),
            (command(&["AUTH"]), command(&["AUTH"])),
        ] {
            assert_eq!(played([said.as_bytes()]), Ok(plays), "{said:?}");
        }
        let large = "AUTH live\r\n".repeat(10_000);
        for same in [
            command(&["SET", "AUTH", "live"]),
            command(&["SET", "key", &large]),
            command(&["ECHO", "*2\r\n$4\r\nAUTH\r\n$4\r\nlive\r\n"]),
            "PING\r\n".to_owned(),
            "\r\n*0\r\n*-1\r\nGET auth\r\n".to_owned(),
            command(&["AUTHORS", "AUTH"]),
            "*2\r\n$4\r\nAU".to_owned(),
            command(&["MGET", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]),
        ] {
            assert_eq!(played([same.as_bytes()]), Ok(same.clone()));
        }
    }

    #[test]
    fn what_is_not_redis_is_refused() {
        for strange in [
            "*2\r\nGET\r\n",
            "*x\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n$99999999999\r\n",
        ] {
            assert!(played([strange.as_bytes()]).is_err(), "{strange:?}");
        }
        assert!(played([&[b'x'; 70_000][..]]).is_err());
    }

    proptest! {
        /// However the bytes are cut, the same is played, and nothing panics.
        #[test]
        fn pieces_make_no_difference(
            said in prop::collection::vec(prop_oneof![
                Just(command(&["AUTH", "live"])),
                Just(command(&["HELLO", "2", "AUTH", "app", "live"])),
                Just(command(&["SET", "a", "AUTH x\r\n"])),
                Just("AUTH live\r\n".to_owned()),
                Just("PING\r\n".to_owned()),
                Just(command(&["DEL", "a"])),
                Just(command(&["config", "get", "a"])),
                "[*$0-9\r\nAUTH ]{0,20}",
            ], 0..8),
            cuts in prop::collection::vec(1usize..20, 1..50),
        ) {
            let said = said.concat().into_bytes();
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), &said[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, then) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = then;
            }
            let whole = played([&said[..]]);
            let cut = played(pieces);
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(whole, cut);
            }
        }
    }
}

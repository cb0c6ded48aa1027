//! The target's answer to a log-in: the first word of it says enough.
//!
//! `+OK` answers `AUTH`; a map or an array, of which the first octet suffices, answers `HELLO`; `-WRONGPASS ...` and other
//! errors begin with a minus sign (<https://redis.io/docs/latest/develop/reference/protocol-spec/>). What follows the first
//! word of an error may repeat the password, and is not looked at.

/// The longest first word of an error that is shown.
const MOST_SHOWN: usize = 20;

/// What has come of an answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// To HELLO, which not every server knows.
    to_hello: bool,
    error: Option<String>,
}

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not known yet.
    Unknown,
    /// The log-in is done.
    Accepted,
    /// The server does not know HELLO, or not so.
    NoHello,
    /// The log-in is not done: the kind of error.
    Refused(String),
}

impl Reply {
    pub(super) const fn new(to_hello: bool) -> Self {
        Self {
            to_hello,
            error: None,
        }
    }

    /// The target sent these bytes, next to those before.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Verdict {
        let mut bytes = bytes.iter();
        if self.error.is_none() {
            match bytes.next() {
                None => return Verdict::Unknown,
                Some(b'-') => self.error = Some(String::new()),
                Some(_) => return Verdict::Accepted,
            }
        }
        let error = self.error.get_or_insert_default();
        for byte in bytes {
            if !byte.is_ascii_uppercase() || error.len() >= MOST_SHOWN {
                return match self.to_hello && error != "WRONGPASS" {
                    true => Verdict::NoHello,
                    false => Verdict::Refused(std::mem::take(error)),
                };
            }
            error.push(char::from(*byte));
        }
        Verdict::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(word: &str) -> Verdict {
        Verdict::Refused(word.to_owned())
    }

    #[test]
    fn the_first_octet_says_whether_a_login_is_done_and_a_word_why_not() {
        let hear = |bytes: &[u8]| Reply::new(false).hear(bytes);
        assert_eq!(hear(b"+OK\r\n"), Verdict::Accepted);
        assert_eq!(hear(b"%7\r\n"), Verdict::Accepted);
        let mut reply = Reply::new(false);
        assert_eq!(reply.hear(b""), Verdict::Unknown);
        assert_eq!(reply.hear(b"-WRONG"), Verdict::Unknown);
        assert_eq!(reply.hear(b"PASS invalid\r\n+OK"), refused("WRONGPASS"));
        // Whatever a server says behind it: Redis 5 repeats the arguments of a command that it does not know.
        assert_eq!(
            hear(b"-ERR unknown command, with args beginning with: 'secret'"),
            refused("ERR")
        );
        assert_eq!(hear(&[b'-'; 2]), refused(""));
        assert_eq!(
            hear(&[&[b'-'][..], &[b'X'; 5000]].concat()),
            refused(&"X".repeat(20))
        );
    }

    #[test]
    fn a_server_that_does_not_know_hello_may_still_take_auth() {
        let hear = |bytes: &[u8]| Reply::new(true).hear(bytes);
        assert_eq!(hear(b"-ERR unknown command"), Verdict::NoHello);
        assert_eq!(hear(b"-NOPROTO unsupported"), Verdict::NoHello);
        assert_eq!(hear(b"-WRONGPASS invalid"), refused("WRONGPASS"));
    }
}

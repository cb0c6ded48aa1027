//! The target's answer to a log-in: the first line of it says enough.
//!
//! `+OK` answers `AUTH`; a map or an array, of which the first octet suffices, answers `HELLO`; `-WRONGPASS ...` and other
//! errors begin with a minus sign (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

/// Bytes of a refusal that are shown.
const MOST_SHOWN: usize = 100;

/// What has come of an answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    error: Option<Vec<u8>>,
}

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not known yet.
    Unknown,
    /// The log-in is done.
    Accepted,
    /// It is not, in the target's words.
    Refused(String),
}

impl Reply {
    /// The target sent these bytes, next to those before.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Verdict {
        let mut bytes = bytes;
        let error = match &mut self.error {
            Some(error) => error,
            None => match bytes.split_first() {
                None => return Verdict::Unknown,
                Some((b'-', rest)) => {
                    bytes = rest;
                    self.error.get_or_insert_default()
                }
                Some(_) => return Verdict::Accepted,
            },
        };
        let line_end = bytes
            .iter()
            .position(|byte| *byte == b'\r' || *byte == b'\n');
        error.extend_from_slice(
            bytes
                .get(..line_end.unwrap_or(bytes.len()))
                .unwrap_or(bytes),
        );
        if line_end.is_none() && error.len() < MOST_SHOWN {
            return Verdict::Unknown;
        }
        error.truncate(MOST_SHOWN);
        let text = String::from_utf8_lossy(error);
        let is_printable = |c: char| c == ' ' || c.is_ascii_graphic();
        Verdict::Refused(text.chars().filter(|c| is_printable(*c)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_octet_says_whether_a_login_is_done_and_its_line_why_not() {
        assert_eq!(Reply::default().hear(b"+OK\r\n"), Verdict::Accepted);
        assert_eq!(Reply::default().hear(b"%7\r\n"), Verdict::Accepted);
        let mut reply = Reply::default();
        assert_eq!(reply.hear(b""), Verdict::Unknown);
        assert_eq!(reply.hear(b"-WRONG"), Verdict::Unknown);
        let why = "WRONGPASS invalid".to_owned();
        assert_eq!(
            reply.hear(b"PASS \x1binvalid\r\n+OK"),
            Verdict::Refused(why)
        );
    }

    #[test]
    fn a_refusal_without_an_end_is_bounded() {
        let why = "x".repeat(MOST_SHOWN);
        let mut reply = Reply::default();
        assert_eq!(reply.hear(b"-"), Verdict::Unknown);
        assert_eq!(reply.hear(&[b'x'; 5000]), Verdict::Refused(why));
    }
}

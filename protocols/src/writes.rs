//! Write safety: which requests of clients may reach a target.
//!
//! A module names each request by a *digest*, which has no values in it: a statement with `?` in place of its literals, a
//! method with a path, the name of a command. It says whether the request writes. Rules decide, and a ledger counts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// So many digests are counted each by its own; what else comes is counted together.
const MOST_DIGESTS: usize = 1000;
/// Longer digests are cut, at the end of a character.
const LONGEST_DIGEST: usize = 200;

/// Digests that contain this: `*` stands for any characters, and case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether it is this digest.
    pub fn matches(&self, digest: &str) -> bool {
        matches(self.0.as_bytes(), digest.as_bytes())
    }
}

/// Why something is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has one character at least, and none that ends a line")]
pub struct NoPattern;

impl FromStr for Pattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        match text.is_empty() || text.contains(['\n', '\r']) {
            true => Err(NoPattern),
            false => Ok(Self(text.to_owned())),
        }
    }
}

/// Whether the whole of `text` is as `pattern` says. Takes no longer than the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(other) if other.eq_ignore_ascii_case(byte) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// What may reach a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What writes is left out.
    pub read_only: bool,
    /// These are sent, though they write.
    pub allow: Vec<Pattern>,
    /// These are left out, whatever they do.
    pub deny: Vec<Pattern>,
}

impl Rules {
    fn permit(&self, digest: &str, writes: bool) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|it| it.matches(digest));
        !is_in(&self.deny) && (!writes || !self.read_only || is_in(&self.allow))
    }
}

/// What was decided about requests of one digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent, and they write.
    pub sent: u64,
    /// Left out.
    pub left_out: u64,
}

/// What rules decided, by digest. Requests that only read and were sent are not in it.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<BTreeMap<String, Counts>>,
}

impl Ledger {
    /// What the digests are counted under for which no place is left.
    pub const OTHERS: &'static str = "(others)";

    fn note(&self, digest: &str, note: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = cut(digest);
        let digest = match counts.contains_key(digest) || counts.len() < MOST_DIGESTS {
            true => digest,
            false => Self::OTHERS,
        };
        match counts.get_mut(digest) {
            Some(counts) => note(counts),
            None => note(counts.entry(digest.to_owned()).or_default()),
        }
    }

    /// All so far, by digest.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

fn cut(digest: &str) -> &str {
    let end = digest.floor_char_boundary(LONGEST_DIGEST);
    digest.get(..end).unwrap_or(digest)
}

/// Decides for one module.
#[derive(Clone, Debug, Default)]
pub struct WriteGuard {
    rules: Arc<Rules>,
    ledger: Arc<Ledger>,
}

impl WriteGuard {
    /// One with these rules, that counts here.
    pub const fn new(rules: Arc<Rules>, ledger: Arc<Ledger>) -> Self {
        Self { rules, ledger }
    }

    /// Whether it lets everything through.
    pub fn is_open(&self) -> bool {
        let Rules {
            read_only,
            allow,
            deny,
        } = &*self.rules;
        !read_only && allow.is_empty() && deny.is_empty()
    }

    /// Whether a request may be sent; counts it.
    pub fn permits(&self, digest: &str, writes: bool) -> bool {
        let permitted = self.rules.permit(digest, writes);
        match (permitted, writes) {
            (true, false) => {}
            (true, true) => self.ledger.note(digest, |counts| counts.sent += 1),
            (false, _) => self.ledger.note(digest, |counts| counts.left_out += 1),
        }
        permitted
    }

    /// Whether a request of several, each with a digest and whether it writes, may be sent: all of them, or none. Counts
    /// each.
    pub fn permits_all(&self, requests: &[(String, bool)]) -> bool {
        let permitted = self.would_permit_all(requests);
        for (digest, writes) in requests {
            match (permitted, *writes) {
                (true, false) => {}
                (true, true) => self.ledger.note(digest, |counts| counts.sent += 1),
                (false, _) => self.ledger.note(digest, |counts| counts.left_out += 1),
            }
        }
        permitted
    }

    /// The same, and counts nothing.
    pub fn would_permit_all(&self, requests: &[(String, bool)]) -> bool {
        let mut each = requests.iter();
        each.all(|(digest, writes)| self.rules.permit(digest, *writes))
    }

    /// Whether a request may be sent of which it is not known what it does: it counts as one that writes, and is never
    /// allowed by its digest. Denied is what has this digest, or one of those that it seems to have. Counts it.
    pub fn permits_doubtful(&self, digest: &str, seeming: &[(String, bool)]) -> bool {
        let permitted = self.would_permit_doubtful(digest, seeming);
        self.ledger.note(digest, |counts| match permitted {
            true => counts.sent += 1,
            false => counts.left_out += 1,
        });
        permitted
    }

    /// The same, and counts nothing.
    pub fn would_permit_doubtful(&self, digest: &str, seeming: &[(String, bool)]) -> bool {
        let mut seeming = seeming.iter().map(|(digest, _)| digest.as_str());
        !self.rules.read_only
            && self.rules.permit(digest, true)
            && seeming.all(|digest| self.rules.permit(digest, true))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("insert into log *", "INSERT INTO log VALUES (?)", true),
            ("INSERT INTO log", "INSERT INTO log VALUES (?)", false),
            ("POST /search*", "POST /search", true),
            ("*", "", true),
            ("**a*b", "xxaxxbxb", true),
            ("**a*b", "xxaxxbxc", false),
            ("a", "", false),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(text), expected, "{pattern} {text}");
        }
        assert_eq!("".parse::<Pattern>(), Err(NoPattern));
    }

    #[test]
    fn what_is_denied_never_goes_and_what_writes_goes_only_where_it_is_allowed() {
        let rules = Rules {
            read_only: true,
            allow: patterns(&["UPDATE seen *", "DELETE *"]),
            deny: patterns(&["DELETE FROM users*", "SELECT sleep*"]),
        };
        for (digest, writes, expected) in [
            ("SELECT ?", false, true),
            ("SELECT sleep(?)", false, false),
            ("UPDATE users SET x = ?", true, false),
            ("UPDATE seen SET x = ?", true, true),
            ("DELETE FROM users", true, false),
            ("DELETE FROM log", true, true),
        ] {
            assert_eq!(rules.permit(digest, writes), expected, "{digest}");
        }
        assert!(Rules::default().permit("DROP TABLE x", true));
    }

    #[test]
    fn several_requests_go_together_and_doubtful_ones_are_never_allowed() {
        let ledger = Arc::new(Ledger::default());
        let guard = |read_only, allow: &[&str], deny: &[&str]| {
            let rules = Rules {
                read_only,
                allow: patterns(allow),
                deny: patterns(deny),
            };
            WriteGuard::new(Arc::new(rules), ledger.clone())
        };
        let each = |texts: &[(&str, bool)]| -> Vec<_> {
            let owned = texts.iter().map(|(it, writes)| ((*it).to_owned(), *writes));
            owned.collect()
        };
        let two = each(&[("UPDATE a", true), ("DELETE b", true)]);
        let strict = guard(true, &["UPDATE a*"], &[]);
        assert!(!strict.would_permit_all(&two));
        assert!(strict.would_permit_all(&two[..1]));
        assert!(strict.would_permit_all(&[]));
        assert!(ledger.counts().is_empty());
        assert!(!strict.permits_all(&two));
        assert!(strict.permits_all(&two[..1]));
        assert!(!strict.permits_doubtful("UPDATE a ...", &two[..1]));
        assert!(guard(false, &[], &[]).permits_doubtful("x ...", &two));
        assert!(!guard(false, &[], &["*b"]).permits_doubtful("x ...", &two));
        let counts = ledger.counts();
        let of = |digest| (counts[digest].sent, counts[digest].left_out);
        assert_eq!(of("UPDATE a"), (1, 1));
        assert_eq!(of("DELETE b"), (0, 1));
        assert_eq!(of("UPDATE a ..."), (0, 1));
        assert_eq!(of("x ..."), (1, 1));
    }

    #[test]
    fn the_ledger_has_no_more_than_its_places() {
        let ledger = Arc::new(Ledger::default());
        let rules = Rules {
            read_only: true,
            ..Rules::default()
        };
        let guard = WriteGuard::new(Arc::new(rules), ledger.clone());
        for number in 0..2 * MOST_DIGESTS {
            assert!(!guard.permits(&format!("{number}{}", "ä".repeat(200)), true));
        }
        assert!(guard.permits("SELECT ?", false));
        let counts = ledger.counts();
        assert_eq!(counts.len(), MOST_DIGESTS + 1);
        assert_eq!(counts[Ledger::OTHERS].left_out, MOST_DIGESTS as u64);
        assert!(counts.keys().all(|digest| digest.len() <= LONGEST_DIGEST));
    }
}

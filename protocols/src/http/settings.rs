//! The rule file: a TOML text. `example.toml` is a whole one.

use std::collections::BTreeMap;

use super::text::{Around, Editable, Key, Place, Selector, Source, Value};

/// So many rules for values there may be.
pub(super) const MOST_TOKENS: usize = 64;

/// What the module does besides copying.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Each request waits until the target's response to the one before has ended, rather than for as many bytes as the live
    /// server had sent. For that the payload of all responses comes to the copier. Rules for values imply it.
    pub exact_ends: bool,
    /// What stands in `Host`, and in targets that are whole URLs. `None`: what the client wrote. It is added to requests of
    /// HTTP/1.0 that have none; those of 1.1 are refused for that, and stay so.
    pub host: Option<Value>,
    /// Fields that have this value: in place of the client's, or added.
    pub set_header: BTreeMap<Editable, Value>,
    /// Fields that are left out.
    pub remove_header: Vec<Editable>,
    /// Fields whose values become as many `*` as they had bytes.
    pub mask_header: Vec<Editable>,
    /// Only requests that one of these chooses are sent. Empty: all.
    pub only: Vec<Selector>,
    /// Requests that one of these chooses are not sent.
    pub except: Vec<Selector>,
    /// Values of the live server that the target has others for.
    pub token: Vec<TokenRule>,
}

/// A value that server and client hand back and forth: the live server's becomes the target's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRule {
    /// Where in a response it stands.
    pub from: Source,
    /// It begins behind this text.
    pub after: Option<Around>,
    /// It ends before this text.
    pub before: Option<Around>,
    /// In responses to these requests. `None`: to all.
    pub on: Option<Selector>,
    /// Where requests have it.
    #[serde(default = "Place::everywhere")]
    pub to: Vec<Place>,
    /// It is known in all sessions.
    #[serde(default)]
    pub shared: bool,
    /// It is known in all sessions of the same user.
    pub key: Option<Key>,
}

/// Why a rule file is refused. No value of it is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A rule for a value makes no sense.
    #[error("the {number}. [[token]]: {why}")]
    Token {
        /// Which one, from 1.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// There are too many of them.
    #[error("there are more than {MOST_TOKENS} [[token]]")]
    TooMany,
    /// The same field is handled in two ways.
    #[error("the header {0} is set, removed or masked twice")]
    Twice(String),
}

impl Settings {
    /// Reads the text of a rule file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line, or the number of its rule.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text).map_err(|error| SettingsError::Line {
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            why: error.message().to_owned(),
        })?;
        settings.check_headers()?;
        if settings.token.len() > MOST_TOKENS {
            return Err(SettingsError::TooMany);
        }
        for (number, rule) in (1..).zip(&settings.token) {
            rule.check()
                .map_err(|why| SettingsError::Token { number, why })?;
        }
        Ok(settings)
    }

    fn check_headers(&self) -> Result<(), SettingsError> {
        let all = self.set_header.keys();
        let all = all.chain(&self.remove_header).chain(&self.mask_header);
        let mut names: Vec<_> = all.map(|it| it.as_str().to_ascii_lowercase()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(one.clone()),
            _ => None,
        });
        twice.map_or(Ok(()), |name| Err(SettingsError::Twice(name)))
    }
}

impl TokenRule {
    fn check(&self) -> Result<(), &'static str> {
        if self.from == Source::Body && (self.after.is_none() || self.before.is_none()) {
            return Err("from = \"body\" needs after and before");
        }
        match self.to.is_empty() {
            true => Err("to is empty: leave it out for all places"),
            false => Ok(()),
        }
    }

    /// Whether other sessions know its values.
    pub(super) const fn is_shared(&self) -> bool {
        self.shared || self.key.is_some()
    }

    /// Whether it stands in the bodies of responses.
    pub(super) const fn is_in_bodies(&self) -> bool {
        match self.from {
            Source::Header(_) | Source::Cookie(_) => false,
            Source::Json(_) | Source::Field(_) | Source::Body => true,
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let settings = Settings::parse(
            r#"
exact_ends = true
host = "shop.test"
remove_header = ["X-Forwarded-For"]
mask_header = ["Authorization"]
only = ["GET /api/*", "* /shop/* X-Canary: y*"]
except = ["* /healthz"]
[set_header]
X-Copied = "1"
[[token]]
from = "cookie:sid"
to = ["cookie:sid"]
shared = true
[[token]]
from = "body"
after = "csrf('"
before = "')"
on = "GET /form"
key = "header:Authorization"
"#,
        )
        .unwrap();
        assert_eq!(settings.host.as_ref().unwrap().as_str(), "shop.test");
        assert_eq!(settings.token.len(), 2);
        assert_eq!(settings.token[1].to.len(), 6);
        assert!(settings.token[1].is_shared());
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
    }

    #[test]
    fn the_example_of_the_guide_is_read() {
        let settings = Settings::parse(super::super::EXAMPLE).unwrap();
        assert_eq!(settings.token.len(), 5);
        assert!(settings.token[1].is_shared() && !settings.token[3].is_shared());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("\nhosts = 'x'", "line 2: unknown field `hosts`"),
            ("host = 'a\\r'\n\nhost = 'b'", "line 3: duplicate key"),
            (
                "host = \"a\\r\\nX: y\"",
                "line 1: a header's value is visible",
            ),
            ("host = ' a'", "line 1: a header's value is visible"),
            (
                "remove_header = ['A B']",
                "line 1: a header's name is letters",
            ),
            (
                "\nremove_header = [\n'A',\n'']",
                "line 2: a header's name is letters",
            ),
            ("mask_header = ['host']", "line 1: write host ="),
            (
                "[set_header]\ncontent-length = '5'",
                "line 2: this header says where",
            ),
            ("only = ['GET']", "line 1: requests are chosen by"),
            ("only = ['GET api']", "line 1: requests are chosen by"),
            ("only = ['GET /api x']", "line 1: requests are chosen by"),
            ("[[token]]\nfrom = 'cookie'", "line 2: a value comes from"),
            ("[[token]]\nto = ['path']", "line 1: missing field `from`"),
            (
                "[[token]]\nfrom = 'json:a'\nto = ['path:a']",
                "line 3: a value goes to",
            ),
            (
                "[[token]]\nfrom = 'json:a'\nkey = 'a'",
                "line 3: users are told apart",
            ),
            (
                "[[token]]\nfrom = 'body'",
                "the 1. [[token]]: from = \"body\" needs",
            ),
            (
                "[[token]]\nfrom = 'json:a'\nto = []",
                "the 1. [[token]]: to is empty",
            ),
            (
                "remove_header = ['A']\nmask_header = ['a']",
                "the header a is set, removed or masked twice",
            ),
        ] {
            let error = Settings::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let many = "[[token]]\nfrom = 'json:a'\n".repeat(MOST_TOKENS + 1);
        assert_eq!(Settings::parse(&many), Err(SettingsError::TooMany));
    }
}

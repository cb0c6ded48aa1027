//! The small texts of a rule file: names and values of fields, selectors, and where values stand.

use std::fmt;
use std::str::FromStr;

use super::head::{Head, is_token};
use crate::writes::Pattern;

/// Why one of these texts is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No name of a field.
    #[error("a header's name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, 5.6.2)")]
    Name,
    /// A field that says where messages end.
    #[error(
        "this header says where a message ends or what the connection becomes: it stays as it is"
    )]
    Framing,
    /// `Host`.
    #[error("write host = \"NAME\" for the header Host")]
    Host,
    /// No value of a field.
    #[error(
        "a header's value is visible ASCII, spaces and tabs, neither at its beginning nor its end (RFC 9110, 5.5)"
    )]
    Value,
    /// No selector.
    #[error(
        "requests are chosen by \"METHOD /PATH\" or \"METHOD /PATH NAME: VALUE\"; * stands for any"
    )]
    Selector,
    /// Nowhere a value comes from.
    #[error("a value comes from header:NAME, cookie:NAME, json:KEY, field:NAME or body")]
    Source,
    /// Nowhere a value goes to.
    #[error(
        "a value goes to header, cookie, query, path, form or json, with :NAME where it has one name there"
    )]
    Place,
    /// Nothing that names a user.
    #[error("users are told apart by header:NAME or cookie:NAME")]
    Key,
    /// A text around a value.
    #[error("this text has 1 to 256 bytes")]
    Around,
}

/// Reads such a text where serde finds one.
macro_rules! from_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                text.parse()
            }
        }
    )*};
}

from_text!(Name, Editable, Value, Selector, Source, Place, Key, Around);

/// The name of a field. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        match !text.is_empty() && text.bytes().all(is_token) {
            true => Ok(Self(text.to_owned())),
            false => Err(TextError::Name),
        }
    }
}

/// The name of a field that may be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Editable(Name);

impl Editable {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Fields that say where messages end, or what follows them.
const FRAMING: [&str; 8] = [
    "Content-Length",
    "Transfer-Encoding",
    "Content-Encoding",
    "Connection",
    "Upgrade",
    "Expect",
    "TE",
    "Trailer",
];

impl FromStr for Editable {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let name: Name = text.parse()?;
        if text.eq_ignore_ascii_case("Host") {
            return Err(TextError::Host);
        }
        match FRAMING.iter().any(|it| it.eq_ignore_ascii_case(text)) {
            true => Err(TextError::Framing),
            false => Ok(Self(name)),
        }
    }
}

/// The value of a field.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Value(String);

impl Value {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// It may be a secret.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a value)")
    }
}

impl FromStr for Value {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let is_visible = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
        match text.trim() == text && text.bytes().all(is_visible) {
            true => Ok(Self(text.to_owned())),
            false => Err(TextError::Value),
        }
    }
}

/// Chooses requests: by method, path, and a field if it names one. In paths and values `*` stands for any characters, and
/// case does not matter; the path is judged without its query, its `;` parameters and its dots.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Selector {
    /// `None`: any.
    method: Option<String>,
    path: Pattern,
    field: Option<(Name, Pattern)>,
}

impl Selector {
    /// Whether it chooses this request, whose path this is.
    pub(super) fn chooses(&self, head: &Head<'_>, path: &str) -> bool {
        let is_method = |method: &String| method.as_bytes() == head.method();
        let has_field = |(name, pattern): &(Name, Pattern)| {
            head.values(name.as_str())
                .any(|value| pattern.matches(&String::from_utf8_lossy(value)))
        };
        self.method.as_ref().is_none_or(is_method)
            && self.path.matches(path)
            && self.field.as_ref().is_none_or(has_field)
    }
}

impl FromStr for Selector {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut words = text.splitn(3, ' ');
        let (method, path, field) = (words.next(), words.next(), words.next());
        let method = method.filter(|it| !it.is_empty() && it.bytes().all(is_token));
        let path = path.filter(|it| it.starts_with(['/', '*']));
        let (method, path) = method.zip(path).ok_or(TextError::Selector)?;
        let pattern = |text: &str| text.parse::<Pattern>().map_err(|_| TextError::Selector);
        let field = match field {
            None => None,
            Some(field) => {
                let (name, value) = field.split_once(':').ok_or(TextError::Selector)?;
                Some((name.parse()?, pattern(value.trim())?))
            }
        };
        Ok(Self {
            method: Some(method).filter(|it| *it != "*").map(str::to_owned),
            path: pattern(path)?,
            field,
        })
    }
}

/// Where in a response a value stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// `header:NAME`: the value of the first such field.
    Header(Name),
    /// `cookie:NAME`: what `Set-Cookie` sets.
    Cookie(Name),
    /// `json:KEY`: the string or number behind the first such key, however deep.
    Json(String),
    /// `field:NAME`: `value` or `content` of the first `<input>` or `<meta>` with this name.
    Field(String),
    /// `body`: between the texts that the rule names.
    Body,
}

impl FromStr for Source {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        if text == "body" {
            return Ok(Self::Body);
        }
        let named = text.split_once(':');
        let named = named.filter(|(_, name)| (1..=256).contains(&name.len()));
        match named.ok_or(TextError::Source)? {
            ("header", name) => Ok(Self::Header(name.parse()?)),
            ("cookie", name) => Ok(Self::Cookie(name.parse()?)),
            ("json", key) => Ok(Self::Json(key.to_owned())),
            ("field", name) => Ok(Self::Field(name.to_owned())),
            _ => Err(TextError::Source),
        }
    }
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// A field: its whole value, or a word of it.
    Header,
    /// A cookie's value.
    Cookie,
    /// The value of a parameter in the query.
    Query,
    /// A segment of the path.
    Path,
    /// A field of a form: `application/x-www-form-urlencoded`.
    Form,
    /// A string or number of a JSON text.
    Json,
}

/// Where in a request a value stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Place {
    pub(super) spot: Spot,
    /// `None`: under any name.
    pub(super) name: Option<String>,
}

impl Place {
    /// All parts of a request, under any name.
    pub(super) fn everywhere() -> Vec<Self> {
        use Spot::{Cookie, Form, Header, Json, Path, Query};
        let all = [Header, Cookie, Query, Path, Form, Json];
        all.map(|spot| Self { spot, name: None }).into()
    }

    /// Whether it is this one. The names of fields are compared without case.
    pub(super) fn is(&self, spot: Spot, name: &[u8]) -> bool {
        self.spot == spot
            && self.name.as_ref().is_none_or(|it| match spot {
                Spot::Header => it.as_bytes().eq_ignore_ascii_case(name),
                Spot::Cookie | Spot::Query | Spot::Path | Spot::Form | Spot::Json => {
                    it.as_bytes() == name
                }
            })
    }
}

impl FromStr for Place {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let (spot, name) = match text.split_once(':') {
            Some((spot, name)) => (spot, Some(name)),
            None => (text, None),
        };
        let spot = match spot {
            "header" => Spot::Header,
            "cookie" => Spot::Cookie,
            "query" => Spot::Query,
            "path" if name.is_none() => Spot::Path,
            "form" => Spot::Form,
            "json" => Spot::Json,
            _ => return Err(TextError::Place),
        };
        if name.is_some_and(str::is_empty) {
            return Err(TextError::Place);
        }
        if let (Spot::Header | Spot::Cookie, Some(name)) = (spot, name) {
            name.parse::<Name>()?;
        }
        let name = name.map(str::to_owned);
        Ok(Self { spot, name })
    }
}

/// What tells users apart: a field or cookie of their requests.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Key {
    /// `header:NAME`.
    Header(Name),
    /// `cookie:NAME`.
    Cookie(Name),
}

impl FromStr for Key {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        match text.split_once(':').ok_or(TextError::Key)? {
            ("header", name) => Ok(Self::Header(name.parse()?)),
            ("cookie", name) => Ok(Self::Cookie(name.parse()?)),
            _ => Err(TextError::Key),
        }
    }
}

/// A text before or behind a value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Around(String);

impl Around {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for Around {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        match (1..=256).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(TextError::Around),
        }
    }
}

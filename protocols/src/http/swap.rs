//! Values in requests: the live server's become the target's.
//!
//! A value is replaced where it stands alone: a parameter, a segment of the path, a cookie, a string or number of a JSON
//! text, a field of a form, a header or a word of one. Part of a longer word is another value.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::head::Head;
use super::path;
use super::rewrite::Swapped;
use super::settings::TokenRule;
use super::text::Spot;

/// What stays as it is in a URL (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is known of a value.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It is none of the live server's.
    No,
    /// The target has not said yet what it has in its place.
    NotYet,
    /// The target has this.
    Is(Vec<u8>),
}

/// Replaces values of one request.
pub(super) struct Swap<'a> {
    pub(super) rules: &'a [TokenRule],
    /// Whether any rule may know a value: asked once for each, and quick.
    pub(super) knows: &'a dyn Fn(&[u8]) -> bool,
    /// What is known of a rule's value.
    pub(super) find: &'a dyn Fn(usize, &[u8]) -> Known,
    /// A rule's value that is not known yet.
    pub(super) waits: Option<(usize, Vec<u8>)>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Form,
    Json,
}

impl Content {
    /// What the body of a request is, if values in it can be replaced.
    pub(super) fn of(head: &Head<'_>) -> Option<Self> {
        if head.values("Content-Encoding").next().is_some() {
            return None;
        }
        let kind = head.values("Content-Type").next()?;
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind {
            "application/x-www-form-urlencoded" => Some(Self::Form),
            _ if kind.ends_with("/json") || kind.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }
}

impl Swap<'_> {
    /// The values in a head.
    pub(super) fn head(&mut self, head: &Head<'_>) -> Swapped {
        let mut swapped = Swapped {
            target: self.url(head.target()),
            ..Swapped::default()
        };
        for (number, field) in head.fields().enumerate() {
            let value = if field.is("Cookie") {
                self.cookies(field.value)
            } else if field.is("Referer") {
                self.url(field.value)
            } else if is_fixed(field.name) {
                None
            } else {
                self.header(field.name, field.value)
            };
            swapped.values.extend(value.map(|value| (number, value)));
        }
        swapped
    }

    /// The values in a body.
    pub(super) fn body(&mut self, content: Content, body: &[u8]) -> Option<Vec<u8>> {
        match content {
            Content::Form => self.parameters(Spot::Form, body),
            Content::Json => self.json(body),
        }
    }

    fn value(&mut self, spot: Spot, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        if value.is_empty() {
            return None;
        }
        if !(self.knows)(value) {
            return None;
        }
        for (number, rule) in self.rules.iter().enumerate() {
            if !rule.to.iter().any(|place| place.is(spot, name)) {
                continue;
            }
            match (self.find)(number, value) {
                Known::Is(target) => return Some(target),
                Known::NotYet => self.waits = Some((number, value.to_vec())),
                Known::No => {}
            }
        }
        None
    }

    /// A value that may stand there as it is or percent-encoded.
    fn encoded(&mut self, spot: Spot, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let encode = |value: Vec<u8>| percent_encode(&value, ENCODED).to_string().into_bytes();
        if let Some(target) = self.value(spot, name, value) {
            return Some(match spot == Spot::Cookie && target.iter().all(is_cookie) {
                true => target,
                false => encode(target),
            });
        }
        let decoded = decode(value, matches!(spot, Spot::Query | Spot::Form));
        let target = match decoded == value {
            true => None,
            false => self.value(spot, name, &decoded),
        };
        target.map(encode)
    }

    fn url(&mut self, url: &[u8]) -> Option<Vec<u8>> {
        let (_, rest) = path::split(url)?;
        let before = url.get(..url.len() - rest.len())?;
        let (rest, fragment) = cut_at(rest, b'#');
        let (path, query) = cut_at(rest, b'?');
        let segments = joined(path, b"/", |part| self.encoded(Spot::Path, b"", part));
        let parameters = match query.split_first() {
            Some((_, query)) => self.parameters(Spot::Query, query),
            None => None,
        };
        if segments.is_none() && parameters.is_none() {
            return None;
        }
        let mut out = before.to_vec();
        out.extend_from_slice(segments.as_deref().unwrap_or(path));
        match parameters {
            Some(parameters) => {
                out.push(b'?');
                out.extend_from_slice(&parameters);
            }
            None => out.extend_from_slice(query),
        }
        out.extend_from_slice(fragment);
        Some(out)
    }

    fn parameters(&mut self, spot: Spot, text: &[u8]) -> Option<Vec<u8>> {
        joined(text, b"&", |pair| {
            let (name, value) = cut_at(pair, b'=');
            let (_, value) = value.split_first()?;
            let target = self.encoded(spot, &decode(name, true), value)?;
            Some([name, b"=", &target].concat())
        })
    }

    fn cookies(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        joined(text, b";", |pair| {
            let (name, value) = cut_at(pair, b'=');
            let (_, value) = value.split_first()?;
            let target = self.encoded(Spot::Cookie, name.trim_ascii(), value.trim_ascii())?;
            Some([name, b"=", &target].concat())
        })
    }

    /// A whole value, or words of it: `Bearer VALUE`, `Token token="VALUE"`.
    fn header(&mut self, name: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        if let Some(target) = self.value(Spot::Header, name, text) {
            return Some(target);
        }
        joined(text, b" ,;\"", |word| {
            if let Some(target) = self.value(Spot::Header, name, word) {
                return Some(target);
            }
            let (before, value) = cut_at(word, b'=');
            let (_, value) = value.split_first()?;
            let target = self.value(Spot::Header, name, value)?;
            Some([before, b"=", &target].concat())
        })
    }

    /// Strings and numbers of a JSON text, whatever else it may be.
    fn json(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let (mut key, mut changed, mut left) = (Vec::new(), false, text);
        while let Some(first) = left.first() {
            let len = match first {
                b'"' => string_len(left).unwrap_or(left.len()),
                b'-' | b'0'..=b'9' => left.iter().take_while(|it| is_number(it)).count(),
                _ => 1,
            };
            let (token, rest) = left.split_at_checked(len)?;
            left = rest;
            let target = match first {
                b'"' => match serde_json::from_slice::<String>(token) {
                    Ok(text) if rest.trim_ascii_start().starts_with(b":") => {
                        key = text.into_bytes();
                        None
                    }
                    Ok(text) => self.value(Spot::Json, &key, text.as_bytes()).map(quoted),
                    Err(_) => None,
                },
                b'-' | b'0'..=b'9' => self.value(Spot::Json, &key, token).map(number),
                _ => None,
            };
            changed |= target.is_some();
            out.extend_from_slice(target.as_deref().unwrap_or(token));
        }
        Some(out).filter(|_| changed)
    }
}

fn quoted(value: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&value);
    serde_json::to_vec(&text).unwrap_or_default()
}

/// What stands in place of a number: one again, if it is one.
fn number(value: Vec<u8>) -> Vec<u8> {
    match serde_json::from_slice::<serde_json::Number>(&value) {
        Ok(_) => value,
        Err(_) => quoted(value),
    }
}

const fn is_number(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Octets of a cookie's value (RFC 6265, section 4.1.1).
const fn is_cookie(byte: &u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// The length of a JSON string with its quotes, if it ends.
pub(super) fn string_len(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    end.map(|end| end + 2)
}

/// Percent-encoding undone; in forms and queries a plus is a space.
pub(super) fn decode(text: &[u8], plus: bool) -> Vec<u8> {
    let space = |byte: u8| match byte {
        b'+' if plus => b' ',
        byte => byte,
    };
    let text: Vec<u8> = text.iter().copied().map(space).collect();
    percent_decode(&text).collect()
}

/// What stands before an octet, and the rest, which begins with it or is empty.
fn cut_at(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let at = text.iter().position(|it| *it == byte);
    text.split_at_checked(at.unwrap_or(text.len()))
        .unwrap_or((text, &[]))
}

/// Replaces parts between separators. `None`: nothing was replaced.
fn joined(
    text: &[u8],
    separators: &[u8],
    mut replace: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut changed = false;
    for part in text.split_inclusive(|byte| separators.contains(byte)) {
        let (word, end) = match part.split_last() {
            Some((last, word)) if separators.contains(last) => (word, Some(*last)),
            Some(_) | None => (part, None),
        };
        let target = replace(word);
        changed |= target.is_some();
        out.extend_from_slice(target.as_deref().unwrap_or(word));
        out.extend(end);
    }
    Some(out).filter(|_| changed)
}

/// Fields in which no value is looked for: they say where messages end and go.
fn is_fixed(name: &[u8]) -> bool {
    [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "Content-Type",
        "Content-Encoding",
        "Expect",
    ]
    .iter()
    .any(|it| it.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
#[path = "swap_tests.rs"]
mod tests;

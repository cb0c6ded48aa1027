//! Values in responses: found where rules say.
//!
//! A body is not kept: a window of it is, as long as the longest value. What is encoded (`Content-Encoding`) is not looked
//! into.

use memchr::memmem;

use super::book::LONGEST_VALUE;
use super::responses::ResponseHead;
use super::settings::TokenRule;
use super::swap::string_len;
use super::text::{Around, Source};

/// So much of a body is kept while nothing of a value has been found: what precedes one is shorter.
const OVERLAP: usize = 600;

/// The window is looked through again once one part in so many is new, or the body is over: so a byte is looked at so many
/// times, however small the pieces are in which it comes.
const LEAST_NEW: usize = 16;

/// What was found in a piece of text.
#[derive(Clone, PartialEq, Eq)]
enum Found {
    /// Nothing.
    No,
    /// Something that may begin here, and has not ended.
    Begun(usize),
    /// The value.
    Value(Vec<u8>),
}

/// The value of a rule in the head of a response.
pub(super) fn in_head(rule: &TokenRule, head: &ResponseHead) -> Option<Vec<u8>> {
    let value = match &rule.from {
        Source::Header(name) => head.values(name.as_str()).next()?.trim_ascii(),
        Source::Cookie(name) => cookie(head, name.as_str().as_bytes())?,
        Source::Json(_) | Source::Field(_) | Source::Body => return None,
    };
    trimmed(rule, value)
}

/// What `Set-Cookie` sets (RFC 6265, section 5.2). The last one counts, as it does for clients.
fn cookie<'a>(head: &'a ResponseHead, name: &[u8]) -> Option<&'a [u8]> {
    let values = head.values("Set-Cookie").filter_map(|field| {
        let pair = field.split(|byte| *byte == b';').next()?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (it, value) = pair.split_at_checked(equals)?;
        let value = value.get(1..)?.trim_ascii();
        (it.trim_ascii() == name).then_some(value)
    });
    values.last()
}

/// A value between the rule's texts, if it is one that can be handed back: no control characters, not empty, not too long.
fn trimmed(rule: &TokenRule, value: &[u8]) -> Option<Vec<u8>> {
    let value = match rule.from {
        Source::Body => value,
        _ => between(value, rule.after.as_ref(), rule.before.as_ref())?,
    };
    let is_value = (1..=LONGEST_VALUE).contains(&value.len())
        && !value.iter().any(u8::is_ascii_control)
        && value.trim_ascii() == value;
    is_value.then(|| value.to_vec())
}

fn between<'a>(
    value: &'a [u8],
    after: Option<&Around>,
    before: Option<&Around>,
) -> Option<&'a [u8]> {
    let value = match after {
        Some(after) => {
            let at = memmem::find(value, after.as_bytes())?;
            value.get(at + after.as_bytes().len()..)?
        }
        None => value,
    };
    match before {
        Some(before) => value.get(..memmem::find(value, before.as_bytes())?),
        None => Some(value),
    }
}

/// Looks for values in a body.
pub(super) struct Scan {
    window: Vec<u8>,
    /// Bytes at its end that were not looked at.
    new: usize,
    /// Rules whose value was not found yet.
    open: Vec<usize>,
}

impl Scan {
    /// For the body behind this head; `None`: no rule is interested.
    pub(super) fn new(
        rules: &[TokenRule],
        head: &ResponseHead,
        is_on: impl Fn(usize) -> bool,
    ) -> Option<Self> {
        let rules = rules.iter().enumerate();
        let open = rules.filter(|(number, rule)| rule.is_in_bodies() && is_on(*number));
        let open: Vec<_> = open.map(|(number, _)| number).collect();
        let is_plain = head
            .values("Content-Encoding")
            .all(|coding| coding.eq_ignore_ascii_case(b"identity"));
        (is_plain && !open.is_empty()).then_some(Self {
            window: Vec::new(),
            new: 0,
            open,
        })
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        self.window.capacity() + self.open.capacity() * size_of::<usize>()
    }

    /// Reads on; gives rules with their values. `over`: the body ends with this.
    pub(super) fn read(
        &mut self,
        rules: &[TokenRule],
        data: &[u8],
        over: bool,
    ) -> Vec<(usize, Vec<u8>)> {
        let mut values = Vec::new();
        // A piece at a time, so that the window stays small whatever comes.
        for data in data.chunks(LONGEST_VALUE) {
            if self.open.is_empty() {
                break;
            }
            self.window.extend_from_slice(data);
            self.new += data.len();
            if self.new >= self.window.len() / LEAST_NEW {
                self.look(rules, &mut values);
            }
        }
        if over && self.new > 0 {
            self.look(rules, &mut values);
        }
        values
    }

    fn look(&mut self, rules: &[TokenRule], values: &mut Vec<(usize, Vec<u8>)>) {
        self.new = 0;
        let mut keep = self.window.len().saturating_sub(OVERLAP);
        let window = &self.window;
        self.open.retain(|number| {
            let Some(rule) = rules.get(*number) else {
                return false;
            };
            match find(rule, window) {
                Found::No => true,
                Found::Begun(at) => {
                    keep = keep.min(at);
                    true
                }
                Found::Value(value) => {
                    values.extend(trimmed(rule, &value).map(|value| (*number, value)));
                    false
                }
            }
        });
        // What has not ended within the longest value is none.
        let most = LONGEST_VALUE + OVERLAP;
        let keep = keep.max(self.window.len().saturating_sub(most));
        self.window.drain(..keep);
    }
}

fn find(rule: &TokenRule, text: &[u8]) -> Found {
    match (&rule.from, &rule.after, &rule.before) {
        (Source::Json(key), _, _) => find_json(key, text),
        (Source::Field(name), _, _) => find_field(name.as_bytes(), text),
        (Source::Body, Some(after), Some(before)) => {
            find_between(after.as_bytes(), before.as_bytes(), text)
        }
        (Source::Body | Source::Header(_) | Source::Cookie(_), _, _) => Found::No,
    }
}

fn find_between(after: &[u8], before: &[u8], text: &[u8]) -> Found {
    let Some(at) = memmem::find(text, after) else {
        return Found::No;
    };
    let value = text.get(at + after.len()..).unwrap_or_default();
    match memmem::find(value, before) {
        Some(end) => Found::Value(value.get(..end).unwrap_or_default().to_vec()),
        None => Found::Begun(at),
    }
}

fn find_json(key: &str, text: &[u8]) -> Found {
    let key = serde_json::to_vec(key).unwrap_or_default();
    for at in memmem::find_iter(text, &key) {
        let rest = text.get(at + key.len()..).unwrap_or_default();
        let rest = rest.trim_ascii_start();
        let Some((colon, rest)) = rest.split_first() else {
            return Found::Begun(at);
        };
        if *colon != b':' {
            continue;
        }
        match json_value(rest.trim_ascii_start()) {
            JsonValue::Begun => return Found::Begun(at),
            JsonValue::Is(value) => return Found::Value(value),
            JsonValue::Other => {}
        }
    }
    Found::No
}

enum JsonValue {
    Begun,
    Is(Vec<u8>),
    Other,
}

/// A string or a number that has ended.
fn json_value(text: &[u8]) -> JsonValue {
    match text.first() {
        None => JsonValue::Begun,
        Some(b'"') => {
            let Some(literal) = string_len(text).and_then(|len| text.get(..len)) else {
                return JsonValue::Begun;
            };
            match serde_json::from_slice::<String>(literal) {
                Ok(value) => JsonValue::Is(value.into_bytes()),
                Err(_) => JsonValue::Other,
            }
        }
        Some(b'-' | b'0'..=b'9') => {
            let end = text
                .iter()
                .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
            match end.and_then(|end| text.get(..end)) {
                Some(number) => JsonValue::Is(number.to_vec()),
                None => JsonValue::Begun,
            }
        }
        Some(_) => JsonValue::Other,
    }
}

fn find_field(name: &[u8], text: &[u8]) -> Found {
    let mut past = 0;
    for at in memchr::memchr_iter(b'<', text) {
        let tag = text.get(at + 1..).unwrap_or_default();
        if at < past || !(may_begin(tag, b"input") || may_begin(tag, b"meta")) {
            continue;
        }
        let Some((attributes, len)) = attributes(tag) else {
            return Found::Begun(at);
        };
        past = at + len;
        let attribute = |wanted: &[u8]| {
            let mut all = attributes.iter();
            all.find(|(it, _)| it.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| *value)
        };
        let value = attribute(b"value").or_else(|| attribute(b"content"));
        if attribute(b"name") == Some(name)
            && let Some(value) = value
        {
            return Found::Value(unescape(value));
        }
    }
    Found::No
}

/// Whether this is such an element's tag, as far as it has come.
fn may_begin(tag: &[u8], element: &[u8]) -> bool {
    let len = element.len().min(tag.len());
    let pair = tag.get(..len).zip(element.get(..len));
    pair.is_some_and(|(tag, element)| tag.eq_ignore_ascii_case(element))
}

type Attributes<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The attributes of a tag, once it has ended: names with values, as they stand; and its length.
fn attributes(tag: &[u8]) -> Option<(Attributes<'_>, usize)> {
    let mut found = Vec::new();
    let mut left = tag;
    loop {
        let end = left
            .iter()
            .position(|byte| matches!(byte, b'=' | b'>' | b' ' | b'\t' | b'\r' | b'\n' | b'/'))?;
        let (name, rest) = left.split_at_checked(end)?;
        let (mark, rest) = rest.split_first()?;
        match mark {
            b'>' => return Some((found, tag.len() - rest.len())),
            b'=' => {
                let (value, rest) = attribute_value(rest)?;
                found.push((name, value));
                left = rest;
            }
            _ => left = rest,
        }
    }
}

fn attribute_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (quote, rest) = text.split_first()?;
    if matches!(quote, b'"' | b'\'') {
        let end = memchr::memchr(*quote, rest)?;
        return Some((rest.get(..end)?, rest.get(end + 1..)?));
    }
    let end = text
        .iter()
        .position(|byte| matches!(byte, b'>' | b' ' | b'\t' | b'\r' | b'\n'))?;
    text.split_at_checked(end)
}

/// Character references undone that occur in values: numbers of ASCII, and the five names.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some((first, rest)) = left.split_first() {
        let reference = rest.iter().take(8).position(|byte| *byte == b';');
        let reference = reference.filter(|_| *first == b'&');
        let name = reference.and_then(|end| rest.get(..end));
        match name.and_then(character) {
            Some(byte) => {
                out.push(byte);
                left = reference
                    .and_then(|end| rest.get(end + 1..))
                    .unwrap_or_default();
            }
            None => {
                out.push(*first);
                left = rest;
            }
        }
    }
    out
}

fn character(name: &[u8]) -> Option<u8> {
    let number = |digits: &str, radix| u8::from_str_radix(digits, radix).ok();
    match std::str::from_utf8(name).ok()? {
        "amp" => Some(b'&'),
        "lt" => Some(b'<'),
        "gt" => Some(b'>'),
        "quot" => Some(b'"'),
        "apos" => Some(b'\''),
        name => {
            let digits = name.strip_prefix('#')?;
            let hex = digits.strip_prefix(['x', 'X']);
            hex.map_or_else(|| number(digits, 10), |digits| number(digits, 16))
                .filter(u8::is_ascii)
        }
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;

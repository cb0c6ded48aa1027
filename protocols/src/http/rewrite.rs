//! Heads as the target gets them.

use std::borrow::Cow;

use super::head::Head;
use super::path;
use super::settings::Settings;
use super::text::Value;

/// What else of a head is another one for the target.
#[derive(Default)]
pub(super) struct Swapped {
    /// In place of the request's target.
    pub(super) target: Option<Vec<u8>>,
    /// In place of the values of fields: by their numbers from 0, in rising order.
    pub(super) values: Vec<(usize, Vec<u8>)>,
    /// In place of the length.
    pub(super) length: Option<usize>,
}

impl Swapped {
    fn is_empty(&self) -> bool {
        self.target.is_none() && self.values.is_empty() && self.length.is_none()
    }
}

/// Writes a head. Lines that say the same as before are copied as they are. What the settings say goes before what was
/// swapped. An offer of HTTP/2 is taken out: nobody here could read on.
pub(super) fn write<'a>(
    head: &'a Head<'a>,
    settings: &Settings,
    swapped: &Swapped,
) -> Cow<'a, [u8]> {
    let offers_h2c = head.offers_h2c();
    if swapped.is_empty() && !edits(settings) && !offers_h2c {
        return Cow::Borrowed(head.raw());
    }
    let mut out = Vec::with_capacity(head.raw().len() + 256);
    write_first_line(head, settings, swapped, &mut out);
    let mut writer = Fields {
        settings,
        swapped,
        offers_h2c,
        // Without one a request of HTTP/1.1 is refused (RFC 9112, section 3.2): what the live server has not done, the target
        // shall not do.
        has_host: head.version() != "HTTP/1.0",
        written: Vec::new(),
        out,
    };
    for (number, field) in head.fields().enumerate() {
        writer.field(number, field.name, field.value, field.line);
    }
    Cow::Owned(writer.end())
}

fn edits(settings: &Settings) -> bool {
    settings.host.is_some()
        || !settings.set_header.is_empty()
        || !settings.remove_header.is_empty()
        || !settings.mask_header.is_empty()
}

fn write_first_line(head: &Head<'_>, settings: &Settings, swapped: &Swapped, out: &mut Vec<u8>) {
    let target = swapped.target.as_deref().unwrap_or(head.target());
    out.extend_from_slice(head.method());
    out.push(b' ');
    match (settings.host.as_ref(), path::split(target)) {
        // The authority of a whole URL stands above the field (RFC 9112, section 3.2.2).
        (Some(host), Some((authority, rest))) if !authority.is_empty() => {
            let scheme = target.len() - authority.len() - rest.len();
            out.extend_from_slice(target.get(..scheme).unwrap_or_default());
            out.extend_from_slice(host.as_str().as_bytes());
            out.extend_from_slice(rest);
        }
        (_, _) => out.extend_from_slice(target),
    }
    out.push(b' ');
    out.extend_from_slice(head.version().as_bytes());
    out.extend_from_slice(b"\r\n");
}

struct Fields<'a> {
    settings: &'a Settings,
    swapped: &'a Swapped,
    offers_h2c: bool,
    has_host: bool,
    /// Fields of `set_header` that stand there.
    written: Vec<&'a str>,
    out: Vec<u8>,
}

impl<'a> Fields<'a> {
    fn field(&mut self, number: usize, name: &[u8], value: &[u8], line: &[u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if self.offers_h2c && (is("Upgrade") || is("HTTP2-Settings")) {
            return;
        }
        if self.offers_h2c && is("Connection") {
            return self.connection(name, value);
        }
        let settings = self.settings;
        if let Some(host) = settings.host.as_ref().filter(|_| is("Host")) {
            self.has_host = true;
            return self.line(name, host.as_str().as_bytes());
        }
        if settings.remove_header.iter().any(|it| is(it.as_str())) {
            return;
        }
        if let Some((set, value)) = settings.set_header.iter().find(|(it, _)| is(it.as_str())) {
            return self.set(set.as_str(), name, value);
        }
        let swapped = self.swapped.values.iter().find(|(it, _)| *it == number);
        let swapped = swapped.map(|(_, value)| value.as_slice());
        if settings.mask_header.iter().any(|it| is(it.as_str())) {
            return self.line(name, &vec![b'*'; value.len()]);
        }
        match (
            swapped,
            self.swapped.length.filter(|_| is("Content-Length")),
        ) {
            (Some(value), _) => self.line(name, value),
            (None, Some(length)) => self.line(name, length.to_string().as_bytes()),
            (None, None) => self.out.extend_from_slice(line),
        }
    }

    /// `Connection` without the words of an offer of HTTP/2.
    fn connection(&mut self, name: &[u8], value: &[u8]) {
        let is_offer = |word: &[u8]| {
            word.eq_ignore_ascii_case(b"upgrade") || word.eq_ignore_ascii_case(b"HTTP2-Settings")
        };
        let words = value
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|word| !word.is_empty() && !is_offer(word));
        let words: Vec<_> = words.collect();
        if !words.is_empty() {
            self.line(name, &words.join(&b", "[..]));
        }
    }

    /// Only the first of several stays.
    fn set(&mut self, set: &'a str, name: &[u8], value: &Value) {
        if !self.written.contains(&set) {
            self.written.push(set);
            self.line(name, value.as_str().as_bytes());
        }
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
    }

    fn end(mut self) -> Vec<u8> {
        let settings = self.settings;
        if let Some(host) = settings.host.as_ref().filter(|_| !self.has_host) {
            self.line(b"Host", host.as_str().as_bytes());
        }
        for (name, value) in &settings.set_header {
            self.set(name.as_str(), name.as_str().as_bytes(), value);
        }
        self.out.extend_from_slice(b"\r\n");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadReader;
    use super::*;

    fn rewritten(text: &str, settings: &str, swapped: &Swapped) -> String {
        let (_, head) = HeadReader::default().read(text.as_bytes()).unwrap();
        let settings = Settings::parse(settings).unwrap();
        let head = head.unwrap();
        let head = write(&head, &settings, swapped);
        String::from_utf8(head.into_owned()).unwrap()
    }

    const HEAD: &str =
        "GET /a HTTP/1.1\r\nhost:live\r\nA:  1\r\nB: secret \r\na: 2\r\nc: 3\r\n\r\n";

    #[test]
    fn without_a_rule_a_head_stays_as_it_came() {
        assert_eq!(rewritten(HEAD, "", &Swapped::default()), HEAD);
        assert_eq!(
            rewritten(HEAD, "exact_ends = true", &Swapped::default()),
            HEAD
        );
    }

    #[test]
    fn fields_are_replaced_removed_masked_and_added() {
        let settings = "host = 'test:81'\nremove_header = ['C']\nmask_header = ['b']\n\
                        [set_header]\nA = 'x'\nNew = 'y'";
        assert_eq!(
            rewritten(HEAD, settings, &Swapped::default()),
            "GET /a HTTP/1.1\r\nhost: test:81\r\nA: x\r\nB: ******\r\nNew: y\r\n\r\n"
        );
        let settings = "host = 'test'";
        let refused = "GET /a HTTP/1.1\r\n\r\n";
        assert_eq!(rewritten(refused, settings, &Swapped::default()), refused);
        let bare = "GET http://live:80/a?b HTTP/1.0\r\n\r\n";
        assert_eq!(
            rewritten(bare, settings, &Swapped::default()),
            "GET http://test/a?b HTTP/1.0\r\nHost: test\r\n\r\n"
        );
    }

    #[test]
    fn an_offer_of_http_2_is_taken_out() {
        let text = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nA:  1\r\nconnection: upgrade\r\n\r\n";
        assert_eq!(
            rewritten(text, "", &Swapped::default()),
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nA:  1\r\n\r\n"
        );
        let other = text.replace("h2c", "h2c, x");
        assert_eq!(rewritten(&other, "", &Swapped::default()), other);
        let none = text.replace("pgrade,", "p,").replace(": upgrade", ": x");
        assert_eq!(rewritten(&none, "", &Swapped::default()), none);
    }

    #[test]
    fn swapped_values_stand_in_place_of_the_clients() {
        let swapped = Swapped {
            target: Some(b"/b".to_vec()),
            values: vec![(1, b"11".to_vec())],
            length: Some(7),
        };
        assert_eq!(
            rewritten(
                "PUT /a HTTP/1.1\r\nHost: a\r\nA: 1\r\nContent-Length: 10\r\n\r\n",
                "",
                &swapped
            ),
            "PUT /b HTTP/1.1\r\nHost: a\r\nA: 11\r\nContent-Length: 7\r\n\r\n"
        );
    }
}

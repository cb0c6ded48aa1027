//! Paths: what selectors and write rules see of a request's target.

use std::cell::OnceCell;

use percent_encoding::percent_decode;

use super::head::Head;

/// A longer segment is no name of a resource.
const LONGEST_NAME: usize = 40;

/// A request's path, once somebody asks for it.
pub(super) struct Path<'a> {
    head: &'a Head<'a>,
    known: OnceCell<String>,
}

impl<'a> Path<'a> {
    pub(super) const fn of(head: &'a Head<'a>) -> Self {
        let known = OnceCell::new();
        Self { head, known }
    }

    pub(super) fn get(&self) -> &str {
        self.known.get_or_init(|| path_of(self.head))
    }
}

/// The path of a request, without its query, in the form in which rules see it: percent-encoding undone, a backslash read as
/// a slash, `;` and what follows it cut from each segment, several slashes made one, `.` and `..` resolved (RFC 3986, section
/// 6.2.2). Servers differ in which of these they do. So `/x/..;y//%61dmin` does not pass where `/admin` would not. Of an
/// absolute target only the path; of `CONNECT` and `*` the target itself.
fn path_of(head: &Head<'_>) -> String {
    let target = head.target();
    let path = match split(target) {
        Some((_, path)) => path,
        None => return String::from_utf8_lossy(target).into_owned(),
    };
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let path = path.get(..end.unwrap_or(path.len())).unwrap_or_default();
    let path: Vec<u8> = percent_decode(path).collect();
    resolve(&String::from_utf8_lossy(&path))
}

/// A target's authority, where it is absolute (RFC 9112, section 3.2.2), and what follows. `None`: it has no path.
pub(super) fn split(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if target.starts_with(b"/") {
        return Some((&[], target));
    }
    let scheme = memchr::memmem::find(target, b"://")?;
    let is_scheme = target.iter().take(scheme).all(u8::is_ascii_alphanumeric);
    if !is_scheme {
        return None;
    }
    let (_, rest) = target.split_at_checked(scheme + 3)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    rest.split_at_checked(end.unwrap_or(rest.len()))
}

fn resolve(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in segments(path) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let is_directory = segments(path).last().is_some_and(is_dots);
    let mut resolved = String::with_capacity(path.len() + 1);
    for part in &parts {
        resolved.push('/');
        resolved.push_str(part);
    }
    if is_directory || parts.is_empty() {
        resolved.push('/');
    }
    resolved
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    let all = path.split(['/', '\\']);
    all.map(|part| part.split_once(';').map_or(part, |(name, _)| name))
}

fn is_dots(part: &str) -> bool {
    matches!(part, "" | "." | "..")
}

/// The name under which a request is counted and judged: its method and path, with `?` for what names a single thing.
pub(super) fn digest(method: &str, path: &str) -> String {
    let mut digest = String::with_capacity(method.len() + path.len() + 1);
    digest.push_str(method);
    digest.push(' ');
    if !path.starts_with('/') {
        digest.push_str(match is_host(path) {
            true => path,
            false => "?",
        });
        return digest;
    }
    for (number, part) in path.split('/').enumerate() {
        if number > 0 {
            digest.push('/');
        }
        match is_value(part) {
            true => digest.push('?'),
            false => digest.push_str(part),
        }
    }
    digest
}

/// The target of `CONNECT`, or `*`.
fn is_host(target: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    target == "*" || target.bytes().all(is_part)
}

/// Whether a segment may name a single thing or person: a number, a UUID, hexadecimal or other codes, what is long, and all
/// that has other characters than names of resources have, such as addresses and Base64.
fn is_value(part: &str) -> bool {
    let count = |is: fn(&u8) -> bool| part.bytes().filter(is).count();
    let digits = count(u8::is_ascii_digit);
    let hex = count(u8::is_ascii_hexdigit);
    let is_number = digits > 0 && digits == part.len();
    let is_uuid = part.len() == 36 && hex == 32 && count(|it| *it == b'-') == 4;
    // Without a digit it may well be a word.
    let is_hash = part.len() >= 16 && hex == part.len() && digits > 0;
    let is_code = part.len() >= 16 && digits >= 3;
    let is_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
    is_number
        || is_uuid
        || is_hash
        || is_code
        || part.len() > LONGEST_NAME
        || !part.bytes().all(is_name)
}

/// Whether a method may change what the server has (RFC 9110, section 9.2.1). Methods are told apart by case: `get` is
/// none that reads.
pub(super) fn writes(head: &Head<'_>) -> bool {
    let reads = matches!(head.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
    // Nobody sees what is said behind an upgrade.
    !reads || head.names_method() || head.asks_for_tunnel() || has_method(head.target())
}

/// Whether the query names another method, as some frameworks read it.
fn has_method(target: &[u8]) -> bool {
    const NAME: &[u8] = b"_method";
    // Most targets have no such character, plain or encoded.
    if memchr::memchr2(b'_', b'%', target).is_none() {
        return false;
    }
    let Some(at) = memchr::memchr(b'?', target) else {
        return false;
    };
    let query = target.get(at + 1..).unwrap_or_default();
    let mut parameters = query.split(|byte| matches!(byte, b'&' | b';' | b'#'));
    parameters.any(|parameter| {
        // Encoded it is longer, and never shorter.
        parameter.len() >= NAME.len() && {
            let name = parameter.split(|byte| *byte == b'=').next();
            let name: Vec<u8> = percent_decode(name.unwrap_or_default()).collect();
            name.trim_ascii().eq_ignore_ascii_case(NAME)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadReader;
    use super::*;

    fn head(line: &str, fields: &str) -> Head<'static> {
        let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        let (_, head) = HeadReader::default().read(text.as_bytes()).unwrap();
        head.unwrap().into_owned()
    }

    #[test]
    fn a_path_is_what_a_server_makes_of_it() {
        for (target, path) in [
            ("/", "/"),
            ("/a/b?c=/d", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/x/..//%61dmin", "/admin"),
            ("/%2e%2e/%2fadmin", "/admin"),
            ("/%ff", "/\u{fffd}"),
            ("http://live:80/a?b", "/a"),
            ("http://live", "/"),
            ("http://live?x=/y", "/"),
            ("*", "*"),
            ("live:443", "live:443"),
            ("/a#/b", "/a"),
            ("/a./b.", "/a./b."),
            ("/x;v=1/y;w/z", "/x/y/z"),
            ("/x/..;y//%61dmin", "/admin"),
            ("/x/..%3by/admin", "/admin"),
            ("/;x/admin", "/admin"),
            ("/a/;x", "/a/"),
            ("/a/..;", "/"),
            ("/x\\..\\admin", "/admin"),
            ("/x/..%5cadmin", "/admin"),
            ("http://live/\\admin;x?y", "/admin"),
        ] {
            assert_eq!(
                path_of(&head(&format!("GET {target}"), "")),
                path,
                "{target}"
            );
        }
    }

    #[test]
    fn digests_have_no_values() {
        for (path, expected) in [
            ("/orders/17/items", "GET /orders/?/items"),
            ("/a/123e4567-e89b-12d3-a456-426614174000", "GET /a/?"),
            ("/blob/deadbeef00112233", "GET /blob/?"),
            ("/v1/a1/facade", "GET /v1/a1/facade"),
            ("*", "GET *"),
            ("live:443", "GET live:443"),
            ("[::1]:443", "GET [::1]:443"),
            ("a@live:443", "GET ?"),
            (
                "/articles/v2/user-profile/index.html",
                "GET /articles/v2/user-profile/index.html",
            ),
            (
                "/.well-known/~ann/a_b-2024",
                "GET /.well-known/~ann/a_b-2024",
            ),
            ("/users/ann@example.org/x", "GET /users/?/x"),
            ("/reset/YW5uQGV4YW1wbGU=", "GET /reset/?"),
            ("/reset/a+b/c d/\u{e4}/x\u{fffd}", "GET /reset/?/?/?/?"),
            ("/reset/q7Xk29Zp4LmNb1Rt", "GET /reset/?"),
            (
                "/reset/eyJhbGciOiJIUzI.eyJzdWIiOiJhbm4ifQ.sdfkjhKJHsdkfjhsdf",
                "GET /reset/?",
            ),
            (
                "/reset/AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjKlMnO",
                "GET /reset/?",
            ),
            ("/a/123e4567-e89b-12d3-a456-42661417400-", "GET /a/?"),
            ("/a/abcdefab-abcd-4bcd-abcd-abcdefabcdef", "GET /a/?"),
            ("/a/", "GET /a/"),
        ] {
            assert_eq!(digest("GET", path), expected);
        }
    }

    #[test]
    fn what_is_not_known_to_read_writes() {
        for (line, fields, expected) in [
            ("GET /", "", false),
            ("HEAD /", "", false),
            ("OPTIONS *", "", false),
            ("get /", "", true),
            ("POST /", "", true),
            ("CONNECT a:1", "", true),
            ("BREW /", "", true),
            ("GET /", "x-http-method-override: DELETE\r\n", true),
            ("GET /", "X_HTTP_METHOD_OVERRIDE: DELETE\r\n", true),
            ("GET /", "X_Http-Method: DELETE\r\n", true),
            ("GET /", "x-method_override: DELETE\r\n", true),
            ("GET /", "X-Http-Methods: DELETE\r\n", false),
            ("GET /?a=b&_method=delete", "", true),
            ("GET http://live?%5fmethod=delete", "", true),
            ("GET /?_METHOD", "", true),
            ("GET /?x_method=delete&method=x", "", false),
            ("GET /_method=x?a=_method", "", false),
            (
                "GET /",
                "Connection: upgrade\r\nUpgrade: websocket\r\n",
                true,
            ),
        ] {
            assert_eq!(writes(&head(line, fields)), expected, "{line} {fields}");
        }
    }
}

//! RESP2, as far as a server needs it that keeps nothing: commands in, fixed answers out.

use memchr::memmem;

use super::dialogue::{Found, Request};

/// More arguments than any client of ours sends, and few enough to refuse nonsense early.
const MOST_ARGUMENTS: usize = 1024;
/// Longer than this in one command is refused: it would have to be kept whole.
const LARGEST_ARGUMENT: usize = 512 * 1024;

pub(super) fn next(input: &[u8], out: &mut Vec<u8>) -> Found {
    let (command, consumed) = match parse(input) {
        Ok(Some(command)) => command,
        Ok(None) => return Found::Partial,
        Err(Malformed) => {
            out.extend_from_slice(b"-ERR Protocol error\r\n");
            return Found::Refused;
        }
    };
    let close = command.eq_ignore_ascii_case(b"QUIT");
    out.extend_from_slice(answer(command));
    Found::Request(Request {
        consumed,
        body: 0,
        close,
    })
}

fn answer(command: &[u8]) -> &'static [u8] {
    if command.eq_ignore_ascii_case(b"PING") {
        b"+PONG\r\n"
    } else if command.eq_ignore_ascii_case(b"GET") {
        b"$-1\r\n"
    } else if command.eq_ignore_ascii_case(b"CONFIG") || command.eq_ignore_ascii_case(b"COMMAND") {
        b"*0\r\n"
    } else {
        b"+OK\r\n"
    }
}

struct Malformed;

/// The first command's name, and its length in bytes; nothing if it is not complete.
fn parse(input: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some((line, mut position)) = line(input, 0)? else {
        return Ok(None);
    };
    let Some(count) = line.strip_prefix(b"*") else {
        let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        return Ok(Some((name, position)));
    };
    let count = number(count, MOST_ARGUMENTS)?;
    let mut name: &[u8] = b"";
    for argument in 0..count {
        let Some((line, start)) = self::line(input, position)? else {
            return Ok(None);
        };
        let length = number(line.strip_prefix(b"$").ok_or(Malformed)?, LARGEST_ARGUMENT)?;
        let Some(text) = input.get(start..start + length + 2) else {
            return Ok(None);
        };
        if argument == 0 {
            name = text.strip_suffix(b"\r\n").ok_or(Malformed)?;
        }
        position = start + length + 2;
    }
    Ok(Some((name, position)))
}

/// The line that starts at `start`, without its end, and where the next one starts.
fn line(input: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    let rest = input.get(start..).unwrap_or_default();
    match memmem::find(rest, b"\r\n") {
        Some(end) => Ok(Some((rest.get(..end).unwrap_or_default(), start + end + 2))),
        None if rest.len() > LARGEST_ARGUMENT => Err(Malformed),
        None => Ok(None),
    }
}

fn number(digits: &[u8], most: usize) -> Result<usize, Malformed> {
    let number: usize = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed)?;
    if number <= most {
        Ok(number)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_commands_are_taken_one_by_one() {
        let input = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$4\r\nQU";
        let mut out = Vec::new();
        let mut rest: &[u8] = input;
        let mut requests = 0;
        while let Found::Request(request) = next(rest, &mut out) {
            requests += 1;
            rest = &rest[request.consumed..];
        }
        assert_eq!(requests, 3);
        assert_eq!(out, b"+PONG\r\n$-1\r\n+PONG\r\n");
        assert_eq!(next(rest, &mut out), Found::Partial);
    }

    #[test]
    fn every_cut_of_a_command_is_partial() {
        let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n";
        for cut in 1..input.len() {
            assert_eq!(
                next(&input[..cut], &mut Vec::new()),
                Found::Partial,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for input in [
            &b"*x\r\n"[..],
            b"*1\r\n+4\r\n",
            b"*1\r\n$-9\r\n",
            b"*99999999999999999999\r\n",
        ] {
            assert_eq!(next(input, &mut Vec::new()), Found::Refused);
        }
    }
}

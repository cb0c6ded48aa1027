//! Which texts are plain: servers read them in one way, whatever their version, `sql_mode` and character set.
//!
//! What reads is told from what writes only in these. Anything else is doubtful, and counts as a write.

use super::tokens::{is_word, number_len};

/// A comment that servers execute, and which does no harm where they do and where they do not. It stands behind `SELECT`.
const HINT: &[u8] = b"/*!40001 SQL_NO_CACHE */";

/// Where the first string, comment or character begins that servers may read in several ways, if one does.
pub(super) fn doubt(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.first()
    {
        let len = match (*first, rest) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => Some(1),
            (b'\'' | b'"' | b'`', _) => quoted_len(rest),
            (b'#', _) => line_len(rest),
            (b'-', [_, b'-', b' ' | b'\t' | b'\n' | b'\r', ..] | [_, b'-']) => line_len(rest),
            (b'/', [_, b'*', ..]) if rest.starts_with(HINT) && follows_select(text, at) => {
                Some(HINT.len())
            }
            (b'/', [_, b'*', ..]) => comment_len(rest),
            (b'0'..=b'9', _) | (b'.', [_, b'0'..=b'9', ..]) => number_len(rest),
            // `\N` is NULL, whatever follows.
            (0..b' ' | b'\\' | 0x7F.., _) => None,
            _ if is_word(*first) => word_len(rest),
            _ => Some(1),
        };
        match len {
            Some(len) => at += len,
            None => return Some(at),
        }
    }
    None
}

fn follows_select(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_ascii_end();
    let last = before.len().checked_sub(6).and_then(|at| before.get(at..));
    last.is_some_and(|word| word.eq_ignore_ascii_case(b"SELECT"))
}

fn word_len(text: &[u8]) -> Option<usize> {
    let len = text.iter().position(|byte| !is_word(*byte));
    let len = len.unwrap_or(text.len());
    let word = text.get(..len)?;
    // Dollars may quote (MySQL 9): `$$ ' $$` is a string.
    let name = word.iter().find(|byte| **byte != b'@');
    (word.is_ascii() && name != Some(&b'$')).then_some(len)
}

/// The length of a string or a quoted name, if it is plain.
fn quoted_len(text: &[u8]) -> Option<usize> {
    let (quote, inside) = text.split_first()?;
    let mut at = 0;
    loop {
        let len = match inside.get(at..)? {
            [] | [0, ..] => return None,
            [a, b, ..] if a == quote && a == b => 2,
            [a, ..] if a == quote => break,
            // `sql_mode` says what a backslash is. gbk, big5 and sjis take a byte with a backslash or a backtick behind it for one
            // character; no character set of clients has other quotes there.
            [b'\\', b'\'' | b'"' | b'`', ..] | [(0x80..), b'\\' | b'`', ..] => return None,
            [b'\\' | b'\'' | b'`', ..] if *quote == b'"' => return None,
            [b'\\', ..] if *quote == b'`' => return None,
            _ => 1,
        };
        at += len;
    }
    let is_executed = has_executed(inside.get(..at)?);
    (!is_executed).then_some(at + 2)
}

/// The length of a comment up to the end of a line.
fn line_len(text: &[u8]) -> Option<usize> {
    let len = text.iter().position(|byte| *byte == b'\n');
    let len = len.unwrap_or(text.len());
    text.get(..len)
        .filter(|text| is_harmless(text))
        .map(<[u8]>::len)
}

/// The length of any other comment.
fn comment_len(text: &[u8]) -> Option<usize> {
    let inside = text.get(2..)?;
    let len = inside.windows(2).position(|it| it == b"*/")?;
    let inside = inside.get(..len)?;
    // Hints for the optimizer have names in them, which may be quoted.
    let is_quoting = |byte: &u8| matches!(byte, b'\'' | b'"' | b'`' | b'\\' | 0x80..);
    let is_hint = inside.starts_with(b"+") && inside.iter().any(is_quoting);
    let is_executed = inside.starts_with(b"!") || inside.starts_with(b"M!");
    (is_harmless(inside) && !is_hint && !is_executed).then_some(len + 4)
}

/// Whether nothing in a comment may end it early.
fn is_harmless(comment: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r');
    !comment.iter().any(is_control) && !has_executed(comment)
}

fn has_executed(text: &[u8]) -> bool {
    let starts = |it: &[u8]| it.starts_with(b"/*!") || it == b"/*M!";
    text.windows(4).any(starts) || text.ends_with(b"/*!")
}

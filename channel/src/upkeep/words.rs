//! What peers say, made fit for an operator.

use millrace_proto::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};

/// The longest text of a peer that is passed on. Characters.
const MAX_TEXT: usize = 400;

/// A peer's text, fit for one line of a log.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

/// Whether a peer's answer is in a version that this side, named as in `this copier`, speaks, too.
pub(crate) fn check_version(version: u32, this: &str) -> Result<(), String> {
    if (OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&version) {
        return Ok(());
    }
    Err(format!(
        "it speaks protocol version {version}, {this} {OLDEST_PROTOCOL_VERSION} to \
         {PROTOCOL_VERSION}: upgrade the older of the two"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\r\nb\x1b[1m"), "a  b [1m");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), MAX_TEXT);
    }

    #[test]
    fn both_ends_of_what_is_spoken_are_named() {
        assert_eq!(check_version(PROTOCOL_VERSION, "this copier"), Ok(()));
        for strange in [OLDEST_PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1] {
            let reason = check_version(strange, "this copier").unwrap_err();
            let begin = format!("it speaks protocol version {strange}, this copier ");
            assert!(reason.starts_with(&begin), "{reason}");
        }
    }
}

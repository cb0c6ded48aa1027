//! Query attributes (`CLIENT_QUERY_ATTRIBUTES`, MySQL 8.0.23), which stand before a statement's text and change how parameters
//! are written: found, and taken out for a target that does not know them.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query.html>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>.

use super::wire::Reader;

/// `PARAMETER_COUNT_AVAILABLE`, of the flags of an EXECUTE.
const HAS_COUNT: u8 = 8;
/// Where the flags stand, and where the number of iterations ends.
const FLAGS: usize = 5;
const FIXED: usize = 10;

/// Whether a `COM_QUERY` has attributes, where it is not known what the client agreed on: a number, and then the number of
/// sets, 1, which stands in no text.
pub(super) fn are_in(payload: &[u8]) -> bool {
    let mut reader = Reader(payload);
    reader.u8().is_some() && reader.lenenc().is_some() && reader.lenenc() == Some(1)
}

/// Where the text of a `COM_QUERY` with attributes begins.
pub(super) fn text_at(payload: &[u8]) -> Option<usize> {
    let mut reader = Reader(payload);
    reader.u8()?;
    let count = reader.lenenc()?;
    reader.lenenc()?;
    if count > 0 {
        skip(&mut reader, count)?;
    }
    Some(payload.len() - reader.0.len())
}

/// Passes over attributes: which are NULL, then types and names, then values.
fn skip(reader: &mut Reader<'_>, count: u64) -> Option<()> {
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= 0xFFFF)?;
    let nulls = reader.bytes(count.div_ceil(8))?;
    // New types are always bound.
    reader.u8()?;
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(reader.u16()?);
        reader.lenenc_bytes()?;
    }
    for (at, kind) in types.into_iter().enumerate() {
        let is_null = nulls
            .get(at / 8)
            .is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        if !is_null {
            skip_value(reader, kind.to_le_bytes()[0])?;
        }
    }
    Some(())
}

/// Passes over a value of the binary protocol
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>).
fn skip_value(reader: &mut Reader<'_>, kind: u8) -> Option<()> {
    let len = match kind {
        0x01 => 1,
        0x02 | 0x0D => 2,
        0x03 | 0x04 | 0x09 => 4,
        0x05 | 0x08 => 8,
        0x06 => 0,
        // Dates and times say their length.
        0x07 | 0x0A..=0x0C => usize::from(reader.u8()?),
        _ => usize::try_from(reader.lenenc()?).ok()?,
    };
    reader.bytes(len).map(|_| ())
}

/// Whether an EXECUTE says how many parameters it has.
pub(super) fn counts(payload: &[u8]) -> bool {
    payload
        .get(FLAGS)
        .is_some_and(|flags| flags & HAS_COUNT != 0)
}

/// An EXECUTE of a statement with so many parameters, as it is without query attributes. `None` if it has some, or is none.
pub(super) fn without(payload: &[u8], parameters: u16) -> Option<Vec<u8>> {
    let mut reader = Reader(payload);
    let mut out = reader.bytes(FIXED)?.to_vec();
    let has_count = counts(payload);
    *out.get_mut(FLAGS)? &= !HAS_COUNT;
    if parameters == 0 && !has_count {
        return Some(out);
    }
    if reader.lenenc()? != u64::from(parameters) {
        return None;
    }
    if parameters == 0 {
        return Some(out);
    }
    out.extend_from_slice(reader.bytes(usize::from(parameters).div_ceil(8))?);
    let are_bound = reader.u8()?;
    out.push(are_bound);
    for _ in 0..if are_bound == 0 { 0 } else { parameters } {
        out.extend_from_slice(reader.bytes(2)?);
        reader.lenenc_bytes()?;
    }
    out.extend_from_slice(reader.0);
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_found_behind_attributes() {
        let none = b"\x03\x00\x01SELECT 1";
        assert!(are_in(none));
        assert_eq!(text_at(none), Some(3));
        // A string "n" = "abc", a NULL and a number.
        let some = b"\x03\x03\x01\x02\x01\xfe\x00\x01n\x06\x00\x01m\x03\x00\x00\x03abc\x01\x02\x03\x04SELECT 1";
        assert!(are_in(some));
        assert_eq!(&some[text_at(some).unwrap()..], b"SELECT 1");
        assert!(!are_in(b"\x03SELECT 1"));
        assert!(!are_in(b"\x03\nSELECT 1"));
    }

    #[test]
    fn executes_lose_what_the_target_does_not_know() {
        let with = b"\x17\x01\0\0\0\x08\x01\0\0\0\x01\x00\x01\x03\x00\x00\x2a\0\0\0";
        let bare = b"\x17\x01\0\0\0\x00\x01\0\0\0\x00\x01\x03\x00\x2a\0\0\0";
        assert_eq!(without(with, 1).as_deref(), Some(&bare[..]));
        assert_eq!(without(with, 2), None);
        let bound = b"\x17\x01\0\0\0\x08\x01\0\0\0\x01\x00\x00\x2a\0\0\0";
        let kept = b"\x17\x01\0\0\0\x00\x01\0\0\0\x00\x00\x2a\0\0\0";
        assert_eq!(without(bound, 1).as_deref(), Some(&kept[..]));
        let no_parameters = b"\x17\x01\0\0\0\x08\x01\0\0\0\x00";
        assert_eq!(
            without(no_parameters, 0).as_deref(),
            Some(&b"\x17\x01\0\0\0\x00\x01\0\0\0"[..])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_do(bytes in prop::collection::vec(any::<u8>(), 0..60), parameters in 0u16..9) {
            are_in(&bytes);
            prop_assert!(text_at(&bytes).is_none_or(|at| at <= bytes.len()));
            without(&bytes, parameters);
        }
    }
}

//! Answers of all shapes, in all pieces.

use proptest::prelude::*;

use super::*;
use crate::mysql::packets::packet;

/// Packets of a server, numbered as it does.
pub(in crate::mysql) fn said(payloads: &[&[u8]]) -> Vec<u8> {
    let numbered = (1..).zip(payloads);
    numbered
        .flat_map(|(number, it)| packet(number, it))
        .collect()
}

const OK_PACKET: &[u8] = b"\x00\x01\x00\x02\x00\x00\x00";
const OK_MORE: &[u8] = b"\x00\x01\x00\x0a\x00\x00\x00";
const ERROR: &[u8] = b"\xff\x7a\x04#42S02no such table";
const EOF: &[u8] = b"\xfe\x00\x00\x02\x00";
const EOF_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00";
const EOF_CURSOR: &[u8] = b"\xfe\x00\x00\x42\x00";
const END_OK: &[u8] = b"\xfe\x00\x00\x02\x00\x00\x00";
const COLUMN: &[u8] =
    b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00";
const ROW: &[u8] = b"\x011\xfb";

fn over(error: Option<u16>) -> Event {
    Event::Over { error }
}

/// What is heard of answers of these shapes, in pieces of such a length.
fn heard(shapes: &[Shape], eofs: Eofs, stream: &[u8], piece: usize) -> Result<Vec<Event>, Failure> {
    let mut answers = Answers::default();
    answers.set_eofs(eofs);
    let (mut shapes, mut events) = (shapes.iter(), Vec::new());
    for mut bytes in stream.chunks(piece) {
        loop {
            if answers.is_idle()
                && let Some(shape) = shapes.next()
            {
                answers.begin(*shape);
            }
            match answers.hear(&mut bytes)? {
                Some(event) => events.push(event),
                None => break,
            }
        }
    }
    assert!(answers.held.capacity() <= 2 * MOST_HELD);
    Ok(events)
}

/// The same in any pieces.
fn check(shapes: &[Shape], eofs: Eofs, payloads: &[&[u8]], expected: &[Event]) {
    let stream = said(payloads);
    for piece in 1..=stream.len() {
        let events = heard(shapes, eofs, &stream, piece).unwrap();
        assert_eq!(events, expected, "{shapes:?} {eofs:?} in pieces of {piece}");
    }
}

#[test]
fn answers_end_where_servers_end_them() {
    use Eofs::*;
    let usual = &[Shape::Usual];
    check(usual, Sent, &[OK_PACKET], &[over(None)]);
    check(usual, Sent, &[ERROR], &[over(Some(1146))]);
    check(usual, Sent, &[OK_MORE, OK_MORE, ERROR], &[over(Some(1146))]);
    check(
        usual,
        Sent,
        &[b"\x01", COLUMN, EOF, ROW, ROW, EOF],
        &[over(None)],
    );
    check(
        usual,
        Sent,
        &[b"\x01", COLUMN, EOF, ROW, EOF_MORE, OK_PACKET],
        &[over(None)],
    );
    check(
        usual,
        Sent,
        &[b"\x01", COLUMN, EOF, ROW, ERROR],
        &[over(Some(1146))],
    );
    check(
        usual,
        Deprecated,
        &[b"\x02", COLUMN, COLUMN, ROW, END_OK],
        &[over(None)],
    );
    check(usual, Deprecated, &[b"\x01", COLUMN, END_OK], &[over(None)]);
    // With a cursor there are no rows.
    check(usual, Sent, &[b"\x01", COLUMN, EOF_CURSOR], &[over(None)]);
    // MariaDB leaves definitions out that the client has.
    check(usual, Sent, &[b"\x01\x00", EOF, ROW, EOF], &[over(None)]);
    check(
        usual,
        Deprecated,
        &[b"\x01\x00", ROW, END_OK],
        &[over(None)],
    );
    check(
        usual,
        Deprecated,
        &[b"\x01\x01", COLUMN, ROW, END_OK],
        &[over(None)],
    );
    // It says how far it is.
    check(
        usual,
        Sent,
        &[b"\xff\xff\xff\x01\x01\x02", OK_PACKET],
        &[over(None)],
    );
    check(&[Shape::Fetch], Sent, &[ROW, ROW, EOF], &[over(None)]);
    check(&[Shape::Fetch], Sent, &[ERROR], &[over(Some(1146))]);
    check(
        &[Shape::Fields],
        Sent,
        &[COLUMN, COLUMN, EOF],
        &[over(None)],
    );
    check(&[Shape::Text], Sent, &[b"Uptime: 1"], &[over(None)]);
    let file = Event::File { number: 1 };
    check(usual, Sent, &[b"\xfbname", OK_PACKET], &[file, over(None)]);
}

#[test]
fn prepared_statements_are_over_with_their_definitions() {
    let (id, parameters) = (0x0102_0304, 2);
    let prepared = [Event::Prepared { id, parameters }, over(None)];
    let ok = b"\x00\x04\x03\x02\x01\x01\x00\x02\x00\x00\x00\x00";
    let it = &[Shape::Prepare];
    check(
        it,
        Eofs::Sent,
        &[ok, COLUMN, COLUMN, EOF, COLUMN, EOF],
        &prepared,
    );
    check(
        it,
        Eofs::Deprecated,
        &[ok, COLUMN, COLUMN, COLUMN],
        &prepared,
    );
    check(it, Eofs::Sent, &[ERROR], &[over(Some(1146))]);
    let bare = b"\x00\x04\x03\x02\x01\x00\x00\x00\x00\x00\x00\x00";
    let event = Event::Prepared { id, parameters: 0 };
    check(it, Eofs::Sent, &[bare], &[event, over(None)]);
}

#[test]
fn whether_definitions_end_with_packets_is_learned() {
    let (id, parameters) = (0x0102_0304, 2);
    let ok: &[u8] = b"\x00\x04\x03\x02\x01\x01\x00\x02\x00\x00\x00\x00";
    let all = [Event::Prepared { id, parameters }, over(None), over(None)];
    for payloads in [
        &[ok, COLUMN, COLUMN, EOF, COLUMN, EOF][..],
        &[ok, COLUMN, COLUMN, COLUMN],
    ] {
        let stream = [said(payloads), said(&[OK_PACKET])].concat();
        let shapes = [Shape::Prepare, Shape::Usual];
        for piece in 1..=stream.len() {
            assert_eq!(heard(&shapes, Eofs::Unknown, &stream, piece).unwrap(), all);
        }
    }
    let rows = [
        said(&[b"\x01", COLUMN, ROW, END_OK]),
        said(&[b"\x01", COLUMN, END_OK]),
    ]
    .concat();
    let twice = [Shape::Usual, Shape::Usual];
    assert_eq!(heard(&twice, Eofs::Unknown, &rows, 5).unwrap(), all[1..]);
}

#[test]
fn a_row_with_a_very_long_value_ends_nothing() {
    let mut row = vec![0xFE, 0, 0, 0, 1, 0, 0, 0, 0];
    row.resize(LONGEST as usize, b'x');
    let long = [packet(4, &row), packet(5, b"xxx")].concat();
    let stream = [said(&[b"\x01", COLUMN, EOF]), long, packet(6, EOF)].concat();
    let events = heard(&[Shape::Usual], Eofs::Sent, &stream, 16 << 10).unwrap();
    assert_eq!(events, [over(None)]);
}

#[test]
fn what_nobody_asked_for_is_no_answer() {
    assert!(heard(&[], Eofs::Sent, &said(&[OK_PACKET]), 9).is_err());
    assert!(heard(&[Shape::Usual], Eofs::Sent, &said(&[b""]), 9).is_err());
    assert!(heard(&[Shape::Login], Eofs::Sent, &said(&[&[1; 20_000]]), 9).is_err());
}

proptest! {
    /// Nothing panics, and nothing is held that was not asked for, whatever a server says.
    #[test]
    fn any_bytes_do(
        stream in prop::collection::vec(prop_oneof![0u8..4, any::<u8>(), 0xFAu8..], 0..400),
        shape in prop::sample::select(vec![
            Shape::Greeting, Shape::Login, Shape::Usual, Shape::Prepare, Shape::Fetch, Shape::Text,
        ]),
        piece in 1usize..50,
    ) {
        let whole = heard(&[shape; 9], Eofs::Unknown, &stream, 1000);
        let cut = heard(&[shape; 9], Eofs::Unknown, &stream, piece);
        prop_assert_eq!(whole, cut);
    }
}

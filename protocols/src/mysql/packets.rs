//! Packets: 3 bytes of length, a sequence number, and the payload; one of 16 MiB - 1 is continued by the next
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>).
//!
//! Nothing of a payload is held here: it goes on in the pieces in which it came.

/// The longest payload of one packet, which another one continues.
pub(super) const LONGEST: u32 = 0xFF_FFFF;

/// A part of a stream of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A packet begins.
    Head(Head),
    /// A piece of its payload. An empty one, if any, is the last.
    Body {
        /// The next bytes.
        bytes: &'a [u8],
        /// The message ends with them: no packet continues it.
        is_last: bool,
    },
}

/// How a packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its sequence number.
    pub(super) number: u8,
    /// The length of its payload.
    pub(super) len: u32,
    /// It continues the message of the packet before.
    pub(super) continues: bool,
}

impl Head {
    /// As it stands on the wire.
    pub(super) fn encode(self) -> [u8; 4] {
        let [a, b, c, _] = self.len.to_le_bytes();
        [a, b, c, self.number]
    }
}

/// Finds the packets in a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packets {
    head: [u8; 4],
    /// So many bytes of the head are there.
    has: u8,
    /// So many bytes of the payload are still to come.
    left: u32,
    /// The head was given, and not all of the payload.
    is_within: bool,
    /// The next packet continues a message.
    continues: bool,
}

impl Packets {
    /// Whether a message is not over, or a head not complete.
    pub(super) const fn is_within(&self) -> bool {
        self.is_within || self.continues || self.has > 0
    }

    /// The next part, taken from the front of the bytes; `None` once they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if self.is_within {
            return self.body(bytes);
        }
        while let Some(place) = self.head.get_mut(usize::from(self.has)) {
            let (first, rest) = bytes.split_first()?;
            (*place, *bytes) = (*first, rest);
            self.has += 1;
        }
        let [a, b, c, number] = self.head;
        let head = Head {
            number,
            len: u32::from_le_bytes([a, b, c, 0]),
            continues: self.continues,
        };
        (self.has, self.left, self.is_within) = (0, head.len, true);
        self.continues = head.len == LONGEST;
        Some(Part::Head(head))
    }

    fn body<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if bytes.is_empty() && self.left > 0 {
            return None;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = most.min(bytes.len());
        let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
        *bytes = rest;
        // No more than `left`, which is 24 bits wide.
        self.left -= len as u32;
        self.is_within = self.left > 0;
        Some(Part::Body {
            bytes: now,
            is_last: !self.is_within && !self.continues,
        })
    }
}

/// A packet with a short payload.
pub(super) fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        number,
        // What this module makes itself is far shorter.
        len: payload.len() as u32,
        continues: false,
    };
    [&head.encode()[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages in a stream that comes in pieces, each with the number of its last packet.
    fn messages(stream: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
        let (mut packets, mut out) = (Packets::default(), Vec::new());
        let (mut number, mut message) = (0, Vec::new());
        for mut bytes in stream.chunks(piece) {
            while let Some(part) = packets.next(&mut bytes) {
                match part {
                    Part::Head(head) => number = head.number,
                    Part::Body { bytes, is_last } => {
                        message.extend_from_slice(bytes);
                        if is_last {
                            out.push((number, std::mem::take(&mut message)));
                        }
                    }
                }
            }
        }
        assert!(!packets.is_within());
        out
    }

    #[test]
    fn messages_are_the_same_in_whatever_pieces_they_come() {
        let stream = [packet(0, b"abc"), packet(1, b""), packet(2, &[7; 300])].concat();
        let expected = vec![(0, b"abc".to_vec()), (1, Vec::new()), (2, vec![7; 300])];
        for piece in 1..stream.len() {
            assert_eq!(messages(&stream, piece), expected);
        }
    }

    #[test]
    fn a_packet_of_sixteen_megabytes_is_continued_even_by_an_empty_one() {
        let long = vec![1; LONGEST as usize];
        let stream = [packet(0, &long), packet(1, b""), packet(0, b"x")].concat();
        let all = messages(&stream, 16 << 10);
        assert_eq!(all, vec![(1, long), (0, b"x".to_vec())]);
    }
}

//! Packets of one flow in a row as one: the super-segment that a kernel or a network card cuts into the same packets again.
//!
//! The rules are those of the Linux kernel's `tcp_gso_segment` and `inet_gso_segment`, read backwards: packets may go as one
//! when cutting gives their bytes again. All but the last have the same length; PSH and FIN are of the last alone; the
//! headers are equal in all that cutting does not count up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::field::{array_at, put, u8_at, u16_at, u32_at};
use crate::{ipv4, ipv6, tcp};

/// The longest IP packet, and the longest payload of an IPv6 header.
const LONGEST: usize = 65_535;
/// Where a TCP header has its checksum.
pub const CHECKSUM_AT: usize = 16;
/// Of a TCP header: sequence number, the data offset, flags.
const SEQ_AT: usize = 4;
const OFFSET_AT: usize = 12;
const FLAGS_AT: usize = 13;

/// Packets that can go as one, without a copy of any. Knows the first packet's headers and how it went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Length of the IP header.
    ip: usize,
    /// Length of the IP header and the TCP header.
    headers: usize,
    /// Payload of each packet but the last.
    segment: usize,
    /// Payload of all of them.
    payload: usize,
    packets: usize,
    /// Where the next packet has to begin.
    next_seq: u32,
    /// Of the last packet's header.
    id: u16,
    flags: u8,
    /// A packet that only the last can be was added.
    is_complete: bool,
}

impl Train {
    /// A train of one packet, which begins with its IP header: TCP with a payload and no flags but ACK, PSH and FIN, in IPv4
    /// without options or IPv6 without extension headers. `None` for any other, which goes alone.
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let (ip, length) = match u8_at(packet, 0)? {
            0x45 => (ipv4::HEADER, usize::from(u16_at(packet, 2)?)),
            first if first >> 4 == 6 => {
                let payload = usize::from(u16_at(packet, 4)?);
                (ipv6::HEADER, ipv6::HEADER + payload)
            }
            _ => return None,
        };
        let protocol = match ip {
            // Whole packets alone: no fragments.
            ipv4::HEADER if u16_at(packet, 6)? & 0x3fff == 0 => u8_at(packet, 9)?,
            ipv4::HEADER => return None,
            _ => u8_at(packet, 6)?,
        };
        let flags = u8_at(packet, ip + FLAGS_AT)?;
        let headers = ip + usize::from(u8_at(packet, ip + OFFSET_AT)? >> 4) * 4;
        let segment = packet.len().checked_sub(headers)?;
        let plain = flags & !(tcp::Flags::PSH.0 | tcp::Flags::FIN.0) == tcp::Flags::ACK.0;
        let fits = length == packet.len() && headers >= ip + tcp::HEADER;
        (protocol == tcp::PROTOCOL && plain && fits && segment > 0).then_some(())?;
        Some(Self {
            ip,
            headers,
            segment,
            payload: segment,
            packets: 1,
            next_seq: u32_at(packet, ip + SEQ_AT)?.wrapping_add(u32::try_from(segment).ok()?),
            id: u16_at(packet, 4)?,
            flags,
            is_complete: flags != tcp::Flags::ACK.0,
        })
    }

    /// Adds the packet that follows, if it can go with the others. `first` is the packet that the train began with.
    pub fn add(&mut self, first: &[u8], next: &[u8]) -> bool {
        let Some(other) = Self::begin(next).filter(|other| self.takes(first, next, other)) else {
            return false;
        };
        self.payload += other.segment;
        self.packets += 1;
        self.next_seq = other.next_seq;
        (self.id, self.flags) = (other.id, other.flags);
        self.is_complete = other.is_complete || other.segment < self.segment;
        true
    }

    fn takes(&self, first: &[u8], next: &[u8], other: &Self) -> bool {
        let seq = u32_at(next, self.ip + SEQ_AT);
        let longest = match self.ip {
            ipv4::HEADER => LONGEST,
            _ => LONGEST + ipv6::HEADER,
        };
        let follows = !self.is_complete
            && (self.ip, self.headers) == (other.ip, other.headers)
            && other.segment <= self.segment
            && seq == Some(self.next_seq)
            && self.headers + self.payload + other.segment <= longest
            // Cutting counts the identification up (of IPv6 this is the length of the payload, which may differ).
            && (self.ip != ipv4::HEADER || other.id == self.id.wrapping_add(1));
        follows && self.constant(first) == self.constant(next)
    }

    /// What all packets have the same: addresses, ports, all of the rest but lengths, identification, checksums, sequence
    /// number and flags.
    fn constant<'a>(&self, packet: &'a [u8]) -> [&'a [u8]; 7] {
        let tcp = self.ip;
        let ip = match tcp {
            ipv4::HEADER => [0..2, 6..10, 12..20],
            _ => [0..4, 6..8, 8..40],
        };
        let [a, b, c] = ip;
        let ports = tcp..tcp + SEQ_AT;
        let acknowledgement = tcp + SEQ_AT + 4..tcp + FLAGS_AT;
        let window = tcp + FLAGS_AT + 1..tcp + CHECKSUM_AT;
        let options = tcp + CHECKSUM_AT + 2..self.headers;
        let rest = [a, b, c, ports, acknowledgement, window, options];
        rest.map(|part| packet.get(part).unwrap_or_default())
    }

    /// How many packets they are.
    pub const fn packets(&self) -> usize {
        self.packets
    }

    /// Length of the IP header, in bytes.
    pub const fn ip_header(&self) -> usize {
        self.ip
    }

    /// Length of IP and TCP header of each packet, in bytes: of all but the first only what follows is needed.
    pub const fn headers(&self) -> usize {
        self.headers
    }

    /// Payload of each packet but the last, in bytes.
    pub const fn segment(&self) -> usize {
        self.segment
    }

    /// Makes the first packet's headers those of the super-segment. Of its TCP checksum there is only the pseudo-header,
    /// not complemented: the rest of the sum is for whoever cuts.
    pub fn join(&self, first: &mut [u8]) -> Option<()> {
        let sum = self.write(first, self.payload, self.flags)?;
        put(first, self.ip + CHECKSUM_AT, (!sum.finish()).to_be_bytes())
    }

    /// Makes the first packet what it was before [`Train::join`].
    pub fn part(&self, first: &mut [u8]) -> Option<()> {
        // Flags of the last are on no other.
        let flags = match self.packets {
            1 => self.flags,
            _ => tcp::Flags::ACK.0,
        };
        let sum = self.write(first, self.segment, flags)?;
        put(first, self.ip + CHECKSUM_AT, [0; 2])?;
        let segment = first.get(self.ip..self.headers + self.segment)?;
        let sum = sum.with(segment).finish();
        put(first, self.ip + CHECKSUM_AT, sum.to_be_bytes())
    }

    /// Writes what the length of the payload decides, and the flags; gives the sum of the pseudo-header.
    fn write(&self, first: &mut [u8], payload: usize, flags: u8) -> Option<Sum> {
        let tcp_len = u32::try_from(self.headers - self.ip + payload).ok()?;
        let (source, destination): (IpAddr, IpAddr) = if self.ip == ipv4::HEADER {
            let total = u16::try_from(self.headers + payload).ok()?;
            put(first, 2, total.to_be_bytes())?;
            put(first, 10, [0; 2])?;
            let sum = Sum::default().with(first.get(..self.ip)?).finish();
            put(first, 10, sum.to_be_bytes())?;
            let of = |at| Some(Ipv4Addr::from(array_at::<4>(first, at)?));
            (of(12)?.into(), of(16)?.into())
        } else {
            let length = u16::try_from(tcp_len).ok()?;
            put(first, 4, length.to_be_bytes())?;
            let of = |at| Some(Ipv6Addr::from(array_at::<16>(first, at)?));
            (of(8)?.into(), of(24)?.into())
        };
        put(first, self.ip + FLAGS_AT, [flags])?;
        Some(Sum::default().with_pseudo_header(source, destination, tcp_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, Flags, FourTuple, PacketBuilder, Seq, TcpHeader, TcpOptions};
    use proptest::prelude::*;

    fn tuple(v6: bool) -> FourTuple {
        let ip = |last: u8| -> IpAddr {
            if v6 {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)).into()
            } else {
                Ipv4Addr::new(198, 18, 0, last).into()
            }
        };
        FourTuple::new(Endpoint::new(ip(1), 40_000), Endpoint::new(ip(2), 80))
    }

    fn header(seq: u32, flags: u8) -> TcpHeader {
        TcpHeader {
            seq: Seq(seq),
            ack: Seq(77),
            flags: Flags(flags),
            window: 501,
            urgent: 0,
            options: TcpOptions {
                timestamps: Some((1, 2)),
                ..TcpOptions::default()
            },
        }
    }

    const ACK: u8 = Flags::ACK.0;
    const PSH: u8 = Flags::ACK.0 | Flags::PSH.0;
    const FIN: u8 = Flags::ACK.0 | Flags::FIN.0;

    /// Packets in a row, of these lengths and flags, that begin near the end of the sequence numbers.
    fn packets(v6: bool, parts: &[(usize, u8)]) -> Vec<Vec<u8>> {
        let (mut builder, mut seq) = (PacketBuilder::new(), u32::MAX - 1_000);
        let mut one = |(length, flags): &(usize, u8)| {
            let payload: Vec<u8> = (0..*length).map(|at| (at + seq as usize) as u8).collect();
            let mut out = vec![0; 70_000];
            let header = header(seq, *flags);
            let built = builder.build(&tuple(v6), &header, [&payload[..]], &mut out);
            out.truncate(built.unwrap());
            seq = seq.wrapping_add(u32::try_from(*length).unwrap());
            out
        };
        parts.iter().map(&mut one).collect()
    }

    /// The train of the first packets, as many as go together.
    fn train(packets: &[Vec<u8>]) -> Train {
        let (first, rest) = packets.split_first().unwrap();
        let mut train = Train::begin(first).unwrap();
        let _ = rest.iter().all(|next| train.add(first, next));
        train
    }

    /// As `tcp_gso_segment` and `inet_gso_segment` do it.
    fn cut(train: &Train, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut whole = packets[0].clone();
        for packet in &packets[1..train.packets()] {
            whole.extend_from_slice(&packet[train.headers()..]);
        }
        train.join(&mut whole).unwrap();
        let (ip, headers) = (train.ip_header(), train.headers());
        let (before, payload) = whole.split_at(headers);
        let pieces: Vec<&[u8]> = payload.chunks(train.segment()).collect();
        let pseudo = !u16::from_be_bytes([before[ip + 16], before[ip + 17]]);
        let all = u16::try_from(whole.len() - ip).unwrap();
        let cut_one = |(index, piece): (usize, &&[u8])| {
            let mut one = [before, piece].concat();
            let length = u16::try_from(one.len()).unwrap();
            let seq = u32_at(before, ip + 4).unwrap();
            let seq = seq.wrapping_add(u32::try_from(index * train.segment()).unwrap());
            put(&mut one, ip + 4, seq.to_be_bytes()).unwrap();
            if index + 1 < pieces.len() {
                one[ip + 13] &= !(Flags::PSH.0 | Flags::FIN.0);
            }
            if ip == 20 {
                let id = u16_at(before, 4).unwrap() + u16::try_from(index).unwrap();
                put(&mut one, 2, length.to_be_bytes()).unwrap();
                put(&mut one, 4, id.to_be_bytes()).unwrap();
                put(&mut one, 10, [0; 2]).unwrap();
                let sum = Sum::default().with(&one[..20]).finish();
                put(&mut one, 10, sum.to_be_bytes()).unwrap();
            } else {
                put(&mut one, 4, (length - 40).to_be_bytes()).unwrap();
            }
            // The pseudo-header's sum, with the length of this one in place of that of all.
            let tcp_len = length - u16::try_from(ip).unwrap();
            put(&mut one, ip + 16, [0; 2]).unwrap();
            let sum = Sum::default()
                .with(&(!pseudo).to_be_bytes())
                .with(&(!all).to_be_bytes())
                .with(&tcp_len.to_be_bytes())
                .with(&[0; 2])
                .with(&one[ip..]);
            put(&mut one, ip + 16, sum.finish().to_be_bytes()).unwrap();
            one
        };
        pieces.iter().enumerate().map(cut_one).collect()
    }

    #[test]
    fn cut_again_they_are_the_same_bytes() {
        for v6 in [false, true] {
            for last in [(700, PSH), (1_448, FIN), (1, ACK)] {
                let packets = packets(v6, &[(1_448, ACK), (1_448, ACK), (1_448, ACK), last]);
                let train = train(&packets);
                assert_eq!(train.packets(), 4);
                assert_eq!(cut(&train, &packets), packets);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_together_is_cut_into_the_same_bytes(
            v6: bool,
            parts in proptest::collection::vec(
                (prop_oneof![Just(1_000_usize), 1..1_400_usize], prop_oneof![4 => Just(ACK), 1 => Just(PSH), 1 => Just(FIN)]),
                1..60,
            ),
        ) {
            let packets = packets(v6, &parts);
            let train = train(&packets);
            prop_assert_eq!(&cut(&train, &packets)[..], &packets[..train.packets()]);
            let mut first = packets[0].clone();
            train.join(&mut first).unwrap();
            train.part(&mut first).unwrap();
            prop_assert_eq!(&first, &packets[0]);
        }

        #[test]
        fn any_bytes_are_looked_at_safely(first: Vec<u8>, next: Vec<u8>) {
            let mut first = first;
            if let Some(mut train) = Train::begin(&first) {
                train.add(&first, &next);
                let _ = train.join(&mut first);
                let _ = train.part(&mut first);
            }
        }

        #[test]
        fn a_changed_header_goes_alone_or_comes_out_as_it_was(v6: bool, at in 0..80_usize, value: u8) {
            let mut packets = packets(v6, &[(1_000, ACK), (1_000, PSH)]);
            packets[1][at] = value;
            let train = train(&packets);
            // What was changed is lost nowhere: it goes alone, or is what cutting gives again (but for checksums, which are mended).
            if train.packets() == 2 {
                let mut cut = cut(&train, &packets).pop().unwrap();
                let ip = train.ip_header();
                for sum in [10..12, ip + 16..ip + 18] {
                    if sum.start > 10 || !v6 {
                        cut[sum.clone()].copy_from_slice(&packets[1][sum]);
                    }
                }
                prop_assert_eq!(&cut, &packets[1]);
            }
        }
    }

    #[test]
    fn the_last_is_the_last() {
        for parts in [
            &[(900, ACK), (901, ACK)][..],
            &[(900, PSH), (900, ACK)],
            &[(900, FIN), (900, ACK)],
            &[(900, ACK), (0, ACK)],
            &[(900, ACK), (900, ACK | Flags::URG.0)],
            &[(900, ACK), (900, Flags::RST.0)],
        ] {
            assert_eq!(train(&packets(false, parts)).packets(), 1, "{parts:?}");
        }
        let after_a_short_one = [(900, ACK), (899, ACK), (899, ACK)];
        assert_eq!(train(&packets(false, &after_a_short_one)).packets(), 2);
        assert!(Train::begin(&packets(false, &[(0, ACK)])[0]).is_none());
        assert!(Train::begin(&packets(false, &[(9, ACK | Flags::SYN.0)])[0]).is_none());
    }

    #[test]
    fn it_is_no_longer_than_a_packet_can_be() {
        for v6 in [false, true] {
            let packets = packets(v6, &[(1_448, ACK); 60]);
            let train = train(&packets);
            assert_eq!(train.packets(), 45, "45 * 1,448 bytes and the headers");
            assert_eq!(cut(&train, &packets)[..], packets[..45]);
        }
    }
}

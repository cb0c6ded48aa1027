//! Builds complete IP packets that carry one TCP segment.

use std::net::IpAddr;

use thiserror::Error;

use crate::checksum::Sum;
use crate::endpoint::FourTuple;
use crate::field::put;
use crate::tcp::{self, MAX_OPTIONS, TcpHeader};
use crate::{ipv4, ipv6};

/// Time to live, or hop limit, of built packets (the default that RFC 1700 and Linux use).
const TTL: u8 = 64;

/// Why a packet could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The buffer is too small for the packet.
    #[error("the packet does not fit its buffer")]
    NoRoom,
    /// The packet would be longer than its length field can say.
    #[error("the packet is longer than 65,535 bytes")]
    TooLong,
    /// One end is IPv4, the other IPv6.
    #[error("source and destination are of different address families")]
    MixedFamilies,
}

/// Length of IP and TCP header without options for a packet to or from `ip`, in bytes.
pub const fn headers_len(ip: &IpAddr) -> usize {
    match ip {
        IpAddr::V4(_) => ipv4::HEADER + tcp::HEADER,
        IpAddr::V6(_) => ipv6::HEADER + tcp::HEADER,
    }
}

/// Builds packets; counts up the IPv4 identification.
#[derive(Default)]
pub struct PacketBuilder {
    id: u16,
}

impl PacketBuilder {
    /// A builder whose first IPv4 identification is 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes one packet into `out` and gives its length in bytes. The payload comes in pieces
    /// because a stream keeps its bytes in blocks; any of them may be empty.
    ///
    /// # Errors
    /// A [`BuildError`]; `out` may then have been partly written.
    pub fn build<const N: usize>(
        &mut self,
        tuple: &FourTuple,
        header: &TcpHeader,
        payload: [&[u8]; N],
        out: &mut [u8],
    ) -> Result<usize, BuildError> {
        let mut options = [0; MAX_OPTIONS];
        let options_len = header.options.emit(&mut options);
        let payload_len: usize = payload.iter().map(|piece| piece.len()).sum();
        let tcp_len = tcp::HEADER + options_len + payload_len;
        let ip_len = match tuple.source.ip {
            IpAddr::V4(_) => ipv4::HEADER,
            IpAddr::V6(_) => ipv6::HEADER,
        };
        let total = ip_len + tcp_len;
        let packet = out.get_mut(..total).ok_or(BuildError::NoRoom)?;
        self.ip_header(tuple, tcp_len, packet)?;

        let segment = packet.get_mut(ip_len..).ok_or(BuildError::NoRoom)?;
        let body = tcp::HEADER + options_len;
        write_tcp(
            segment,
            tuple,
            header,
            options.get(..options_len).unwrap_or(&[]),
        )
        .ok_or(BuildError::NoRoom)?;
        let mut room = segment.get_mut(body..).ok_or(BuildError::NoRoom)?;
        for piece in payload {
            let (here, rest) = room
                .split_at_mut_checked(piece.len())
                .ok_or(BuildError::NoRoom)?;
            here.copy_from_slice(piece);
            room = rest;
        }

        // The length fits 32 bits: `ip_header` has refused longer packets.
        let sum = Sum::default()
            .with_pseudo_header(tuple.source.ip, tuple.destination.ip, tcp_len as u32)
            .with(segment)
            .finish();
        put(segment, 16, sum.to_be_bytes()).ok_or(BuildError::NoRoom)?;
        Ok(total)
    }

    fn ip_header(
        &mut self,
        tuple: &FourTuple,
        tcp_len: usize,
        out: &mut [u8],
    ) -> Result<(), BuildError> {
        match (tuple.source.ip, tuple.destination.ip) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total =
                    u16::try_from(ipv4::HEADER + tcp_len).map_err(|_| BuildError::TooLong)?;
                // Never 0: Linux would fill it in on one way of sending and not on the other.
                self.id = self.id.wrapping_add(1).max(1);
                let [len_high, len_low] = total.to_be_bytes();
                let [id_high, id_low] = self.id.to_be_bytes();
                let head = [
                    0x45,
                    0,
                    len_high,
                    len_low,
                    id_high,
                    id_low,
                    0,
                    0,
                    TTL,
                    tcp::PROTOCOL,
                    0,
                    0,
                ];
                let sum = Sum::default()
                    .with(&head)
                    .with(&source.octets())
                    .with(&destination.octets())
                    .finish();
                put(out, 0, head)
                    .and_then(|()| put(out, 10, sum.to_be_bytes()))
                    .and_then(|()| put(out, 12, source.octets()))
                    .and_then(|()| put(out, 16, destination.octets()))
                    .ok_or(BuildError::NoRoom)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(tcp_len).map_err(|_| BuildError::TooLong)?;
                let [len_high, len_low] = length.to_be_bytes();
                put(
                    out,
                    0,
                    [0x60, 0, 0, 0, len_high, len_low, tcp::PROTOCOL, TTL],
                )
                .and_then(|()| put(out, 8, source.octets()))
                .and_then(|()| put(out, 24, destination.octets()))
                .ok_or(BuildError::NoRoom)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(BuildError::MixedFamilies)
            }
        }
    }
}

/// Writes the TCP header with a checksum of 0.
fn write_tcp(out: &mut [u8], tuple: &FourTuple, header: &TcpHeader, options: &[u8]) -> Option<()> {
    put(out, 0, tuple.source.port.to_be_bytes())?;
    put(out, 2, tuple.destination.port.to_be_bytes())?;
    put(out, 4, header.seq.0.to_be_bytes())?;
    put(out, 8, header.ack.0.to_be_bytes())?;
    // At most 15 words: options are at most 40 bytes.
    put(
        out,
        12,
        [
            (((tcp::HEADER + options.len()) / 4) << 4) as u8,
            header.flags.0,
        ],
    )?;
    put(out, 14, header.window.to_be_bytes())?;
    put(out, 16, [0, 0])?;
    put(out, 18, header.urgent.to_be_bytes())?;
    out.get_mut(tcp::HEADER..tcp::HEADER + options.len())?
        .copy_from_slice(options);
    Some(())
}

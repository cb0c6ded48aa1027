//! Total big-endian reading, and the one layout of a pair of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{DecodeError, MixedFamilies};

/// What is left of the packed bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    /// So many bytes, as they are.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let split = self.0.split_at_checked(count);
        let (bytes, rest) = split.ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    fn address(&mut self, family: Family) -> Result<SocketAddr, DecodeError> {
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(self.take::<4>()?)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    /// `target ip, target port, client ip, client port`.
    pub(crate) fn pair(&mut self, family: Family) -> Result<(SocketAddr, SocketAddr), DecodeError> {
        Ok((self.address(family)?, self.address(family)?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of a flow.
    pub(crate) fn of(target: SocketAddr, client: SocketAddr) -> Result<Family, MixedFamilies> {
        match (target, client) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => Ok(Family::V4),
            (SocketAddr::V6(_), SocketAddr::V6(_)) => Ok(Family::V6),
            (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
                Err(MixedFamilies)
            }
        }
    }
}

/// The inverse of [`Reader::pair`].
pub(crate) fn put_pair(out: &mut Vec<u8>, target: SocketAddr, client: SocketAddr) {
    for address in [target, client] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

//! Packets that wait to be sent, and the frames that they leave in: each in its own, or some of one flow as a super-segment
//! that the device, or the kernel before it, cuts again. What passes the kernel's network stack once for many packets costs
//! it little more than one.

use std::net::IpAddr;
use std::ops::Range;

use millrace_wire::Train;
use millrace_wire::train::CHECKSUM_AT;

use super::SenderConfig;
use crate::next_hop::Hop;
use crate::sys::send_batch::{MAX_BATCH, OutFrame, SocketAddress, VirtioHeader};

/// How a packet leaves.
pub(super) struct Way<'a> {
    pub(super) destination: IpAddr,
    pub(super) address: SocketAddress,
    /// What comes before the packet.
    pub(super) link_header: &'a [u8],
    /// `None` where the kernel finds it.
    pub(super) hop: Option<Hop>,
}

/// One packet.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) cookie: u64,
    pub(super) destination: IpAddr,
    /// From its IP header on.
    pub(super) length: usize,
}

struct Planned {
    packets: Range<usize>,
    address: SocketAddress,
    hop: Option<Hop>,
    /// Unless its only packet goes alone.
    train: Option<Train>,
    header: VirtioHeader,
}

/// A batch, in memory that is allocated once.
pub(super) struct Batch {
    arena: Vec<u8>,
    slot: usize,
    /// Bytes before the IP header in each slot.
    headroom: usize,
    capacity: usize,
    queued: Vec<Queued>,
    frames: Vec<Planned>,
    /// Whether the socket wants a header before each frame, joined or not.
    has_headers: bool,
    /// Whether packets are joined.
    joins: bool,
}

impl Batch {
    /// An empty batch. `joins`: of a socket that takes super-segments.
    pub(super) fn new(config: &SenderConfig, headroom: usize, joins: bool) -> Self {
        let capacity = config.batch.clamp(1, MAX_BATCH);
        let slot = headroom + config.max_packet.clamp(1, 65_535);
        Self {
            arena: vec![0; capacity * slot],
            slot,
            headroom,
            capacity,
            queued: Vec::with_capacity(capacity),
            frames: Vec::with_capacity(capacity),
            has_headers: joins,
            joins,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued.len() >= self.capacity
    }

    /// Adds a packet, unless its length is 0, to one that is not full.
    ///
    /// # Errors
    /// Its length, if that is more than there is room for.
    pub(super) fn push(
        &mut self,
        cookie: u64,
        way: &Way<'_>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), usize> {
        let place = self.queued.len();
        let slot = self.arena.chunks_exact_mut(self.slot).nth(place);
        let slot = slot.unwrap_or_default();
        let Some((before, packet)) = slot.split_at_mut_checked(self.headroom) else {
            return Ok(());
        };
        for (to, from) in before.iter_mut().zip(way.link_header) {
            *to = *from;
        }
        let room = packet.len();
        let length = write(packet);
        if length > room {
            return Err(length);
        }
        if length > 0 {
            self.queued.push(Queued {
                cookie,
                destination: way.destination,
                length,
            });
            self.plan(place, way);
        }
        Ok(())
    }

    /// The newest packet goes with the last frame, or begins one.
    fn plan(&mut self, place: usize, way: &Way<'_>) {
        if self.joins
            && let Some(mut last) = self.frames.pop()
        {
            let joined = last.hop == way.hop && {
                let [first, next] = [last.packets.start, place].map(|place| self.packet(place));
                last.train
                    .as_mut()
                    .is_some_and(|train| train.add(first, next))
            };
            if joined {
                last.packets.end = place + 1;
            }
            self.frames.push(last);
            if joined {
                return;
            }
        }
        // What is too long for the device is to be refused, not cut: of a super-segment the kernel would not say so. (One
        // whose MTU became smaller is known within a second.)
        let may_join = |hop: Hop| self.packet(place).len() <= hop.joins_up_to as usize;
        let train = (self.joins && way.hop.is_some_and(may_join))
            .then(|| Train::begin(self.packet(place)))
            .flatten();
        self.frames.push(Planned {
            packets: place..place + 1,
            address: way.address,
            hop: way.hop,
            train,
            header: VirtioHeader::default(),
        });
    }

    fn slot(&self, place: usize) -> &[u8] {
        let length = self.queued.get(place).map_or(0, |queued| queued.length);
        let slot = self.arena.chunks_exact(self.slot).nth(place);
        let slot = slot.and_then(|slot| slot.get(..self.headroom + length));
        slot.unwrap_or_default()
    }

    fn packet(&self, place: usize) -> &[u8] {
        self.slot(place).get(self.headroom..).unwrap_or_default()
    }

    /// Makes the frames ready to be sent: nothing is to be added before the batch is clear.
    pub(super) fn seal(&mut self) {
        for frame in self.frames.iter_mut().filter(|it| it.packets.len() > 1) {
            let mut slots = self.arena.chunks_exact_mut(self.slot);
            let slot = slots.nth(frame.packets.start).unwrap_or_default();
            let first = slot.get_mut(self.headroom..).unwrap_or_default();
            if let Some(train) = frame.train {
                frame.header = virtio_header(&train, self.headroom);
                // There is room: the headers are there already.
                let _ = train.join(first);
            }
        }
    }

    /// How many frames there are.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The packets of these frames.
    pub(super) fn packets(&self, frames: Range<usize>) -> &[Queued] {
        let frames = self.frames.get(frames).unwrap_or_default();
        let ends = frames.first().zip(frames.last());
        let places = ends.map(|(first, last)| first.packets.start..last.packets.end);
        places
            .and_then(|places| self.queued.get(places))
            .unwrap_or_default()
    }

    /// The frames from this one on.
    pub(super) fn frames_from(
        &self,
        first: usize,
    ) -> impl Iterator<Item = OutFrame<'_, impl Iterator<Item = &[u8]>>> {
        let frames = self.frames.get(first..).unwrap_or_default();
        frames.iter().map(move |frame| {
            let cut = self.headroom + frame.train.map_or(0, |train| train.headers());
            let first = frame.packets.start;
            OutFrame {
                header: self.has_headers.then_some(&frame.header),
                parts: frame.packets.clone().map(move |place| match place {
                    place if place == first => self.slot(place),
                    place => self.slot(place).get(cut..).unwrap_or_default(),
                }),
                address: &frame.address,
            }
        })
    }

    /// From now on each packet leaves in its own frame, those of this frame and the later ones too.
    pub(super) fn stop_joining(&mut self, first: usize) {
        self.joins = false;
        let joined: Vec<Planned> = self.frames.drain(first.min(self.frames.len())..).collect();
        for frame in joined {
            let mut slots = self.arena.chunks_exact_mut(self.slot);
            let slot = slots.nth(frame.packets.start).unwrap_or_default();
            let packet = slot.get_mut(self.headroom..).unwrap_or_default();
            if let (Some(train), true) = (frame.train, frame.packets.len() > 1) {
                let _ = train.part(packet);
            }
            let alone = frame.packets.clone().map(|place| Planned {
                packets: place..place + 1,
                address: frame.address,
                hop: frame.hop,
                train: None,
                header: VirtioHeader::default(),
            });
            self.frames.extend(alone);
        }
    }

    /// Throws away what waits.
    pub(super) fn clear(&mut self) {
        self.queued.clear();
        self.frames.clear();
    }
}

/// How a super-segment behind a link-layer header of this length is to be cut. All lengths are below 64 KB.
fn virtio_header(train: &Train, headroom: usize) -> VirtioHeader {
    let ipv4 = train.ip_header() == millrace_wire::ipv4::HEADER;
    VirtioHeader {
        flags: VirtioHeader::NEEDS_CHECKSUM,
        gso_type: if ipv4 {
            VirtioHeader::TCP4
        } else {
            VirtioHeader::TCP6
        },
        header_len: (headroom + train.headers()) as u16,
        gso_size: train.segment() as u16,
        checksum_start: (headroom + train.ip_header()) as u16,
        checksum_offset: CHECKSUM_AT as u16,
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::{Endpoint, Flags, FourTuple, PacketBuilder, Seq, TcpHeader};

    use super::*;
    use crate::mac::MacAddress;
    use crate::sys::address::link_address;

    #[test]
    fn what_was_joined_and_refused_is_sent_as_it_was_pushed() {
        let hop = Hop {
            device_index: 1,
            source: MacAddress::default(),
            destination: None,
            joins_up_to: 1500,
        };
        let destination: IpAddr = "198.18.0.2".parse().unwrap();
        let way = Way {
            destination,
            address: SocketAddress::Link(link_address(1, libc::ETH_P_IP as u16, None)),
            link_header: &[7; 14],
            hop: Some(hop),
        };
        let tuple = FourTuple::new(
            Endpoint::new("198.18.1.1".parse().unwrap(), 4000),
            Endpoint::new(destination, 80),
        );
        let mut batch = Batch::new(&SenderConfig::default(), 14, true);
        let mut builder = PacketBuilder::new();
        let mut pushed = Vec::new();
        // Two super-segments, and a packet that goes alone.
        for (number, (seq, flags)) in [(0, 0), (900, 0), (1800, 8), (2700, 0), (3600, 0), (9, 0)]
            .into_iter()
            .enumerate()
        {
            let header = TcpHeader {
                seq: Seq(seq),
                flags: Flags(Flags::ACK.0 | flags),
                ..TcpHeader::default()
            };
            let mut packet = vec![0; 1500];
            let built = builder.build(&tuple, &header, [&[number as u8; 900][..]], &mut packet);
            packet.truncate(built.unwrap());
            let write = |slot: &mut [u8]| {
                slot[..packet.len()].copy_from_slice(&packet);
                packet.len()
            };
            batch.push(number as u64, &way, write).unwrap();
            pushed.push([&[7; 14][..], &packet].concat());
        }
        batch.seal();
        assert_eq!(batch.frames(), 3);
        assert_eq!(batch.packets(0..1).len(), 3);
        batch.stop_joining(0);
        let frames = batch.frames_from(0).map(|frame| {
            assert_eq!(frame.header, Some(&VirtioHeader::default()));
            frame.parts.flatten().copied().collect::<Vec<u8>>()
        });
        assert_eq!(frames.collect::<Vec<_>>(), pushed);
        let cookies: Vec<u64> = batch.packets(0..6).iter().map(|it| it.cookie).collect();
        assert_eq!(cookies, [0, 1, 2, 3, 4, 5]);
    }
}

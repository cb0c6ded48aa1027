//! One direction of a connection: what there is of its bytes, and what is missing.

use millrace_wire::{Flags, Mptcp, Seq, TcpPacket};

/// Runs behind a hole that are remembered; more holes than that are counted as filled by the next.
const MAX_HELD: usize = 64;
/// A jump of more than the largest window is no lost packet.
const PLAUSIBLE: i32 = 1 << 30;

/// What was seen of one direction.
#[derive(Clone, Debug, Default)]
pub struct Direction {
    /// Behind the last byte without a hole before it.
    next: Option<Seq>,
    /// Runs behind a hole, in their order: first byte, behind the last.
    held: Vec<(Seq, Seq)>,
    /// The highest acknowledgement of the other side.
    acked: Option<Seq>,
    /// Packets.
    pub packets: u64,
    /// Payload bytes captured, each once.
    pub bytes: u64,
    /// Payload bytes that came again.
    pub repeated: u64,
    /// Packets that came behind a hole.
    pub out_of_order: u64,
    /// Packets of which capture kept less than all.
    pub cut: u64,
    /// Payload bytes that are not in the recording, though they were sent.
    pub missing: u64,
    /// A SYN was seen.
    pub syn: bool,
    /// A FIN was seen.
    pub fin: bool,
    /// Urgent data was seen.
    pub urgent: bool,
    /// It joins another connection as a subflow of multipath TCP.
    pub joins: bool,
}

impl Direction {
    /// A packet of this direction.
    pub fn take(&mut self, packet: &TcpPacket<'_>) {
        let flags = packet.header.flags;
        self.packets += 1;
        self.syn |= flags.has(Flags::SYN);
        self.fin |= flags.has(Flags::FIN);
        self.joins |= matches!(packet.header.options.mptcp, Some(Mptcp::Join(_)));
        self.urgent |= flags.has(Flags::URG) && packet.payload_len > 0;
        self.cut += u64::from(packet.is_cut());
        let control = u32::from(flags.has(Flags::SYN));
        let start = packet.header.seq.add(control);
        // Lengths of packets fit.
        let end = start.add(packet.payload_len as u32);
        let next = *self.next.get_or_insert(start);
        if packet.payload_len == 0 {
            return;
        }
        if end.since(next) <= 0 || start.since(next) > PLAUSIBLE {
            self.repeated += packet.payload_len as u64;
            return;
        }
        if start.since(next) <= 0 {
            let new = u64::from(end.since(next).unsigned_abs());
            self.bytes += new;
            self.repeated += packet.payload_len as u64 - new;
            self.next = Some(end);
            self.join();
        } else {
            self.out_of_order += 1;
            self.hold(start, end);
        }
    }

    /// The other side acknowledged everything before `ack`.
    pub fn acknowledged(&mut self, ack: Seq) {
        let newer = self.acked.is_none_or(|acked| ack.since(acked) > 0);
        let plausible = self.next.is_none_or(|next| ack.since(next) < PLAUSIBLE);
        if newer && plausible {
            self.acked = Some(ack);
        }
    }

    /// The connection is over: what was sent and not seen will not come.
    pub fn end(&mut self) {
        self.give_up_hole();
        while !self.held.is_empty() {
            self.give_up_hole();
        }
        let controls = i32::from(self.fin);
        if let (Some(next), Some(acked)) = (self.next, self.acked) {
            let beyond = acked.since(next) - controls;
            // Without a FIN in the recording the last number may be that of one.
            let seen = if self.fin { 0 } else { 1 };
            if beyond > seen {
                self.missing += u64::from(beyond.unsigned_abs());
            }
        }
    }

    /// Whether anything of it was seen.
    pub const fn is_seen(&self) -> bool {
        self.packets > 0
    }

    fn hold(&mut self, start: Seq, end: Seq) {
        if self.held.len() >= MAX_HELD {
            self.give_up_hole();
        }
        let overlap = self
            .held
            .iter()
            .any(|(from, to)| start.since(*from) >= 0 && end.since(*to) <= 0);
        if overlap {
            self.repeated += u64::from(end.since(start).unsigned_abs());
            return;
        }
        let at = self.held.partition_point(|(from, _)| from.since(start) < 0);
        // What follows a run becomes part of it: a hole in megabytes under way is one hole.
        let before = at.checked_sub(1).and_then(|it| self.held.get_mut(it));
        match before.filter(|(_, to)| *to == start) {
            Some((_, to)) => *to = end,
            None => self.held.insert(at, (start, end)),
        }
    }

    /// Takes what follows without a hole.
    fn join(&mut self) {
        while let (Some(next), Some((start, end))) = (self.next, self.held.first().copied()) {
            if start.since(next) > 0 {
                return;
            }
            self.held.remove(0);
            let new = end.since(next);
            if new > 0 {
                self.bytes += u64::from(new.unsigned_abs());
                self.next = Some(end);
            }
        }
    }

    /// The first hole will not be filled.
    fn give_up_hole(&mut self) {
        if let (Some(next), Some((start, _))) = (self.next, self.held.first().copied()) {
            self.missing += u64::from(start.since(next).unsigned_abs());
            self.next = Some(start);
            self.join();
        }
    }
}

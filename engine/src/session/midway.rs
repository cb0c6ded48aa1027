//! A session that is not copied now, and watched until it can be.

use millrace_wire::{Flags, Seq, TcpPacket};

use super::PLAUSIBLE;
use crate::live_view::LiveView;

/// Numbers further ahead than this need a second segment that bears them out.
const FAR: i32 = 1 << 20;

/// Why a session is watched for a turn from which it can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Its beginning was not captured.
    Met,
    /// It was refused when it began, and is counted as that.
    Refused,
    /// It was copied until bytes of its client were not captured.
    Gap,
    /// It was copied until it was set aside.
    SetAside,
}

/// What a segment of a client meant for a session that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Its first byte begins a turn.
    pub(crate) begins: bool,
    /// Bytes that were not seen before.
    pub(crate) new: u64,
    /// Bytes before it that were not captured.
    pub(crate) missing: u64,
}

/// What the last bytes of either side mean for the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The client is in the middle of a message, as far as is known.
    Begun,
    /// The client has ended a message (PSH).
    Pushed,
    /// The live server has spoken after all bytes of the client.
    Answered,
}

impl Last {
    const fn of(packet: &TcpPacket<'_>) -> Self {
        match packet.payload_len > 0 && packet.header.flags.has(Flags::PSH) {
            true => Self::Pushed,
            false => Self::Begun,
        }
    }
}

/// What must be seen of a session that is not copied now, to pick it up at a turn.
#[derive(Debug)]
pub(crate) struct Midway {
    /// Behind the last byte of the client.
    client_next: Seq,
    /// Behind the last byte of the live server, if it has answered. Where clients alone are captured: what the client had
    /// acknowledged with its last bytes.
    answered_to: Seq,
    last: Last,
    /// Whether the live server has said anything.
    is_proven: bool,
    /// How far ahead the last segment lay that reached much further than those before it, in units of [`FAR`]; 0: none.
    far: u8,
    /// Why it is not copied.
    pub(crate) watch: Watch,
}

impl Midway {
    pub(crate) fn new(packet: &TcpPacket<'_>, watch: Watch) -> Self {
        Self {
            client_next: packet.seq_end(),
            answered_to: packet.header.ack,
            last: Last::of(packet),
            is_proven: false,
            far: 0,
            watch,
        }
    }

    /// The rest of a session whose first byte has the number `origin` and of which everything up to
    /// `known_end` is known to have been sent.
    pub(crate) fn rest(origin: Seq, known_end: u64, live: &LiveView, watch: Watch) -> Self {
        let (answered, answered_to) = live.answered();
        Self {
            // Sequence numbers are 32 bits of it.
            client_next: origin.add(known_end as u32),
            answered_to,
            last: match answered {
                true => Last::Answered,
                false => Last::Begun,
            },
            is_proven: true,
            far: 0,
            watch,
        }
    }

    /// Whether numbers are near enough to be this connection's.
    pub(crate) fn is_near(&self, seq: Seq) -> bool {
        u64::from(seq.since(self.client_next).unsigned_abs()) <= PLAUSIBLE
    }

    /// Whether the live server has said anything.
    pub(crate) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// A segment of the live server went by. Gives the bytes of the client that are missing by it:
    /// what it acknowledges was sent, captured or not.
    pub(crate) fn on_live(&mut self, packet: &TcpPacket<'_>) -> u64 {
        self.is_proven = true;
        if packet.payload_len == 0 {
            return 0;
        }
        let ack = packet.header.ack;
        let missing = ack.since(self.client_next);
        let plausible = u64::try_from(missing).is_ok_and(|bytes| bytes <= PLAUSIBLE);
        if plausible && !self.reaches(ack, ack) {
            return 0;
        }
        self.answered_to = packet.seq_end();
        if plausible {
            self.last = Last::Answered;
            self.client_next = ack;
        } else {
            self.last = Last::Begun;
        }
        // Not negative, where it counts.
        if plausible {
            missing.unsigned_abs().into()
        } else {
            0
        }
    }

    /// Whether the client's bytes reach so far that they may begin at `from`. Much further than those that were captured
    /// they reach only if a second segment says so: they may have been a stray's, that ended at `to`.
    fn reaches(&mut self, from: Seq, to: Seq) -> bool {
        let ahead = |seq: Seq| (seq.since(self.client_next) / FAR).clamp(0, u8::MAX.into()) as u8;
        let (begins, ends) = (ahead(from), ahead(to));
        let far = std::mem::replace(&mut self.far, ends);
        begins == 0 || far > 0 && begins.abs_diff(far) <= 1
    }

    /// A segment of the client went by. Its first byte begins a turn if the live server had
    /// answered everything before, and the client had seen the whole answer. Where clients alone are captured
    /// (`one_way`), if the message before was complete, and the client has seen more of the answer since.
    pub(crate) fn on_client(&mut self, packet: &TcpPacket<'_>, one_way: bool) -> Watched {
        let seq = packet.header.seq;
        if packet.payload_len == 0 || !self.is_near(seq) {
            return Watched::default();
        }
        if !self.reaches(seq, packet.seq_end()) {
            return Watched::default();
        }
        let ack = packet.header.ack;
        let answered = match one_way {
            true => self.last == Last::Pushed && ack.after(self.answered_to),
            false => self.last == Last::Answered && self.answered_to == ack,
        };
        let begins = seq == self.client_next && answered;
        let end = packet.seq_end();
        let mut watched = Watched {
            begins,
            ..Watched::default()
        };
        if end.after(self.client_next) {
            let from = match seq.after(self.client_next) {
                true => seq,
                false => self.client_next,
            };
            watched.new = end.since(from).unsigned_abs().into();
            watched.missing = from.since(self.client_next).unsigned_abs().into();
            self.client_next = end;
            self.last = Last::of(packet);
            if one_way {
                self.answered_to = ack;
            }
        }
        watched
    }
}

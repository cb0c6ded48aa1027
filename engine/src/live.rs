//! What is known of the live server's side of a session, from its headers and the client's
//! acknowledgements. Payload of the live server is never looked at.

use millrace_wire::{Flags, Seq, TcpPacket};

use crate::time::Time;
use crate::turns::TurnClock;

/// The live server's side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveView {
    /// Sequence number of the server's first byte; meaningless without `known`.
    first: Seq,
    known: bool,
    /// Bytes that the server has sent, FIN included.
    sent: u64,
    /// The highest acknowledgement of the client, as an offset like `sent`.
    client_saw: u64,
    /// How much of the client's stream the server has acknowledged, FIN included.
    pub(crate) acked: u64,
    /// When the server last sent payload, it had acknowledged all that the client is known to have
    /// sent, and nothing has been sent since.
    answered: bool,
    /// The current turn.
    pub(crate) clock: TurnClock,
    /// The server has sent a FIN.
    pub(crate) finished: bool,
}

impl LiveView {
    /// Nothing known yet.
    pub(crate) fn new(at: Time) -> Self {
        Self {
            first: Seq(0),
            known: false,
            sent: 0,
            client_saw: 0,
            acked: 0,
            answered: false,
            clock: TurnClock::starting(at),
            finished: false,
        }
    }

    /// A session that was met in its middle: the answer counts from this number on.
    pub(crate) fn midway(at: Time, next: Seq) -> Self {
        Self {
            first: next,
            known: true,
            ..Self::new(at)
        }
    }

    /// The same connection from the turn on that begins at `offset` of the client's stream, when the
    /// client had seen `answer` bytes.
    pub(crate) const fn beginning_at(&self, offset: u64, answer: u64) -> Self {
        Self {
            // Sequence numbers are 32 bits of it.
            first: self.first.add(answer as u32),
            known: self.known,
            sent: self.sent.saturating_sub(answer),
            client_saw: self.client_saw.saturating_sub(answer),
            acked: self.acked.saturating_sub(offset),
            answered: self.answered,
            clock: self.clock,
            finished: self.finished,
        }
    }

    /// Whether the server has answered all that the client sent, and the number behind the answer.
    pub(crate) const fn answered(&self) -> (bool, Seq) {
        (self.answered, self.first.add(self.sent as u32))
    }

    /// Whether a client's segment that continues its stream begins a turn.
    pub(crate) const fn is_turn(&self) -> bool {
        self.in_step() && self.answered
    }

    /// The client has sent bytes that are not answered.
    pub(crate) const fn note_asked(&mut self) {
        self.answered = false;
    }

    /// Whether the server's numbers are known: it has answered the SYN.
    pub(crate) const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a RST of the server with this number stands where the client expects the next byte, or says so. Without
    /// known numbers any does.
    pub(crate) fn is_next(&self, seq: Seq) -> bool {
        let expected = |offset: u64| seq == self.first.add(offset as u32);
        !self.known || expected(self.sent) || expected(self.client_saw)
    }

    /// Bytes that the server is known to have sent, its FIN included.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of the server that the client has acknowledged.
    pub(crate) const fn client_saw(&self) -> u64 {
        self.client_saw
    }

    /// Whether the server has sent something that the client had not seen.
    pub(crate) const fn in_step(&self) -> bool {
        self.sent <= self.client_saw
    }

    /// Notes a client's acknowledgement; gives the offset that it stands for, never less than the
    /// one before.
    pub(crate) fn on_client_ack(&mut self, packet: &TcpPacket<'_>) -> u64 {
        if packet.header.flags.has(Flags::ACK) {
            let ack = packet.header.ack;
            // The first acknowledgement of a client is that of the SYN.
            let first = self.first_or(ack);
            let offset = ack.offset_near(first.add(self.client_saw as u32), self.client_saw);
            self.client_saw = self.client_saw.max(offset.unwrap_or(0));
        }
        self.client_saw
    }

    /// Notes a segment of the server. `client_offset` turns its acknowledgement into an offset of
    /// the client's stream, of which everything up to `asked` is known to have been sent.
    pub(crate) fn on_segment(
        &mut self,
        at: Time,
        packet: &TcpPacket<'_>,
        asked: u64,
        client_offset: impl FnOnce(Seq) -> Option<u64>,
    ) {
        let flags = packet.header.flags;
        let mut acked = 0;
        if flags.has(Flags::ACK) {
            acked = client_offset(packet.header.ack).unwrap_or(0);
            self.acked = self.acked.max(acked);
            // Bytes that capture has not seen, and that are not answered.
            self.answered &= acked <= asked;
        }
        if flags.has(Flags::SYN) {
            self.first_or(packet.header.seq.add(1));
            return;
        }
        // Without the handshake, the first number seen stands for the first byte.
        let first = self.first_or(packet.header.seq);
        let near = first.add(self.sent as u32);
        let Some(end) = packet.seq_end().offset_near(near, self.sent) else {
            return;
        };
        // A jump of more than a window is not a lost capture but garbage.
        if end > self.sent && end - self.sent < 1 << 30 {
            self.sent = end;
            if packet.payload_len > 0 {
                self.answered = acked >= asked;
                self.clock.answer(at);
            }
        }
        self.finished |= flags.has(Flags::FIN);
    }

    /// The number of the server's first byte; `seen` stands for it if it is not known yet.
    const fn first_or(&mut self, seen: Seq) -> Seq {
        if !self.known {
            self.known = true;
            self.first = seen;
        }
        self.first
    }
}

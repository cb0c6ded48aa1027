//! What is known of the live server's side of a session, from its headers and the client's
//! acknowledgements. Payload of the live server is never looked at.

use millrace_wire::tcp::MAX_WINDOW_SCALE;
use millrace_wire::{Flags, Seq, TcpHeader, TcpPacket};

use crate::time::Time;
use crate::turns::TurnClock;

/// The server's numbers are not known.
const UNKNOWN: u8 = u8::MAX;

/// A client's acknowledgements are no further apart than this, in bytes.
pub(crate) const ACKS_APART: u64 = 1 << 24;

/// Numbers of one connection are hardly ever as near to another one's.
const NEAR: u64 = 1 << 20;

/// The live server's side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveView {
    /// Sequence number of the server's first byte; meaningless while the scale is [`UNKNOWN`].
    first: Seq,
    /// How far the server's windows are to be shifted (RFC 7323 2).
    window_scale: u8,
    /// How many bits the largest of its windows takes, before that; 0: no segment of the server was captured.
    window_bits: u8,
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

/// What a segment of the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    at: Time,
    /// Where it begins and ends, as offsets of the server's stream, a FIN included.
    start: u64,
    end: u64,
    has_payload: bool,
    /// What it acknowledges of the client's stream, and how much of that was known to have been sent then.
    acked: u64,
    asked: u64,
    /// How much of that acknowledgement counts.
    counted: u64,
    fin: bool,
}

impl Said {
    /// How much of the client's stream it acknowledges.
    pub(crate) const fn acked(&self) -> u64 {
        self.acked
    }

    /// Where it begins, as an offset of the server's stream.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Whether it acknowledges what the client is not known to have sent, more than a FIN.
    pub(crate) const fn is_unasked(&self) -> bool {
        self.acked > self.asked + 1
    }

    /// Whether this is the other segment once more.
    pub(crate) const fn repeats(&self, other: &Self) -> bool {
        self.start == other.start && self.end == other.end && self.acked == other.acked
    }

    /// The same, of which so much of its acknowledgement counts for now.
    pub(crate) const fn counting(&self, acked: u64) -> Self {
        Self {
            counted: acked,
            ..*self
        }
    }

    /// Whether another segment continues this one.
    pub(crate) const fn is_continued_by(&self, other: &Self) -> bool {
        self.end == other.start && self.start < other.end
    }
}

impl LiveView {
    /// Nothing known yet.
    pub(crate) fn new(at: Time) -> Self {
        Self {
            first: Seq(0),
            window_scale: UNKNOWN,
            window_bits: 0,
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
            // Its SYN was not captured: it may be that.
            window_scale: MAX_WINDOW_SCALE,
            ..Self::new(at)
        }
    }

    /// The same connection from the turn on that begins at `offset` of the client's stream, when the
    /// client had seen `answer` bytes.
    pub(crate) const fn beginning_at(&self, offset: u64, answer: u64) -> Self {
        Self {
            // Sequence numbers are 32 bits of it.
            first: self.first.add(answer as u32),
            window_scale: self.window_scale,
            window_bits: self.window_bits,
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

    /// The same if the client has seen what this number acknowledges, captured or not.
    pub(crate) fn is_turn_after(&self, ack: Seq) -> bool {
        let saw = self.acknowledged(ack).unwrap_or(0);
        self.answered && self.sent <= saw.max(self.client_saw)
    }

    /// The client has sent bytes that are not answered.
    pub(crate) const fn note_asked(&mut self) {
        self.answered = false;
    }

    /// Whether a segment of the server was captured.
    pub(crate) const fn is_heard(&self) -> bool {
        self.window_bits > 0
    }

    /// How far ahead of what it has the server may take bytes (RFC 9293 3.10.7.4). Windows grow, and capture may have
    /// missed that.
    pub(crate) fn reach(&self) -> u64 {
        match self.is_heard() && self.is_known() {
            // Between two and four times the window.
            true => (2 << self.window_bits << self.window_scale) + u64::from(u16::MAX),
            false => u64::MAX,
        }
    }

    /// Whether a segment of the client acknowledges what the server is not known to have sent.
    /// Without a segment of the server, the client's own acknowledgements say about how much that was.
    pub(crate) fn is_unsent(&self, header: &TcpHeader) -> bool {
        let sent = match self.is_heard() {
            true => self.sent,
            false => self.known() + ACKS_APART,
        };
        self.is_known()
            && header.flags.has(Flags::ACK)
            && self
                .acknowledged(header.ack)
                .is_none_or(|offset| offset > sent)
    }

    /// Whether the server is known to have sent what this number acknowledges.
    pub(crate) fn has_sent(&self, ack: Seq) -> bool {
        self.acknowledged(ack)
            .is_some_and(|offset| offset <= self.sent)
    }

    /// Whether the server had sent what a segment of the client acknowledges by the time it said this.
    pub(crate) fn is_sent_by(&self, said: &Said, header: &TcpHeader) -> bool {
        !self.is_unsent(header)
            || self
                .acknowledged(header.ack)
                .is_some_and(|offset| offset <= said.end)
    }

    /// Whether the server said more than what a segment of the client acknowledges.
    pub(crate) fn goes_beyond(&self, said: &Said, header: &TcpHeader) -> bool {
        let seen = self.acknowledged(header.ack);
        said.has_payload && seen.is_some_and(|seen| said.end > seen)
    }

    /// Bytes that the server is known to have sent, by its own word or its client's.
    fn known(&self) -> u64 {
        self.sent.max(self.client_saw)
    }

    /// Whether an acknowledgement of what the server is not known to have sent is near what it may have sent meanwhile.
    /// One that somebody has guessed hardly ever is (RFC 5961 5).
    pub(crate) fn is_likely(&self, header: &TcpHeader) -> bool {
        let offset = self.acknowledged(header.ack);
        offset.is_some_and(|offset| offset <= self.known() + ACKS_APART)
    }

    /// The server has sent what this segment of the client acknowledges.
    pub(crate) fn believe(&mut self, header: &TcpHeader) {
        if let Some(offset) = self.acknowledged(header.ack).filter(|_| self.is_known()) {
            self.sent = self.sent.max(offset);
            if !self.is_heard() {
                self.client_saw = self.client_saw.max(offset);
            }
        }
    }

    /// Whether the client's acknowledgement of this number shows that the server said this: all before it, at least.
    pub(crate) fn is_borne_out(&self, said: &Said, ack: Seq) -> bool {
        let offset = self.acknowledged(ack);
        offset.is_some_and(|offset| (said.start..=said.end).contains(&offset))
    }

    /// The offset that a client's acknowledgement stands for.
    fn acknowledged(&self, ack: Seq) -> Option<u64> {
        let near = self.first.add(self.client_saw as u32);
        ack.offset_near(near, self.client_saw)
    }

    /// Whether the server's numbers are known: it has answered the SYN.
    pub(crate) const fn is_known(&self) -> bool {
        self.window_scale != UNKNOWN
    }

    /// Whether a RST of the server with this number stands where the client expects the next byte, or says so. Without
    /// known numbers any does.
    pub(crate) fn is_next(&self, seq: Seq) -> bool {
        let expected = |offset: u64| seq == self.first.add(offset as u32);
        !self.is_known() || expected(self.sent) || expected(self.client_saw)
    }

    /// Bytes that the server is known to have sent, its FIN included.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of the server that the client has acknowledged.
    pub(crate) const fn client_saw(&self) -> u64 {
        self.client_saw
    }

    /// The same, without the server's FIN.
    pub(crate) const fn client_saw_bytes(&self) -> u64 {
        match self.finished && self.client_saw >= self.sent {
            true => self.client_saw.saturating_sub(1),
            false => self.client_saw,
        }
    }

    /// Whether the server has sent something that the client had not seen.
    pub(crate) const fn in_step(&self) -> bool {
        self.sent <= self.client_saw
    }

    /// Notes a client's acknowledgement; gives the offset that it stands for, never less than the
    /// one before.
    pub(crate) fn on_client_ack(&mut self, packet: &TcpPacket<'_>) -> u64 {
        if packet.header.flags.has(Flags::ACK) && !self.is_unsent(&packet.header) {
            let ack = packet.header.ack;
            // The first acknowledgement of a client is that of the SYN.
            let first = self.first_or(ack);
            let offset = ack.offset_near(first.add(self.client_saw as u32), self.client_saw);
            self.client_saw = self.client_saw.max(offset.unwrap_or(0));
        }
        self.client_saw
    }

    /// Takes note of the server's SYN-ACK, which acknowledges so much of the client's stream.
    pub(crate) fn greet(&mut self, header: &TcpHeader, acked: Option<u64>) {
        let first = header.seq.add(1);
        if self.contradicts(first) {
            self.forget_numbers();
        }
        if self.first_or(first) == first {
            self.window_scale = header.options.window_scale.unwrap_or(0);
            self.acked = self.acked.max(acked.unwrap_or(0));
            self.note_window(header);
        }
    }

    /// Whether the server's first word is far from what its client has acknowledged: one of both is a stray's.
    pub(crate) fn contradicts(&self, seq: Seq) -> bool {
        !self.is_heard() && self.is_known() && !self.is_within(seq, ACKS_APART)
    }

    /// What was taken for the server's numbers was not.
    pub(crate) fn forget_numbers(&mut self) {
        self.window_scale = UNKNOWN;
        (self.client_saw, self.sent) = (0, 0);
    }

    fn note_window(&mut self, header: &TcpHeader) {
        let bits = u16::BITS - header.window.max(1).leading_zeros();
        // At most 16.
        self.window_bits = self.window_bits.max(bits as u8);
    }

    /// Whether a number is near what the server sent last.
    pub(crate) fn is_near(&self, seq: Seq) -> bool {
        self.is_known() && self.is_within(seq, NEAR)
    }

    fn is_within(&self, seq: Seq, bytes: u64) -> bool {
        let apart = seq.since(self.first.add(self.known() as u32));
        u64::from(apart.unsigned_abs()) <= bytes
    }

    /// Gives what a segment of the server says, to be told to [`LiveView::hear`] unless it may be a stray.
    /// `client_offset` turns its acknowledgement into an offset of the client's stream, of which everything up to
    /// `asked` is known to have been sent.
    pub(crate) fn said(
        &mut self,
        at: Time,
        packet: &TcpPacket<'_>,
        asked: u64,
        client_offset: impl FnOnce(Seq) -> Option<u64>,
    ) -> Option<Said> {
        let flags = packet.header.flags;
        let acked = match flags.has(Flags::ACK) {
            true => client_offset(packet.header.ack).unwrap_or(0),
            false => 0,
        };
        // Without the handshake, the first number seen stands for the first byte.
        let first = self.first_or(packet.header.seq);
        let near = first.add(self.sent as u32);
        let start = packet.header.seq.offset_near(near, self.sent)?;
        self.note_window(&packet.header);
        let fin = flags.has(Flags::FIN);
        Some(Said {
            at,
            start,
            end: start + packet.payload_len as u64 + u64::from(fin),
            has_payload: packet.payload_len > 0,
            acked,
            asked,
            counted: acked,
            fin,
        })
    }

    /// Whether something was lost between what the server is known to have said and this.
    pub(crate) const fn is_behind_hole(&self, said: &Said) -> bool {
        said.start > self.sent
    }

    /// Takes note of what the server acknowledged, of a segment that was taken note of without.
    pub(crate) fn hear_ack(&mut self, said: &Said) {
        self.acked = self.acked.max(said.acked);
        self.answered &= said.has_payload;
    }

    /// Takes note of what the server said.
    pub(crate) fn hear(&mut self, said: &Said) {
        self.acked = self.acked.max(said.counted);
        // Bytes that capture has not seen, and that are not answered.
        self.answered &= said.acked <= said.asked;
        if said.end > self.sent {
            self.sent = said.end;
            if said.has_payload {
                self.answered = said.acked >= said.asked;
                self.clock.answer(said.at);
            }
        }
        self.finished |= said.fin;
    }

    /// The number of the server's first byte; `seen` stands for it if it is not known yet.
    const fn first_or(&mut self, seen: Seq) -> Seq {
        if !self.is_known() {
            self.window_scale = MAX_WINDOW_SCALE;
            self.first = seen;
        }
        self.first
    }
}

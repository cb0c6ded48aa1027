//! How sessions begin: with a SYN, with a connection that is met in its middle, and with the end of the handshake.

use millrace_wire::{Flags, FourTuple, Seq, TcpHeader, TcpPacket};

use super::Engine;
use super::client_segments::ClientSegment;
use crate::admission::Decision;
use crate::key::SessionKey;
use crate::protocol::Beginning;
use crate::session::{Midway, Phase, Session, Watch};
use crate::time::Time;

impl Engine {
    /// A SYN: the session waits for the end of its handshake.
    pub(super) fn begin(&mut self, now: Time, segment: ClientSegment<'_>) {
        let ClientSegment { at, packet, .. } = segment;
        self.see_service(packet);
        tracing::trace!(client = %packet.tuple.source, "a client's SYN");
        if self.is_unchosen(packet) {
            tracing::trace!(client = %packet.tuple.source, "the intensity leaves it out");
            self.stats.sessions_unchosen += 1;
            return;
        }
        if self.joins_another(now, packet) || self.refuses(packet) {
            tracing::trace!(client = %packet.tuple.source, "it is refused");
            return;
        }
        let first = packet.header.seq.add(1);
        if let Some(key) = self.insert_session(at, packet, first, Phase::Opening) {
            if packet.payload_len > 0 {
                // TCP Fast Open (RFC 7413): the live server may take the data or leave it to be
                // sent again; the stream is the same.
                self.on_session_segment(now, key, segment, None);
            }
            self.arm_session(key);
        }
    }

    /// A connection whose beginning was not captured, but whose numbers are known: `packet` stands for
    /// what the client must have sent. Those that are not wanted were counted when they began.
    pub(super) fn begin_unseen(&mut self, at: Time, packet: &TcpPacket<'_>, phase: Phase) {
        if self.is_wanted(packet.tuple.source)
            && let Some(key) = self.insert_session(at, packet, packet.seq_end(), phase)
        {
            self.arm_session(key);
        }
    }

    fn see_service(&mut self, packet: &TcpPacket<'_>) {
        if let Some(service) = self.config.service_of(packet.tuple.destination) {
            self.stats.saw(service);
        }
    }

    /// A segment of a connection whose beginning was not captured.
    pub(super) fn meet_midway(&mut self, at: Time, packet: &TcpPacket<'_>) {
        self.see_service(packet);
        let flags = packet.header.flags;
        if packet.payload_len == 0 || flags.has(Flags::RST) || flags.has(Flags::FIN) {
            return;
        }
        if self.is_unchosen(packet) {
            return;
        }
        self.stats.bytes_refused += packet.payload_len as u64;
        if packet.header.options.mptcp.is_some() {
            // Whether other subflows bear a part of it is not known.
            self.stats.segments_unowned += 1;
            return;
        }
        if !self.watch(at, packet, Midway::new(packet, Watch::Met)) {
            self.stats.segments_unowned += 1;
        }
    }

    /// Looks out for a turn at which a session can be picked up that is not copied now; says
    /// whether it may be.
    pub(super) fn watch(&mut self, at: Time, packet: &TcpPacket<'_>, midway: Midway) -> bool {
        if self.config.only_from_syn || !self.is_wanted(packet.tuple.source) {
            return false;
        }
        let phase = Phase::Midway(midway);
        if let Some(key) = self.insert_session(at, packet, packet.seq_end(), phase) {
            self.arm_session(key);
        }
        true
    }

    pub(super) fn insert_session(
        &mut self,
        at: Time,
        packet: &TcpPacket<'_>,
        first: Seq,
        phase: Phase,
    ) -> Option<SessionKey> {
        let service = self.config.service_of(packet.tuple.destination)?;
        let service = u16::try_from(service).ok()?;
        let session = Session::new(at, packet.tuple, service, first, phase);
        Some(self.sessions.insert(session))
    }

    /// The client has acknowledged the handshake: the session is copied from now on, unless it
    /// is not admitted. Says whether it is.
    pub(super) fn activate(
        &mut self,
        now: Time,
        at: Time,
        key: SessionKey,
        packet: &TcpPacket<'_>,
    ) -> bool {
        let decision = self.admit(now, key, None);
        tracing::trace!(client = %packet.tuple.source, "its handshake is complete: {decision:?}");
        match decision {
            Decision::Copied(copies) => {
                let service = self.sessions.get(key).map_or(0, |session| session.service);
                let plain = match self.has_protocol(service) {
                    true => 0,
                    false => u64::from(copies),
                };
                if let Some(mut session) = self.sessions.change(key) {
                    *session.phase_mut() = Phase::Active { copies, busy: 0 };
                    // What came with the SYN.
                    self.stats.bytes_wanted += session.stream().len() * plain;
                }
                self.stats.sessions_captured += 1;
                self.open_replicas(now, key, Beginning::Connection);
                return true;
            }
            Decision::Unchosen => {
                self.stats.sessions_unchosen += 1;
                self.leave_out(packet);
                self.forget_session(key);
            }
            Decision::Refused(reason) => {
                self.stats.sessions_refused.add(reason);
                self.stats.bytes_refused += packet.payload_len as u64;
                self.forget_session(key);
                if !packet.header.flags.has(Flags::FIN) {
                    self.watch(at, packet, Midway::new(packet, Watch::Refused));
                }
            }
        }
        false
    }

    /// A client's segment may show that a SYN-ACK which came while its connection was open began another one: it speaks in
    /// the numbers of both. Says whether it does.
    pub(super) fn bear_out_syn_ack(
        &mut self,
        now: Time,
        key: SessionKey,
        at: Time,
        packet: &TcpPacket<'_>,
    ) -> bool {
        let greeting = self.evidence.doubts(key).and_then(|doubts| doubts.greeting);
        let TcpHeader { seq, ack, .. } = packet.header;
        let Some(greeting) = greeting.filter(|it| it.next == seq && it.first == ack) else {
            return false;
        };
        self.retire(now, key);
        let client = syn_before(packet.tuple, seq);
        self.begin_unseen(at, &client, Phase::Opening);
        let found = self.sessions.find(&packet.tuple);
        if let Some(session) = found.and_then(|key| self.sessions.get_mut(key)) {
            session.live.greet(&greeting.header(), Some(0));
        }
        true
    }

    /// The same of a SYN, where the live server's words about this connection are not captured.
    pub(super) fn bear_out_syn(
        &mut self,
        now: Time,
        key: SessionKey,
        at: Time,
        packet: &TcpPacket<'_>,
    ) -> bool {
        let syn = self.evidence.doubts(key).and_then(|doubts| doubts.syn);
        let session = self.sessions.get(key);
        let is_heard = session.is_none_or(|session| session.live.is_heard());
        let TcpHeader { seq, flags, .. } = packet.header;
        if is_heard || flags.has(Flags::SYN) || syn.is_none_or(|number| number.add(1) != seq) {
            return false;
        }
        self.retire(now, key);
        let client = syn_before(packet.tuple, seq);
        self.begin(now, ClientSegment::bare(at, &client));
        true
    }
}

/// The SYN that must have come before the client's byte with this number.
pub(super) fn syn_before(tuple: FourTuple, first: Seq) -> TcpPacket<'static> {
    TcpPacket {
        tuple,
        header: TcpHeader {
            seq: first.add(u32::MAX),
            flags: Flags::SYN,
            ..TcpHeader::default()
        },
        payload: &[],
        payload_len: 0,
    }
}

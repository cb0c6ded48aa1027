//! Segments from the live server to clients.

use millrace_wire::{Flags, Mptcp, Seq, TcpHeader, TcpPacket};

use super::Engine;
use super::begins::syn_before;
use super::client_segments::ClientSegment;
use crate::evidence::Greeting;
use crate::key::SessionKey;
use crate::live_view::ACKS_APART;
use crate::session::{Midway, PLAUSIBLE, Phase, Session, Watch};
use crate::stream::{End, EndKind};
use crate::time::Time;

impl Engine {
    /// The session that a segment of the live server belongs to. It may be one whose beginning was
    /// not captured: a SYN-ACK has the numbers of both sides (RFC 9293 3.5), and an acknowledgement
    /// of what fits no window of the known connection shows that there is another one.
    fn session_of_answer(
        &mut self,
        now: Time,
        at: Time,
        packet: &TcpPacket<'_>,
    ) -> Option<SessionKey> {
        let tuple = packet.tuple.reversed();
        let found = self.sessions.find(&tuple);
        if matches!(packet.header.options.mptcp, Some(Mptcp::Join(_))) {
            // Such a subflow was refused.
            return None;
        }
        if packet.header.flags.has(Flags::SYN)
            && self.departed.knows(at, &tuple, packet.header.ack, true)
        {
            self.stats.segments_late += 1;
            return None;
        }
        let session = found.and_then(|key| self.sessions.get(key));
        let TcpHeader { ack, flags, .. } = packet.header;
        let is_new = flags.has(Flags::SYN | Flags::ACK)
            && session.is_none_or(|session| {
                // One with older numbers is a late repetition of an earlier connection's.
                let seen = session.stream().known_end().min(1 << 30) as u32;
                let newer = ack.after(session.stream().first_seq().add(seen));
                newer && !matches!(session.phase(), Phase::Opening)
            });
        let doubts = found.and_then(|key| self.evidence.doubts(key)).copied();
        let doubts = doubts.unwrap_or_default();
        let is_stray = doubts.stray == Some(ack)
            && session.is_none_or(|session| is_of_another(session, &packet.header));
        let is_accepted = flags.has(Flags::SYN | Flags::ACK)
            && doubts.syn.is_some_and(|number| number.add(1) == ack);
        if is_new
            && !is_accepted
            && let Some(key) = found.filter(|key| self.is_challenged(*key))
        {
            let greeting = Greeting::of(&packet.header);
            self.evidence
                .doubt(key, |doubts| doubts.greeting = Some(greeting));
            return None;
        }
        if let Some(key) = found.filter(|_| is_new || is_stray || is_accepted) {
            self.retire(now, key);
        }
        let client = syn_before(tuple, ack);
        if is_accepted {
            // It was seen, and not counted as a session's beginning.
            self.begin(now, ClientSegment::bare(at, &client));
        } else if is_new {
            self.begin_unseen(at, &client, Phase::Opening);
        } else if is_stray {
            let midway = Midway::new(&client, Watch::Met);
            self.begin_unseen(at, &client, Phase::Midway(midway));
        } else {
            return found;
        }
        self.sessions.find(&tuple)
    }

    pub(super) fn on_live_segment(&mut self, now: Time, at: Time, packet: &TcpPacket<'_>) {
        let Some(key) = self.session_of_answer(now, at, packet) else {
            self.stats.segments_unowned += 1;
            return;
        };
        if packet.header.flags.has(Flags::SYN) {
            self.note_joinable(key, packet);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.last_seen = session.last_seen.max(at);
        let TcpHeader {
            seq, ack, flags, ..
        } = packet.header;
        let reset = flags.has(Flags::RST);
        if !self.concerns(key, packet) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let doubts = self.evidence.doubts(key).copied().unwrap_or_default();
        let (stream, live) = session.both_sides();
        let finished = live.finished;
        let asked = live.clock.is_asking();
        // More than that is not lost in one hole: it speaks of another connection.
        let sent = stream.known_end();
        let offset_of = |ack| {
            let offset = stream.offset_of(ack);
            offset.filter(|offset| *offset <= sent.saturating_add(PLAUSIBLE))
        };
        if flags.has(Flags::SYN) {
            live.greet(&packet.header, offset_of(ack));
        }
        if !flags.has(Flags::SYN) && live.contradicts(seq) {
            let near = |other: Seq| u64::from(seq.since(other).unsigned_abs()) <= ACKS_APART;
            if !doubts.number.is_some_and(near) {
                return self.evidence.doubt(key, |doubts| doubts.number = Some(seq));
            }
            live.forget_numbers();
        }
        // The client may have acknowledged what was not captured before it.
        let borne_out = doubts.unsent == Some(seq);
        let at_next_byte = borne_out || live.is_next(seq);
        let before = live.acked;
        // A stray RST says nothing.
        let counts = !flags.has(Flags::SYN) && (!reset || at_next_byte);
        let said = match counts {
            true => live.said(at, packet, sent, offset_of),
            false => None,
        };
        let is_overheard =
            self.hears_live && said.is_some_and(|said| self.overhear(key, &said, packet.payload));
        let said = said.filter(|said| self.hear(key, said));
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let answered = asked && !session.live.clock.is_asking();
        self.stats.live_turns_answered += u64::from(answered);
        let ended = session.stream().announced_end().is_some();
        if reset && !ended && !at_next_byte {
            let end = End {
                offset: session.stream().len(),
                kind: EndKind::Severed,
            };
            return self.doubt_reset(key, at, end);
        }
        if reset || session.live.finished {
            self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        }
        let closed = session.live.finished != finished;
        if let Some(said) = said {
            self.note_answer(key, &said, before);
        }
        self.settle_waiting(now, key, false);
        if is_overheard {
            self.log_live(key, false);
            self.advance_replicas(now, key);
        }
        self.check_gap(now, key);
        if reset && !ended {
            return self.sever(now, key);
        }
        if closed {
            self.advance_replicas(now, key);
        }
        let urgent = self
            .sessions
            .get(key)
            .is_some_and(|s| s.gap_since != Time::NEVER);
        if urgent {
            self.arm_session(key);
        }
        self.weigh_reset(now, key);
    }

    /// Whether what the live server said concerns the stream of a session: not one that is only watched, or that the
    /// server refused, nor an earlier connection of its four-tuple.
    fn concerns(&mut self, key: SessionKey, packet: &TcpPacket<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let TcpHeader {
            seq, ack, flags, ..
        } = packet.header;
        let reset = flags.has(Flags::RST);
        if let Some(midway) = session.midway_mut() {
            let missing = midway.on_live(packet);
            match midway.watch {
                Watch::Gap => self.stats.bytes_missing += missing,
                Watch::SetAside => self.stats.bytes_set_aside += missing,
                Watch::Met | Watch::Refused => {}
            }
            if reset {
                self.remove_session(key);
            }
            return false;
        }
        match session.phase() {
            Phase::Opening if reset => {
                // The live server refused: the client's connection never existed. A RST that
                // acknowledges something else is meant for an earlier connection of the four-tuple
                // (RFC 9293 3.10.7.3).
                let header = &packet.header;
                let refused = match session.live.is_known() {
                    true => session.live.is_next(header.seq),
                    false => {
                        header.flags.has(Flags::ACK) && header.ack == session.stream().first_seq()
                    }
                };
                match refused {
                    true => self.remove_session(key),
                    false => self.refute(key, seq),
                }
                return false;
            }
            // It answers another SYN.
            Phase::Opening
                if flags.has(Flags::SYN)
                    && session
                        .stream()
                        .offset_of(ack)
                        .is_none_or(|offset| offset > session.stream().known_end()) =>
            {
                return false;
            }
            // Before it has answered the SYN, it speaks of an earlier connection of the four-tuple
            // that it still knows (RFC 5961 4.2), in numbers that mean nothing here.
            Phase::Opening if !session.live.is_known() && !packet.header.flags.has(Flags::SYN) => {
                return false;
            }
            Phase::Opening | Phase::Midway(_) | Phase::Active { .. } => {}
        }
        true
    }

    /// The live server has reset the connection.
    pub(super) fn sever(&mut self, now: Time, key: SessionKey) {
        self.settle_ack(key);
        let clock = self.clock.now(now);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        let kind = EndKind::Severed;
        let has_gap = session.has_gap();
        self.stats.bytes_missing += session.note_acked();
        if has_gap {
            // Nothing will fill it. What was captured behind it is delivered, too.
            let offset = session.stream().known_end();
            session.stream_mut().set_end(End { offset, kind });
            self.stats.sessions_ended += u64::from(session.end(clock));
            drop(session);
            self.heal(now, key, true);
            return;
        }
        let given_up = session.stream_mut().cut_short(kind);
        self.stats.give_up(given_up, session.copies());
        self.stats.sessions_ended += u64::from(session.end(clock));
        session.mark_end();
        drop(session);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }
}

/// Whether the live server, which acknowledges a stray segment of the client here, speaks of another connection than
/// this. Where its own number is this one's, so is the segment: capture has lost much.
fn is_of_another(session: &Session, header: &TcpHeader) -> bool {
    if matches!(session.phase(), Phase::Midway(_)) {
        return true;
    }
    let is_sent = |offset| offset <= session.stream().known_end() + 1;
    let is_known = session.stream().offset_of(header.ack).is_some_and(is_sent);
    !is_known && !session.live.is_near(header.seq)
}

//! Segments from the live server to clients.

use millrace_wire::{Flags, Mptcp, TcpHeader, TcpPacket};

use super::Engine;
use super::client::{ClientSegment, PLAUSIBLE};
use crate::payload::Payload;
use crate::session::{Midway, Phase, SessionKey, Watch};
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
        let found = self.find_session(&tuple);
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
                let seen = session.stream.known_end().min(1 << 30) as u32;
                let newer = ack.after(session.stream.first_seq().add(seen));
                newer && !matches!(session.phase, Phase::Opening)
            });
        let doubts = found.and_then(|key| self.doubts.get(key)).copied();
        let doubts = doubts.unwrap_or_default();
        let is_stray = doubts.stray == Some(ack);
        let is_accepted = flags.has(Flags::SYN | Flags::ACK)
            && doubts.syn.is_some_and(|number| number.add(1) == ack);
        if let Some(key) = found.filter(|_| is_new || is_stray || is_accepted) {
            self.retire(now, key);
        }
        let client = TcpPacket {
            tuple,
            header: TcpHeader {
                seq: ack.add(u32::MAX),
                flags: Flags::SYN,
                ..TcpHeader::default()
            },
            payload: &[],
            payload_len: 0,
        };
        if is_accepted {
            // It was seen, and not counted as a session's beginning.
            let segment = ClientSegment {
                at,
                packet: &client,
                payload: Payload::Borrowed(&[]),
            };
            self.begin(now, segment);
        } else if is_new {
            self.begin_unseen(at, &client, Phase::Opening);
        } else if is_stray {
            let midway = Midway::new(&client, Watch::Met);
            self.begin_unseen(at, &client, Phase::Midway(midway));
        } else {
            return found;
        }
        self.find_session(&tuple)
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
        let reset = packet.header.flags.has(Flags::RST);
        match &mut session.phase {
            Phase::Midway(midway) => {
                let missing = midway.on_live(packet);
                match midway.watch {
                    Watch::Gap => self.stats.bytes_missing += missing,
                    Watch::SetAside => self.stats.bytes_set_aside += missing,
                    Watch::Met | Watch::Refused => {}
                }
                if reset {
                    self.remove_session(key);
                }
                return;
            }
            Phase::Opening if reset => {
                // The live server refused: the client's connection never existed. A RST that
                // acknowledges something else is meant for an earlier connection of the four-tuple
                // (RFC 9293 3.10.7.3).
                let header = &packet.header;
                let refused = match session.live.is_known() {
                    true => session.live.is_next(header.seq),
                    false => {
                        header.flags.has(Flags::ACK) && header.ack == session.stream.first_seq()
                    }
                };
                if refused {
                    self.remove_session(key);
                }
                return;
            }
            // Before it has answered the SYN, it speaks of an earlier connection of the four-tuple
            // that it still knows (RFC 5961 4.2), in numbers that mean nothing here.
            Phase::Opening if !session.live.is_known() && !packet.header.flags.has(Flags::SYN) => {
                return;
            }
            Phase::Opening | Phase::Active { .. } => {}
        }
        let stream = &session.stream;
        let finished = session.live.finished;
        let asked = session.live.clock.is_asking();
        // More than that is not lost in one hole: it speaks of another connection.
        let sent = stream.known_end();
        let offset_of = |ack| {
            let offset = stream.offset_of(ack);
            offset.filter(|offset| *offset <= sent.saturating_add(PLAUSIBLE))
        };
        let at_next_byte = session.live.is_next(packet.header.seq);
        let said = session.live.said(at, packet, sent, offset_of);
        let said = said.filter(|said| self.hear(key, said));
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let answered = asked && !session.live.clock.is_asking();
        self.stats.live_turns_answered += u64::from(answered);
        let ended = session.stream.announced_end().is_some();
        if reset && !ended && !at_next_byte {
            let end = End {
                offset: session.stream.len(),
                kind: EndKind::Severed,
            };
            return self.doubt_reset(key, at, end);
        }
        if reset || session.live.finished {
            self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        }
        let closed = session.live.finished != finished;
        if let Some(said) = said {
            self.note_answer(key, said.acked());
        }
        self.settle_waiting(now, key, false);
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

    /// The live server has reset the connection.
    pub(super) fn sever(&mut self, now: Time, key: SessionKey) {
        self.settle_ack(key);
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let kind = EndKind::Severed;
        if session.has_gap() {
            // Nothing will fill it. What was captured behind it is delivered, too.
            self.stats.bytes_missing += session.note_acked();
            let offset = session.stream.known_end();
            session.stream.set_end(End { offset, kind });
            self.stats.sessions_ended += u64::from(session.end(clock));
            self.heal(now, key, true);
            return;
        }
        let before = session.load();
        self.stats.bytes_missing += session.note_acked();
        let given_up = session.stream.cut_short(kind);
        self.stats.give_up(given_up, session.copies());
        self.stats.sessions_ended += u64::from(session.end(clock));
        session.mark_end();
        self.account(key, before);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }
}

//! How the client's side of a session ends: FIN, RST, urgent data, or by order.

use millrace_wire::{Flags, TcpPacket};

use super::Engine;
use super::client_segments::{mark, place};
use crate::key::SessionKey;
use crate::session::Course;
use crate::stats::AbortReason;
use crate::stream::{End, EndKind, RunInfo};
use crate::time::Time;

impl Engine {
    /// Which byte is urgent, and whether it is part of the stream, is the receiver's choice (RFC 6093 3): what lies before
    /// it is delivered, and nothing of the rest.
    pub(super) fn end_before_urgent(
        &mut self,
        now: Time,
        key: SessionKey,
        at: Time,
        packet: &TcpPacket<'_>,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(placed) = place(session.stream(), packet.header.seq, packet) else {
            return self.note_stray(at, key, packet);
        };
        if placed.end <= session.stream().len() {
            // It is there already, from a segment that did not say so.
            return;
        }
        let offset = placed.offset.max(session.stream().len());
        session.live.on_client_ack(packet);
        let kind = EndKind::Uncopied(AbortReason::Urgent);
        self.end_at(now, at, key, End { offset, kind });
    }

    /// Of what a session's client sends from here on nothing is copied.
    pub(super) fn end_here(&mut self, now: Time, key: SessionKey, kind: EndKind) {
        if let Some(session) = self.sessions.get(key) {
            let (at, offset) = (session.last_seen, session.stream().known_end());
            self.end_at(now, at, key, End { offset, kind });
        }
    }

    pub(super) fn end_at(&mut self, now: Time, at: Time, key: SessionKey, end: End) {
        let clock = self.clock.now(now);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        session.stream_mut().set_end(end);
        self.stats.sessions_ended += u64::from(session.end(clock));
        let answer = session.live.client_saw();
        drop(session);
        self.place_end(now, at, key, answer);
        self.check_gap(now, key);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }

    /// Whether a RST at this offset stands where the live server expects the next byte, or where it says that it does;
    /// behind a FIN both are possible.
    pub(super) fn is_at_next_byte(&self, key: SessionKey, offset: u64) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let acked = session.live.is_known() && offset == session.live.acked;
            let fin = session.stream().announced_end();
            let behind_fin =
                fin.is_some_and(|fin| offset == fin.offset || offset == fin.offset + 1);
            acked || behind_fin || offset == session.stream().len()
        })
    }

    /// Notes FIN and RST, and gives the end its place among the turns once all before it is
    /// there. Says whether the session has changed by it.
    pub(super) fn note_end(
        &mut self,
        now: Time,
        at: Time,
        key: SessionKey,
        packet: &TcpPacket<'_>,
        offset: u64,
        wire_end: u64,
    ) -> bool {
        let clock = self.clock.now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let flags = packet.header.flags;
        let mut changed = false;
        if flags.has(Flags::RST) {
            if session.stream().announced_end().is_some() {
                self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
                changed = !session.reset_after_fin;
                session.reset_after_fin = true;
            } else {
                // One at what the live server has acknowledged may stand before bytes that were captured.
                let end = End {
                    offset: offset.max(session.stream().len()),
                    kind: EndKind::Reset,
                };
                self.end_by_reset(now, key, end);
                changed = true;
            }
        } else if flags.has(Flags::FIN)
            && !flags.has(Flags::SYN)
            && wire_end >= session.stream().len()
            && let Some(mut session) = self.sessions.change(key)
        {
            session.stream_mut().set_end(End {
                offset: wire_end,
                kind: EndKind::Fin,
            });
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return changed;
        };
        if session.stream().announced_end().is_some() && session.end(clock) {
            self.stats.sessions_ended += 1;
            changed = true;
        }
        let answer = session.live.on_client_ack(packet);
        changed | self.place_end(now, at, key, answer)
    }

    /// Gives the end of a session's stream its place among the turns, once all before it is there.
    /// Says whether it has one now that it had not before.
    pub(super) fn place_end(&mut self, now: Time, at: Time, key: SessionKey, answer: u64) -> bool {
        let session = self.sessions.get(key);
        let session = session.filter(|session| session.course != Course::EndMarked);
        let Some(end) = session.and_then(|session| session.stream().end()) else {
            return false;
        };
        let Some(mut session) = self.sessions.change(key) else {
            return false;
        };
        session.mark_end();
        let info = RunInfo {
            at,
            answer,
            fresh: false,
        };
        let (_, turns, live) = session.parts();
        if turns.begins(info, live.clock.asked_at) {
            let mark = mark(live, end.offset, info, &self.clock, &mut self.stats);
            turns.push(now, mark);
        } else if let Some(latency) = live.clock.finish() {
            self.stats.live_latency.record(latency);
        }
        true
    }
}

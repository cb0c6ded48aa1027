//! Segments that their receiver may not have accepted (RFC 9293 3.10.7.4, RFC 5961 3.2 and 4.2): strays, forged
//! ones, late repetitions. They count once what follows bears them out; a RST also when nothing follows.
//!
//! - A RST that does not stand at the next byte is challenged by its receiver, and mostly ends nothing. It counts when
//!   the bytes before it have come, or when nothing shows for a while that the connection goes on.
//! - A SYN with other numbers on an open connection is challenged, too. A SYN-ACK that answers it begins another one.
//!   So does one that answers no SYN which was captured, once the client speaks in the numbers of both.
//! - A client's segment outside of any window is another connection's if the live server acknowledges it.

use std::time::Duration;

use super::Engine;
use crate::evidence::DoubtfulReset;
use crate::key::SessionKey;
use crate::stream::{End, EndKind};
use crate::time::Time;

/// A RST at another byte than the next counts if nothing has shown for so long that the connection goes on.
pub(super) const BORNE_OUT_AFTER: Duration = Duration::from_secs(60);

impl Engine {
    /// Notes a RST of either side that does not stand at the next byte, and would make this end.
    pub(super) fn doubt_reset(&mut self, key: SessionKey, at: Time, end: End) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let reset = DoubtfulReset {
            at,
            end,
            asked: session.stream().known_end().max(session.live.acked),
            answered: session.live.sent(),
        };
        self.stats.resets_doubted += 1;
        // Of several the first: what came after it came after all of them.
        self.evidence.doubt(key, |doubts| {
            doubts.reset.get_or_insert(reset);
        });
        self.arm_session(key);
    }

    /// Looks whether what was captured since bears out a RST of this session, or shows that it ended nothing.
    pub(super) fn weigh_reset(&mut self, now: Time, key: SessionKey) {
        let Some(reset) = self.evidence.doubts(key).and_then(|doubts| doubts.reset) else {
            return;
        };
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let goes_on = match reset.end.kind {
            EndKind::Severed => session.live.sent() > reset.answered,
            _ => session.stream().known_end() > reset.asked.max(reset.end.offset),
        };
        if goes_on || session.live.acked > reset.asked {
            self.evidence.doubt(key, |doubts| doubts.reset = None);
        } else if reset.end.kind == EndKind::Reset && session.stream().len() == reset.end.offset {
            self.settle_reset(now, key);
        }
    }

    /// When a RST of this session counts, unless something shows before that the connection goes on.
    pub(super) fn reset_counts_at(&self, key: SessionKey) -> Time {
        let reset = self.evidence.doubts(key).and_then(|doubts| doubts.reset);
        reset.map_or(Time::NEVER, |reset| reset.at + BORNE_OUT_AFTER)
    }

    /// A RST of this session counts from now on, if there is one.
    pub(super) fn settle_reset(&mut self, now: Time, key: SessionKey) {
        let Some(reset) = self.evidence.doubts(key).and_then(|doubts| doubts.reset) else {
            return;
        };
        self.evidence.doubt(key, |doubts| doubts.reset = None);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.stream().announced_end().is_some() || !session.is_active() {
            return;
        }
        if reset.end.kind == EndKind::Severed {
            return self.sever(now, key);
        }
        let end = End {
            offset: reset.end.offset.max(session.stream().len()),
            ..reset.end
        };
        let answer = session.live.client_saw();
        self.end_by_reset(now, key, end);
        self.place_end(now, reset.at, key, answer);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }

    /// The client has reset its connection.
    pub(super) fn end_by_reset(&mut self, now: Time, key: SessionKey, end: End) {
        let clock = self.clock.now(now);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        // Whatever comes now, the client does not hear it.
        self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        session.stream_mut().set_end(end);
        self.stats.sessions_ended += u64::from(session.end(clock));
        drop(session);
        self.check_gap(now, key);
    }
}

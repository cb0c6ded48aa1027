//! Segments that their receiver may not have accepted (RFC 9293 3.10.7.4, RFC 5961 3.2 and 4.2): strays, forged
//! ones, late repetitions. They count once what follows bears them out; a RST also when nothing follows.
//!
//! - A RST that does not stand at the next byte is challenged by its receiver, and mostly ends nothing. It counts when
//!   the bytes before it have come, or when nothing shows for a while that the connection goes on.
//! - A SYN with other numbers on an open connection is challenged, too. A SYN-ACK that answers it begins another one.
//!   So does one that answers no SYN which was captured, once the client speaks in the numbers of both.
//! - A client's segment outside of any window is another connection's if the live server acknowledges it.

use std::time::Duration;

use millrace_wire::{Flags, Seq, TcpHeader, TcpOptions};

use super::Engine;
use crate::key::SessionKey;
use crate::live_view::Said;
use crate::session::Phase;
use crate::stream::{End, EndKind};
use crate::time::Time;

/// A RST at another byte than the next counts if nothing has shown for so long that the connection goes on.
pub(super) const BORNE_OUT_AFTER: Duration = Duration::from_secs(60);

/// Memory that the doubts about one connection take, in bytes, with their place in a table.
const DOUBTS_COST: usize = 2 * size_of::<Doubts>();

/// What was captured of one connection and does not count yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubts {
    /// Behind the last segment of the client that fits no window.
    pub(super) stray: Option<Seq>,
    /// The number of a SYN that came while the connection was open.
    pub(super) syn: Option<Seq>,
    /// What the live server said behind a hole.
    pub(super) behind_hole: Option<Said>,
    /// The client's last acknowledgement of what the live server is not known to have sent.
    pub(super) unsent: Option<Seq>,
    /// The live server's last segment, if it acknowledged what the client is not known to have sent.
    pub(super) unasked: Option<Said>,
    /// The number of the live server's first word, if it is far from what the client has acknowledged.
    pub(super) number: Option<Seq>,
    /// A SYN-ACK in other numbers than the connection's.
    pub(super) greeting: Option<Greeting>,
    reset: Option<DoubtfulReset>,
}

/// What is remembered of a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// The client's first byte.
    pub(super) next: Seq,
    /// The live server's.
    pub(super) first: Seq,
    window_scale: Option<u8>,
}

impl Greeting {
    pub(super) fn of(header: &TcpHeader) -> Self {
        Self {
            next: header.ack,
            first: header.seq.add(1),
            window_scale: header.options.window_scale,
        }
    }

    /// The header that it was in, as far as it matters.
    pub(super) fn header(&self) -> TcpHeader {
        TcpHeader {
            seq: self.first.add(u32::MAX),
            ack: self.next,
            flags: Flags::SYN | Flags::ACK,
            options: TcpOptions {
                window_scale: self.window_scale,
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        }
    }
}

/// A RST that did not stand at the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DoubtfulReset {
    at: Time,
    /// The end that it makes: [`EndKind::Severed`] if it came from the live server.
    end: End,
    /// What the client and the live server had sent before.
    asked: u64,
    answered: u64,
}

impl Engine {
    /// Notes something of a session that does not count yet.
    pub(super) fn doubt(&mut self, key: SessionKey, note: impl FnOnce(&mut Doubts)) {
        let before = self.doubts.remove(key);
        let mut doubts = before.unwrap_or_default();
        note(&mut doubts);
        let is_held = doubts != Doubts::default();
        if is_held {
            self.doubts.insert(key, doubts);
        }
        match (before.is_some(), is_held) {
            (false, true) => self.heap += DOUBTS_COST,
            (true, false) => self.heap = self.heap.saturating_sub(DOUBTS_COST),
            (true, true) | (false, false) => {}
        }
    }

    /// Nothing of this session is in doubt any more.
    pub(super) fn forget_doubts(&mut self, key: SessionKey) {
        if self.doubts.remove(key).is_some() {
            self.heap = self.heap.saturating_sub(DOUBTS_COST);
        }
    }

    /// Notes a RST of either side that does not stand at the next byte, and would make this end.
    pub(super) fn doubt_reset(&mut self, key: SessionKey, at: Time, end: End) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let reset = DoubtfulReset {
            at,
            end,
            asked: session.stream.known_end().max(session.live.acked),
            answered: session.live.sent(),
        };
        self.stats.resets_doubted += 1;
        // Of several the first: what came after it came after all of them.
        self.doubt(key, |doubts| {
            doubts.reset.get_or_insert(reset);
        });
        self.arm_session(key);
    }

    /// Looks whether what was captured since bears out a RST of this session, or shows that it ended nothing.
    pub(super) fn weigh_reset(&mut self, now: Time, key: SessionKey) {
        let Some(reset) = self.doubts.get(key).and_then(|doubts| doubts.reset) else {
            return;
        };
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let goes_on = match reset.end.kind {
            EndKind::Severed => session.live.sent() > reset.answered,
            _ => session.stream.known_end() > reset.asked.max(reset.end.offset),
        };
        if goes_on || session.live.acked > reset.asked {
            self.doubt(key, |doubts| doubts.reset = None);
        } else if reset.end.kind == EndKind::Reset && session.stream.len() == reset.end.offset {
            self.settle_reset(now, key);
        }
    }

    /// When a RST of this session counts, unless something shows before that the connection goes on.
    pub(super) fn reset_counts_at(&self, key: SessionKey) -> Time {
        let reset = self.doubts.get(key).and_then(|doubts| doubts.reset);
        reset.map_or(Time::NEVER, |reset| reset.at + BORNE_OUT_AFTER)
    }

    /// A RST of this session counts from now on, if there is one.
    pub(super) fn settle_reset(&mut self, now: Time, key: SessionKey) {
        let Some(reset) = self.doubts.get(key).and_then(|doubts| doubts.reset) else {
            return;
        };
        self.doubt(key, |doubts| doubts.reset = None);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.stream.announced_end().is_some()
            || !matches!(session.phase, Phase::Active { .. })
        {
            return;
        }
        if reset.end.kind == EndKind::Severed {
            return self.sever(now, key);
        }
        let end = End {
            offset: reset.end.offset.max(session.stream.len()),
            ..reset.end
        };
        let (before, answer) = (session.load(), session.live.client_saw());
        self.end_by_reset(now, key, end);
        self.place_end(now, reset.at, key, answer);
        self.account(key, before);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }

    /// The client has reset its connection.
    pub(super) fn end_by_reset(&mut self, now: Time, key: SessionKey, end: End) {
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // Whatever comes now, the client does not hear it.
        self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        session.stream.set_end(end);
        self.stats.sessions_ended += u64::from(session.end(clock));
        self.check_gap(now, key);
    }
}

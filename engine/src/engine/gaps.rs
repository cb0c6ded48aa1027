//! Capture gaps: bytes that the live server received and capture did not deliver.
//!
//! A session loses the damaged turn, not its life. Its replicas deliver what lies before the hole,
//! and are then cut, so that no request is completed with other bytes. The rest of the connection
//! becomes a session of its own, the heir: from the next turn on that was held behind the hole, or
//! else watched until one begins, like a session that was met in its middle.

use std::collections::VecDeque;

use super::Engine;
use crate::live::LiveView;
use crate::payload::Payload;
use crate::session::{Course, Midway, Phase, Session, SessionKey, Watch};
use crate::stats::AbortReason;
use crate::stream::{End, EndKind, HeldRun, RunInfo};
use crate::time::Time;

impl Engine {
    /// What this session lacks will not come any more. Gives its heir, if it has one.
    pub(super) fn heal(&mut self, now: Time, key: SessionKey) -> Option<SessionKey> {
        let session = self.sessions.get_mut(key)?;
        self.stats.bytes_missing += session.note_acked();
        if self.config.only_from_syn || session.first_replica.is_none() {
            self.abort_session(now, key, AbortReason::CaptureGap);
            return None;
        }
        let before = session.load();
        let (turns, end) = session.stream.take_next_turn();
        let heir = match turns.front() {
            Some(first) => Some(resumed(session, first)),
            None if session.course == Course::Running => Some(watched(session, Watch::Gap)),
            None => None,
        };
        let given_up = session.stream.cut_short(EndKind::Lost);
        self.stats.give_up(given_up, session.copies());
        self.account(key, before);
        let heir = self.bequeath(now, key, heir);
        if let Some(heir) = heir
            && let Some(first) = turns.front().map(|run| run.offset)
        {
            self.stats.sessions_resumed += 1;
            self.open_replicas(now, heir);
            self.take_over(now, heir, turns, first, end);
        }
        heir
    }

    /// Lets `heir` hold the rest of a session's connection; the session ends where its stream does.
    pub(super) fn bequeath(
        &mut self,
        now: Time,
        key: SessionKey,
        heir: Option<Session>,
    ) -> Option<SessionKey> {
        let clock = self.live_now(now);
        let session = self.sessions.get_mut(key)?;
        session.gap_since = Time::NEVER;
        let heir = match heir {
            Some(heir) => {
                // Whether the last turn is answered is the heir's to see.
                session.live = LiveView::new(session.last_seen);
                let tuple = session.tuple;
                self.unlist_session(key);
                let heir = self.sessions.insert(heir);
                self.enter_session(heir, &tuple);
                self.arm_session(heir);
                Some(heir)
            }
            None => {
                self.stats.sessions_ended += u64::from(session.end(clock));
                None
            }
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.mark_end();
        }
        self.advance_replicas(now, key);
        match self.replicas_of(key) {
            None if heir.is_some() => self.remove_session(key),
            Some(_) | None => self.arm_session(key),
        }
        heir
    }

    /// Gives an heir what was held for it: runs at offsets of its testator, whose byte `first` is its
    /// own first one, and where the stream ends.
    fn take_over(
        &mut self,
        now: Time,
        heir: SessionKey,
        runs: VecDeque<HeldRun>,
        first: u64,
        end: Option<End>,
    ) {
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(heir) else {
            return;
        };
        let turn = session.live.clock;
        session.live.clock = crate::turns::TurnClock::starting(session.last_seen);
        let answered_before = runs.front().map_or(0, |run| run.info.answer);
        let before = session.load();
        let mut last = RunInfo {
            at: session.last_seen,
            answer: 0,
            fresh: false,
        };
        for run in runs {
            last = RunInfo {
                answer: run.info.answer.saturating_sub(answered_before),
                ..run.info
            };
            let payload = Payload::Shared(&run.data);
            // Memory for it was there a moment ago; without, the rest is another gap.
            let _ = self.take_run(now, heir, run.offset - first, &run.data, payload, last);
        }
        if let Some(session) = self.sessions.get_mut(heir) {
            session.live.clock = turn;
            if let Some(end) = end {
                let offset = end.offset.saturating_sub(first);
                session.stream.set_end(End { offset, ..end });
            }
            session.check_gap(clock);
        }
        self.place_end(now, last.at, heir, last.answer);
        self.account(heir, before);
        self.advance_replicas(now, heir);
        self.arm_session(heir);
    }
}

/// The heir that begins with a turn that was held.
fn resumed(session: &Session, first: &HeldRun) -> Session {
    let busy = 0;
    let copies = session.copies();
    let phase = Phase::Active { copies, busy };
    // Sequence numbers are 32 bits of an offset.
    let seq = session.stream.first_seq().add(first.offset as u32);
    let mut heir = Session::new(
        session.last_seen,
        session.tuple,
        session.service,
        seq,
        phase,
    );
    heir.live = session.live.beginning_at(first.offset, first.info.answer);
    heir.course = match session.course {
        Course::Running => Course::Running,
        Course::Ended | Course::EndMarked => Course::Ended,
    };
    heir.reset_after_fin = session.reset_after_fin;
    heir
}

/// The heir that waits for a turn.
pub(super) fn watched(session: &Session, watch: Watch) -> Session {
    let midway = Midway::rest(&session.stream, &session.live, watch);
    let seq = session.stream.first_seq();
    let phase = Phase::Midway(midway);
    Session::new(
        session.last_seen,
        session.tuple,
        session.service,
        seq,
        phase,
    )
}

//! Capture gaps: bytes that the live server received and capture did not deliver.
//!
//! A session loses the damaged turn, not its life. Its replicas deliver what lies before the hole,
//! and are then cut, so that no request is completed with other bytes. The rest of the connection
//! becomes a session of its own, the heir: from the next turn on that was held behind the hole, or
//! else watched until one begins, like a session that was met in its middle.

use std::time::Duration;

use millrace_wire::Seq;

use super::Engine;
use crate::admission::Decision;
use crate::key::SessionKey;
use crate::live_view::LiveView;
use crate::payload::Payload;
use crate::protocol::Beginning;
use crate::session::{Course, Midway, Phase, Session, Watch};
use crate::stats::AbortReason;
use crate::stream::{Behind, End, EndKind, RunInfo};
use crate::time::Time;
use crate::turns::TurnClock;

/// So many connections may come of one session at once; of what lies behind still more holes, the
/// next turn is waited for.
const HEIRS_AT_ONCE: usize = 16;

impl Engine {
    /// Whether bytes are missing of a session that it is known to have sent.
    pub(super) fn has_gap(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let active = session.is_active();
            active && session.has_gap()
        })
    }

    /// How long bytes that the live server has acknowledged are waited for.
    pub(super) fn gap_grace(&self) -> Duration {
        self.clock.grace(self.config.gap_grace)
    }

    /// Notes whether bytes of this session are missing that the live server has acknowledged.
    pub(super) fn check_gap(&mut self, now: Time, key: SessionKey) {
        let clock = self.clock.now(now);
        if let Some(session) = self.sessions.get_mut(key) {
            self.clock.note_ahead(session.check_gap(clock));
        }
    }

    /// Whether a session has a replica that still delivers something.
    pub(super) fn is_copied(&self, key: SessionKey) -> bool {
        let first = self.sessions.first_replica(key);
        let mut replicas = self.replicas.siblings(first);
        replicas.any(|(_, replica)| !replica.is_lingering())
    }

    /// What this session lacks will not come any more, nor, if `all`, what is missing further on. Gives
    /// the session that holds the rest of the connection, if another one does.
    pub(super) fn heal(&mut self, now: Time, key: SessionKey, all: bool) -> Option<SessionKey> {
        let copied = self.is_copied(key);
        self.settle_ack(key);
        let mut session = self.sessions.change(key)?;
        self.stats.bytes_missing += session.note_acked();
        if self.config.only_from_syn || !copied {
            drop(session);
            self.abort_session(now, key, AbortReason::CaptureGap);
            return None;
        }
        tracing::trace!(client = %session.tuple.source, "bytes behind {} are missing for good", session.stream().len());
        let (live, origin, course) = (session.live, session.stream().first_seq(), session.course);
        let mut behind = session.stream_mut().take_behind_hole();
        drop(session);
        let (mut testator, mut heirs) = (key, 0);
        loop {
            let (resumes, watch) = match self.admit(now, testator, Some(Watch::Gap)) {
                Decision::Copied(_) => (heirs < HEIRS_AT_ONCE, Watch::Gap),
                // Not for the gap alone: what follows is not wanted now.
                Decision::Unchosen | Decision::Refused(_) => (false, Watch::SetAside),
            };
            let given_up = behind.skip_to_turn(resumes);
            let mut session = self.sessions.change(testator)?;
            // Marking the end of one that others follow says nothing of the connection.
            session.course = course;
            session.stream_mut().cut_short(EndKind::Lost);
            self.stats.give_up(given_up, session.copies());
            let Some(first) = behind.runs.front().map(|run| run.info) else {
                let watched = (session.course == Course::Running)
                    .then(|| watched(&session, origin, &live, behind.known_end, watch));
                drop(session);
                let heir = self.bequeath(now, testator, watched);
                // Where there is no rest, the last one is all there is.
                return heir.or((testator != key).then_some(testator));
            };
            let heir = resumed(&session, origin, &live, behind.at, first);
            drop(session);
            let heir = self.bequeath(now, testator, Some(heir))?;
            self.stats.sessions_resumed += 1;
            self.open_replicas(now, heir, Beginning::Turn);
            if self.take_over(now, heir, &mut behind, first.answer, all) {
                return Some(heir);
            }
            (testator, heirs) = (heir, heirs + 1);
        }
    }

    /// Lets `heir` hold the rest of a session's connection; the session ends where its stream does.
    pub(super) fn bequeath(
        &mut self,
        now: Time,
        key: SessionKey,
        heir: Option<Session>,
    ) -> Option<SessionKey> {
        let clock = self.clock.now(now);
        let session = self.sessions.get_mut(key)?;
        session.gap_since = Time::NEVER;
        let heir = match heir {
            Some(heir) => {
                // Whether the last turn is answered is the heir's to see.
                session.live = LiveView::new(session.last_seen);
                self.unlist_session(key);
                let heir = self.sessions.insert(heir);
                self.evidence.bequeath(key, heir);
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
        match self.sessions.first_replica(key) {
            None if heir.is_some() => self.remove_session(key),
            Some(_) | None => self.arm_session(key),
        }
        heir
    }

    /// Gives an heir what is there for it without a hole, and, unless the next hole is as final as the
    /// first, all that follows. Says whether nothing is left.
    fn take_over(
        &mut self,
        now: Time,
        heir: SessionKey,
        behind: &mut Behind,
        answered_before: u64,
        all: bool,
    ) -> bool {
        let clock = self.clock.now(now);
        let Some(session) = self.sessions.get_mut(heir) else {
            return true;
        };
        let first = behind.at;
        let mut last = RunInfo {
            at: session.last_seen,
            answer: 0,
            fresh: false,
        };
        while let Some(run) = behind.take_next() {
            last = RunInfo {
                answer: run.info.answer.saturating_sub(answered_before),
                ..run.info
            };
            let payload = Payload::Shared(&run.data);
            // Memory for it was there a moment ago; without, the rest is another gap.
            let _ = self.take_run(now, heir, run.offset - first, &run.data, payload, last);
        }
        let over = behind.is_over();
        let hole_since = behind.runs.front().map_or(clock, |run| run.info.at);
        let grace = self.gap_grace();
        let done = over || !(all || hole_since + grace <= clock);
        if let Some(mut session) = self.sessions.change(heir) {
            let (answered, _) = session.live.answered();
            if answered && over {
                // Nothing is asked.
                session.live.clock = TurnClock::starting(last.at);
            }
            if done {
                let rest = Behind {
                    at: behind.at,
                    runs: std::mem::take(&mut behind.runs),
                    ..*behind
                };
                match (over, rest.end) {
                    (true, None) => {}
                    (true, Some(end)) => {
                        let offset = end.offset - first;
                        session.stream_mut().set_end(End { offset, ..end });
                    }
                    (false, _) => {
                        let stream = session.stream_mut();
                        stream.put_behind_hole(rest, first, answered_before);
                    }
                }
                session.check_gap(clock);
                if session.gap_since != Time::NEVER {
                    session.gap_since = session.gap_since.min(hole_since);
                }
            }
        }
        self.place_end(now, last.at, heir, last.answer);
        self.advance_replicas(now, heir);
        if self.sessions.first_replica(heir).is_none() {
            // There was no source for any.
            self.trim(heir);
        }
        self.arm_session(heir);
        done
    }
}

/// The heir that begins with the turn at offset `at` of the first testator's stream, whose first byte
/// has the number `origin` and whose live server is `live`.
fn resumed(session: &Session, origin: Seq, live: &LiveView, at: u64, first: RunInfo) -> Session {
    let busy = 0;
    let copies = session.copies();
    let phase = Phase::Active { copies, busy };
    // Sequence numbers are 32 bits of an offset.
    let seq = origin.add(at as u32);
    let mut heir = Session::new(
        session.last_seen,
        session.tuple,
        session.service,
        seq,
        phase,
    );
    heir.live = live.beginning_at(at, first.answer);
    // What happened before the turn is the testator's.
    heir.live.clock = TurnClock::starting(first.at);
    heir.course = match session.course {
        Course::Running => Course::Running,
        Course::Ended | Course::EndMarked => Course::Ended,
    };
    heir.reset_after_fin = session.reset_after_fin;
    heir
}

/// The heir that waits for a turn behind `known_end`, an offset from the number `origin`.
pub(super) fn watched(
    session: &Session,
    origin: Seq,
    live: &LiveView,
    known_end: u64,
    watch: Watch,
) -> Session {
    let midway = Midway::rest(origin, known_end, live, watch);
    let phase = Phase::Midway(midway);
    Session::new(
        session.last_seen,
        session.tuple,
        session.service,
        origin,
        phase,
    )
}

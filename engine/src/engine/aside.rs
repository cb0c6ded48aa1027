//! Under pressure sessions are set aside: see [`Relief`] for which. A session that is set aside is cut at
//! the target once what was captured of it is delivered, watched from then on, and taken up again at
//! a turn when the pressure is gone.

use super::Engine;
use super::gaps::watched;
use crate::admission::Relief;
use crate::key::SessionKey;
use crate::session::{Course, Session, Watch};
use crate::stats::AbortReason;
use crate::stream::EndKind;
use crate::time::Time;

impl Engine {
    /// From now on so many sessions are taken. Open sessions that are not are set aside.
    pub fn set_relief(&mut self, now: Time, relief: Relief) {
        let before = self.admission.set_relief(relief);
        if relief.keep >= before.keep {
            return;
        }
        let is_set_aside = |key: &SessionKey| {
            self.sessions.get(*key).is_some_and(|session| {
                session.course == Course::Running
                    && session.is_active()
                    && !self.admission.keeps(session.tuple.source)
            }) && self.is_copied(*key)
        };
        let keys: Vec<SessionKey> = self.sessions.keys().filter(is_set_aside).collect();
        for key in keys {
            self.set_aside(now, key);
        }
    }

    /// What part of the sessions is taken at the moment.
    pub const fn relief(&self) -> Relief {
        self.admission.relief()
    }

    /// Ends the copy of a session with what was captured so far, and watches it.
    fn set_aside(&mut self, now: Time, key: SessionKey) {
        self.settle_ack(key);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        self.stats.sessions_set_aside += 1;
        self.stats.bytes_missing += session.note_acked();
        let heir = (!self.config.only_from_syn).then(|| set_aside(&session));
        let given_up = session.stream_mut().cut_short(EndKind::SetAside);
        self.stats.give_up(given_up, session.copies());
        drop(session);
        self.bequeath(now, key, heir);
    }

    /// Frees the memory of a session that has too much, or is the next to need some when there is no
    /// more. It may be taken up again at a later turn.
    pub(super) fn make_room(&mut self, now: Time, key: SessionKey) {
        let copied = self.is_copied(key);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        self.stats.bytes_missing += session.note_acked();
        let running = copied && session.course == Course::Running;
        let heir = (running && !self.config.only_from_syn).then(|| set_aside(&session));
        let reason = match session.stream().has_hole() {
            true => AbortReason::CaptureGap,
            false => AbortReason::Memory,
        };
        drop(session);
        self.abort_session(now, key, reason);
        if heir.is_some() {
            self.bequeath(now, key, heir);
        }
    }
}

/// The heir of a session that is set aside with what was seen of it.
fn set_aside(session: &Session) -> Session {
    let (stream, live) = (session.stream(), &session.live);
    watched(
        session,
        stream.first_seq(),
        live,
        stream.known_end(),
        Watch::SetAside,
    )
}

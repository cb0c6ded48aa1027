//! Order under pressure: which sessions are refused, and which are set aside.
//!
//! Both go by the place that the keyed hash gives a session, among those that the intensity chooses: so what is taken
//! under more pressure is a part of what is taken under less. A session that is set aside is cut at
//! the target once what was captured of it is delivered, watched from then on, and taken up again at
//! a turn when the pressure is gone.

use super::Engine;
use super::gaps::watched;
use crate::intensity::{Intensity, Place};
use crate::key::SessionKey;
use crate::session::{Course, Phase, Session, Watch};
use crate::stats::AbortReason;
use crate::stream::EndKind;
use crate::time::Time;

/// What part of the sessions is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relief {
    /// Of new sessions that the intensity chooses, this part is admitted: those with the lowest places.
    pub admit: Intensity,
    /// The same of open sessions, which are kept.
    pub keep: Intensity,
}

impl Default for Relief {
    /// All of them.
    fn default() -> Self {
        Self {
            admit: Intensity::ONE,
            keep: Intensity::ONE,
        }
    }
}

impl Relief {
    pub(super) fn admits(self, place: Place) -> bool {
        self.admit.min(self.keep).copies(place) > 0
    }

    pub(super) fn keeps(self, place: Place) -> bool {
        self.keep.copies(place) > 0
    }
}

impl Engine {
    /// From now on so many sessions are taken. Open sessions that are not are set aside.
    pub fn set_relief(&mut self, now: Time, relief: Relief) {
        let less = relief.keep < self.relief.keep;
        self.relief = relief;
        if !less {
            return;
        }
        let is_set_aside = |key: &SessionKey| {
            self.sessions.get(*key).is_some_and(|session| {
                session.course == Course::Running
                    && matches!(session.phase, Phase::Active { .. })
                    && !relief.keeps(self.place(session.tuple.source))
            }) && self.is_copied(*key)
        };
        let keys: Vec<SessionKey> = self.sessions.keys().filter(is_set_aside).collect();
        for key in keys {
            self.set_aside(now, key);
        }
    }

    /// What part of the sessions is taken at the moment.
    pub const fn relief(&self) -> Relief {
        self.relief
    }

    /// Ends the copy of a session with what was captured so far, and watches it.
    fn set_aside(&mut self, now: Time, key: SessionKey) {
        self.settle_ack(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.stats.sessions_set_aside += 1;
        self.stats.bytes_missing += session.note_acked();
        let before = session.load();
        let heir = (!self.config.only_from_syn).then(|| set_aside(session));
        let given_up = session.stream.cut_short(EndKind::SetAside);
        self.stats.give_up(given_up, session.copies());
        self.account(key, before);
        self.bequeath(now, key, heir);
    }

    /// Frees the memory of a session that has too much, or is the next to need some when there is no
    /// more. It may be taken up again at a later turn.
    pub(super) fn make_room(&mut self, now: Time, key: SessionKey) {
        let copied = self.is_copied(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.stats.bytes_missing += session.note_acked();
        let running = copied && session.course == Course::Running;
        let heir = (running && !self.config.only_from_syn).then(|| set_aside(session));
        let reason = match session.stream.has_hole() {
            true => AbortReason::CaptureGap,
            false => AbortReason::Memory,
        };
        self.abort_session(now, key, reason);
        if heir.is_some() {
            self.bequeath(now, key, heir);
        }
    }
}

/// The heir of a session that is set aside with what was seen of it.
fn set_aside(session: &Session) -> Session {
    let (stream, live) = (&session.stream, &session.live);
    watched(
        session,
        stream.first_seq(),
        live,
        stream.known_end(),
        Watch::SetAside,
    )
}

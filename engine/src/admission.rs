//! Which sessions are copied, and how often: by the intensity, by the bounds on what targets get, by what memory and CPU
//! time allow, and while the copier does not drain.

use millrace_wire::Endpoint;

use crate::caps::SessionMeter;
use crate::config::Config;
use crate::intensity::{Intensity, IntensityKey, Place};
use crate::session::Watch;
use crate::stats::RefusalReason;
use crate::time::Time;

/// What part of the sessions is taken.
///
/// Both parts go by the place that the keyed hash gives a session, among those that the intensity chooses: so what is taken
/// under more pressure is a part of what is taken under less.
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
    fn admits(self, place: Place) -> bool {
        self.admit.min(self.keep).copies(place) > 0
    }

    fn keeps(self, place: Place) -> bool {
        self.keep.copies(place) > 0
    }
}

/// What becomes of a session whose copy could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is copied, so many times.
    Copied(u16),
    /// The intensity leaves it out.
    Unchosen,
    /// It is refused.
    Refused(RefusalReason),
}

/// What a decision goes by that others know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) now: Time,
    /// Sessions that are copied.
    pub(crate) copied: usize,
    /// Bytes that targets have not taken yet.
    pub(crate) backlog: u64,
    /// There is memory only for sessions that are open.
    pub(crate) is_nearly_full: bool,
}

/// Decides.
#[derive(Debug)]
pub(crate) struct Admission {
    key: IntensityKey,
    /// Replicas for each that the intensity would make.
    factor: u16,
    /// The intensity at the start.
    full: Intensity,
    intensity: Intensity,
    relief: Relief,
    meter: SessionMeter,
    draining: bool,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            key: config.intensity_key,
            factor: config.factor,
            full: config.intensity,
            intensity: config.intensity,
            relief: Relief::default(),
            meter: SessionMeter::new(config.caps),
            draining: false,
        }
    }

    pub(crate) const fn set_intensity(&mut self, intensity: Intensity) {
        self.intensity = intensity;
    }

    pub(crate) const fn intensity(&self) -> Intensity {
        self.intensity
    }

    /// From now on this part is taken. Gives what was taken before.
    pub(crate) const fn set_relief(&mut self, relief: Relief) -> Relief {
        std::mem::replace(&mut self.relief, relief)
    }

    pub(crate) const fn relief(&self) -> Relief {
        self.relief
    }

    /// From now on no new session begins.
    pub(crate) const fn drain(&mut self) {
        self.draining = true;
    }

    /// How many replicas this client's session is to have.
    pub(crate) fn copies(&self, client: Endpoint) -> u16 {
        let place = Place::of(&self.key, client);
        let copies = self.intensity.copies(place);
        copies
            .saturating_mul(self.factor)
            .min(Intensity::MOST_REPLICAS)
    }

    /// Whether this client's session would have a replica at the intensity of the start.
    pub(crate) fn is_chosen_in_full(&self, client: Endpoint) -> bool {
        self.full.copies(Place::of(&self.key, client)) > 0
    }

    /// Whether this client's session stays copied, if it is.
    pub(crate) fn keeps(&self, client: Endpoint) -> bool {
        self.relief.keeps(self.place(client))
    }

    /// Whether a new session of this client may begin as far as the pressure goes.
    fn admits(&self, client: Endpoint) -> bool {
        self.relief.admits(self.place(client))
    }

    /// The place of a client's session among those that are chosen now: what is given up under pressure is a part of
    /// these.
    fn place(&self, client: Endpoint) -> Place {
        Place::of(&self.key, client).among(self.intensity)
    }

    /// Why a new session of this client is refused at its beginning, if it is. Whether it is chosen was asked before.
    pub(crate) fn refusal(&self, client: Endpoint, is_nearly_full: bool) -> Option<RefusalReason> {
        if self.draining {
            Some(RefusalReason::Draining)
        } else if is_nearly_full {
            Some(RefusalReason::Memory)
        } else if !self.admits(client) {
            Some(RefusalReason::Overload)
        } else {
            None
        }
    }

    /// Whether a session of this client would be begun now.
    pub(crate) fn wants(&self, client: Endpoint, is_nearly_full: bool) -> bool {
        self.copies(client) > 0 && self.refusal(client, is_nearly_full).is_none()
    }

    /// Decides on a session whose copy could begin now.
    pub(crate) fn decide(&mut self, client: Endpoint, situation: Situation) -> Decision {
        let copies = self.copies(client);
        if copies == 0 {
            return Decision::Unchosen;
        }
        if !self.admits(client) {
            return Decision::Refused(RefusalReason::Overload);
        }
        let Situation {
            now,
            copied,
            backlog,
            ..
        } = situation;
        match self.meter.admit(now, copied, backlog) {
            Ok(()) => Decision::Copied(copies),
            Err(reason) => Decision::Refused(reason),
        }
    }

    /// Decides on a session that is watched and whose next turn begins now.
    pub(crate) fn decide_again(
        &mut self,
        client: Endpoint,
        situation: Situation,
        watch: Watch,
    ) -> Decision {
        match watch {
            Watch::Met | Watch::Refused => self.decide(client, situation),
            // It was copied, and counts against no bound a second time.
            Watch::Gap | Watch::SetAside => match self.copies(client) {
                _ if self.draining => Decision::Refused(RefusalReason::Draining),
                _ if situation.is_nearly_full => Decision::Refused(RefusalReason::Memory),
                0 => Decision::Unchosen,
                copies if self.keeps(client) => Decision::Copied(copies),
                _ => Decision::Refused(RefusalReason::Overload),
            },
        }
    }
}

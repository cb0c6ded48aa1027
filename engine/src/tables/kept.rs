//! What several replicas of one session need of it.
//!
//! A session may have a thousand replicas, each of which moves on many times: a look at all of them
//! at every step would cost their square. So it is kept how many need just the least, and all are
//! looked at again only once none of these does any more.

use crate::replica::Needs;
use crate::session::Session;

/// The least that the replicas of a session needed when all were looked at last.
#[derive(Debug)]
pub(crate) struct Kept {
    least: Needs,
    /// Replicas that still need the least of the stream.
    of_stream: u16,
    /// Replicas that still need the least of the marks.
    of_marks: u16,
}

impl Kept {
    /// Needs of nobody.
    pub(super) const NOBODYS: Self = Self {
        least: Needs::NOTHING,
        of_stream: 0,
        of_marks: 0,
    };

    /// The least of all that were looked at.
    pub(super) const fn least(&self) -> Needs {
        self.least
    }

    /// One more replica is looked at.
    pub(super) fn look(&mut self, needs: Needs) {
        if needs.stream == self.least.stream {
            self.of_stream += 1;
        } else if needs.stream < self.least.stream {
            (self.least.stream, self.of_stream) = (needs.stream, 1);
        }
        if needs.marks == self.least.marks {
            self.of_marks += 1;
        } else if needs.marks < self.least.marks {
            (self.least.marks, self.of_marks) = (needs.marks, 1);
        }
    }

    /// What a replica needs has changed.
    pub(super) fn change(&mut self, before: Needs, after: Needs) {
        if before.stream == self.least.stream && after.stream != before.stream {
            self.of_stream = self.of_stream.saturating_sub(1);
        }
        if before.marks == self.least.marks && after.marks != before.marks {
            self.of_marks = self.of_marks.saturating_sub(1);
        }
    }

    /// Whether something may be free that the session still has.
    pub(super) fn is_outdated(&self, session: &Session) -> bool {
        let stream = match self.least.stream == Needs::NOTHING.stream {
            true => session.stream().stored() > 0 || session.stream().held_bytes() > 0,
            false => self.of_stream == 0,
        };
        stream || (self.least.marks != Needs::NOTHING.marks && self.of_marks == 0)
    }
}

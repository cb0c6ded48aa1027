//! The only way to change what a session stores: the sums over all sessions follow when the change is over.

use std::ops::{AddAssign, Deref, DerefMut, SubAssign};

use super::{Phase, Session};
use crate::live_view::LiveView;
use crate::stream::ClientStream;
use crate::turns::Turns;

/// What sessions store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Memory besides the structures themselves and the blocks of the streams, in bytes.
    pub(crate) heap: usize,
    /// Bytes that targets have not taken yet.
    pub(crate) backlog: u64,
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.heap += other.heap;
        self.backlog += other.backlog;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.heap = self.heap.saturating_sub(other.heap);
        self.backlog = self.backlog.saturating_sub(other.backlog);
    }
}

/// A session whose load may change.
pub(crate) struct SessionChange<'a> {
    session: &'a mut Session,
    sum: &'a mut Load,
}

impl<'a> SessionChange<'a> {
    /// `sum` is over all sessions, this one included.
    #[inline]
    pub(crate) fn new(session: &'a mut Session, sum: &'a mut Load) -> Self {
        *sum -= session.load();
        Self { session, sum }
    }

    #[inline]
    pub(crate) const fn stream_mut(&mut self) -> &mut ClientStream {
        &mut self.session.stream
    }

    pub(crate) const fn phase_mut(&mut self) -> &mut Phase {
        &mut self.session.phase
    }

    /// What a run of its client's bytes concerns.
    #[inline]
    pub(crate) const fn parts(&mut self) -> (&mut ClientStream, &mut Turns, &mut LiveView) {
        let Session {
            stream,
            turns,
            live,
            ..
        } = &mut *self.session;
        (stream, turns, live)
    }

    /// Notes how far the client's bytes reach by what the live server has acknowledged. Gives the bytes that are missing
    /// for good by that.
    pub(crate) fn note_acked(&mut self) -> u64 {
        let Session { stream, live, .. } = &mut *self.session;
        // One more than the bytes is the FIN.
        let fin = stream.announced_end().is_none() && live.acked <= stream.len() + 1;
        if fin { 0 } else { stream.reach(live.acked) }
    }
}

impl Deref for SessionChange<'_> {
    type Target = Session;

    #[inline]
    fn deref(&self) -> &Session {
        self.session
    }
}

impl DerefMut for SessionChange<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Session {
        self.session
    }
}

impl Drop for SessionChange<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.sum += self.session.load();
    }
}

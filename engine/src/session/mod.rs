//! A session: one client connection that is copied, and its client's stream.
//!
//! - [`Midway`]: what is seen of one that is not copied now, until a turn comes from which it can be.
//! - [`SessionChange`]: how what it stores is changed.

mod changing;
mod midway;

use std::time::Duration;

use millrace_wire::{FourTuple, Seq};

pub(crate) use self::changing::{Load, SessionChange};
pub(crate) use self::midway::{Midway, Watch, Watched};
use crate::config::Config;
use crate::key::ReplicaKey;
use crate::live_view::LiveView;
use crate::pool::BlockPool;
use crate::replica::Needs;
use crate::stream::{ClientStream, EndKind};
use crate::time::Time;
use crate::turns::Turns;

/// Numbers further ahead of the stream than this are not those of this connection. The largest
/// window that TCP knows is larger, but nobody uses it, and more is not lost in one hole.
pub(crate) const PLAUSIBLE: u64 = 1 << 28;
/// A handshake that is not acknowledged for this long is forgotten.
const OPENING_TIMEOUT: Duration = Duration::from_secs(60);
/// A session of which the live server has said nothing is forgotten this long after its client was last heard: anybody
/// can send segments from any address. Longer than clients wait before they send a SYN for the fifth time.
const UNPROVEN_TIMEOUT: Duration = Duration::from_secs(10);
/// An ended session is kept this long, so that its last segments are not taken for another's.
const ENDED_LINGER: Duration = Duration::from_secs(2);

/// How far a session has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The SYN was seen. Nothing is replayed before the client acknowledges the handshake: what
    /// never becomes a connection at the live server must not become one at the target.
    Opening,
    /// Met in its middle, and not yet at a turn from which it can be copied.
    Midway(Midway),
    /// It is copied.
    Active {
        /// So many times.
        copies: u16,
        /// How many of its replicas wait for their target or their own time.
        busy: u16,
    },
}

/// How far the client's side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// More may come.
    Running,
    /// It has ended: with a FIN, a RST, the live server's RST, or without a word.
    Ended,
    /// And every byte before the end is there: the end has its place among the turns.
    EndMarked,
}

/// One session.
pub(crate) struct Session {
    /// From client to live server.
    pub(crate) tuple: FourTuple,
    /// Index of its service.
    pub(crate) service: u16,
    phase: Phase,
    stream: ClientStream,
    turns: Turns,
    pub(crate) live: LiveView,
    /// When client or live server were last heard.
    pub(crate) last_seen: Time,
    /// Since when the live server has acknowledged more than capture delivered.
    pub(crate) gap_since: Time,
    /// Earliest entry in the timers.
    pub(crate) armed: Time,
    /// The first replica; the others follow as siblings.
    first_replica: Option<ReplicaKey>,
    pub(crate) course: Course,
    /// The client sent a RST after its FIN.
    pub(crate) reset_after_fin: bool,
}

impl Session {
    pub(crate) fn new(now: Time, tuple: FourTuple, service: u16, first: Seq, phase: Phase) -> Self {
        Self {
            tuple,
            service,
            phase,
            stream: ClientStream::new(first),
            turns: Turns::default(),
            live: LiveView::new(now),
            last_seen: now,
            gap_since: Time::NEVER,
            armed: Time::NEVER,
            first_replica: None,
            course: Course::Running,
            reset_after_fin: false,
        }
    }

    /// How many replicas it is to have.
    pub(crate) const fn copies(&self) -> u16 {
        match self.phase {
            Phase::Active { copies, .. } => copies,
            Phase::Opening | Phase::Midway(_) => 0,
        }
    }

    /// Whether something would be free if its only replica needed no more than this.
    pub(crate) fn can_free(&self, pool: &BlockPool, needs: Needs) -> bool {
        needs == Needs::NOTHING
            || self.stream.can_release(pool, needs.stream)
            || self.turns.can_forget(needs.marks)
    }

    pub(crate) const fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) const fn stream(&self) -> &ClientStream {
        &self.stream
    }

    /// What the client has sent, and what is known of the live server.
    pub(crate) const fn both_sides(&mut self) -> (&ClientStream, &mut LiveView) {
        (&self.stream, &mut self.live)
    }

    pub(crate) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// What is known of one that is not copied now.
    pub(crate) const fn midway_mut(&mut self) -> Option<&mut Midway> {
        match &mut self.phase {
            Phase::Midway(midway) => Some(midway),
            Phase::Opening | Phase::Active { .. } => None,
        }
    }

    /// Whether it is copied, or was.
    pub(crate) const fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active { .. })
    }

    /// The first of its replicas.
    pub(crate) const fn first_replica(&self) -> Option<ReplicaKey> {
        self.first_replica
    }

    /// Gives the one before.
    pub(crate) const fn set_first_replica(
        &mut self,
        first: Option<ReplicaKey>,
    ) -> Option<ReplicaKey> {
        std::mem::replace(&mut self.first_replica, first)
    }

    /// One more, or one less, of its replicas is busy.
    pub(crate) const fn count_busy(&mut self, more: bool) {
        if let Phase::Active { busy, .. } = &mut self.phase {
            *busy = match more {
                true => busy.saturating_add(1),
                false => busy.saturating_sub(1),
            };
        }
    }

    /// What it stores.
    #[inline]
    pub(crate) fn load(&self) -> Load {
        Load {
            heap: self.turns.heap_size() + self.stream.held_memory(),
            backlog: self.backlog(),
        }
    }

    /// Whether a replica waits for its target or its own time.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Active { busy: 1.., .. })
    }

    /// Bytes that are stored for targets which have not taken them yet. What comes before the
    /// handshake is complete is for no target.
    #[inline]
    pub(crate) const fn backlog(&self) -> u64 {
        match self.phase {
            Phase::Active { .. } => self.stream.stored(),
            Phase::Opening | Phase::Midway(_) => 0,
        }
    }

    /// Notes that the client's side has ended; says whether that is news.
    pub(crate) fn end(&mut self, now: Time) -> bool {
        self.last_seen = self.last_seen.max(now);
        let news = self.course == Course::Running;
        if news {
            self.course = Course::Ended;
        }
        news
    }

    /// Notes that the end has its place among the turns, or needs none.
    pub(crate) const fn mark_end(&mut self) {
        self.course = Course::EndMarked;
    }

    /// Whether nothing more can come from either side of the live connection.
    pub(crate) fn is_over(&self) -> bool {
        let kind = self.stream.announced_end().map(|end| end.kind);
        match kind {
            None => false,
            Some(EndKind::Fin) => self.live.finished || self.reset_after_fin,
            Some(
                EndKind::Reset
                | EndKind::Severed
                | EndKind::Lost
                | EndKind::SetAside
                | EndKind::Uncopied(_),
            ) => true,
        }
    }

    /// Whether the connection itself is over, and not only what is copied of it.
    pub(crate) fn has_departed(&self) -> bool {
        let kind = self.stream.announced_end().map(|end| end.kind);
        let of_connection = matches!(kind, Some(EndKind::Fin | EndKind::Reset | EndKind::Severed));
        of_connection && matches!(self.phase, Phase::Active { .. })
    }

    /// Whether bytes are missing that the client is known to have sent.
    pub(crate) fn has_gap(&self) -> bool {
        self.gap_since != Time::NEVER || self.stream.has_hole()
    }

    /// Notes whether the live server has acknowledged bytes that capture did not deliver. Gives for how long it had when
    /// they came after all: whoever recorded the live server was ahead of who recorded the client.
    pub(crate) fn check_gap(&mut self, now: Time) -> Duration {
        let end = self.stream.announced_end();
        // The acknowledgement of a FIN is one more than the bytes.
        let acked = self.live.acked.min(end.map_or(u64::MAX, |end| end.offset));
        let fin_unseen = u64::from(end.is_none());
        let reset_hole = self.stream.has_hole() && self.course != Course::Running;
        let missing = acked > self.stream.len() + fin_unseen || reset_hole;
        if missing {
            self.gap_since = self.gap_since.min(now);
            return Duration::ZERO;
        }
        match std::mem::replace(&mut self.gap_since, Time::NEVER) {
            Time::NEVER => Duration::ZERO,
            since => now.since(since),
        }
    }

    /// When bytes that the live server has acknowledged are lost for good: `grace` later. As long as the client shows
    /// nothing that lies behind them they may only be late.
    fn lost_at(&self, grace: Duration) -> Time {
        match self.gap_since != Time::NEVER && self.stream.has_hole() {
            true => self.gap_since + grace,
            false => Time::NEVER,
        }
    }

    /// When it must be looked at again.
    pub(crate) fn deadline(&self, config: &Config, grace: Duration) -> Time {
        let gap = self.lost_at(grace);
        let overdue = self.live.clock.overdue_at(config.overdue_after);
        let end = match &self.phase {
            Phase::Opening if !self.live.is_known() => {
                self.last_seen + UNPROVEN_TIMEOUT.min(config.idle_timeout)
            }
            Phase::Midway(midway) if !midway.is_proven() => {
                self.last_seen + UNPROVEN_TIMEOUT.min(config.idle_timeout)
            }
            Phase::Opening => self.last_seen + OPENING_TIMEOUT.min(config.idle_timeout),
            Phase::Midway(_) | Phase::Active { .. } if self.course == Course::Running => {
                self.last_seen + config.idle_timeout
            }
            Phase::Midway(_) | Phase::Active { .. } => {
                if self.first_replica.is_none() {
                    self.last_seen + ENDED_LINGER
                } else if self.stream.end().is_some() {
                    // The replicas have all they need, and timers of their own.
                    Time::NEVER
                } else {
                    self.last_seen + config.idle_timeout
                }
            }
        };
        gap.min(overdue).min(end)
    }

    /// Whether bytes that the live server acknowledged are lost for good at `now`.
    pub(crate) fn gap_is_final(&self, now: Time, grace: Duration) -> bool {
        self.lost_at(grace) <= now
    }
}

//! A session: one client connection that is copied, and its client's stream.

use std::time::Duration;

use millrace_wire::{Flags, FourTuple, Seq, TcpPacket};

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
/// Numbers further ahead than this need a second segment that bears them out.
const FAR: i32 = 1 << 20;
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

/// Why a session is watched for a turn from which it can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Its beginning was not captured.
    Met,
    /// It was refused when it began, and is counted as that.
    Refused,
    /// It was copied until bytes of its client were not captured.
    Gap,
    /// It was copied until it was set aside.
    SetAside,
}

/// What a segment of a client meant for a session that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Its first byte begins a turn.
    pub(crate) begins: bool,
    /// Bytes that were not seen before.
    pub(crate) new: u64,
    /// Bytes before it that were not captured.
    pub(crate) missing: u64,
}

/// What the last bytes of either side mean for the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The client is in the middle of a message, as far as is known.
    Begun,
    /// The client has ended a message (PSH).
    Pushed,
    /// The live server has spoken after all bytes of the client.
    Answered,
}

impl Last {
    const fn of(packet: &TcpPacket<'_>) -> Self {
        match packet.payload_len > 0 && packet.header.flags.has(Flags::PSH) {
            true => Self::Pushed,
            false => Self::Begun,
        }
    }
}

/// What must be seen of a session that is not copied now, to pick it up at a turn.
#[derive(Debug)]
pub(crate) struct Midway {
    /// Behind the last byte of the client.
    client_next: Seq,
    /// Behind the last byte of the live server, if it has answered. Where clients alone are captured: what the client had
    /// acknowledged with its last bytes.
    answered_to: Seq,
    last: Last,
    /// Whether the live server has said anything.
    is_proven: bool,
    /// How far ahead the last segment lay that reached much further than those before it, in units of [`FAR`]; 0: none.
    far: u8,
    /// Why it is not copied.
    pub(crate) watch: Watch,
}

impl Midway {
    pub(crate) fn new(packet: &TcpPacket<'_>, watch: Watch) -> Self {
        Self {
            client_next: packet.seq_end(),
            answered_to: packet.header.ack,
            last: Last::of(packet),
            is_proven: false,
            far: 0,
            watch,
        }
    }

    /// The rest of a session whose first byte has the number `origin` and of which everything up to
    /// `known_end` is known to have been sent.
    pub(crate) fn rest(origin: Seq, known_end: u64, live: &LiveView, watch: Watch) -> Self {
        let (answered, answered_to) = live.answered();
        Self {
            // Sequence numbers are 32 bits of it.
            client_next: origin.add(known_end as u32),
            answered_to,
            last: match answered {
                true => Last::Answered,
                false => Last::Begun,
            },
            is_proven: true,
            far: 0,
            watch,
        }
    }

    /// Whether numbers are near enough to be this connection's.
    pub(crate) fn is_near(&self, seq: Seq) -> bool {
        u64::from(seq.since(self.client_next).unsigned_abs()) <= PLAUSIBLE
    }

    /// Whether the live server has said anything.
    pub(crate) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// A segment of the live server went by. Gives the bytes of the client that are missing by it:
    /// what it acknowledges was sent, captured or not.
    pub(crate) fn on_live(&mut self, packet: &TcpPacket<'_>) -> u64 {
        self.is_proven = true;
        if packet.payload_len == 0 {
            return 0;
        }
        let ack = packet.header.ack;
        let missing = ack.since(self.client_next);
        let plausible = u64::try_from(missing).is_ok_and(|bytes| bytes <= PLAUSIBLE);
        if plausible && !self.reaches(ack, ack) {
            return 0;
        }
        self.answered_to = packet.seq_end();
        if plausible {
            self.last = Last::Answered;
            self.client_next = ack;
        } else {
            self.last = Last::Begun;
        }
        // Not negative, where it counts.
        if plausible {
            missing.unsigned_abs().into()
        } else {
            0
        }
    }

    /// Whether the client's bytes reach so far that they may begin at `from`. Much further than those that were captured
    /// they reach only if a second segment says so: they may have been a stray's, that ended at `to`.
    fn reaches(&mut self, from: Seq, to: Seq) -> bool {
        let ahead = |seq: Seq| (seq.since(self.client_next) / FAR).clamp(0, u8::MAX.into()) as u8;
        let (begins, ends) = (ahead(from), ahead(to));
        let far = std::mem::replace(&mut self.far, ends);
        begins == 0 || far > 0 && begins.abs_diff(far) <= 1
    }

    /// A segment of the client went by. Its first byte begins a turn if the live server had
    /// answered everything before, and the client had seen the whole answer. Where clients alone are captured
    /// (`one_way`), if the message before was complete, and the client has seen more of the answer since.
    pub(crate) fn on_client(&mut self, packet: &TcpPacket<'_>, one_way: bool) -> Watched {
        let seq = packet.header.seq;
        if packet.payload_len == 0 || !self.is_near(seq) {
            return Watched::default();
        }
        if !self.reaches(seq, packet.seq_end()) {
            return Watched::default();
        }
        let ack = packet.header.ack;
        let answered = match one_way {
            true => self.last == Last::Pushed && ack.after(self.answered_to),
            false => self.last == Last::Answered && self.answered_to == ack,
        };
        let begins = seq == self.client_next && answered;
        let end = packet.seq_end();
        let mut watched = Watched {
            begins,
            ..Watched::default()
        };
        if end.after(self.client_next) {
            let from = match seq.after(self.client_next) {
                true => seq,
                false => self.client_next,
            };
            watched.new = end.since(from).unsigned_abs().into();
            watched.missing = from.since(self.client_next).unsigned_abs().into();
            self.client_next = end;
            self.last = Last::of(packet);
            if one_way {
                self.answered_to = ack;
            }
        }
        watched
    }
}

/// One session.
pub(crate) struct Session {
    /// From client to live server.
    pub(crate) tuple: FourTuple,
    /// Index of its service.
    pub(crate) service: u16,
    pub(crate) phase: Phase,
    pub(crate) stream: ClientStream,
    pub(crate) turns: Turns,
    pub(crate) live: LiveView,
    /// When client or live server were last heard.
    pub(crate) last_seen: Time,
    /// Since when the live server has acknowledged more than capture delivered.
    pub(crate) gap_since: Time,
    /// Earliest entry in the timers.
    pub(crate) armed: Time,
    /// The first replica; the others follow as siblings.
    pub(crate) first_replica: Option<ReplicaKey>,
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

    /// Memory besides the structure and its blocks, and its backlog, both in bytes.
    pub(crate) fn load(&self) -> (usize, u64) {
        let heap = self.turns.heap_size() + self.stream.held_memory();
        (heap, self.backlog())
    }

    /// Whether a replica waits for its target or its own time.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Active { busy: 1.., .. })
    }

    /// Bytes that are stored for targets which have not taken them yet. What comes before the
    /// handshake is complete is for no target.
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

    /// Notes how far the client's bytes reach by what the live server has acknowledged. Gives the bytes that are missing for good by that.
    pub(crate) fn note_acked(&mut self) -> u64 {
        let acked = self.live.acked;
        // One more than the bytes is the FIN.
        let fin = self.stream.announced_end().is_none() && acked <= self.stream.len() + 1;
        if fin { 0 } else { self.stream.reach(acked) }
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
        let end = match self.phase {
            Phase::Opening if !self.live.is_known() => {
                self.last_seen + UNPROVEN_TIMEOUT.min(config.idle_timeout)
            }
            Phase::Midway(Midway {
                is_proven: false, ..
            }) => self.last_seen + UNPROVEN_TIMEOUT.min(config.idle_timeout),
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

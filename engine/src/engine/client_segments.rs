//! Segments from clients to the live server.

use millrace_wire::{Flags, Seq, TcpHeader, TcpPacket};

use super::Engine;
use crate::admission::Decision;
use crate::key::SessionKey;
use crate::live_clock::LiveClock;
use crate::live_view::LiveView;
use crate::payload::Payload;
use crate::protocol::Beginning;
use crate::session::{PLAUSIBLE, Phase, Watch, Watched};
use crate::stats::{RefusalReason, Stats};
use crate::stream::{ClientStream, End, EndKind, RunInfo, StreamError};
use crate::time::Time;
use crate::turns::{Mark, Wait};

/// Further than this no client goes in its first window; where its SYN-ACK was captured, more may be lost.
const FIRST_WINDOW: u64 = 1 << 20;
/// One session may hold this share of the memory limit, in percent.
const SESSION_SHARE: u64 = 25;

impl Engine {
    pub(super) fn on_client_segment(&mut self, now: Time, segment: ClientSegment<'_>) {
        let ClientSegment { at, packet, .. } = segment;
        let flags = packet.header.flags;
        let syn = flags.has(Flags::SYN) && !flags.has(Flags::ACK);
        if syn && self.is_misdirected(now, packet) {
            return;
        }
        let found = self.sessions.find(&packet.tuple);
        let repeated = found.is_none_or(|key| syn && self.is_another_life(key, packet));
        if repeated && self.is_of_departed(at, packet) {
            return;
        }
        match found {
            Some(key) if syn && self.is_another_life(key, packet) => {
                if self.is_challenged(key) {
                    self.stats.syns_challenged += 1;
                    self.evidence
                        .doubt(key, |doubts| doubts.syn = Some(packet.header.seq));
                    return;
                }
                self.retire(now, key);
                self.begin(now, segment);
            }
            Some(key) => self.on_session_segment(now, key, segment, None),
            None if syn => self.begin(now, segment),
            None => self.meet_midway(at, packet),
        }
    }

    /// Whether a SYN on a known four-tuple begins a new connection. A repeated SYN bears the
    /// same number.
    fn is_another_life(&self, key: SessionKey, packet: &TcpPacket<'_>) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| packet.header.seq.add(1) != session.stream().first_seq())
    }

    /// Whether a client's segment repeats one of a connection that is over; counts it.
    pub(super) fn is_of_departed(&mut self, at: Time, packet: &TcpPacket<'_>) -> bool {
        let TcpHeader { seq, flags, .. } = packet.header;
        let (seq, syn) = match flags.has(Flags::SYN) {
            true => (seq.add(1), true),
            false => (seq, false),
        };
        let late = self.departed.knows(at, &packet.tuple, seq, syn);
        self.stats.segments_late += u64::from(late);
        late
    }

    /// Whether the live server answers a SYN with other numbers by a challenge: it has this connection, and knows of no
    /// end (RFC 5961 4). Only its SYN-ACK shows then that another one began.
    pub(super) fn is_challenged(&self, key: SessionKey) -> bool {
        let sees_servers = self.stats.live_segments > 0;
        self.sessions.get(key).is_some_and(|session| {
            let end = session.stream().announced_end();
            match session.phase() {
                Phase::Midway(midway) => midway.is_proven() && end.is_none(),
                // Only its SYN-ACK may be missing.
                Phase::Active { .. } if !session.live.is_heard() => sees_servers && end.is_none(),
                // After the client's FIN the live server still has it until it has closed, too.
                Phase::Opening | Phase::Active { .. } => {
                    let has_closed = |kind| kind != EndKind::Fin || session.live.finished;
                    session.live.is_heard() && !end.is_some_and(|end| has_closed(end.kind))
                }
            }
        })
    }

    pub(super) fn on_session_segment(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'_>,
        borne_out: Option<BorneOut>,
    ) {
        let ClientSegment { at, packet, .. } = segment;
        if borne_out.is_none() {
            let acted = self.note_continued(now, key, packet)
                | self.bear_out_syn_ack(now, key, at, packet)
                | self.bear_out_syn(now, key, at, packet);
            if acted && self.sessions.find(&packet.tuple) != Some(key) {
                // Another entry has taken over the connection.
                return self.on_client_segment(now, segment);
            }
        }
        let over_limit = packet.payload_len > 0 && self.is_over_limit(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let flags = packet.header.flags;
        if !flags.has(Flags::ACK) && !flags.has(Flags::SYN) && !flags.has(Flags::RST) {
            // RFC 9293 3.10.7.4, fifth: without ACK a segment is dropped.
            self.stats.segments_unowned += 1;
            return;
        }
        session.last_seen = session.last_seen.max(at);
        match session.phase() {
            Phase::Midway(_) => {
                if !self.watch_client(now, key, at, packet) {
                    return;
                }
            }
            Phase::Opening => {
                if !self.take_opening(now, key, segment, over_limit, borne_out.is_some()) {
                    return;
                }
            }
            Phase::Active { .. } if flags.has(Flags::SYN) => {
                // Whoever has the connection challenges it, and takes nothing that it bears (RFC 5961 4.2).
                self.stats.syns_challenged += u64::from(packet.payload_len > 0);
                return;
            }
            Phase::Active { .. } => {}
        }
        if over_limit {
            self.make_room(now, key);
            if self.sessions.find(&packet.tuple) != Some(key) {
                // Another entry has taken over the connection.
                return self.on_client_segment(now, segment);
            }
        }
        self.take_client_data(now, key, segment, borne_out);
    }

    /// A segment of a client whose session was met in its middle. Says whether it begins to be copied here.
    fn watch_client(
        &mut self,
        now: Time,
        key: SessionKey,
        at: Time,
        packet: &TcpPacket<'_>,
    ) -> bool {
        let session = self.sessions.get_mut(key);
        let Some(midway) = session.and_then(|session| session.midway_mut()) else {
            return true;
        };
        let flags = packet.header.flags;
        let near = midway.is_near(packet.header.seq);
        let ended = near && (flags.has(Flags::FIN) || flags.has(Flags::RST));
        let watch = midway.watch;
        let one_way = self.stats.live_segments == 0;
        let watched = midway.on_client(packet, one_way);
        // What is not admitted now may be at its next turn.
        let decision = watched.begins.then(|| self.admit(now, key, Some(watch)));
        let Some(Decision::Copied(copies)) = decision else {
            self.count_watched(watch, watched, packet);
            if !near {
                self.note_stray(at, key, packet);
            }
            if ended {
                self.remove_session(key);
            }
            return false;
        };
        tracing::trace!(client = %packet.tuple.source, "picked up at a turn");
        if let Some(mut session) = self.sessions.change(key) {
            *session.stream_mut() = ClientStream::new(packet.header.seq);
            session.live = LiveView::midway(at, packet.header.ack);
            *session.phase_mut() = Phase::Active { copies, busy: 0 };
        }
        match watch {
            Watch::Met | Watch::Refused => {
                self.stats.sessions_midway += 1;
                self.stats.sessions_captured += 1;
            }
            Watch::Gap | Watch::SetAside => self.stats.sessions_resumed += 1,
        }
        self.open_replicas(now, key, Beginning::Turn);
        true
    }

    /// A segment of a client whose handshake is not complete. Says whether its payload is to be taken.
    fn take_opening(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'_>,
        over_limit: bool,
        is_borne_out: bool,
    ) -> bool {
        let ClientSegment { at, packet, .. } = segment;
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let flags = packet.header.flags;
        if flags.has(Flags::RST) {
            // A RST with another number answers for an earlier connection of the
            // four-tuple, whose end the client has just learned of (RFC 9293 3.10.7.3).
            let seq = packet.header.seq;
            let stream = session.stream();
            let own = seq.add(1) == stream.first_seq()
                || stream.offset_of(seq).is_some_and(|o| o <= stream.len());
            if own {
                self.remove_session(key);
            }
            return false;
        }
        let seq = packet.header.seq;
        let stream = session.stream();
        let most = match session.live.is_heard() {
            true => PLAUSIBLE,
            false => FIRST_WINDOW,
        };
        let near = stream.offset_of(seq).is_some_and(|o| o <= most);
        if !flags.has(Flags::SYN) && !near && seq.add(1) != stream.first_seq() {
            // It speaks of an earlier connection of the four-tuple.
            self.note_stray(at, key, packet);
            return false;
        }
        if flags.has(Flags::URG) && !flags.has(Flags::ACK) {
            // Left out: should the live server take these bytes, it is a capture gap.
            return false;
        }
        if over_limit {
            self.stats.sessions_refused.add(RefusalReason::Memory);
            self.stats.bytes_refused += packet.payload_len as u64;
            self.forget_session(key);
            return false;
        }
        let is_unsent = session.live.is_unsent(&packet.header);
        if is_unsent && !is_borne_out {
            self.put_waiting(key, segment, false, false);
            return false;
        }
        !flags.has(Flags::ACK) || self.activate(now, at, key, packet)
    }

    /// Takes a segment that has waited for what bears it out.
    pub(super) fn take_borne_out(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'_>,
        borne_out: BorneOut,
    ) {
        let session = self.sessions.get(key);
        match session.map(|session| session.phase()) {
            Some(Phase::Active { .. }) => {
                self.take_client_data(now, key, segment, Some(borne_out));
            }
            Some(_) => {
                self.on_session_segment(now, key, segment, Some(borne_out));
            }
            None => {}
        }
    }

    /// Notes a client's segment that fits no window of its session's connection: should the live
    /// server acknowledge it, the four-tuple belongs to another one whose beginning was not captured.
    pub(super) fn note_stray(&mut self, at: Time, key: SessionKey, packet: &TcpPacket<'_>) {
        if packet.payload_len > 0 && !self.is_of_departed(at, packet) {
            self.evidence
                .doubt(key, |doubts| doubts.stray = Some(packet.seq_end()));
        }
    }

    /// Counts the bytes of a client's segment that is not copied.
    fn count_watched(&mut self, watch: Watch, watched: Watched, packet: &TcpPacket<'_>) {
        match watch {
            Watch::Met | Watch::Refused => self.stats.bytes_refused += packet.payload_len as u64,
            Watch::Gap => {
                let copies = u64::from(self.admission.copies(packet.tuple.source));
                self.stats.bytes_captured += watched.new;
                self.stats.bytes_wanted += watched.new * copies;
                self.stats.bytes_missing += watched.missing;
            }
            Watch::SetAside => self.stats.bytes_set_aside += watched.new + watched.missing,
        }
    }

    /// Where a client's segment belongs, if it counts now: it stands in its session's window, and need not wait.
    fn accept<'a>(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'a>,
        is_borne_out: bool,
    ) -> Option<Placed<'a>> {
        let ClientSegment { at, packet, .. } = segment;
        let flags = packet.header.flags;
        let session = self.sessions.get(key)?;
        let syn = flags.has(Flags::SYN);
        let seq = if syn {
            packet.header.seq.add(1)
        } else {
            packet.header.seq
        };
        let Some(placed) = place(session.stream(), seq, packet) else {
            self.note_stray(at, key, packet);
            return None;
        };
        let offset = placed.offset;
        let has = session.stream().len().max(session.live.acked);
        if offset > has + session.live.reach().min(PLAUSIBLE) {
            self.note_stray(at, key, packet);
            self.stats.segments_out_of_window += 1;
            return None;
        }
        let is_unsent = session.live.is_unsent(&packet.header);
        self.bear_out_ack(now, key, offset);
        if is_unsent {
            self.bear_out(key, packet.header.ack);
        }
        if !is_borne_out && self.waits(key, segment, offset) {
            return None;
        }
        if packet.payload_len > 0 && flags.has(Flags::URG) && !syn {
            self.end_before_urgent(now, key, at, packet);
            return None;
        }
        let reset = flags.has(Flags::RST);
        if reset && !self.is_at_next_byte(key, offset) {
            let kind = EndKind::Reset;
            self.doubt_reset(key, at, End { offset, kind });
            return None;
        }
        Some(placed)
    }

    fn take_client_data(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'_>,
        borne_out: Option<BorneOut>,
    ) {
        let ClientSegment {
            at,
            packet,
            payload,
        } = segment;
        let accepted = self.accept(now, key, segment, borne_out.is_some());
        let Some(Placed {
            offset,
            bytes,
            end: wire_end,
        }) = accepted
        else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let answer = session.live.on_client_ack(packet);
        // What the live server has acknowledged was sent, captured or not.
        let known_end = session.stream().known_end().max(session.live.acked);
        let info = RunInfo {
            at,
            answer,
            fresh: borne_out.is_some_and(|it| it.fresh)
                || offset == known_end && session.live.is_turn(),
        };
        let is_answered = borne_out.is_some_and(|it| it.answered);
        if packet.payload_len > 0 && wire_end > session.stream().known_end() && !is_answered {
            session.live.note_asked();
        }
        let sent_to = match packet.payload_len {
            // It may stand anywhere until the live server has acknowledged what lies before it.
            0 if session.live.is_heard() && offset > session.live.acked => 0,
            // It may follow a FIN that was not captured.
            0 => offset.saturating_sub(1),
            _ => wire_end,
        };
        if self.hears_live && packet.payload_len > 0 {
            self.log_live(key, true);
        }
        let Ok(Taken { grown, began }) = self.take_run(now, key, offset, bytes, payload, info)
        else {
            // So much is held behind a hole, or by all sessions, that this one cannot go on.
            self.make_room(now, key);
            return;
        };
        let has = self.sessions.get(key).map(|session| session.stream().len());
        if has.is_some_and(|has| has < sent_to)
            && let Some(mut session) = self.sessions.change(key)
        {
            self.stats.bytes_missing += session.stream_mut().reach(sent_to);
        }
        let ended = self.note_end(now, at, key, packet, offset, wire_end);
        if self.hears_live && ended {
            self.log_live(key, true);
        }
        if grown || ended {
            self.advance_replicas(now, key);
        }
        let may_be_filled = self.sessions.get(key).map(|it| it.gap_since);
        // Where clients alone are captured nothing else shows that bytes before an end are missing.
        let is_one_way = ended && self.stats.live_segments == 0;
        if is_one_way || may_be_filled.is_some_and(|since| since != Time::NEVER) {
            self.check_gap(now, key);
        }
        if let Some(session) = self.sessions.get(key) {
            let copied = session.is_active();
            if copied && session.first_replica().is_none() {
                self.trim(key);
            }
        }
        if ended || began {
            self.arm_session(key);
        }
        self.weigh_reset(now, key);
        if borne_out.is_none() {
            self.settle_waiting(now, key, false);
        }
    }

    /// Adds bytes to a session's stream, with the turns that they begin.
    pub(super) fn take_run(
        &mut self,
        now: Time,
        key: SessionKey,
        offset: u64,
        bytes: &[u8],
        payload: Payload<'_>,
        info: RunInfo,
    ) -> Result<Taken, StreamError> {
        let Some(mut session) = self.sessions.change(key) else {
            return Ok(Taken::default());
        };
        let (copies, service) = (session.copies(), session.service);
        let (stream, turns, live) = session.parts();
        let mut began = false;
        let pool = &mut self.pool;
        let accepted = stream.accept(pool, offset, bytes, payload, info, |start, _, info| {
            if turns.begins(info, live.clock.asked_at) {
                let mark = mark(live, start, info, &self.clock, &mut self.stats);
                turns.push(now, mark);
                live.clock.begin_next();
                began = true;
            }
            live.clock.ask(info.at);
        })?;
        self.stats.sessions_encrypted +=
            u64::from(offset == 0 && accepted.new > 0 && is_tls(bytes));
        self.stats.bytes_captured += accepted.new;
        drop(session);
        let plain = self.plain_copies(key, service, copies);
        self.stats.bytes_wanted += accepted.new * u64::from(plain);
        self.stats.bytes_missing += accepted.missing;
        self.stats.bytes_repeated += accepted.repeated;
        self.stats.bytes_differing += accepted.differing;
        let grown = accepted.new > 0;
        Ok(Taken { grown, began })
    }

    fn is_over_limit(&self, key: SessionKey) -> bool {
        let limit = self.config.memory_limit;
        self.memory() >= limit
            || self.unplayed(key) > limit / 100 * SESSION_SHARE
            || self.sessions.get(key).is_some_and(|session| {
                let held = session.stream().held_memory() as u64;
                session.stream().stored() + held > limit / 100 * SESSION_SHARE
            })
    }
}

/// A segment of a client, as it was captured.
#[derive(Clone, Copy)]
pub(super) struct ClientSegment<'a> {
    /// When.
    pub(super) at: Time,
    pub(super) packet: &'a TcpPacket<'a>,
    /// The packet's bytes, in memory that may be kept.
    pub(super) payload: Payload<'a>,
}

impl<'a> ClientSegment<'a> {
    /// One without payload.
    pub(super) const fn bare(at: Time, packet: &'a TcpPacket<'a>) -> Self {
        Self {
            at,
            packet,
            payload: Payload::Borrowed(&[]),
        }
    }
}

/// A segment has waited, and is taken now.
#[derive(Clone, Copy)]
pub(super) struct BorneOut {
    /// It was the beginning of a turn when it was captured.
    pub(super) fresh: bool,
    /// The live server has answered it meanwhile.
    pub(super) answered: bool,
}

/// What a run meant for its session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// The stream is longer.
    pub(super) grown: bool,
    /// A turn has begun.
    pub(super) began: bool,
}

/// Where a segment lies in the client's stream.
pub(super) struct Placed<'p> {
    /// Offset of its first byte.
    pub(super) offset: u64,
    /// Its bytes, as far as capture has kept them.
    pub(super) bytes: &'p [u8],
    /// Offset behind its last byte, kept or not.
    pub(super) end: u64,
}

/// Finds the place of a segment. What lies before the stream is cut off: a keepalive probe before
/// the first byte. A segment that lies there altogether belongs to an earlier connection of the
/// same four-tuple, and neither its FIN nor its RST means anything here: `None`.
pub(super) fn place<'p>(
    stream: &ClientStream,
    seq: Seq,
    packet: &TcpPacket<'p>,
) -> Option<Placed<'p>> {
    if let Some(offset) = stream.offset_of(seq) {
        return Some(Placed {
            offset,
            bytes: packet.payload,
            end: offset + packet.payload_len as u64,
        });
    }
    let skip = stream.first_seq().since(seq).unsigned_abs() as usize;
    let bytes = packet.payload.get(skip..).filter(|rest| !rest.is_empty())?;
    Some(Placed {
        offset: 0,
        bytes,
        end: (packet.payload_len - skip) as u64,
    })
}

/// The mark of a turn that begins at `start`; ends the turn before on the live side.
pub(super) fn mark(
    live: &mut LiveView,
    start: u64,
    info: RunInfo,
    live_clock: &LiveClock,
    stats: &mut Stats,
) -> Mark {
    let clock = &mut live.clock;
    let think = info.at.micros_since(clock.latest());
    let live_gap = clock.longest_gap();
    let latency = clock.finish();
    if let Some(latency) = latency {
        stats.live_latency.record(latency);
    }
    Mark {
        start,
        answer: info.answer,
        think: live_clock.think(think),
        live_latency: latency.map_or(0, |latency| latency.first),
        live_gap,
        lockstep: live.in_step() && live.acked >= start,
        wait: Wait::Counted,
        waited: live_clock.waited(),
    }
}

/// Whether a stream that begins so is one of TLS: a record of the handshake that holds a ClientHello (RFC 8446 4 and 5.1;
/// older versions begin alike).
const fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 3, 0..=4, _, _, 1, ..])
}

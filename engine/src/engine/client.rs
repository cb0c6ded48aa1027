//! Segments from clients to the live server.

use millrace_wire::{Flags, Seq, TcpHeader, TcpPacket};

use super::Engine;
use super::admission::Admission;
use crate::payload::Payload;
use crate::recorded::Recorded;
use crate::session::{Course, Midway, Phase, Session, SessionKey, Watch, Watched};
use crate::stats::{AbortReason, RefusalReason};
use crate::stream::{ClientStream, End, EndKind, RunInfo, StreamError};
use crate::time::Time;
use crate::turns::Mark;

/// Numbers further ahead of the stream than this are not those of this connection. The largest
/// window that TCP knows is larger, but nobody uses it, and more is not lost in one hole.
pub(super) const PLAUSIBLE: u64 = 1 << 28;
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
        let found = self.find_session(&packet.tuple);
        let repeated = found.is_none_or(|key| syn && self.is_another_life(key, packet));
        if repeated && self.is_of_departed(at, packet) {
            return;
        }
        match found {
            Some(key) if syn && self.is_another_life(key, packet) => {
                if self.is_challenged(key) {
                    self.stats.syns_challenged += 1;
                    self.doubt(key, |doubts| doubts.syn = Some(packet.header.seq));
                    return;
                }
                self.retire(now, key);
                self.begin(now, segment);
            }
            Some(key) => self.on_session_segment(now, key, segment),
            None if syn => self.begin(now, segment),
            None => self.meet_midway(at, packet),
        }
    }

    /// Whether a SYN on a known four-tuple begins a new connection. A repeated SYN bears the
    /// same number.
    fn is_another_life(&self, key: SessionKey, packet: &TcpPacket<'_>) -> bool {
        self.sessions
            .get(key)
            .is_some_and(|session| packet.header.seq.add(1) != session.stream.first_seq())
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
    fn is_challenged(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let heard = match &session.phase {
                Phase::Opening | Phase::Active { .. } => session.live.is_heard(),
                Phase::Midway(midway) => midway.is_proven(),
            };
            // After the client's FIN the live server still has it until it has closed, too.
            let is_over = session
                .stream
                .announced_end()
                .is_some_and(|end| match end.kind {
                    EndKind::Fin => session.live.finished,
                    _ => true,
                });
            heard && !is_over
        })
    }

    /// A SYN: the session waits for the end of its handshake.
    pub(super) fn begin(&mut self, now: Time, segment: ClientSegment<'_>) {
        let ClientSegment { at, packet, .. } = segment;
        if self.is_unchosen(packet) {
            self.stats.sessions_unchosen += 1;
            return;
        }
        if self.joins_another(now, packet) || self.refuses(packet) {
            return;
        }
        let first = packet.header.seq.add(1);
        if let Some(key) = self.insert_session(at, packet, first, Phase::Opening) {
            if packet.payload_len > 0 {
                // TCP Fast Open (RFC 7413): the live server may take the data or leave it to be
                // sent again; the stream is the same.
                self.on_session_segment(now, key, segment);
            }
            self.arm_session(key);
        }
    }

    /// A connection whose beginning was not captured, but whose numbers are known: `packet` stands for
    /// what the client must have sent. Those that are not wanted were counted when they began.
    pub(super) fn begin_unseen(&mut self, at: Time, packet: &TcpPacket<'_>, phase: Phase) {
        if self.is_wanted(packet.tuple.source)
            && let Some(key) = self.insert_session(at, packet, packet.seq_end(), phase)
        {
            self.arm_session(key);
        }
    }

    /// A segment of a connection whose beginning was not captured.
    fn meet_midway(&mut self, at: Time, packet: &TcpPacket<'_>) {
        let flags = packet.header.flags;
        if packet.payload_len == 0 || flags.has(Flags::RST) || flags.has(Flags::FIN) {
            return;
        }
        if self.is_unchosen(packet) {
            return;
        }
        self.stats.bytes_refused += packet.payload_len as u64;
        if packet.header.options.mptcp.is_some() {
            // Whether other subflows bear a part of it is not known.
            self.stats.segments_unowned += 1;
            return;
        }
        if !self.watch(at, packet, Midway::new(packet, Watch::Met)) {
            self.stats.segments_unowned += 1;
        }
    }

    /// Looks out for a turn at which a session can be picked up that is not copied now; says
    /// whether it may be.
    fn watch(&mut self, at: Time, packet: &TcpPacket<'_>, midway: Midway) -> bool {
        if self.config.only_from_syn || !self.is_wanted(packet.tuple.source) {
            return false;
        }
        let phase = Phase::Midway(midway);
        if let Some(key) = self.insert_session(at, packet, packet.seq_end(), phase) {
            self.arm_session(key);
        }
        true
    }

    fn insert_session(
        &mut self,
        at: Time,
        packet: &TcpPacket<'_>,
        first: Seq,
        phase: Phase,
    ) -> Option<SessionKey> {
        let service = self.config.service_of(packet.tuple.destination)?;
        let service = u16::try_from(service).ok()?;
        let session = Session::new(at, packet.tuple, service, first, phase);
        let key = self.sessions.insert(session);
        self.enter_session(key, &packet.tuple);
        Some(key)
    }

    fn on_session_segment(&mut self, now: Time, key: SessionKey, segment: ClientSegment<'_>) {
        let ClientSegment { at, packet, .. } = segment;
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
        match &mut session.phase {
            Phase::Midway(midway) => {
                let near = midway.is_near(packet.header.seq);
                let ended = near && (flags.has(Flags::FIN) || flags.has(Flags::RST));
                let watch = midway.watch;
                let one_way = self.stats.live_segments == 0;
                let watched = midway.on_client(packet, one_way);
                // What is not admitted now may be at its next turn.
                let admission = watched.begins.then(|| self.admit_again(now, key, watch));
                let Some(Admission::Copied(copies)) = admission else {
                    self.count_watched(watch, watched, packet);
                    if !near {
                        self.note_stray(at, key, packet);
                    }
                    if ended {
                        self.remove_session(key);
                    }
                    return;
                };
                if let Some(session) = self.sessions.get_mut(key) {
                    session.stream = ClientStream::new(packet.header.seq);
                    session.live = crate::live::LiveView::midway(at, packet.header.ack);
                    session.phase = Phase::Active { copies, busy: 0 };
                }
                match watch {
                    Watch::Met | Watch::Refused => {
                        self.stats.sessions_midway += 1;
                        self.stats.sessions_captured += 1;
                    }
                    Watch::Gap | Watch::SetAside => self.stats.sessions_resumed += 1,
                }
                self.open_replicas(now, key);
            }
            Phase::Opening => {
                if flags.has(Flags::RST) {
                    // A RST with another number answers for an earlier connection of the
                    // four-tuple, whose end the client has just learned of (RFC 9293 3.10.7.3).
                    let seq = packet.header.seq;
                    let stream = &session.stream;
                    let own = seq.add(1) == stream.first_seq()
                        || stream.offset_of(seq).is_some_and(|o| o <= stream.len());
                    if own {
                        self.remove_session(key);
                    }
                    return;
                }
                let seq = packet.header.seq;
                let stream = &session.stream;
                let near = stream.offset_of(seq).is_some_and(|o| o <= PLAUSIBLE);
                if !flags.has(Flags::SYN) && !near && seq.add(1) != stream.first_seq() {
                    // It speaks of an earlier connection of the four-tuple.
                    self.note_stray(at, key, packet);
                    return;
                }
                if flags.has(Flags::URG) && !flags.has(Flags::ACK) {
                    // Left out: should the live server take these bytes, it is a capture gap.
                    return;
                }
                if over_limit {
                    self.stats.sessions_refused.add(RefusalReason::Memory);
                    self.stats.bytes_refused += packet.payload_len as u64;
                    self.forget_session(key);
                    return;
                }
                if flags.has(Flags::ACK) && !self.activate(now, at, key, packet) {
                    return;
                }
            }
            Phase::Active { .. } => {}
        }
        if over_limit {
            self.make_room(now, key);
            if self.find_session(&packet.tuple) != Some(key) {
                // Another entry has taken over the connection.
                return self.on_client_segment(now, segment);
            }
        } else if packet.payload_len > 0 && flags.has(Flags::URG) {
            return self.end_before_urgent(now, key, at, packet);
        }
        self.take_client_data(now, key, segment, None);
    }

    /// Takes a segment that has waited for what bears it out.
    pub(super) fn take_borne_out(
        &mut self,
        now: Time,
        key: SessionKey,
        segment: ClientSegment<'_>,
        fresh: bool,
    ) {
        let session = self.sessions.get(key);
        match session.map(|session| &session.phase) {
            Some(Phase::Active { .. }) => {
                self.take_client_data(now, key, segment, Some(BorneOut { fresh }));
            }
            Some(_) => self.on_session_segment(now, key, segment),
            None => {}
        }
    }

    /// The client has acknowledged the handshake: the session is copied from now on, unless it
    /// is not admitted. Says whether it is.
    fn activate(&mut self, now: Time, at: Time, key: SessionKey, packet: &TcpPacket<'_>) -> bool {
        match self.admit(now, key) {
            Admission::Copied(copies) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    let before = session.load();
                    session.phase = Phase::Active { copies, busy: 0 };
                    // What came with the SYN.
                    self.stats.bytes_wanted += session.stream.len() * u64::from(copies);
                    self.account(key, before);
                }
                self.stats.sessions_captured += 1;
                self.open_replicas(now, key);
                return true;
            }
            Admission::Unchosen => {
                self.stats.sessions_unchosen += 1;
                self.leave_out(packet);
                self.forget_session(key);
            }
            Admission::Refused(reason) => {
                self.stats.sessions_refused.add(reason);
                self.stats.bytes_refused += packet.payload_len as u64;
                self.forget_session(key);
                if !packet.header.flags.has(Flags::FIN) {
                    self.watch(at, packet, Midway::new(packet, Watch::Refused));
                }
            }
        }
        false
    }

    /// Notes a client's segment that fits no window of its session's connection: should the live
    /// server acknowledge it, the four-tuple belongs to another one whose beginning was not captured.
    fn note_stray(&mut self, at: Time, key: SessionKey, packet: &TcpPacket<'_>) {
        if packet.payload_len > 0 && !self.is_of_departed(at, packet) {
            self.doubt(key, |doubts| doubts.stray = Some(packet.seq_end()));
        }
    }

    /// Counts the bytes of a client's segment that is not copied.
    fn count_watched(&mut self, watch: Watch, watched: Watched, packet: &TcpPacket<'_>) {
        match watch {
            Watch::Met | Watch::Refused => self.stats.bytes_refused += packet.payload_len as u64,
            Watch::Gap => {
                let copies = u64::from(self.copies(packet.tuple.source));
                self.stats.bytes_captured += watched.new;
                self.stats.bytes_wanted += watched.new * copies;
                self.stats.bytes_missing += watched.missing;
            }
            Watch::SetAside => self.stats.bytes_set_aside += watched.new + watched.missing,
        }
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
        let flags = packet.header.flags;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let syn = flags.has(Flags::SYN);
        let seq = if syn {
            packet.header.seq.add(1)
        } else {
            packet.header.seq
        };
        let Some(Placed {
            offset,
            bytes,
            end: wire_end,
        }) = place(&session.stream, seq, packet)
        else {
            self.note_stray(at, key, packet);
            return;
        };
        let has = session.stream.len().max(session.live.acked);
        if offset > has + session.live.reach().min(PLAUSIBLE) {
            self.note_stray(at, key, packet);
            self.stats.segments_out_of_window += 1;
            return;
        }
        let is_unsent = session.live.is_unsent(&packet.header);
        self.bear_out_ack(now, key, offset);
        if is_unsent {
            self.bear_out(key, packet.header.ack);
        }
        if borne_out.is_none() && self.waits(key, segment, offset) {
            return;
        }
        let reset = flags.has(Flags::RST);
        if reset && !self.is_at_next_byte(key, offset) {
            let kind = EndKind::Reset;
            return self.doubt_reset(key, at, End { offset, kind });
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let answer = session.live.on_client_ack(packet);
        // What the live server has acknowledged was sent, captured or not.
        let known_end = session.stream.known_end().max(session.live.acked);
        let info = RunInfo {
            at,
            answer,
            fresh: borne_out.is_some_and(|it| it.fresh)
                || offset == known_end && session.live.is_turn(),
        };
        if packet.payload_len > 0 && wire_end > session.stream.known_end() {
            session.live.note_asked();
        }
        let sent_to = match packet.payload_len {
            // It may stand anywhere until the live server has acknowledged what lies before it.
            0 if session.live.is_heard() && offset > session.live.acked => 0,
            // It may follow a FIN that was not captured.
            0 => offset.saturating_sub(1),
            _ => wire_end,
        };
        let before = session.load();
        let Ok(Taken { grown, began }) = self.take_run(now, key, offset, bytes, payload, info)
        else {
            // So much is held behind a hole, or by all sessions, that this one cannot go on.
            self.make_room(now, key);
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        self.stats.bytes_missing += session.stream.reach(sent_to);
        let ended = self.note_end(now, at, key, packet, offset, wire_end);
        self.account(key, before);
        if grown || ended {
            self.advance_replicas(now, key);
        }
        let may_be_filled = self.sessions.get(key).map(|it| it.gap_since);
        if may_be_filled.is_some_and(|since| since != Time::NEVER) {
            self.check_gap(now, key);
        }
        if let Some(session) = self.sessions.get(key) {
            let copied = matches!(session.phase, Phase::Active { .. });
            if copied && session.first_replica.is_none() {
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

    /// Which byte is urgent, and whether it is part of the stream, is the receiver's choice (RFC 6093 3): what lies before
    /// it is delivered, and nothing of the rest.
    fn end_before_urgent(&mut self, now: Time, key: SessionKey, at: Time, packet: &TcpPacket<'_>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(placed) = place(&session.stream, packet.header.seq, packet) else {
            return self.note_stray(at, key, packet);
        };
        if placed.end <= session.stream.len() {
            // It is there already, from a segment that did not say so.
            return;
        }
        let offset = placed.offset.max(session.stream.len());
        session.live.on_client_ack(packet);
        let kind = EndKind::Uncopied(AbortReason::Urgent);
        self.end_at(now, at, key, End { offset, kind });
    }

    /// Of what a session's client sends from here on nothing is copied.
    pub(super) fn end_here(&mut self, now: Time, key: SessionKey, kind: EndKind) {
        if let Some(session) = self.sessions.get(key) {
            let (at, offset) = (session.last_seen, session.stream.known_end());
            self.end_at(now, at, key, End { offset, kind });
        }
    }

    fn end_at(&mut self, now: Time, at: Time, key: SessionKey, end: End) {
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = session.load();
        session.stream.set_end(end);
        self.stats.sessions_ended += u64::from(session.end(clock));
        let answer = session.live.client_saw();
        self.place_end(now, at, key, answer);
        self.account(key, before);
        self.check_gap(now, key);
        self.advance_replicas(now, key);
        self.arm_session(key);
    }

    /// Whether a RST at this offset stands where the live server expects the next byte, or where it says that it does;
    /// behind a FIN both are possible.
    fn is_at_next_byte(&self, key: SessionKey, offset: u64) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let acked = session.live.is_known() && offset == session.live.acked;
            let fin = session.stream.announced_end();
            let behind_fin =
                fin.is_some_and(|fin| offset == fin.offset || offset == fin.offset + 1);
            acked || behind_fin || offset == session.stream.len()
        })
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
        let recorded = self.config.recorded;
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(Taken::default());
        };
        let Session {
            stream,
            turns,
            live,
            ..
        } = session;
        let mut began = false;
        let pool = &mut self.pool;
        let accepted = stream.accept(pool, offset, bytes, payload, info, |start, _, info| {
            if turns.begins(info, live.clock.asked_at) {
                turns.push(now, mark(live, start, info, recorded, &mut self.stats));
                live.clock.begin_next();
                began = true;
            }
            live.clock.ask(info.at);
        })?;
        self.stats.bytes_captured += accepted.new;
        self.stats.bytes_wanted += accepted.new * u64::from(session.copies());
        self.stats.bytes_missing += accepted.missing;
        self.stats.bytes_repeated += accepted.repeated;
        self.stats.bytes_differing += accepted.differing;
        let grown = accepted.new > 0;
        Ok(Taken { grown, began })
    }

    /// Notes FIN and RST, and gives the end its place among the turns once all before it is
    /// there. Says whether the session has changed by it.
    fn note_end(
        &mut self,
        now: Time,
        at: Time,
        key: SessionKey,
        packet: &TcpPacket<'_>,
        offset: u64,
        wire_end: u64,
    ) -> bool {
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let flags = packet.header.flags;
        let mut changed = false;
        if flags.has(Flags::RST) {
            if session.stream.announced_end().is_some() {
                self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
                changed = !session.reset_after_fin;
                session.reset_after_fin = true;
            } else {
                // One at what the live server has acknowledged may stand before bytes that were captured.
                let end = End {
                    offset: offset.max(session.stream.len()),
                    kind: EndKind::Reset,
                };
                self.end_by_reset(now, key, end);
                changed = true;
            }
        } else if flags.has(Flags::FIN)
            && !flags.has(Flags::SYN)
            && wire_end >= session.stream.len()
        {
            session.stream.set_end(End {
                offset: wire_end,
                kind: EndKind::Fin,
            });
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return changed;
        };
        if session.stream.announced_end().is_some() && session.end(clock) {
            self.stats.sessions_ended += 1;
            changed = true;
        }
        let answer = session.live.on_client_ack(packet);
        changed | self.place_end(now, at, key, answer)
    }

    /// Gives the end of a session's stream its place among the turns, once all before it is there.
    /// Says whether it has one now that it had not before.
    pub(super) fn place_end(&mut self, now: Time, at: Time, key: SessionKey, answer: u64) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let end = session.stream.end();
        let Some(end) = end.filter(|_| session.course != Course::EndMarked) else {
            return false;
        };
        session.mark_end();
        let info = RunInfo {
            at,
            answer,
            fresh: false,
        };
        let Session { turns, live, .. } = session;
        if turns.begins(info, live.clock.asked_at) {
            let recorded = self.config.recorded;
            turns.push(now, mark(live, end.offset, info, recorded, &mut self.stats));
        } else if let Some(latency) = live.clock.finish() {
            self.stats.live_latency.record(latency);
        }
        true
    }

    fn is_over_limit(&self, key: SessionKey) -> bool {
        let limit = self.config.memory_limit;
        self.memory() >= limit
            || self.sessions.get(key).is_some_and(|session| {
                let held = session.stream.held_memory() as u64;
                session.stream.stored() + held > limit / 100 * SESSION_SHARE
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

/// A segment has waited, and is taken now.
#[derive(Clone, Copy)]
struct BorneOut {
    /// It was the beginning of a turn when it was captured.
    fresh: bool,
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
struct Placed<'p> {
    /// Offset of its first byte.
    offset: u64,
    /// Its bytes, as far as capture has kept them.
    bytes: &'p [u8],
    /// Offset behind its last byte, kept or not.
    end: u64,
}

/// Finds the place of a segment. What lies before the stream is cut off: a keepalive probe before
/// the first byte. A segment that lies there altogether belongs to an earlier connection of the
/// same four-tuple, and neither its FIN nor its RST means anything here: `None`.
fn place<'p>(stream: &ClientStream, seq: Seq, packet: &TcpPacket<'p>) -> Option<Placed<'p>> {
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
fn mark(
    live: &mut crate::live::LiveView,
    start: u64,
    info: RunInfo,
    recorded: Option<Recorded>,
    stats: &mut crate::stats::Stats,
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
        think: recorded.map_or(think, |recorded| recorded.think(think)),
        live_latency: latency.map_or(0, |latency| latency.first),
        live_gap,
        lockstep: live.in_step() && live.acked >= start,
    }
}

//! An established connection to the target: its sender, its receiver and its gate.

use std::time::Duration;

use millrace_wire::build::headers_len;
use millrace_wire::{Endpoint, Flags, Seq, TcpHeader, TcpOptions};

use super::gate::{Gate, Passed, Progress, Verdict};
use super::handshake::{Handshake, offered_mss};
use super::linger::Linger;
use super::receiver::{self, Receiver};
use super::sender::{self, Allowed, Fired, Negotiated, Piece, Sender};
use super::tale::Passage;
use super::{Context, Outgoing, timestamp};
use crate::config::Config;
use crate::sampled::TaleKey;
use crate::stats::Owed;
use crate::stream::EndKind;
use crate::time::Time;

/// Bytes that timestamps take in every segment, padding included (RFC 7323 A).
const TIMESTAMP_OPTION: u16 = 12;
/// Further behind its client than this a replica shortens the client's pauses, in microseconds: a pause that is kept is worth
/// no more lag than this.
const KEPT_BEHIND: u32 = 5_000;
/// How long a target that got the client's FIN may go on sending after its last byte, once the
/// live connection is over; Linux allows its own orphans the same (`tcp_fin_timeout`).
pub(super) const FIN_WAIT: Duration = Duration::from_secs(60);

/// What a connection waits for its target to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// To take what there is, or to answer before the next turn goes.
    Owed,
    /// To answer what may need no answer: it is waited for no longer than the gate would wait.
    Optional,
    /// Nothing: more of the client must come first.
    Nothing,
}

/// How far it has come, in the terms of RFC 9293 3.3.2 where that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// ESTABLISHED or CLOSE-WAIT, and FIN-WAIT-1, CLOSING or LAST-ACK: the client's end is not acknowledged yet.
    Established,
    /// FIN-WAIT-2: the client's end is, and the target's own is waited for.
    FinWait2 {
        /// The live connection is over, on the server's side too.
        live_over: bool,
    },
    /// The client's end is acknowledged, and the connection is to be reset as the client's was.
    ResetDue,
    /// The target reset it, and until [`Connection::look_at`] the live server may be seen to do the same.
    ResetByTarget,
}

impl State {
    /// Whether the client's end was replayed and acknowledged.
    pub(super) const fn is_complete(self) -> bool {
        matches!(self, Self::FinWait2 { .. } | Self::ResetDue)
    }

    /// Whether the target has no such connection any more.
    pub(super) const fn is_reset_by_target(self) -> bool {
        matches!(self, Self::ResetByTarget)
    }
}

/// ESTABLISHED and what follows until both sides are done.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) gate: Gate,
    /// When the gate, or a connection that the live server cut, must be looked at again.
    pub(super) look_at: Time,
    /// When the target last did something for what it owes, or something became owing. See
    /// [`Connection::patience_ends`].
    progress_at: Time,
    timestamps: bool,
    pub(super) state: State,
    pub(super) work: Work,
    /// The target was told of a closed window, and is still to be told that it is open.
    window_closed: bool,
    /// What is kept to be told, if its session is sampled.
    pub(super) tale: Option<TaleKey>,
}

impl Connection {
    pub(super) fn new(
        cx: &Context<'_>,
        handshake: &Handshake,
        syn_ack: &TcpHeader,
        source: &Endpoint,
    ) -> Self {
        let options = &syn_ack.options;
        let timestamps = options.timestamps.is_some();
        let mss = sender::segment_size(
            options.mss,
            source.ip.is_ipv6(),
            cx.path.max_packet,
            headers_len(&source.ip),
            if timestamps { TIMESTAMP_OPTION } else { 0 },
        );
        let rtt = handshake.measured(cx.now);
        let negotiated = Negotiated {
            first: handshake.first(),
            mss,
            window_shift: options.window_scale.unwrap_or(0),
            sack: options.sack_permitted,
            wary: handshake.is_wary(),
        };
        let mut receiver = Receiver::new(
            syn_ack.seq.add(1),
            options.timestamps.map_or(0, |(value, _)| value),
        );
        receiver.demand_ack();
        Self {
            sender: Sender::new(negotiated, 0, syn_ack, rtt),
            receiver,
            gate: Gate::new(cx.now, cx.now.micros_since(handshake.sent_at())),
            look_at: Time::NEVER,
            progress_at: cx.now,
            timestamps,
            state: State::Established,
            work: Work::Owed,
            window_closed: false,
            tale: None,
        }
    }

    #[inline]
    pub(super) fn deadline(&self, config: &Config) -> Time {
        if self.state.is_reset_by_target() {
            return self.look_at;
        }
        let soon = self
            .sender
            .rto_at
            .min(self.receiver.ack_at)
            .min(self.gate.clock.overdue_at(config.overdue_after))
            .min(self.patience_ends(config));
        // Turns and what is looked for once have their moments.
        soon.next_tick().min(self.look_at).min(match self.work {
            Work::Optional => self.gate.waits_until(),
            Work::Owed | Work::Nothing => Time::NEVER,
        })
    }

    /// When the wait for the target is over. It lasts only while the target owes something: an
    /// acknowledgement, room in its window, or its own end. Segments that bring nothing of it,
    /// such as keepalive probes and repeated acknowledgements, do not prolong the wait.
    pub(super) fn patience_ends(&self, config: &Config) -> Time {
        let patience = if let State::FinWait2 { live_over: false } = self.state {
            // Half-closed at the live server too: its answer may take as long as any other.
            config.idle_timeout
        } else if self.state.is_complete() {
            FIN_WAIT.min(config.answer_timeout)
        } else if self.sender.is_probing() {
            // RFC 9293 3.8.6.1: a closed window alone does not end a connection, but here it must
            // not hold the client's bytes for ever either.
            config.answer_timeout.max(config.idle_timeout)
        } else if self.sender.has_flight() {
            config.answer_timeout
        } else {
            return Time::NEVER;
        };
        self.progress_at + patience
    }

    /// What of the client's stream the target has not taken in its time.
    pub(super) const fn owed(&self) -> Option<Owed> {
        match self.state {
            State::Established if self.sender.is_probing() => Some(Owed::Window),
            State::Established => Some(Owed::Acknowledgement),
            State::FinWait2 { .. } | State::ResetDue | State::ResetByTarget => None,
        }
    }

    /// Once the live connection is over, the target must come to its end too.
    pub(super) const fn note_live_over(&mut self, cx: &Context<'_>) {
        if let State::FinWait2 { live_over } = &mut self.state
            && cx.live_over
            && !*live_over
        {
            *live_over = true;
            self.progress_at = cx.now;
        }
    }

    /// Notes whether there is a turn to be sent, taken or answered, or an end to be taken.
    pub(super) fn note_work(&mut self, cx: &Context<'_>, holds_client: bool) {
        let taken = self.sender.una();
        let ends = cx.stream.end().is_some_and(|end| {
            let waits = match end.kind {
                EndKind::Fin | EndKind::Reset => true,
                // Only time has to pass.
                EndKind::Severed | EndKind::Lost | EndKind::SetAside | EndKind::Uncopied(_) => {
                    taken < end.offset
                }
            };
            !self.state.is_complete() && waits
        });
        let turn = cx.turns.get(self.gate.next_mark()).is_some();
        let may_answer = cx.config.gate && !self.receiver.finished();
        self.work = if taken < cx.stream.len() || turn || ends || holds_client {
            Work::Owed
        } else if may_answer && cx.now < self.gate.waits_until() {
            Work::Optional
        } else {
            Work::Nothing
        };
    }

    /// A segment of the target, not a RST.
    #[inline]
    pub(super) fn on_segment(
        &mut self,
        cx: &mut Context<'_>,
        header: &TcpHeader,
        len: u32,
        source: &Endpoint,
    ) {
        let probing = self.sender.is_probing();
        let empty = len == 0 && !header.flags.has(Flags::FIN);
        let mut progress = self.on_ack(cx, header, empty);
        let offered = offered_mss(cx.config, cx.path.max_packet, source);
        let proven = self.sender.knows(header);
        let received = self
            .receiver
            .on_segment(cx.now, header, len, offered, proven);
        cx.stats.bytes_answered += received.bytes;
        if received.bytes > 0 || received.finished {
            let asking = self.gate.clock.is_asking();
            let acked = self.sender.una();
            let (bytes, fin) = (received.bytes, received.finished);
            let floor = &mut cx.path.floor;
            let premature = self
                .gate
                .on_answer(cx.now, cx.waits, bytes, fin, acked, floor);
            cx.stats.gate_premature += u64::from(premature);
            let answered = asking && !self.gate.clock.is_asking();
            cx.stats.target_turns_answered += u64::from(answered);
            if fin {
                self.give_up_answer(cx);
            }
            progress |= self.state.is_complete();
        }
        progress |= probing && !self.sender.is_probing();
        if progress {
            self.progress_at = cx.now;
        }
    }

    /// Takes the acknowledgement in a header; says whether it brought any progress.
    pub(super) fn on_ack(&mut self, cx: &mut Context<'_>, header: &TcpHeader, empty: bool) -> bool {
        if !header.flags.has(Flags::ACK) || header.flags.has(Flags::SYN) {
            return false;
        }
        let before = self.sender.una();
        let acked = self.sender.on_ack(cx.now, header, empty);
        let limit = cx.stream.len();
        cx.stats.bytes_delivered += self.sender.una().min(limit) - before.min(limit);
        cx.stats.fast_retransmits += u64::from(acked.fast);
        cx.stats.black_holes += u64::from(acked.smaller);
        if acked.absurd {
            self.receiver.demand_ack();
        }
        acked.advanced > 0
    }

    /// A deadline came.
    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>, v6: bool) {
        self.receiver.on_timer(cx.now);
        if self.look_at <= cx.now {
            // Whoever looks now says when to look again.
            self.look_at = Time::NEVER;
        }
        if self.gate.clock.overdue_at(cx.config.overdue_after) <= cx.now {
            self.give_up_answer(cx);
        }
        if self.sender.rto_at <= cx.now {
            let fired = self.sender.on_timer(cx.now, v6);
            tracing::trace!(client = %cx.tuple.source, "{fired:?}: {} of {} bytes are acknowledged", self.sender.una(), self.sender.max());
            match fired {
                Fired::Timeout => cx.stats.retransmission_timeouts += 1,
                Fired::WindowProbe => cx.stats.window_probes += 1,
                // Counted as a packet that was sent again.
                Fired::TailProbe => {}
            }
        }
    }

    /// A turn that waits for the first byte of its answer counts as overdue.
    pub(super) fn give_up_answer(&mut self, cx: &mut Context<'_>) {
        cx.stats.target_turns_overdue += u64::from(self.gate.clock.give_up());
    }

    /// The way to the target, or back, is open again; `at` spreads the retries.
    pub(super) fn on_path_restored(&mut self, at: Time) {
        if std::mem::take(&mut self.window_closed) {
            self.receiver.demand_ack();
        }
        self.progress_at = self.progress_at.max(at);
        self.sender.on_path_restored(at);
    }

    /// The path takes only packets of `max_packet` bytes.
    pub(super) fn on_smaller_path(&mut self, max_packet: u16, source: &Endpoint) {
        let options = if self.timestamps { TIMESTAMP_OPTION } else { 0 };
        let headers = headers_len(&source.ip) as u16 + options;
        self.sender.lower_mss(max_packet.saturating_sub(headers));
    }

    /// Lets through every turn whose time has come.
    #[inline]
    pub(super) fn open_gate(&mut self, cx: &mut Context<'_>) {
        // Mostly there is none.
        if cx.turns.get(self.gate.next_mark()).is_some() {
            self.pass_turns(cx);
        }
    }

    fn pass_turns(&mut self, cx: &mut Context<'_>) {
        while let Some(mark) = cx.turns.get(self.gate.next_mark()) {
            self.look_at = Time::NEVER;
            // The turn before goes first, to its last byte.
            if self.sender.max() < mark.start.min(cx.stream.len()) {
                return;
            }
            let progress = Progress {
                answered: self.receiver.answered(),
                finished: self.receiver.finished(),
                acked: self.sender.una(),
            };
            // A client that reset its connection did not listen any more.
            let end = cx.stream.end().filter(|end| end.offset <= mark.start);
            let hear_out = end.is_none_or(|end| end.kind != EndKind::Reset);
            let age = cx.turns.age_of(self.gate.next_mark(), cx.now);
            // What waited to be taken in is that much further behind, and stays apart from its siblings all the same.
            let behind = age.map(|age| age.saturating_add(mark.waited.micros()));
            let left = behind.map_or(0, |it| (cx.shift + KEPT_BEHIND).saturating_sub(it));
            let latest_by = match cx.config.keep_pauses {
                true => Time::NEVER,
                false => cx.now.plus_micros(left),
            };
            let verdict = if cx.config.gate {
                self.gate
                    .check(cx.now, mark, progress, cx.path.floor, hear_out, latest_by)
            } else {
                Verdict::Open(Passed::Answered)
            };
            // Replicas of one session must not all say the same thing at once.
            let early = age.map_or(0, |age| cx.shift.saturating_sub(age));
            let verdict = match verdict {
                Verdict::Open(_) if early > 0 => Verdict::Wait(cx.now.plus_micros(early)),
                Verdict::Open(_) | Verdict::Wait(_) => verdict,
            };
            match verdict {
                Verdict::Wait(until) => {
                    self.look_at = until;
                    return;
                }
                Verdict::Open(passed) => {
                    tracing::trace!(client = %cx.tuple.source, "the turn at byte {} goes: {passed:?}", mark.start);
                    match passed {
                        Passed::Answered => cx.stats.gate_passed += 1,
                        Passed::Quiet => cx.stats.gate_quiet += 1,
                        Passed::Overridden => {
                            cx.stats.gate_overridden += 1;
                            self.give_up_answer(cx);
                        }
                    }
                    let asks = end.is_none_or(|end| mark.start < end.offset);
                    let mut lag = None;
                    if let Some(behind) = behind.filter(|_| asks && cx.config.has_pace()) {
                        let behind = behind.saturating_sub(cx.shift);
                        let quiet = self.gate.quiet_until(mark, progress, cx.path.floor);
                        let its = self.gate.lag(cx.now, mark, passed, quiet, behind);
                        cx.stats.turn_lag.saturating_record(u64::from(its));
                        lag = Some(its);
                    }
                    let latency = self.gate.pass(mark, passed, progress);
                    if let Some(latency) = latency {
                        cx.stats.target_latency.record(latency);
                    }
                    if self.tale.is_some() {
                        let behind = behind.unwrap_or_default();
                        let passage = Passage {
                            passed,
                            latency,
                            progress,
                            behind,
                            lag,
                            asks,
                        };
                        self.tell_passage(cx, mark, &passage);
                    }
                    if asks {
                        self.gate.clock.begin_next();
                    }
                }
            }
        }
    }

    /// How far the gate is open.
    fn allowed(&self, cx: &Context<'_>) -> Allowed {
        match cx.turns.get(self.gate.next_mark()) {
            Some(mark) => Allowed {
                data: mark.start.min(cx.stream.len()),
                fin: false,
            },
            None => {
                let fin = cx.stream.end().is_some_and(|end| end.kind == EndKind::Fin);
                Allowed {
                    data: cx.stream.len(),
                    fin,
                }
            }
        }
    }

    #[inline]
    pub(super) fn next_outgoing(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if self.state.is_reset_by_target() {
            return None;
        }
        let now = cx.now;
        loop {
            let allowed = self.allowed(cx);
            let owed = self.sender.has_flight() || self.sender.is_probing();
            let last_sent = self.gate.clock.asked_at;
            let piece = self.sender.next_piece(now, allowed, last_sent);
            if !owed && (piece.is_some() || self.sender.is_probing()) {
                self.progress_at = now;
            }
            if let Some(piece) = piece {
                match (piece.again, piece.len) {
                    (true, _) => {}
                    (false, 0) => self.gate.clock.end_asking(now),
                    (false, _) => self.gate.clock.ask(now),
                }
                return Some(self.outgoing(cx, &piece, piece.offset + piece.len == allowed.data));
            }
            // With the last turn sent to its end, the next may be due already.
            let before = self.gate.next_mark();
            self.open_gate(cx);
            if self.gate.next_mark() == before {
                break;
            }
        }
        if self.sender.take_probe() {
            // An old sequence number makes any receiver say where it stands and how large its
            // window is (RFC 9293 3.8.6.1); Linux probes in the same way.
            let seq = self.sender.seq_of(self.sender.una()).add(u32::MAX);
            return Some(Outgoing::bare(self.header(cx, seq, Flags::ACK)));
        }
        self.receiver.must_ack().then(|| self.acknowledgement(cx))
    }

    /// What has come in is acknowledged, whether or not it may wait, and nothing else is said. The
    /// window is closed: a target that has more to say waits, as does one that would begin.
    pub(super) fn next_acknowledgement(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        if self.state.is_reset_by_target() || !self.receiver.owes_ack() {
            return None;
        }
        self.window_closed = true;
        let mut outgoing = self.acknowledgement(cx);
        outgoing.header.window = 0;
        Some(outgoing)
    }

    fn acknowledgement(&mut self, cx: &Context<'_>) -> Outgoing {
        let seq = self.sender.seq_of(self.sender.max());
        Outgoing::bare(self.header(cx, seq, Flags::ACK))
    }

    fn outgoing(&mut self, cx: &mut Context<'_>, piece: &Piece, last: bool) -> Outgoing {
        let mut flags = Flags::ACK;
        if piece.fin {
            flags = flags | Flags::FIN;
        }
        if last && piece.len > 0 {
            flags = flags | Flags::PSH;
        }
        if piece.again {
            cx.stats.packets_retransmitted += 1;
            cx.stats.bytes_retransmitted += piece.len;
            if let Some(tale) = self.tale.and_then(|key| cx.tales.get_mut(key)) {
                tale.sent_again();
            }
        } else {
            cx.stats.bytes_sent += piece.len;
        }
        let header = self.header(cx, self.sender.seq_of(piece.offset), flags);
        Outgoing {
            header,
            offset: piece.offset,
            len: piece.len,
        }
    }

    fn header(&mut self, cx: &Context<'_>, seq: Seq, flags: Flags) -> TcpHeader {
        let ack = self.receiver.ack_number();
        let timestamps = self
            .timestamps
            .then(|| (timestamp(cx.now), self.receiver.ts_recent()));
        self.receiver.acked();
        TcpHeader {
            seq,
            ack,
            flags,
            window: receiver::WINDOW,
            urgent: 0,
            options: TcpOptions {
                timestamps,
                ..TcpOptions::default()
            },
        }
    }

    /// What is left when both sides have ended.
    pub(super) fn closed(&self, now: Time) -> Linger {
        let echo = self.timestamps.then(|| self.receiver.ts_recent());
        let seq = self.sender.seq_of(self.sender.max());
        let ack = self.receiver.ack_number();
        Linger::closed(now, seq, ack, echo, self.receiver.must_ack())
    }

    /// What is left when the connection is reset.
    pub(super) fn reset(&self, now: Time) -> Linger {
        let seq = self.sender.seq_of(self.sender.max());
        Linger::reset(now, seq, self.receiver.ack_number())
    }
}

//! A replica: one copied connection towards the target.

pub(crate) mod congestion;
pub(crate) mod gate;
pub(crate) mod receiver;
pub(crate) mod recovery;
pub(crate) mod rtt;
pub(crate) mod sender;

use std::time::Duration;

use millrace_wire::build::headers_len;
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpOptions};

use self::gate::{Gate, Passed, Progress, QuietFloor, Verdict};
use self::receiver::Receiver;
use self::rtt::Rtt;
use self::sender::{Allowed, Negotiated, Piece, Sender};
use crate::config::Config;
use crate::session::SessionKey;
use crate::stats::{AbortReason, Stats};
use crate::stream::{ClientStream, Cursor, EndKind};
use crate::time::Time;
use crate::turns::Turns;

slotmap::new_key_type! {
    /// Names a replica. A name is not used again for another replica.
    pub struct ReplicaKey;
}

impl ReplicaKey {
    /// The number under which interceptors know the replica.
    pub fn flow_id(self) -> u64 {
        slotmap::Key::data(&self).as_ffi()
    }

    /// The replica with this number, which may not exist (any more).
    pub fn from_flow_id(id: u64) -> Self {
        slotmap::KeyData::from_ffi(id).into()
    }
}

/// Bytes that timestamps take in every segment, padding included (RFC 7323 A).
const TIMESTAMP_OPTION: u16 = 12;
/// How long a finished connection answers retransmissions of the target's FIN, in microseconds.
/// Much shorter than TIME-WAIT (RFC 9293 3.6.1): the target is near, and its stack remembers too.
const LINGER: u32 = 1_000_000;
/// A RST is repeated this often while lingering, since nothing acknowledges it.
const RESET_REPEATS: u8 = 2;
/// How long a target that got the client's FIN may go on sending after its last segment; Linux
/// allows its own orphans the same (`tcp_fin_timeout`).
const FIN_WAIT: Duration = Duration::from_secs(60);
/// How long the target must have been quiet before a connection that the live server cut is cut
/// here too, in microseconds.
const SEVERED_QUIET: u32 = 1_000_000;

/// How far a connection has come.
#[derive(Debug)]
enum Phase {
    /// Not begun: no interceptor could see its answers.
    Waiting,
    /// SYN-SENT.
    SynSent(Handshake),
    /// ESTABLISHED and what follows until both sides are done.
    Open(Box<Connection>),
    /// Over; the target's last retransmissions are still answered.
    Lingering(Linger),
    /// Over.
    Done,
}

#[derive(Debug)]
struct Handshake {
    rtt: Rtt,
    sent_at: Time,
    syn_due: bool,
    tries: u8,
    rto_at: Time,
    /// RST in answer to an acknowledgement from an earlier connection (RFC 9293 3.10.7.3).
    reset_stale: Option<Seq>,
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    receiver: Receiver,
    gate: Gate,
    gate_at: Time,
    /// When a connection that the live server cut is to be cut here.
    sever_at: Time,
    timestamps: bool,
    /// When something became outstanding, or the target was last heard of after that.
    heard_at: Time,
    /// The client's end was replayed and acknowledged.
    completed: bool,
    reset_due: bool,
}

#[derive(Debug)]
struct Linger {
    until: Time,
    /// Sequence number to send from, and the number to acknowledge.
    seq: Seq,
    ack: Seq,
    echo: Option<u32>,
    /// Whether segments are answered with RST (or with ACK).
    reset: bool,
    repeats: u8,
    repeat_at: Time,
    reply: Option<Seq>,
}

/// One copied connection.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The session that it copies.
    pub(crate) session: SessionKey,
    /// The next replica of the same session.
    pub(crate) sibling: Option<ReplicaKey>,
    /// Index of its service.
    pub(crate) service: u16,
    source: Endpoint,
    iss: Seq,
    phase: Phase,
    /// Earliest entry in the timers.
    pub(crate) armed: Time,
    /// Whether it stands in the queue of replicas that may have something to send.
    pub(crate) queued: bool,
}

/// What a replica must see of the rest of the engine.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    pub(crate) stats: &'a mut Stats,
    pub(crate) floor: &'a mut QuietFloor,
    pub(crate) max_packet: u16,
    pub(crate) target: Endpoint,
    pub(crate) stream: &'a ClientStream,
    pub(crate) turns: &'a Turns,
    /// The client answered the target's data with a RST after its own FIN.
    pub(crate) reset_after_fin: bool,
}

/// A packet that a replica wants to send, but for its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: TcpHeader,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Outgoing {
    const fn bare(header: TcpHeader) -> Self {
        Self {
            header,
            offset: 0,
            len: 0,
        }
    }
}

impl Replica {
    pub(crate) const fn new(session: SessionKey, service: u16, source: Endpoint, iss: Seq) -> Self {
        Self {
            session,
            sibling: None,
            service,
            source,
            iss,
            phase: Phase::Waiting,
            armed: Time::NEVER,
            queued: false,
        }
    }

    /// The flow as the target sees it: from the replica's source to the target.
    pub(crate) const fn tuple(&self, target: Endpoint) -> FourTuple {
        FourTuple::new(self.source, target)
    }

    /// Its source address and port.
    pub(crate) const fn source(&self) -> Endpoint {
        self.source
    }

    /// Whether it is over, and only its name is left.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether it has not begun.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Whether its handshake is under way.
    pub(crate) const fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::SynSent(_))
    }

    /// Whether it has nothing more to deliver: its flow may be taken over by a new connection.
    pub(crate) const fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(_) | Phase::Done)
    }

    /// Bytes of the stream below this are not needed by it any more; `None`: none are.
    pub(crate) fn needs_from(&self) -> Option<u64> {
        match &self.phase {
            Phase::Waiting | Phase::SynSent(_) => Some(0),
            Phase::Open(connection) => Some(connection.sender.una()),
            Phase::Lingering(_) | Phase::Done => None,
        }
    }

    /// Marks below this number are not needed by it any more.
    pub(crate) fn needs_mark(&self) -> u32 {
        match &self.phase {
            Phase::Waiting | Phase::SynSent(_) => 0,
            Phase::Open(connection) => connection.gate.next_mark(),
            Phase::Lingering(_) | Phase::Done => u32::MAX,
        }
    }

    /// Where it reads in the stream.
    pub(crate) const fn cursor(&mut self) -> Option<&mut Cursor> {
        match &mut self.phase {
            Phase::Open(connection) => Some(&mut connection.sender.cursor),
            Phase::Waiting | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Done => None,
        }
    }

    /// Begins the handshake.
    pub(crate) fn connect(&mut self, now: Time) {
        self.phase = Phase::SynSent(Handshake {
            rtt: Rtt::new(),
            sent_at: now,
            syn_due: true,
            tries: 0,
            rto_at: Time::NEVER,
            reset_stale: None,
        });
    }

    /// Memory besides the structure itself, in bytes.
    pub(crate) const fn heap_size(&self) -> usize {
        match self.phase {
            Phase::Open(_) => size_of::<Connection>(),
            Phase::Waiting | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Done => 0,
        }
    }

    /// When it must be looked at again.
    pub(crate) fn deadline(&self, config: &Config) -> Time {
        match &self.phase {
            Phase::Waiting | Phase::Done => Time::NEVER,
            Phase::SynSent(h) => h.rto_at.min(h.sent_at + config.answer_timeout),
            Phase::Open(c) => c
                .sender
                .rto_at
                .min(c.receiver.ack_at)
                .min(c.gate_at)
                .min(c.sever_at)
                .min(c.patience_ends(config)),
            Phase::Lingering(linger) => linger.until.min(linger.repeat_at),
        }
    }

    /// A header from the target.
    pub(crate) fn on_header(&mut self, cx: &mut Context<'_>, header: &TcpHeader, len: u32) {
        match &mut self.phase {
            Phase::Waiting | Phase::Done => cx.stats.target_headers_unknown += 1,
            Phase::SynSent(_) => self.on_handshake(cx, header),
            Phase::Open(_) => self.on_open(cx, header, len),
            Phase::Lingering(linger) => linger.on_header(header, len),
        }
    }

    fn on_handshake(&mut self, cx: &mut Context<'_>, header: &TcpHeader) {
        let Phase::SynSent(handshake) = &mut self.phase else {
            return;
        };
        let flags = header.flags;
        let expected = self.iss.add(1);
        if flags.has(Flags::RST) {
            // RFC 9293 3.10.7.3: only a RST that acknowledges our SYN counts.
            if flags.has(Flags::ACK) && header.ack == expected {
                self.abort(cx, AbortReason::Refused);
            }
            return;
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        if header.ack != expected {
            // The target has a connection of an earlier life on this flow: reset it and try
            // again at once (RFC 9293 3.10.7.3, first).
            handshake.reset_stale = Some(header.ack);
            handshake.syn_due = true;
            cx.stats.stale_connections_reset += 1;
            return;
        }
        if !flags.has(Flags::SYN) {
            return;
        }
        let mut rtt = handshake.rtt;
        if handshake.tries == 1 {
            rtt.sample(cx.now.micros_since(handshake.sent_at));
        }
        rtt.reset_backoff();
        cx.stats.replicas_established += 1;
        self.phase = Phase::Open(Box::new(Connection::new(cx, expected, header, rtt)));
        self.advance(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_>, header: &TcpHeader, len: u32) {
        let Phase::Open(c) = &mut self.phase else {
            return;
        };
        if !c.receiver.is_plausible(header.seq) {
            cx.stats.segments_out_of_window += 1;
            return;
        }
        if header.flags.has(Flags::RST) {
            if c.receiver.accepts_reset(header.seq) {
                self.on_reset(cx);
            }
            return;
        }
        c.heard_at = cx.now;
        let empty = len == 0 && !header.flags.has(Flags::FIN);
        if header.flags.has(Flags::ACK) && !header.flags.has(Flags::SYN) {
            let before = c.sender.una();
            let acked = c.sender.on_ack(cx.now, header, empty);
            let limit = cx.stream.len();
            cx.stats.bytes_delivered += c.sender.una().min(limit) - before.min(limit);
            cx.stats.fast_retransmits += u64::from(acked.fast);
            if acked.absurd {
                c.receiver.demand_ack();
            }
        }
        let offered = offered_mss(cx.config, cx.max_packet, &self.source);
        let received = c.receiver.on_segment(cx.now, header, len, offered);
        cx.stats.bytes_answered += received.bytes;
        if received.bytes > 0 || received.finished {
            let grown = received.bytes + u64::from(received.finished);
            let acked = c.sender.una();
            let premature = c.gate.on_answer(cx.now, grown, acked, cx.floor);
            cx.stats.gate_premature += u64::from(premature);
        }
        self.advance(cx);
    }

    /// The target reset the connection.
    fn on_reset(&mut self, cx: &mut Context<'_>) {
        let Phase::Open(c) = &mut self.phase else {
            return;
        };
        let end = cx.stream.end();
        let delivered = end.is_some_and(|end| c.sender.una() >= end.offset);
        if c.completed || (delivered && c.receiver.finished()) {
            // Everything was delivered and both sides had ended: how the target cleans up is its
            // own affair.
            self.complete(cx);
            self.phase = Phase::Done;
        } else if c.receiver.finished() {
            self.abort(cx, AbortReason::TargetClosed);
        } else {
            self.abort(cx, AbortReason::TargetReset);
        }
    }

    /// The client's stream has grown or ended, a time came, or the target was heard: opens the
    /// gate as far as it goes, and ends what has come to its end.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>) {
        let Phase::Open(c) = &mut self.phase else {
            return;
        };
        c.open_gate(cx);
        let Some(end) = cx.stream.end() else { return };
        let all_acked = c.sender.una() >= end.offset;
        let gate_open = cx.turns.get(c.gate.next_mark()).is_none();
        match end.kind {
            EndKind::Fin => {
                if c.sender.una() > end.offset {
                    self.complete(cx);
                    self.close_if_finished(cx);
                }
            }
            EndKind::Reset if all_acked && gate_open => {
                c.reset_due = true;
                self.complete(cx);
            }
            EndKind::Severed if all_acked => {
                let quiet = c.gate.clock.latest().plus_micros(SEVERED_QUIET);
                c.sever_at = Time::NEVER;
                if c.receiver.finished() || quiet <= cx.now {
                    c.reset_due = true;
                    self.complete(cx);
                } else {
                    c.sever_at = quiet;
                }
            }
            EndKind::Reset | EndKind::Severed => {}
        }
    }

    /// After the client's FIN was acknowledged: done when the target has ended too, or when the
    /// client did not want to hear more.
    fn close_if_finished(&mut self, cx: &Context<'_>) {
        let Phase::Open(c) = &mut self.phase else {
            return;
        };
        if c.receiver.finished() {
            // TIME-WAIT or the end of LAST-ACK: answer the target's FIN, should it come again.
            let mut linger = c.linger(cx.now, false);
            linger.reply = c.receiver.must_ack().then_some(linger.seq);
            self.phase = Phase::Lingering(linger);
        } else if cx.reset_after_fin {
            c.reset_due = true;
        }
    }

    fn complete(&mut self, cx: &mut Context<'_>) {
        let Phase::Open(c) = &mut self.phase else {
            return;
        };
        if !c.completed {
            c.completed = true;
            cx.stats.replicas_completed += 1;
            if let Some(latency) = c.gate.clock.finish() {
                cx.stats.target_latency.record(latency);
            }
        }
    }

    /// Ends the replica, counted. What the target has of the connection is reset.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>, reason: AbortReason) {
        match &mut self.phase {
            Phase::Waiting => {
                cx.stats.replicas_aborted.add(reason);
                self.phase = Phase::Done;
            }
            Phase::SynSent(_) => {
                cx.stats.replicas_aborted.add(reason);
                // A SYN-ACK that still comes must not leave a half-open connection behind.
                let mut linger = Linger::new(cx.now, self.iss.add(1), Seq(0), None, true);
                linger.repeats = 0;
                linger.repeat_at = Time::NEVER;
                self.phase = if reason == AbortReason::Refused {
                    Phase::Done
                } else {
                    Phase::Lingering(linger)
                };
            }
            Phase::Open(c) => {
                if !c.completed {
                    cx.stats.replicas_aborted.add(reason);
                }
                let gone = matches!(reason, AbortReason::TargetReset | AbortReason::TargetClosed);
                self.phase = if gone {
                    Phase::Done
                } else {
                    Phase::Lingering(c.linger(cx.now, true))
                };
            }
            Phase::Lingering(_) | Phase::Done => {}
        }
    }

    /// A deadline came.
    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        match &mut self.phase {
            Phase::Waiting | Phase::Done => {}
            Phase::SynSent(handshake) => {
                if handshake.sent_at + cx.config.answer_timeout <= now {
                    self.abort(cx, AbortReason::Timeout);
                } else if handshake.rto_at <= now {
                    handshake.rtt.back_off();
                    handshake.rto_at = Time::NEVER;
                    handshake.syn_due = true;
                    cx.stats.retransmission_timeouts += 1;
                }
            }
            Phase::Open(c) => {
                if c.patience_ends(cx.config) <= now {
                    self.abort(cx, AbortReason::Timeout);
                    return;
                }
                c.receiver.on_timer(now);
                if c.sender.rto_at <= now {
                    let timeout = c.sender.on_timer(now, self.source.ip.is_ipv6());
                    cx.stats.retransmission_timeouts += u64::from(timeout);
                    cx.stats.window_probes += u64::from(!timeout);
                }
                self.advance(cx);
            }
            Phase::Lingering(linger) => {
                if linger.until <= now {
                    self.phase = Phase::Done;
                } else if linger.repeat_at <= now {
                    linger.repeat(now);
                }
            }
        }
    }

    /// The way to the target, or back, is open again; `at` spreads the retries.
    pub(crate) fn on_path_restored(&mut self, at: Time) {
        match &mut self.phase {
            Phase::SynSent(handshake) => {
                handshake.rtt.reset_backoff();
                handshake.rto_at = handshake.rto_at.min(at);
            }
            Phase::Open(c) => c.sender.on_path_restored(at),
            Phase::Waiting | Phase::Lingering(_) | Phase::Done => {}
        }
    }

    /// The path takes only packets of `max_packet` bytes.
    pub(crate) fn on_smaller_path(&mut self, max_packet: u16) {
        if let Phase::Open(c) = &mut self.phase {
            let options = if c.timestamps { TIMESTAMP_OPTION } else { 0 };
            let headers = headers_len(&self.source.ip) as u16 + options;
            c.sender.lower_mss(max_packet.saturating_sub(headers));
        }
    }

    /// The next packet to send, if there is one.
    pub(crate) fn next_outgoing(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        let now = cx.now;
        match &mut self.phase {
            Phase::Waiting | Phase::Done => None,
            Phase::SynSent(handshake) => {
                if let Some(seq) = handshake.reset_stale.take() {
                    let header = TcpHeader {
                        seq,
                        flags: Flags::RST,
                        ..TcpHeader::default()
                    };
                    return Some(Outgoing::bare(header));
                }
                if !std::mem::take(&mut handshake.syn_due) {
                    return None;
                }
                handshake.tries = handshake.tries.saturating_add(1);
                if handshake.tries == 1 {
                    handshake.sent_at = now;
                } else {
                    cx.stats.packets_retransmitted += 1;
                }
                handshake.rto_at = now.plus_micros(handshake.rtt.rto());
                Some(Outgoing::bare(syn(cx, self.iss, &self.source)))
            }
            Phase::Open(c) => {
                let outgoing = c.next_outgoing(cx);
                if c.reset_due && outgoing.is_none() {
                    let mut linger = c.linger(now, true);
                    let header = linger.reset_header();
                    linger.repeat_at = now.plus_micros(c.sender.rtt.rto());
                    self.phase = Phase::Lingering(linger);
                    return Some(Outgoing::bare(header));
                }
                outgoing
            }
            Phase::Lingering(linger) => linger.take_reply(now).map(Outgoing::bare),
        }
    }
}

impl Connection {
    fn new(cx: &Context<'_>, first: Seq, syn_ack: &TcpHeader, rtt: Rtt) -> Self {
        let options = &syn_ack.options;
        let timestamps = options.timestamps.is_some();
        let v6 = cx.target.ip.is_ipv6();
        let mss = sender::segment_size(
            options.mss,
            v6,
            cx.max_packet,
            headers_len(&cx.target.ip),
            if timestamps { TIMESTAMP_OPTION } else { 0 },
        );
        let negotiated = Negotiated {
            first,
            mss,
            window_shift: options.window_scale.unwrap_or(0),
            sack: options.sack_permitted,
        };
        let mut receiver = Receiver::new(
            syn_ack.seq.add(1),
            options.timestamps.map_or(0, |(value, _)| value),
        );
        receiver.demand_ack();
        Self {
            sender: Sender::new(cx.now, negotiated, 0, syn_ack, rtt),
            receiver,
            gate: Gate::new(cx.now, 0),
            gate_at: Time::NEVER,
            sever_at: Time::NEVER,
            timestamps,
            heard_at: cx.now,
            completed: false,
            reset_due: false,
        }
    }

    /// When the wait for the target is over: only while something is unanswered.
    fn patience_ends(&self, config: &Config) -> Time {
        if self.completed {
            self.heard_at + FIN_WAIT.min(config.answer_timeout)
        } else if self.sender.has_flight() || self.sender.is_probing() {
            self.heard_at + config.answer_timeout
        } else {
            Time::NEVER
        }
    }

    fn open_gate(&mut self, cx: &mut Context<'_>) {
        self.gate_at = Time::NEVER;
        while let Some(mark) = cx.turns.get(self.gate.next_mark()) {
            // The turn before goes first, to its last byte.
            if self.sender.max() < mark.start.min(cx.stream.len()) {
                return;
            }
            let progress = Progress {
                answered: self.receiver.answered(),
                finished: self.receiver.finished(),
                acked: self.sender.una(),
            };
            let verdict = if cx.config.gate {
                self.gate.check(cx.now, mark, progress, *cx.floor)
            } else {
                Verdict::Open(Passed::Answered)
            };
            match verdict {
                Verdict::Wait(until) => {
                    self.gate_at = until;
                    return;
                }
                Verdict::Open(passed) => {
                    match passed {
                        Passed::Answered => cx.stats.gate_passed += 1,
                        Passed::Quiet => cx.stats.gate_quiet += 1,
                        Passed::Overridden => cx.stats.gate_overridden += 1,
                    }
                    if let Some(latency) = self.gate.pass(mark, passed, progress) {
                        cx.stats.target_latency.record(latency);
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

    fn next_outgoing(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        let now = cx.now;
        loop {
            let allowed = self.allowed(cx);
            let idle = !self.sender.has_flight();
            if let Some(piece) = self.sender.next_piece(now, allowed) {
                if idle {
                    self.heard_at = self.heard_at.max(now);
                }
                if !piece.again {
                    self.gate.clock.ask(now);
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
        if self.receiver.must_ack() {
            let seq = self.sender.seq_of(self.sender.max());
            let mut header = self.header(cx, seq, Flags::ACK);
            header.options.sack = if self.sender.sack {
                self.receiver.sack_blocks()
            } else {
                header.options.sack
            };
            return Some(Outgoing::bare(header));
        }
        None
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

    fn linger(&self, now: Time, reset: bool) -> Linger {
        let echo = self.timestamps.then(|| self.receiver.ts_recent());
        let seq = self.sender.seq_of(self.sender.max());
        Linger::new(now, seq, self.receiver.ack_number(), echo, reset)
    }
}

impl Linger {
    const fn new(now: Time, seq: Seq, ack: Seq, echo: Option<u32>, reset: bool) -> Self {
        Self {
            until: now.plus_micros(LINGER),
            seq,
            ack,
            echo,
            reset,
            repeats: if reset { RESET_REPEATS } else { 0 },
            // A reset goes out at once; see `repeat`.
            repeat_at: if reset { now } else { Time::NEVER },
            reply: None,
        }
    }

    fn on_header(&mut self, header: &TcpHeader, len: u32) {
        if header.flags.has(Flags::RST) {
            return;
        }
        if self.reset {
            // RFC 5961 3.2: a challenge acknowledgement names the number that it wants.
            self.reply = Some(if header.flags.has(Flags::ACK) {
                header.ack
            } else {
                self.seq
            });
        } else if len > 0 || header.flags.has(Flags::FIN) || header.seq.before(self.ack) {
            self.reply = Some(self.seq);
        }
    }

    fn repeat(&mut self, now: Time) {
        self.reply = Some(self.seq);
        self.repeats = self.repeats.saturating_sub(1);
        self.repeat_at = if self.repeats > 0 {
            now.plus_micros(LINGER / 4)
        } else {
            Time::NEVER
        };
    }

    const fn reset_header(&self) -> TcpHeader {
        TcpHeader {
            seq: self.seq,
            ack: self.ack,
            flags: Flags(Flags::RST.0 | Flags::ACK.0),
            window: 0,
            urgent: 0,
            options: no_options(),
        }
    }

    fn take_reply(&mut self, now: Time) -> Option<TcpHeader> {
        let seq = self.reply.take()?;
        if self.reset {
            return Some(TcpHeader {
                seq,
                ..self.reset_header()
            });
        }
        let timestamps = self.echo.map(|echo| (timestamp(now), echo));
        Some(TcpHeader {
            seq,
            ack: self.ack,
            flags: Flags::ACK,
            window: receiver::WINDOW,
            urgent: 0,
            options: TcpOptions {
                timestamps,
                ..TcpOptions::default()
            },
        })
    }
}

const fn no_options() -> TcpOptions {
    TcpOptions {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: millrace_wire::SackBlocks::EMPTY,
    }
}

/// The SYN: everything is offered, and the target chooses.
fn syn(cx: &Context<'_>, iss: Seq, source: &Endpoint) -> TcpHeader {
    TcpHeader {
        seq: iss,
        ack: Seq(0),
        flags: Flags::SYN,
        window: receiver::WINDOW,
        urgent: 0,
        options: TcpOptions {
            mss: Some(offered_mss(cx.config, cx.max_packet, source)),
            window_scale: Some(receiver::WINDOW_SCALE),
            sack_permitted: true,
            timestamps: Some((timestamp(cx.now), 0)),
            ..TcpOptions::default()
        },
    }
}

/// The segment size offered to targets.
fn offered_mss(config: &Config, max_packet: u16, source: &Endpoint) -> u16 {
    let fits = usize::from(max_packet).saturating_sub(headers_len(&source.ip));
    config
        .offered_mss
        .unwrap_or(u16::try_from(fits).unwrap_or(u16::MAX))
        .max(64)
}

/// The timestamp clock (RFC 7323 5.4): milliseconds. It comes from the wall clock, so that it
/// goes on rising when the process starts again (RFC 6191).
const fn timestamp(now: Time) -> u32 {
    (now.as_micros() / 1000) as u32
}

//! The sending half of a replica: a TCP sender towards the target (RFC 9293 3.10, RFC 5681,
//! RFC 6298, RFC 6675), with the limits that the target negotiated, never those of the live side.
//!
//! Offsets are those of the client's stream; the FIN takes the offset behind the last byte.

mod acknowledged;

use millrace_wire::{Flags, Seq, TcpHeader};

use super::congestion::Congestion;
use super::recovery::{Mode, Recovery};
use super::rtt::Rtt;
use crate::stream::Cursor;
use crate::time::Time;

/// Segment size towards a target that offers none (RFC 9293 3.7.1): IPv4, IPv6.
const DEFAULT_MSS: (u16, u16) = (536, 1220);
/// Segments are not made smaller than this, whatever a target offers.
const LEAST_MSS: u16 = 64;
/// A segment's payload comes from few blocks of the stream, so one block is the most that
/// is certain to be there.
const LARGEST_SEGMENT: u16 = crate::pool::BLOCK as u16;
/// After this many time-outs in a row, large segments are suspected of being swallowed by a path
/// with a smaller MTU (RFC 2923 2.1), and smaller ones are tried.
const BLACK_HOLE_TIMEOUTS: u8 = 2;
/// Windows are not scaled by more (RFC 7323 2.3).
const MAX_WINDOW_SHIFT: u8 = 14;
/// An acknowledgement may be as many bytes old, and still be this connection's: packets overtake each other.
const LATELY: u64 = 1 << 20;
/// Longest time between probes of a zero window, in microseconds.
const MAX_PROBE_INTERVAL: u32 = 60_000_000;

/// What the stream allows to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Bytes below this offset may go.
    pub(crate) data: u64,
    /// The FIN may go behind them.
    pub(crate) fin: bool,
}

impl Allowed {
    /// The offset behind everything that may go, FIN included.
    const fn end(self) -> u64 {
        self.data + self.fin as u64
    }
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset of the first byte.
    pub(crate) offset: u64,
    /// Payload bytes.
    pub(crate) len: u64,
    /// Whether the FIN goes with it.
    pub(crate) fin: bool,
    /// Whether (some of) it was sent before.
    pub(crate) again: bool,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.offset + self.len + self.fin as u64
    }
}

/// A loss at the end of what was sent shows by nothing but silence. So before the time-out the last segment goes once more
/// (RFC 8985 7, tail loss probe): its acknowledgement shows what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// The timer is another one's.
    Unwatched,
    /// The timer is that of the probe.
    Watched,
    /// The probe is to be sent.
    Due,
    /// It was sent, and nothing new was acknowledged since.
    Probed,
}

/// What a timer of the sender meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fired {
    /// A retransmission time-out.
    Timeout,
    /// The window is to be probed.
    WindowProbe,
    /// The tail is to be probed.
    TailProbe,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Offsets newly acknowledged, FIN included.
    pub(crate) advanced: u64,
    /// Fast recovery began.
    pub(crate) fast: bool,
    /// After time-outs a segment was taken that is smaller than those before, and no more than that.
    pub(crate) smaller: bool,
    /// It acknowledges what was never sent (RFC 9293 3.10.7.4: answer with an ACK).
    pub(crate) absurd: bool,
}

/// The sender of one connection.
#[derive(Debug)]
pub(crate) struct Sender {
    first: Seq,
    una: u64,
    max: u64,
    /// Right edge of the window that the target advertised, as an offset.
    window_end: u64,
    wl1: Seq,
    window_shift: u8,
    mss: u16,
    pub(crate) sack: bool,
    rtt: Rtt,
    congestion: Congestion,
    /// The end of the segment whose round trip is being measured, and when it was sent;
    /// [`Time::NEVER`] if none is.
    timed_end: Seq,
    timed_at: Time,
    /// Timer of retransmission, or of probes of the tail or the window.
    pub(crate) rto_at: Time,
    tail: Tail,
    probe_due: bool,
    probes: u8,
    /// Nothing but the first segment goes before the target has acknowledged it, see
    /// [`Negotiated::wary`].
    alone: bool,
    recovery: Option<Box<Recovery>>,
    pub(crate) cursor: Cursor,
}

/// What the handshake settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated {
    /// Sequence number of the first byte.
    pub(crate) first: Seq,
    /// Largest payload of a segment, options already subtracted.
    pub(crate) mss: u16,
    /// Shift of the windows that the target advertises.
    pub(crate) window_shift: u8,
    /// Selective acknowledgements were agreed on.
    pub(crate) sack: bool,
    /// The target may have run out of room for handshakes and answered with a SYN cookie
    /// (RFC 4987 3.6). Then it knows nothing of the connection, and while its accept queue is full
    /// it forgets segments: a second one, whose number no cookie fits, would be reset. A first one
    /// that goes alone is sent again and makes the connection (RFC 5681 3.1 asks for the same
    /// after a lost SYN).
    pub(crate) wary: bool,
}

/// The largest payload of a segment to a target that offered `offered`, over a path that takes
/// packets of `max_packet` bytes with `headers` bytes of IP and TCP headers, when `options` bytes
/// of options go with every segment (RFC 6691).
pub(crate) fn segment_size(
    offered: Option<u16>,
    v6: bool,
    max_packet: u16,
    headers: usize,
    options: u16,
) -> u16 {
    let default = if v6 { DEFAULT_MSS.1 } else { DEFAULT_MSS.0 };
    let path = usize::from(max_packet).saturating_sub(headers);
    let path = u16::try_from(path).unwrap_or(u16::MAX);
    let size = offered.unwrap_or(default).min(path).saturating_sub(options);
    size.clamp(LEAST_MSS, LARGEST_SEGMENT)
}

impl Sender {
    pub(crate) fn new(negotiated: Negotiated, start: u64, syn_ack: &TcpHeader, rtt: Rtt) -> Self {
        Self {
            first: negotiated.first,
            una: start,
            max: start,
            // RFC 7323 2.2: the window of a SYN is never scaled.
            window_end: start + u64::from(syn_ack.window),
            wl1: syn_ack.seq,
            window_shift: negotiated.window_shift.min(MAX_WINDOW_SHIFT),
            mss: negotiated.mss,
            sack: negotiated.sack,
            rtt,
            congestion: Congestion::new(negotiated.mss),
            timed_end: negotiated.first,
            timed_at: Time::NEVER,
            rto_at: Time::NEVER,
            tail: Tail::Unwatched,
            probe_due: false,
            probes: 0,
            alone: negotiated.wary,
            recovery: None,
            cursor: Cursor::default(),
        }
    }

    /// Everything below was acknowledged.
    pub(crate) const fn una(&self) -> u64 {
        self.una
    }

    /// Everything below was sent at least once.
    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    /// Whether something is unacknowledged.
    pub(crate) const fn has_flight(&self) -> bool {
        self.una < self.max
    }

    /// Whether a closed window keeps something from being sent.
    pub(crate) const fn is_probing(&self) -> bool {
        self.probes > 0
    }

    /// Whether a segment of the target acknowledges something that was sent here, lately or now.
    pub(crate) fn knows(&self, header: &TcpHeader) -> bool {
        let acked = self.offset_of(header.ack);
        header.flags.has(Flags::ACK)
            && acked.is_some_and(|acked| acked <= self.max && acked + LATELY >= self.una)
    }

    /// The sequence number of an offset.
    pub(crate) const fn seq_of(&self, offset: u64) -> Seq {
        self.first.add(offset as u32)
    }

    /// Lowers the segment size, for a path that takes less than was thought.
    pub(crate) fn lower_mss(&mut self, mss: u16) {
        self.mss = self.mss.min(mss.max(LEAST_MSS));
    }

    /// Whether something that was lost, or seems to be, is being sent again.
    pub(crate) const fn is_recovering(&self) -> bool {
        self.recovery.is_some() || self.rtt.backoff() > 0 || matches!(self.tail, Tail::Probed)
    }

    /// What to send next, if anything may be sent. `last_sent` is when the last new piece was.
    pub(crate) fn next_piece(
        &mut self,
        now: Time,
        allowed: Allowed,
        last_sent: Time,
    ) -> Option<Piece> {
        let piece = self
            .piece_to_repeat(allowed)
            .or_else(|| self.new_piece(now, allowed, last_sent));
        match &piece {
            Some(piece) => self.sent(now, piece),
            None => self.watch_window(now, allowed),
        }
        piece
    }

    /// Whether a probe of the window is due; asking takes it.
    pub(crate) const fn take_probe(&mut self) -> bool {
        std::mem::replace(&mut self.probe_due, false)
    }

    fn piece_to_repeat(&mut self, allowed: Allowed) -> Option<Piece> {
        if self.tail == Tail::Due {
            return Some(self.probe_of_tail(allowed));
        }
        let mss = u64::from(self.mss);
        let recovery = self.recovery.as_mut()?;
        let (start, end) = match recovery.mode {
            Mode::Disorder => return None,
            Mode::Timeout => {
                if let Some(end) = recovery.sacked_until(recovery.next) {
                    recovery.next = end.max(recovery.next);
                }
                let next = recovery.next;
                let flight = next - self.una - recovery.sacked_within(self.una, next);
                let full = flight > 0 && flight + mss > u64::from(self.congestion.window());
                if next >= self.max || full {
                    return None;
                }
                (next, recovery.hole_end(next, self.max))
            }
            Mode::Fast if recovery.resend_first => {
                (self.una, recovery.hole_end(self.una, self.max))
            }
            Mode::Fast => {
                let pipe = recovery.pipe(self.una, self.max, self.mss);
                if !self.sack || pipe + mss > u64::from(self.congestion.window()) {
                    return None;
                }
                recovery.next_hole(self.una, self.mss)?
            }
        };
        let end = end.min(start + mss).min(self.max);
        // The window may have shrunk since; then probing is what is left.
        if start >= self.window_end.max(self.una + 1) || start >= end {
            return None;
        }
        let data_end = end.min(allowed.data);
        let piece = Piece {
            offset: start,
            len: data_end.saturating_sub(start),
            fin: allowed.fin && end > allowed.data,
            again: true,
        };
        match recovery.mode {
            Mode::Timeout => recovery.next = piece.end(),
            Mode::Fast => recovery.resent(piece.end()),
            Mode::Disorder => {}
        }
        Some(piece)
    }

    /// The last segment once more.
    fn probe_of_tail(&mut self, allowed: Allowed) -> Piece {
        self.tail = Tail::Probed;
        let data_end = self.max.min(allowed.data);
        let fin = allowed.fin && self.max > allowed.data;
        let offset = data_end.saturating_sub(u64::from(self.mss)).max(self.una);
        Piece {
            offset,
            len: data_end.saturating_sub(offset),
            fin,
            again: true,
        }
    }

    fn new_piece(&mut self, now: Time, allowed: Allowed, last_sent: Time) -> Option<Piece> {
        let start = self.max;
        let going_back = self
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.is_going_back(self.max));
        if start >= allowed.end() || going_back || (self.alone && self.has_flight()) {
            return None;
        }
        let mss = u64::from(self.mss);
        let pipe = match &self.recovery {
            None => self.max - self.una,
            Some(recovery) if recovery.mode == Mode::Fast && self.sack => {
                recovery.pipe(self.una, self.max, self.mss)
            }
            Some(recovery) => {
                // Without SACK every duplicate acknowledgement means a segment that has left the
                // network (RFC 6582 3.2, RFC 3042).
                let left = u64::from(recovery.dup_acks) * mss;
                let sacked = recovery.sacked_within(self.una, self.max);
                (self.max - self.una).saturating_sub(left.max(sacked))
            }
        };
        if pipe == 0 && now.since(last_sent).as_micros() > u128::from(self.rtt.rto()) {
            self.congestion.on_idle_restart(self.mss);
        }
        let data = allowed.data.saturating_sub(start);
        let fin_only = data == 0;
        let room = self.window_end.saturating_sub(start);
        let len = data.min(mss).min(room);
        if fin_only {
            // The FIN is let through a closed window: it needs no buffer.
            return Some(Piece {
                offset: start,
                len: 0,
                fin: true,
                again: false,
            });
        }
        // RFC 9293 3.8.6.2.1 (sender's side of silly window avoidance): no dribbling while more
        // is under way.
        let small = len < data.min(mss);
        let congested = pipe > 0 && pipe + len > u64::from(self.congestion.window());
        if len == 0 || congested || (small && pipe > 0 && len * 2 < mss) {
            return None;
        }
        let fin = allowed.fin && start + len == allowed.data;
        Some(Piece {
            offset: start,
            len,
            fin,
            again: false,
        })
    }

    fn sent(&mut self, now: Time, piece: &Piece) {
        if piece.again {
            // A probe of the tail is timed with it: where acknowledgements are late and nothing is lost, the next one is
            // to come later.
            if self.recovery.is_some() {
                self.timed_at = Time::NEVER;
            }
        } else {
            self.max = piece.end();
            if self.timed_at == Time::NEVER && self.recovery.is_none() {
                self.timed_end = self.seq_of(self.max);
                self.timed_at = now;
            }
        }
        self.probes = 0;
        // RFC 6298 (5.1).
        if self.rto_at == Time::NEVER {
            self.arm(now);
        }
    }

    /// Sets the timer for what is outstanding.
    fn arm(&mut self, now: Time) {
        let rto = self.rtt.rto();
        let is_calm = self.recovery.is_none() && self.rtt.backoff() == 0;
        let may_probe = is_calm && self.tail != Tail::Probed && self.window_end > self.una;
        let probe = self.rtt.probe_timeout().filter(|probe| *probe < rto);
        self.rto_at = match probe.filter(|_| may_probe) {
            Some(probe) => {
                self.tail = Tail::Watched;
                now.plus_micros(probe)
            }
            None => {
                if self.tail == Tail::Watched {
                    self.tail = Tail::Unwatched;
                }
                now.plus_micros(rto)
            }
        };
    }

    /// Starts probing when only a closed window holds back what is allowed (RFC 9293 3.8.6.1).
    fn watch_window(&mut self, now: Time, allowed: Allowed) {
        let closed = self.max < allowed.data && self.window_end <= self.max;
        if closed && !self.has_flight() && self.rto_at == Time::NEVER {
            self.probes = self.probes.max(1);
            self.rto_at = now.plus_micros(self.rtt.rto());
        }
    }

    /// Takes the acknowledgement in a header; `empty` says that the segment carried nothing.
    pub(crate) fn on_ack(&mut self, now: Time, header: &TcpHeader, empty: bool) -> Acked {
        let mut acked = Acked::default();
        let Some(ack) = self.offset_of(header.ack) else {
            return acked;
        };
        if ack > self.max {
            acked.absurd = true;
            return acked;
        }
        if ack < self.una {
            return acked;
        }
        let window_end = ack + (u64::from(header.window) << self.window_shift);
        let changed = window_end != self.window_end;
        self.update_window(header, ack, window_end);
        let news = self.take_sack(header);
        if ack > self.una {
            acked.advanced = ack - self.una;
            let recovery = self.recovery.as_mut();
            acked.smaller = recovery.is_some_and(|it| std::mem::take(&mut it.narrowed))
                && acked.advanced == u64::from(self.mss)
                && self.max > ack;
            self.advance(now, ack);
        } else if empty && self.has_flight() && (news || !changed) {
            acked.fast = self.on_duplicate();
        } else if news {
            acked.fast = self.enter_fast_if_lost();
        }
        // A window that has opened again ends the probing; what is outstanding needs its timer.
        if self.has_flight() && self.rto_at == Time::NEVER {
            self.arm(now);
        }
        acked
    }

    /// The timer fired: everything is sent again, or the tail or the window is probed.
    pub(crate) fn on_timer(&mut self, now: Time, v6: bool) -> Fired {
        if !self.has_flight() || self.window_end <= self.una {
            self.probe_due = true;
            self.probes = self.probes.saturating_add(1);
            let interval = self.rtt.rto().saturating_mul(1 << self.probes.min(8));
            self.rto_at = now.plus_micros(interval.min(MAX_PROBE_INTERVAL));
            return Fired::WindowProbe;
        }
        if self.tail == Tail::Watched {
            self.tail = Tail::Due;
            self.rto_at = now.plus_micros(self.rtt.rto());
            return Fired::TailProbe;
        }
        self.tail = Tail::Unwatched;
        let first = self.rtt.backoff() == 0;
        self.rtt.back_off();
        let before = self.mss;
        if self.rtt.backoff() >= BLACK_HOLE_TIMEOUTS {
            self.lower_mss(if v6 { DEFAULT_MSS.1 } else { DEFAULT_MSS.0 });
        }
        self.congestion
            .on_timeout(self.max - self.una, self.mss, first);
        let una = self.una;
        let recovery = self
            .recovery
            .get_or_insert_with(|| Box::new(Recovery::new(una)));
        recovery.enter_timeout(una, self.max);
        recovery.narrowed |= self.mss < before;
        self.timed_at = Time::NEVER;
        // RFC 6298 (5.6).
        self.rto_at = now.plus_micros(self.rtt.rto());
        Fired::Timeout
    }

    /// What is outstanding did not fit the path: it is sent again in smaller pieces, at once and
    /// without any consequence for the congestion window (RFC 1191 6.5).
    pub(crate) fn send_again(&mut self) {
        if self.has_flight() {
            let una = self.una;
            let recovery = self
                .recovery
                .get_or_insert_with(|| Box::new(Recovery::new(una)));
            recovery.enter_timeout(una, self.max);
            self.timed_at = Time::NEVER;
        }
    }

    /// The way to or from the target is open again after an outage that had nothing to do with
    /// congestion: whatever is outstanding is tried again at `at`.
    pub(crate) fn on_path_restored(&mut self, at: Time) {
        if self.rto_at != Time::NEVER {
            self.rtt.reset_backoff();
            self.rto_at = self.rto_at.min(at);
        }
    }

    fn offset_of(&self, seq: Seq) -> Option<u64> {
        seq.offset_near(self.first.add(self.una as u32), self.una)
    }
}

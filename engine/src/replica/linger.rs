//! What is left of a connection that is over: it answers the target's last retransmissions, and
//! repeats a reset that nothing acknowledges.

use millrace_wire::{Flags, Seq, TcpHeader, TcpOptions};

use super::{receiver, timestamp};
use crate::time::Time;

/// How long a finished connection answers retransmissions of the target's FIN, in microseconds.
/// Much shorter than TIME-WAIT (RFC 9293 3.6.1): the target is near, and its stack remembers too.
const LINGER: u32 = 1_000_000;
/// No FIN is answered for longer than this, in microseconds: twice the MSL that Linux assumes.
const LONGEST_LINGER: u32 = 60_000_000;
/// A RST is repeated this often while lingering, since nothing acknowledges it.
const RESET_REPEATS: u8 = 2;
/// Time between two of them, in microseconds.
const REPEAT_AFTER: u32 = LINGER / 4;

/// A connection that is over.
#[derive(Debug)]
pub(super) struct Linger {
    since: Time,
    until: Time,
    /// Sequence number to send from.
    seq: Seq,
    /// The number to acknowledge.
    ack: Seq,
    /// The target's timestamp, if timestamps were agreed on.
    echo: Option<u32>,
    /// Whether segments are answered with RST (or with ACK).
    reset: bool,
    repeats: u8,
    repeat_at: Time,
    reply: Option<Seq>,
}

impl Linger {
    /// Both sides have ended: TIME-WAIT, or the end of LAST-ACK. `owes_ack`: the target's FIN is
    /// not acknowledged yet.
    pub(super) fn closed(now: Time, seq: Seq, ack: Seq, echo: Option<u32>, owes_ack: bool) -> Self {
        Self {
            since: now,
            until: now.plus_micros(LINGER),
            seq,
            ack,
            echo,
            reset: false,
            repeats: 0,
            repeat_at: Time::NEVER,
            reply: owes_ack.then_some(seq),
        }
    }

    /// The connection is reset, at once.
    pub(super) fn reset(now: Time, seq: Seq, ack: Seq) -> Self {
        Self {
            repeats: RESET_REPEATS,
            repeat_at: now.plus_micros(REPEAT_AFTER),
            ..Self::answering(now, seq, ack, Some(seq))
        }
    }

    /// The handshake was given up: a SYN-ACK that still comes must not leave a half-open
    /// connection behind.
    pub(super) fn abandoned(now: Time, seq: Seq) -> Self {
        Self::answering(now, seq, Seq(0), None)
    }

    const fn answering(now: Time, seq: Seq, ack: Seq, reply: Option<Seq>) -> Self {
        Self {
            since: now,
            until: now.plus_micros(LINGER),
            seq,
            ack,
            echo: None,
            reset: true,
            repeats: 0,
            repeat_at: Time::NEVER,
            reply,
        }
    }

    pub(super) fn deadline(&self) -> Time {
        self.until.min(self.repeat_at)
    }

    pub(super) fn on_header(&mut self, now: Time, header: &TcpHeader, len: u32) {
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
            if header.flags.has(Flags::FIN) {
                // RFC 9293 3.10.7.4, TIME-WAIT: acknowledge, and start the time again. The target
                // backs off, so its next FIN may take as long as all before it, and as much more.
                let waited = now.micros_since(self.since);
                let wait = LINGER.saturating_add(waited.saturating_mul(2));
                self.until = now
                    .plus_micros(wait)
                    .min(self.since.plus_micros(LONGEST_LINGER));
            }
        }
    }

    /// A deadline came; says whether the time is over.
    pub(super) fn on_timer(&mut self, now: Time) -> bool {
        if self.repeat_at <= now {
            self.reply = Some(self.seq);
            self.repeats = self.repeats.saturating_sub(1);
            self.repeat_at = if self.repeats > 0 {
                now.plus_micros(REPEAT_AFTER)
            } else {
                Time::NEVER
            };
        }
        self.until <= now
    }

    pub(super) fn take_reply(&mut self, now: Time) -> Option<TcpHeader> {
        let seq = self.reply.take()?;
        let mut header = TcpHeader {
            seq,
            ack: self.ack,
            ..TcpHeader::default()
        };
        if self.reset {
            header.flags = Flags::RST | Flags::ACK;
        } else {
            header.flags = Flags::ACK;
            header.window = receiver::WINDOW;
            header.options = TcpOptions {
                timestamps: self.echo.map(|echo| (timestamp(now), echo)),
                ..TcpOptions::default()
            };
        }
        Some(header)
    }

    /// The reply, if it is no reset.
    pub(super) fn take_acknowledgement(&mut self, now: Time) -> Option<TcpHeader> {
        if self.reset {
            return None;
        }
        self.take_reply(now)
    }
}

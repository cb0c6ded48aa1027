//! The way to an established connection: SYN-SENT (RFC 9293 3.10.7.3).

use std::time::Duration;

use millrace_wire::build::headers_len;
use millrace_wire::{Endpoint, Flags, Seq, TcpHeader, TcpOptions};

use super::asked::Asked;
use super::rtt::Rtt;
use super::{Context, Outgoing, receiver, timestamp};
use crate::config::Config;
use crate::time::Time;

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Sequence number of the SYN.
    iss: Seq,
    rtt: Rtt,
    sent_at: Time,
    /// How long an answer was waited for before, in tries that were called off, in milliseconds.
    tried: u32,
    syn_due: bool,
    /// A RST came in answer to a SYN.
    refused: bool,
    tries: u8,
    rto_at: Time,
    /// RST in answer to an acknowledgement from an earlier connection (RFC 9293 3.10.7.3).
    reset_stale: Option<Seq>,
    in_crowd: bool,
    /// Since when an answer is due.
    pub(super) asked: Asked,
}

/// What a header of the target means for the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It goes on.
    Nothing,
    /// The target refused.
    Refused,
    /// It is the SYN-ACK.
    Established,
}

impl Handshake {
    pub(super) const fn new(now: Time, iss: Seq, in_crowd: bool, tried: u32) -> Self {
        Self {
            iss,
            rtt: Rtt::new(),
            sent_at: now,
            tried,
            syn_due: true,
            refused: false,
            tries: 0,
            rto_at: Time::NEVER,
            reset_stale: None,
            in_crowd,
            asked: Asked::NOTHING,
        }
    }

    /// Whether the target may be short of room for handshakes: many begin at once, or it let a SYN
    /// go unanswered.
    pub(super) const fn is_wary(&self) -> bool {
        self.in_crowd || self.tries > 1
    }

    /// When its first SYN was sent.
    pub(super) const fn sent_at(&self) -> Time {
        self.sent_at
    }

    /// Sequence number of the first byte.
    pub(super) const fn first(&self) -> Seq {
        self.iss.add(1)
    }

    pub(super) fn deadline(&self, config: &Config) -> Time {
        self.rto_at.min(self.gives_up_at(config))
    }

    /// When the target has had its time.
    pub(super) fn gives_up_at(&self, config: &Config) -> Time {
        let tried = Duration::from_millis(self.tried.into());
        self.sent_at + config.answer_timeout.saturating_sub(tried)
    }

    /// How long an answer was waited for in all, in milliseconds.
    pub(super) fn tried(&self, now: Time) -> u32 {
        let here = now.micros_since(self.sent_at) / 1000;
        self.tried.saturating_add(here)
    }

    pub(super) const fn on_header(&mut self, cx: &mut Context<'_>, header: &TcpHeader) -> Heard {
        let flags = header.flags;
        let acked = flags.has(Flags::ACK);
        let ours = header.ack.0 == self.first().0;
        if flags.has(Flags::RST) {
            // Only a RST that acknowledges our SYN counts, and only the second one: a connection of an earlier life on
            // this flow that the target has closed and its peer has not (FIN-WAIT-2) is ended by the first (Linux:
            // tcp_timewait_state_process), and then the listener is asked.
            return match acked && ours {
                true if self.refused => Heard::Refused,
                true => {
                    self.refused = true;
                    self.syn_due = true;
                    Heard::Nothing
                }
                false => Heard::Nothing,
            };
        }
        if acked && !ours {
            // The target has a connection of an earlier life on this flow: reset it and try
            // again at once (RFC 9293 3.10.7.3, first).
            self.reset_stale = Some(header.ack);
            self.syn_due = true;
            cx.stats.stale_connections_reset += 1;
        }
        if acked && ours && flags.has(Flags::SYN) {
            Heard::Established
        } else {
            Heard::Nothing
        }
    }

    /// What the handshake says about the round trip (Karn: only if the SYN went out once).
    pub(super) fn measured(&self, now: Time) -> Rtt {
        let mut rtt = self.rtt;
        if self.tries == 1 {
            rtt.sample(now.micros_since(self.sent_at));
        }
        rtt.reset_backoff();
        rtt
    }

    /// The SYN goes out again if its time has come; says whether it has.
    pub(super) fn on_timer(&mut self, now: Time) -> bool {
        if self.rto_at > now {
            return false;
        }
        self.rtt.back_off();
        self.rto_at = Time::NEVER;
        self.syn_due = true;
        true
    }

    /// Whether the SYN went out no more than once.
    pub(super) const fn is_first_try(&self) -> bool {
        self.tries <= 1
    }

    /// Whether the SYN went out once so far.
    pub(super) const fn is_first_retry(&self) -> bool {
        self.tries == 1
    }

    pub(super) fn on_path_restored(&mut self, at: Time) {
        self.rtt.reset_backoff();
        self.rto_at = self.rto_at.min(at);
    }

    pub(super) fn next_outgoing(
        &mut self,
        cx: &mut Context<'_>,
        source: &Endpoint,
    ) -> Option<Outgoing> {
        if let Some(seq) = self.reset_stale.take() {
            let header = TcpHeader {
                seq,
                flags: Flags::RST,
                ..TcpHeader::default()
            };
            return Some(Outgoing::bare(header));
        }
        if !std::mem::take(&mut self.syn_due) {
            return None;
        }
        self.tries = self.tries.saturating_add(1);
        if self.tries == 1 {
            self.sent_at = cx.now;
        } else {
            cx.stats.packets_retransmitted += 1;
        }
        self.rto_at = cx.now.plus_micros(self.rtt.rto());
        Some(Outgoing::bare(syn(cx, self.iss, source)))
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
            mss: Some(offered_mss(cx.config, cx.path.max_packet, source)),
            window_scale: Some(receiver::WINDOW_SCALE),
            sack_permitted: true,
            timestamps: Some((timestamp(cx.now), 0)),
            ..TcpOptions::default()
        },
    }
}

/// The segment size offered to targets.
pub(super) fn offered_mss(config: &Config, max_packet: u16, source: &Endpoint) -> u16 {
    let fits = usize::from(max_packet).saturating_sub(headers_len(&source.ip));
    config
        .offered_mss
        .unwrap_or(u16::try_from(fits).unwrap_or(u16::MAX))
        .max(64)
}

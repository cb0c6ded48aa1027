//! A replica: one copied connection towards the target.

mod asked;
mod congestion;
mod connection;
mod ending;
mod gate;
mod handshake;
mod linger;
mod path;
mod receiver;
mod recovery;
pub(crate) mod rtt;
mod sender;
mod stage;
mod tale;
mod traits;

use std::time::Duration;

use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader};

use self::asked::Asked;
use self::connection::{Connection, State, Work};
pub(crate) use self::gate::Waits;
use self::handshake::{Handshake, Heard};
use self::linger::Linger;
pub(crate) use self::path::Path;
pub(crate) use self::stage::Stage;
pub(crate) use self::tale::Tale;
use self::traits::Traits;
use crate::config::{Config, Way};
use crate::key::{ReplicaKey, SessionKey};
use crate::sampled::Tales;
use crate::stats::{AbortReason, Stats};
use crate::stream::{ClientStream, Cursor};
use crate::time::Time;
use crate::turns::Turns;

/// Memory of an established connection besides its replica, in bytes.
pub(crate) const CONNECTION_SIZE: usize = size_of::<Connection>();

/// How far a connection has come.
#[derive(Debug)]
enum Phase {
    /// Not begun, or called off: at this time it may begin, or, with [`Time::NEVER`], once an interceptor can see its
    /// answers. The target has had so much time for an answer already, in milliseconds.
    Waiting { until: Time, tried: u32 },
    /// SYN-SENT.
    SynSent(Box<Handshake>),
    /// ESTABLISHED and what follows until both sides are done.
    Established(Box<Connection>),
    /// Over; the target's last retransmissions are still answered.
    Lingering(Box<Linger>),
    /// CLOSED.
    Closed,
}

impl Phase {
    /// Not begun.
    const UNTRIED: Self = Self::Waiting {
        until: Time::NEVER,
        tried: 0,
    };
}

/// One copied connection.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The session that it copies.
    pub(crate) session: SessionKey,
    /// The next replica of the same session.
    pub(crate) sibling: Option<ReplicaKey>,
    way: Way,
    source: Endpoint,
    /// How far it stays behind the client: its part of [`Config::spread`], in 256ths.
    shift: u8,
    phase: Phase,
    /// Earliest entry in the timers.
    pub(crate) armed: Time,
    pub(crate) traits: Traits,
}

/// What a replica must see of the rest of the engine.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    /// How long headers waited that are taken in.
    pub(crate) waits: Waits,
    pub(crate) config: &'a Config,
    pub(crate) stats: &'a mut Stats,
    pub(crate) tales: &'a mut Tales<Tale>,
    pub(crate) path: &'a mut Path,
    /// Of the session that it copies: from its client to the live server.
    pub(crate) tuple: &'a FourTuple,
    pub(crate) stream: &'a ClientStream,
    pub(crate) turns: &'a Turns,
    /// The client answered the target's data with a RST after its own FIN.
    pub(crate) reset_after_fin: bool,
    /// Nothing more comes from either side of the live connection.
    pub(crate) live_over: bool,
    /// When either side of it was last heard.
    pub(crate) live_heard_at: Time,
    /// How far the replica stays behind the client, in microseconds.
    pub(crate) shift: u32,
}

/// What a replica needs of its session. It only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Bytes of the stream from here on.
    pub(crate) stream: u64,
    /// Marks from this number on.
    pub(crate) marks: u32,
}

impl Needs {
    /// Those of a replica that has not begun.
    pub(crate) const EVERYTHING: Self = Self {
        stream: 0,
        marks: 0,
    };
    /// Those of a replica that is over.
    pub(crate) const NOTHING: Self = Self {
        stream: u64::MAX,
        marks: u32::MAX,
    };
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
    pub(crate) const fn new(session: SessionKey, way: Way, source: Endpoint) -> Self {
        Self {
            session,
            sibling: None,
            way,
            source,
            shift: 0,
            phase: Phase::UNTRIED,
            armed: Time::NEVER,
            traits: Traits::NONE,
        }
    }

    /// Index of its service.
    pub(crate) const fn service(&self) -> u16 {
        self.way.service()
    }

    /// Its way to the target and back.
    pub(crate) const fn way(&self) -> Way {
        self.way
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
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Lets it begin later, and stay behind the client, by `shift` 256ths of the spread.
    pub(crate) fn delay(&mut self, now: Time, shift: u8, config: &Config) {
        self.shift = shift;
        let micros = self.shift_micros(config);
        if micros > 0 {
            self.phase = Phase::Waiting {
                until: now.plus_micros(micros),
                tried: 0,
            };
        }
    }

    /// It may begin as far as its own delay goes.
    pub(crate) fn end_delay(&mut self) {
        if self.is_delayed() {
            self.phase = Phase::UNTRIED;
        }
    }

    /// How far it stays behind the client, in microseconds.
    pub(crate) fn shift_micros(&self, config: &Config) -> u32 {
        if self.shift == 0 {
            return 0;
        }
        let spread = config.spread.as_micros() * u128::from(self.shift) / 256;
        u32::try_from(spread).unwrap_or(u32::MAX)
    }

    /// Whether it has not begun.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// Whether it has not begun because its own time has not come.
    pub(crate) const fn is_delayed(&self) -> bool {
        matches!(self.phase, Phase::Waiting { until, .. } if until.as_micros() < Time::NEVER.as_micros())
    }

    /// Whether it has not begun because it is held back.
    pub(crate) const fn is_held_back(&self) -> bool {
        self.stage().is_held_back()
    }

    /// Whether its handshake is under way.
    pub(crate) const fn is_connecting(&self) -> bool {
        self.stage().is_connecting()
    }

    /// Whether it has nothing more to deliver: its flow may be taken over by a new connection.
    pub(crate) const fn is_lingering(&self) -> bool {
        self.stage().is_lingering()
    }

    /// Whether it waits for its target, or its own time, and for nothing else: while it does, more
    /// of the client would not help it on.
    pub(crate) const fn is_busy(&self) -> bool {
        match &self.phase {
            Phase::Waiting { .. } | Phase::SynSent(_) => true,
            Phase::Established(connection) => !matches!(connection.work, Work::Nothing),
            Phase::Lingering(_) | Phase::Closed => false,
        }
    }

    /// How far it has come.
    pub(crate) const fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Waiting { .. } if self.is_delayed() => Stage::Delayed,
            Phase::Waiting { .. } => Stage::HeldBack,
            Phase::SynSent(_) => Stage::Connecting,
            Phase::Established(_) => Stage::Established,
            Phase::Lingering(_) => Stage::Lingering,
            Phase::Closed => Stage::Closed,
        }
    }

    /// Brings [`Replica::is_busy`] up to date. `holds_client`: the conversation that plays it waits for the target before it
    /// hears more of the client.
    pub(crate) fn note_busy(&mut self, cx: &Context<'_>, holds_client: bool) {
        if let Phase::Established(connection) = &mut self.phase {
            connection.note_work(cx, holds_client);
        }
    }

    /// What it needs of its session.
    pub(crate) fn needs(&self) -> Needs {
        match &self.phase {
            Phase::Waiting { .. } | Phase::SynSent(_) => Needs::EVERYTHING,
            Phase::Established(connection) => Needs {
                stream: connection.sender.una(),
                marks: connection.gate.next_mark(),
            },
            Phase::Lingering(_) | Phase::Closed => Needs::NOTHING,
        }
    }

    /// Where it reads in the stream.
    pub(crate) const fn cursor(&mut self) -> Option<&mut Cursor> {
        match &mut self.phase {
            Phase::Established(connection) => Some(&mut connection.sender.cursor),
            Phase::Waiting { .. } | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Closed => None,
        }
    }

    /// An answer is due to a packet that goes out now.
    pub(crate) fn ask(&mut self, now: Time) {
        if let Some(asked) = self.asked_mut() {
            asked.since(now);
        }
    }

    /// Whether an answer is due.
    pub(crate) const fn is_asked(&self) -> bool {
        matches!(self.asked(), Some(asked) if asked.is_due())
    }

    /// Whether an answer is due to the packet that went out at this time.
    pub(crate) fn is_asked_at(&self, at: Time) -> bool {
        self.asked().is_some_and(|asked| asked.is_since(at))
    }

    /// The target answers; how long after an answer became due, if one was.
    pub(crate) fn hear(&mut self, now: Time) -> Option<Duration> {
        self.asked_mut()?.answered(now)
    }

    /// Whether something that is unanswered was sent more than once.
    pub(crate) const fn has_sent_again(&self) -> bool {
        match &self.phase {
            Phase::SynSent(handshake) => !handshake.is_first_try(),
            Phase::Established(connection) => connection.sender.is_recovering(),
            Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => false,
        }
    }

    const fn asked(&self) -> Option<&Asked> {
        match &self.phase {
            Phase::SynSent(handshake) => Some(&handshake.asked),
            Phase::Established(connection) => Some(&connection.receiver.asked),
            Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => None,
        }
    }

    const fn asked_mut(&mut self) -> Option<&mut Asked> {
        match &mut self.phase {
            Phase::SynSent(handshake) => Some(&mut handshake.asked),
            Phase::Established(connection) => Some(&mut connection.receiver.asked),
            Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => None,
        }
    }

    /// Ends a handshake that is under way as if it had not begun. The number behind its SYN, for a reset, if one
    /// went out.
    pub(crate) fn call_off(&mut self, now: Time) -> Option<Seq> {
        let Phase::SynSent(handshake) = &self.phase else {
            return None;
        };
        let first = handshake.first();
        self.phase = Phase::Waiting {
            until: Time::NEVER,
            tried: handshake.tried(now),
        };
        Some(first)
    }

    /// Takes another source, before the handshake is done.
    pub(crate) const fn move_to(&mut self, source: Endpoint) {
        self.source = source;
    }

    /// Whether its handshake is under way, with this number in its SYN.
    pub(crate) const fn has_sent_syn(&self, seq: Seq) -> bool {
        match &self.phase {
            Phase::SynSent(handshake) => handshake.first().0 == seq.add(1).0,
            Phase::Waiting { .. } | Phase::Established(_) | Phase::Lingering(_) | Phase::Closed => {
                false
            }
        }
    }

    /// Begins the handshake; `iss` is the number of its SYN, and `in_crowd` says that many
    /// connections begin at the same time.
    pub(crate) fn connect(&mut self, now: Time, iss: Seq, in_crowd: bool) {
        let tried = match self.phase {
            Phase::Waiting { tried, .. } => tried,
            Phase::SynSent(_) | Phase::Established(_) | Phase::Lingering(_) | Phase::Closed => 0,
        };
        self.phase = Phase::SynSent(Box::new(Handshake::new(now, iss, in_crowd, tried)));
    }

    /// When it must be looked at again.
    pub(crate) fn deadline(&self, config: &Config) -> Time {
        match &self.phase {
            Phase::Waiting { until, .. } => *until,
            Phase::Closed => Time::NEVER,
            Phase::SynSent(handshake) => handshake.deadline(config),
            Phase::Established(connection) => connection.deadline(config),
            Phase::Lingering(linger) => linger.deadline(),
        }
    }

    /// When the target of an open connection has had its time.
    pub(crate) fn gives_up_at(&self, config: &Config) -> Time {
        match &self.phase {
            Phase::Established(connection) => connection.patience_ends(config),
            Phase::Waiting { .. } | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Closed => {
                Time::NEVER
            }
        }
    }

    /// A header from the target.
    pub(crate) fn on_header(&mut self, cx: &mut Context<'_>, header: &TcpHeader, len: u32) {
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Closed => cx.stats.target_headers_unknown += 1,
            Phase::SynSent(handshake) => match handshake.on_header(cx, header) {
                Heard::Nothing => {}
                Heard::Refused => self.abort(cx, AbortReason::Refused),
                Heard::Established => {
                    let mut connection = Connection::new(cx, handshake, header, &self.source);
                    if self.traits.is_sampled() {
                        let tale = Tale::begin(cx, self.way.service(), handshake.sent_at());
                        connection.tale = Some(tale);
                    }
                    self.phase = Phase::Established(Box::new(connection));
                    tracing::trace!(client = %cx.tuple.source, "the target has accepted {}", self.source);
                    cx.stats.replicas_established += 1;
                    self.advance(cx);
                }
            },
            // The target has no such connection any more.
            Phase::Established(connection) if connection.state.is_reset_by_target() => {}
            Phase::Established(connection) => {
                if !connection.receiver.is_plausible(header.seq) {
                    cx.stats.segments_out_of_window += 1;
                } else if header.flags.has(Flags::RST) {
                    if connection.receiver.accepts_reset(header.seq) {
                        self.on_reset(cx, header);
                    }
                } else {
                    connection.on_segment(cx, header, len, &self.source);
                    self.advance(cx);
                }
            }
            Phase::Lingering(linger) => linger.on_header(cx.now, header, len),
        }
    }

    /// A deadline came.
    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Closed => {}
            Phase::SynSent(handshake) => {
                if handshake.gives_up_at(cx.config) <= now {
                    self.time_out(cx);
                } else if handshake.on_timer(now) {
                    cx.stats.retransmission_timeouts += 1;
                    cx.stats.slow_connects += u64::from(handshake.is_first_retry());
                }
            }
            Phase::Established(connection) if connection.state.is_reset_by_target() => {
                self.advance(cx)
            }
            Phase::Established(connection) => {
                if connection.patience_ends(cx.config) <= now {
                    self.time_out(cx);
                    return;
                }
                connection.on_timer(cx, self.source.ip.is_ipv6());
                self.advance(cx);
            }
            Phase::Lingering(linger) => {
                if linger.on_timer(now) {
                    self.phase = Phase::Closed;
                }
            }
        }
    }

    /// Whether a segment of the target may bear data of its answer, as far as its header tells.
    pub(crate) fn may_take_data(&self, header: &TcpHeader) -> bool {
        let flags = header.flags;
        match &self.phase {
            Phase::Established(connection) => {
                !flags.has(Flags::RST)
                    && !flags.has(Flags::SYN)
                    && connection.receiver.is_plausible(header.seq)
                    && connection.sender.knows(header)
            }
            Phase::Waiting { .. } | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Closed => {
                false
            }
        }
    }

    /// Whether the target's end was reached.
    pub(crate) const fn has_heard_end(&self) -> bool {
        match &self.phase {
            Phase::Established(connection) => connection.receiver.finished(),
            Phase::Waiting { .. } | Phase::SynSent(_) | Phase::Lingering(_) | Phase::Closed => {
                false
            }
        }
    }

    /// Whether its connection is open.
    pub(crate) const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }

    /// The target is told at once how far what it sent has arrived.
    pub(crate) fn demand_ack(&mut self) {
        if let Phase::Established(connection) = &mut self.phase {
            connection.receiver.demand_ack();
        }
    }

    /// The way to the target, or back, is open again; `at` spreads the retries.
    pub(crate) fn on_path_restored(&mut self, at: Time) {
        match &mut self.phase {
            Phase::SynSent(handshake) => handshake.on_path_restored(at),
            Phase::Established(connection) => connection.on_path_restored(at),
            Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => {}
        }
    }

    /// The path takes only packets of `max_packet` bytes.
    pub(crate) fn on_smaller_path(&mut self, max_packet: u16) {
        if let Phase::Established(connection) = &mut self.phase {
            connection.on_smaller_path(max_packet, &self.source);
        }
    }

    /// A packet of it was too long for the path, which is known to be smaller by now.
    pub(crate) fn on_too_long(&mut self) {
        if let Phase::Established(connection) = &mut self.phase {
            connection.sender.send_again();
        }
    }

    /// The next packet to send, if there is one.
    pub(crate) fn next_outgoing(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Closed => None,
            Phase::SynSent(handshake) => handshake.next_outgoing(cx, &self.source),
            Phase::Established(connection) => {
                let outgoing = connection.next_outgoing(cx);
                if outgoing.is_some() || connection.state != State::ResetDue {
                    return outgoing;
                }
                connection.give_up_answer(cx);
                connection.tell_end(cx, None);
                let mut linger = connection.reset(cx.now);
                let reset = linger.take_reply(cx.now);
                self.phase = Phase::Lingering(Box::new(linger));
                reset.map(Outgoing::bare)
            }
            Phase::Lingering(linger) => linger.take_reply(cx.now).map(Outgoing::bare),
        }
    }

    /// The acknowledgement of what has come in, if there is one to send.
    pub(crate) fn next_acknowledgement(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Closed | Phase::SynSent(_) => None,
            Phase::Established(connection) => connection.next_acknowledgement(cx),
            Phase::Lingering(linger) => linger.take_acknowledgement(cx.now).map(Outgoing::bare),
        }
    }
}

/// The timestamp clock (RFC 7323 5.4): milliseconds. It comes from the wall clock, so that it
/// goes on rising when the process starts again (RFC 6191).
const fn timestamp(now: Time) -> u32 {
    (now.as_micros() / 1000) as u32
}

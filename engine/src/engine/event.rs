//! What an engine tells, and what it is told.

use millrace_wire::{Endpoint, FourTuple};

use super::Misdirection;
use crate::config::ClientKind;
use crate::key::ReplicaKey;
use crate::protocol::Failure;

/// Something that the owner should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A flow begins: interceptors must learn whose it is before the target answers.
    FlowOpened {
        /// The replica.
        key: ReplicaKey,
        /// From the replica's source to the target.
        tuple: FourTuple,
    },
    /// The conversation that plays a replica needs no payload of its target any more
    /// ([`crate::Engine::wants_answers`]): headers alone will do.
    HeardEnough {
        /// The replica.
        key: ReplicaKey,
    },
    /// A flow is over: interceptors may forget it.
    FlowClosed {
        /// The replica.
        key: ReplicaKey,
    },
    /// A target that answered has fallen silent: nothing is sent to it until [`crate::Engine::set_way_open`].
    TargetSilent(TargetSilence),
    /// The conversation that plays a replica cannot go on: the replica ends.
    ConversationFailed {
        /// The replica.
        key: ReplicaKey,
        /// Why.
        failure: Failure,
    },
    /// Copies came back as live traffic.
    Misdirected {
        /// The target.
        target: Endpoint,
        /// How that was recognised.
        misdirection: Misdirection,
    },
}

/// A target that answered and has fallen silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetSilence {
    /// Place of its service in [`crate::Config::services`].
    pub service: usize,
    /// The kind of source addresses to which it fell silent.
    pub kind: ClientKind,
    /// So many packets are unanswered that an answer is due to ...
    pub unanswered: usize,
    /// ... of so many that were sent since the first of these.
    pub of: u64,
}

/// Whose answer a response header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowRef {
    /// A replica that was announced under this number.
    Id(u64),
    /// The flow from a replica's source to the target.
    Tuple(FourTuple),
}

/// Why a packet could not be sent, as far as the engine acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// It is larger than the way to the target takes (EMSGSIZE).
    TooLong,
    /// Anything else: as if the packet had been lost.
    Lost,
}

/// What an engine holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sessions, those included that are only watched.
    pub sessions: usize,
    /// Sessions with replicas.
    pub sessions_copied: usize,
    /// Of these, sessions that wait for their target and for nothing else: to connect, to take a turn,
    /// to answer it (as long as the gate would wait for that), or to take the end. Only those of
    /// recordings are counted.
    pub sessions_busy: usize,
    /// Replicas.
    pub replicas: usize,
    /// Replicas that are over and only answer the target's last retransmissions.
    pub replicas_lingering: usize,
    /// Replicas whose handshake is under way.
    pub replicas_connecting: usize,
    /// Replicas that wait for an interceptor before they begin.
    pub replicas_waiting: usize,
    /// Memory of sessions, replicas and payload, in bytes.
    pub memory: u64,
    /// Payload that was captured and not acknowledged by every target yet, in bytes.
    pub backlog: u64,
}

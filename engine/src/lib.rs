//! The replay engine: captured segments in, packets to the target out.
//!
//! It is sans-IO and deterministic. Nothing here reads a clock, opens a socket, starts a thread
//! or draws a random number: time and seed come from the owner, so a whole run can be simulated
//! and repeated bit for bit.
//!
//! ```text
//!  client_segment ─┐                              ┌─ poll_transmit  packets to the target
//!  live_segment   ─┤   Engine                     │
//!  target_header  ─┼─▶  Session ── Replica(s) ────┼─ poll_event     flows that begin and end
//!  timeout        ─┘   (client's   (TCP sender    │
//!                       stream,     and receiver, └─ poll_timeout   when to call `timeout`
//!                       turns)      gate)
//! ```
//!
//! One session is a client's connection to the live server. Its stream is reassembled and stored
//! once; each replica is a TCP connection of its own that sends it to the target, waiting before
//! every turn for the target's answer to the turn before.
//!
//! Read first: RFC 9293 (TCP), RFC 6298 (retransmission timer), RFC 5681 (congestion control),
//! RFC 6675 (loss recovery with SACK), RFC 7323 (timestamps and window scale), RFC 2018 (SACK).

mod admission;
mod caps;
mod config;
mod departed;
mod engine;
mod evidence;
mod intensity;
mod key;
mod live_clock;
mod live_view;
mod overheard;
mod payload;
mod pool;
pub mod protocol;
mod ranges;
mod recorded;
mod replica;
mod sampled;
mod session;
mod silence;
mod source;
mod stats;
mod stream;
mod tables;
mod time;
mod timers;
mod turns;

pub use admission::Relief;
pub use caps::Caps;
pub use config::{ClientKind, Config, Direction, LiveAddress, Service};
pub use engine::{
    Engine, Event, FlowRef, Gauges, Misdirection, SendFailure, TargetSilence, Transmit,
};
pub use intensity::{Intensity, IntensityKey, NotAnIntensity};
pub use key::{ReplicaKey, SessionKey};
pub use payload::{Payload, SHARED_FROM, part_of};
pub use recorded::Recorded;
pub use sampled::{Answer, Teller, Told, ToldReplica, ToldTurn};
pub use source::{Block, Capacity, Share, SourcePool, Sources, Space};
pub use stats::{
    AbortReason, Aborts, FailureKind, Failures, Latencies, Owed, PerReason, Reason, RefusalReason,
    Refusals, Stats, Timeouts,
};
pub use time::Time;

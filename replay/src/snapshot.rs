//! What the shard shows of itself: everything that a report is made from.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_capture::{RingStatistics, SendCounters};
use millrace_engine::{Gauges, Stats};
use millrace_pilot::IntensityStatus;
use millrace_recordings::recording::Recording;
use millrace_wire::{DecodeCounters, NotTcp};

use crate::pressure::PressureStatus;
use crate::probe::ProbeStatus;

/// How the shard stands at a moment. Counts are since the start.
pub struct Snapshot<'a> {
    /// Time since the start.
    pub elapsed: Duration,
    /// The engine's counters.
    pub stats: &'a Stats,
    /// What the engine holds.
    pub gauges: Gauges,
    /// How much is copied.
    pub intensity: IntensityStatus,
    /// The capture ring's counters.
    pub ring: RingStatistics,
    /// Those of the rings on which this host catches answers.
    pub answers: RingStatistics,
    /// SYNs of clients that capture lost.
    pub syns_lost: u64,
    /// The decoder's counters.
    pub decode: DecodeCounters,
    /// What a recording holds that is not TCP.
    pub others: &'a BTreeMap<NotTcp, u64>,
    /// The sender's counters.
    pub send: &'a SendCounters,
    /// What is given up under pressure.
    pub pressure: PressureStatus,
    /// Batches of headers dropped by the inbox.
    pub dropped_batches: u64,
    /// First contact with each target.
    pub probes: Vec<ProbeStatus>,
    /// The recording, where one is replayed.
    pub recording: Option<Recording>,
    /// Why nothing is sent, or no session begins, where interceptors are the reason, or the shard's own end.
    pub held_back: Option<String>,
}

impl Snapshot<'_> {
    /// Frames that the rings lost.
    pub const fn dropped(&self) -> u64 {
        self.ring.dropped + self.answers.dropped
    }
}

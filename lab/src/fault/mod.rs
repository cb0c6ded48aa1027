//! Bad cables: loss, duplication, reordering and delay, in each direction of a link.
//!
//! The kernel at hand may have no netem, so packets pass through user space: [`Hop`] carries frames between two
//! devices over AF_PACKET, and `line::Line` decides what becomes of each.

mod hop;
mod line;

use std::time::Duration;

pub use hop::{Counts, DirectionCounts, Hop};

use crate::error::{Error, Result};

/// What one direction of a cable does to packets. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Share of packets that vanish, 0 to 1.
    pub loss: f64,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that are held back for `reorder_by`, so that later ones overtake them, 0 to 1.
    pub reorder: f64,
    /// How long a reordered packet is held back, on top of `delay`.
    pub reorder_by: Duration,
    /// What every packet waits.
    pub delay: Duration,
    /// What a packet waits on top, at random, at most. Jitter alone never reorders.
    pub jitter: Duration,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(2),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
        }
    }
}

impl Fault {
    /// No fault.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Loses this share of the packets, 0 to 1.
    #[must_use]
    pub fn loss(share: f64) -> Self {
        Self {
            loss: share,
            ..Self::default()
        }
    }

    /// Delays every packet.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Holds back one share of the packets and duplicates another, 0 to 1 each.
    #[must_use]
    pub fn disorder(reorder: f64, duplicate: f64) -> Self {
        Self {
            reorder,
            duplicate,
            ..Self::default()
        }
    }

    /// Refuses shares that are none.
    ///
    /// # Errors
    /// When one is not between 0 and 1.
    pub fn check(&self) -> Result<()> {
        let shares = [
            ("loss", self.loss),
            ("duplication", self.duplicate),
            ("reordering", self.reorder),
        ];
        match shares
            .iter()
            .find(|(_, share)| !(0.0..=1.0).contains(share))
        {
            Some((name, share)) => Err(Error::Unsupported(format!(
                "a {name} of {share} is not a share between 0 and 1"
            ))),
            None => Ok(()),
        }
    }
}

//! A ring that outlives its device: when the device goes, it is opened again once it is back.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use millrace_wire::LinkType;

use super::{Block, Ring, RingConfig, RingStatistics};
use crate::error::CaptureError;

/// How often a device that is not there is looked for.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

/// A ring on a device that may come and go.
#[derive(Debug)]
pub struct Tap {
    config: RingConfig,
    ring: Option<Ring>,
    /// How frames of the last ring began.
    link_type: Option<LinkType>,
    reopen_at: Instant,
    /// Whether the ring is to be asked for an error: costs system calls that most rounds need not
    /// make.
    suspect: bool,
    /// Counts of rings that are gone.
    before: RingStatistics,
    /// The last reason why it could not be opened, so that it is said once.
    said: String,
}

impl Tap {
    /// Opens the ring; the device must be there.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn open(config: RingConfig) -> Result<Self, CaptureError> {
        let ring = Ring::open(&config)?;
        Ok(Self {
            link_type: Some(ring.link_type()),
            ring: Some(ring),
            ..Self::waiting(config)
        })
    }

    /// Opens the ring as soon as the device is there.
    pub fn waiting(config: RingConfig) -> Self {
        Self {
            config,
            ring: None,
            link_type: None,
            reopen_at: Instant::now(),
            suspect: true,
            before: RingStatistics::default(),
            said: String::new(),
        }
    }

    /// The device.
    pub fn device(&self) -> &str {
        &self.config.device
    }

    /// How frames begin, or began before the device went away; `None` if it was never there. It may
    /// come back as another kind.
    pub const fn link_type(&self) -> Option<LinkType> {
        self.link_type
    }

    /// Whether packets are being captured.
    pub fn is_open(&self) -> bool {
        self.ring.is_some()
    }

    /// The next block of packets, and how its frames begin. When there is none, a failed ring is
    /// let go, and one that is not there is looked for now and then.
    pub fn next_block(&mut self) -> Option<(LinkType, Block<'_>)> {
        if !self.ring.as_ref().is_some_and(Ring::has_block) {
            match self.ring {
                Some(_) => self.examine(),
                None => self.reopen(),
            }
        }
        let ring = self.ring.as_mut()?;
        let link_type = ring.link_type();
        Some((link_type, ring.next_block()?))
    }

    /// Says that the ring may have failed: it is asked at the next occasion.
    pub fn suspect(&mut self) {
        self.suspect = true;
    }

    /// What to sleep on, while there is a ring.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(AsFd::as_fd)
    }

    /// What all rings of this tap saw.
    pub fn statistics(&mut self) -> RingStatistics {
        let mut sum = self.before;
        if let Some(Ok(now)) = self.ring.as_mut().map(Ring::statistics) {
            sum += now;
        }
        sum
    }

    fn examine(&mut self) {
        if !std::mem::take(&mut self.suspect) {
            return;
        }
        let Some(error) = self.ring.as_ref().and_then(Ring::take_error) else {
            return;
        };
        if matches!(error, CaptureError::DeviceRemoved { .. }) {
            tracing::warn!("{error}; capturing goes on when it is back");
            self.before = self.statistics();
            self.ring = None;
            self.reopen_at = Instant::now() + REOPEN_INTERVAL;
        } else {
            // A device that is down recovers by itself.
            tracing::warn!("{error}");
        }
    }

    fn reopen(&mut self) {
        let now = Instant::now();
        if now < self.reopen_at {
            return;
        }
        self.reopen_at = now + REOPEN_INTERVAL;
        match Ring::open(&self.config) {
            Ok(ring) => {
                tracing::info!("capturing on {}", self.config.device);
                self.link_type = Some(ring.link_type());
                self.ring = Some(ring);
                self.said.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.said {
                    tracing::info!("waiting for device {}: {error}", self.config.device);
                    self.said = error;
                }
            }
        }
    }
}

//! A ring that outlives its devices: when one goes, it is captured again once it is back.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use millrace_wire::LinkType;

use super::{Frame, Ring, RingConfig, RingStatistics};
use crate::error::CaptureError;
use crate::filter::Filter;

/// How often devices that come and go are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A ring on devices that may come and go.
#[derive(Debug)]
pub struct Tap {
    config: RingConfig,
    names: String,
    ring: Option<Ring>,
    /// How frames of the last ring began.
    link_type: Option<LinkType>,
    look_at: Instant,
    /// Whether the ring is to be asked for an error: costs system calls that most rounds need not
    /// make.
    suspect: bool,
    /// Counts of rings that are gone.
    before: RingStatistics,
    /// The last reason why it could not be opened, so that it is said once.
    said: String,
    little_memory_said: bool,
}

impl Tap {
    /// Opens the ring; the devices must be there.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn open(config: RingConfig) -> Result<Self, CaptureError> {
        let ring = Ring::open(&config)?;
        let mut tap = Self {
            link_type: Some(ring.link_type()),
            ring: Some(ring),
            ..Self::waiting(config)
        };
        tap.warn_of_little_memory();
        Ok(tap)
    }

    /// Says once that the kernel grants less memory for long frames than they may need, where any are captured.
    fn warn_of_little_memory(&mut self) {
        let Some(ring) = &self.ring else { return };
        let (slots, long) = ring.memory();
        let asked = self.config.buffer_bytes.saturating_sub(slots);
        let takes_long = ring.takes_long_frames() && self.config.filter.keeps_long_frames();
        if takes_long && long < asked && !std::mem::replace(&mut self.little_memory_said, true) {
            tracing::warn!(
                "the kernel grants {} of {} KiB for long frames, so that bursts may be lost \
                 (capture.dropped): start with CAP_NET_ADMIN, or `sysctl -w net.core.rmem_max={}` \
                 before",
                long >> 10,
                asked >> 10,
                asked / 2
            );
        }
    }

    /// Opens the ring as soon as the devices are there.
    pub fn waiting(config: RingConfig) -> Self {
        Self {
            names: config.names(),
            config,
            ring: None,
            link_type: None,
            look_at: Instant::now(),
            suspect: true,
            before: RingStatistics::default(),
            said: String::new(),
            little_memory_said: false,
        }
    }

    /// What is captured.
    pub const fn filter(&self) -> &Filter {
        &self.config.filter
    }

    /// Captures something else from now on. When that is refused, everything stays as it is.
    ///
    /// # Errors
    /// When the filter is too long, or the kernel does not take it.
    pub fn set_filter(&mut self, filter: Filter) -> Result<(), CaptureError> {
        if let Some(ring) = &mut self.ring {
            ring.set_filter(&filter)?;
        }
        self.config.filter = filter;
        self.warn_of_little_memory();
        Ok(())
    }

    /// Captures on these devices from now on, as [`Ring::set_devices`].
    ///
    /// # Errors
    /// As there.
    pub fn set_devices(&mut self, names: Vec<String>) -> Result<(), CaptureError> {
        if let Some(ring) = &mut self.ring {
            ring.set_devices(&names)?;
        }
        for device in names
            .iter()
            .filter(|name| !self.config.devices.contains(name))
        {
            tracing::info!("capturing on {device}");
        }
        self.config.devices = names;
        self.names = self.config.names();
        Ok(())
    }

    /// Its devices, for people.
    pub fn devices(&self) -> &str {
        &self.names
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

    /// Hands over the frames that have come, at most `limit` of them, and how they begin; gives
    /// their number. Now and then a failed ring is let go, and devices that are not there are looked
    /// for.
    pub fn read(&mut self, limit: usize, mut take: impl FnMut(LinkType, &Frame<'_>)) -> usize {
        match self.ring {
            Some(_) => self.examine(),
            None => self.reopen(),
        }
        let Some(ring) = &mut self.ring else {
            return 0;
        };
        let link_type = ring.link_type();
        ring.read(limit, |frame| take(link_type, frame))
    }

    /// Says that the ring may have failed: it is asked at the next occasion.
    pub fn suspect(&mut self) {
        self.suspect = true;
    }

    /// What to sleep on, while there is a ring.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(AsFd::as_fd)
    }

    /// How many eighths of the slots are full.
    pub fn eighths_full(&self) -> usize {
        self.ring.as_ref().map_or(0, Ring::eighths_full)
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
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_INTERVAL;
            self.follow_devices();
        }
        // What a ring still holds is read before it is let go.
        let ready = self.ring.as_ref().is_some_and(Ring::is_ready);
        if ready || !std::mem::take(&mut self.suspect) {
            return;
        }
        let Some(error) = self.ring.as_ref().and_then(Ring::take_error) else {
            return;
        };
        if matches!(error, CaptureError::DeviceRemoved { .. }) {
            tracing::warn!("{error}; capturing goes on when it is back");
            self.before = self.statistics();
            self.ring = None;
            self.look_at = now + LOOK_INTERVAL;
        } else {
            // A device that is down recovers by itself.
            tracing::warn!("{error}");
        }
    }

    fn follow_devices(&mut self) {
        match self.ring.as_mut().map(Ring::follow_devices) {
            Some(Ok((came, went))) => {
                for device in came {
                    tracing::info!("capturing on {device}");
                }
                for device in went {
                    if self.config.changing {
                        tracing::info!("{device} is gone");
                        continue;
                    }
                    let error = CaptureError::DeviceRemoved { device };
                    tracing::warn!("{error}; capturing goes on when it is back");
                }
            }
            Some(Err(error)) => tracing::warn!("{error}"),
            None => {}
        }
    }

    fn reopen(&mut self) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_INTERVAL;
        match Ring::open(&self.config) {
            Ok(ring) => {
                tracing::info!("capturing on {}", self.names);
                self.link_type = Some(ring.link_type());
                self.ring = Some(ring);
                self.said.clear();
                self.warn_of_little_memory();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.said {
                    tracing::info!("waiting for device {}: {error}", self.names);
                    self.said = error;
                }
            }
        }
    }
}

//! Recorded traffic: its time is that of the recording, not of the run.
//!
//! A recording is fed as fast as its owner wants, so two clocks go apart. What concerns the live
//! side (latencies of the live server, think times, gaps, idle sessions) is measured on the clock of
//! the recording; what concerns the target is measured on that of the run. Only think times cross
//! over: they are shortened here, and nowhere else.

use std::time::Duration;

use millrace_wire::Endpoint;

use crate::time::Time;

/// Ports below this stay as they are: a service may treat them in another way.
const FIRST_PORT: u16 = 1024;
/// How many others there are.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;
/// Distance between the ports of two rounds: without a common divisor with [`PORTS`], so that a
/// client gets another port in each of as many rounds as there are ports.
const PORT_STEP: u32 = 39_871;

/// How a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Think times are divided by this; infinite: there are none.
    pub speed: f64,
    /// No think time is longer, before it is divided.
    pub longest_pause: Option<Duration>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            speed: 1.0,
            longest_pause: None,
        }
    }
}

impl Recorded {
    /// The think time of a replica for that of a client, both in microseconds.
    pub(crate) fn think(&self, micros: u32) -> u32 {
        let limit = self.longest_pause.map_or(u32::MAX, |pause| {
            u32::try_from(pause.as_micros()).unwrap_or(u32::MAX)
        });
        let scaled = f64::from(micros.min(limit)) / self.speed;
        // A float that is out of range becomes the nearest number, and no number becomes 0.
        scaled as u32
    }
}

/// How far a recording was taken in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordedClock {
    /// The latest time of the recording that was met.
    latest: Time,
    /// Nothing follows what was taken in.
    pub(crate) over: bool,
    /// How often it was taken in to its end.
    round: u32,
}

impl RecordedClock {
    /// A segment bears this time. The origin stands for "not yet" and is left out.
    pub(crate) fn meet(&mut self, at: Time) -> Time {
        let at = at.max(Time::ORIGIN.plus_micros(1));
        self.latest = self.latest.max(at);
        self.over = false;
        at
    }

    /// The recording ends here; what follows is another round.
    pub(crate) const fn end_round(&mut self) {
        self.over = true;
        self.round = self.round.wrapping_add(1);
    }

    /// A client as its replicas are to seem in this round: with its own port in the first, and with
    /// another in each that follows, so that the target meets no connection again. Different clients
    /// of one round stay different.
    pub(crate) const fn in_this_round(&self, client: Endpoint) -> Endpoint {
        Endpoint {
            port: port(client.port, self.round),
            ..client
        }
    }

    /// The present of the recording.
    pub(crate) const fn now(&self) -> Time {
        self.latest
    }
}

const fn port(port: u16, round: u32) -> u16 {
    if port < FIRST_PORT {
        return port;
    }
    // Less than 2^32: both factors are less than 2^16.
    let shift = round % PORTS * PORT_STEP % PORTS;
    let moved = ((port - FIRST_PORT) as u32 + shift) % PORTS;
    // Less than PORTS, so the sum is a port.
    FIRST_PORT + moved as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_round_gives_each_client_another_port_and_no_two_the_same() {
        for round in [1, 2, 3, 1000, 999_999] {
            let ports: HashSet<u16> = (0..=u16::MAX).map(|p| port(p, round)).collect();
            assert_eq!(ports.len(), 65_536, "round {round}");
        }
        let ports: HashSet<u16> = (0..PORTS).map(|round| port(40_000, round)).collect();
        assert_eq!(ports.len(), PORTS as usize);
        assert_eq!(port(40_000, 0), 40_000);
        assert_eq!(port(80, 7), 80);
    }

    #[test]
    fn think_times_are_cut_and_then_divided() {
        let recorded = |speed, pause: Option<u64>| Recorded {
            speed,
            longest_pause: pause.map(Duration::from_micros),
        };
        assert_eq!(recorded(1.0, None).think(700), 700);
        assert_eq!(recorded(10.0, None).think(700), 70);
        assert_eq!(recorded(0.5, None).think(u32::MAX), u32::MAX);
        assert_eq!(recorded(2.0, Some(100)).think(700), 50);
        assert_eq!(recorded(f64::INFINITY, None).think(u32::MAX), 0);
    }
}

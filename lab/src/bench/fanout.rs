//! What each further interceptor costs a copier: processor time per session, and messages.
//!
//! One interceptor captures the target's answers; the others capture where there are none, as those of real servers
//! do that a session does not belong to.

use millrace_lab::{DEVICE, Process, Result, Stage};

use super::Service;
use super::programs::{Way, interceptor_at};
use super::sessions::Sessions;

/// How many interceptors there are in each measurement.
pub(super) const STEPS: [usize; 3] = [1, 10, 50];
/// A pool whose answers are routed to the assistant, as those to the clients are.
const POOL: &str = "198.18.1.200-198.18.1.239";
/// The first port of interceptors, and of their admin ports.
const PORTS: (u16, u16) = (41_000, 42_000);

/// One measurement.
#[derive(Debug)]
pub(super) struct Point {
    /// Interceptors.
    pub(super) interceptors: usize,
    /// Whether the pool was claimed, rather than flows announced.
    pub(super) claims: bool,
    pub(super) sessions: Sessions,
    /// Route info messages per session, on all links together.
    pub(super) messages: f64,
}

/// Measures all.
pub(super) fn run(stage: &Stage, service: &Service, count: u64) -> Result<Vec<Point>> {
    let most = STEPS.iter().copied().max().unwrap_or(1);
    let host = &stage.assistant;
    let interceptors = (0..most as u16)
        .map(|number| {
            // No answers pass the loopback device.
            let device = if number == 0 { DEVICE } else { "lo" };
            interceptor_at(host, device, PORTS.0 + number, PORTS.1 + number)
        })
        .collect::<Result<Vec<Process>>>()?;
    let mut points = Vec::new();
    for claims in [false, true] {
        for step in STEPS {
            let addresses: Vec<_> = (0..step as u16)
                .map(|number| format!("{}:{}", host.address.v4, PORTS.0 + number))
                .collect();
            let way = Way {
                interceptors: addresses.join(","),
                more: if claims { vec!["-c", POOL] } else { Vec::new() },
            };
            let Some(first) = interceptors.first() else {
                continue;
            };
            let sessions = Sessions::run(stage, service, &way, first, count)?;
            points.push(Point {
                interceptors: step,
                claims,
                messages: sessions.messages as f64 / count.max(1) as f64,
                sessions,
            });
        }
    }
    Ok(points)
}

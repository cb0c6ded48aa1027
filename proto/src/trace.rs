//! Traces as checked types: what a `Trace` asks and a `Traced` answers once they are parsed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::v1;

/// The most probes in one trace.
pub const MAX_PROBES: usize = 64;
/// The longest that an interceptor looks.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The longest text of a peer that is kept. Characters.
const MAX_TEXT: usize = 200;

/// A question after some probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// Returned with the answer.
    pub id: u64,
    /// The probes' own ends.
    pub clients: Vec<SocketAddr>,
    /// How long to look.
    pub wait: Duration,
}

/// Why a trace makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// None, or more than [`MAX_PROBES`].
    #[error("a trace of {0} probes")]
    Count(usize),
    /// An address that is neither 4 nor 16 bytes long.
    #[error("an address of {0} bytes is neither IPv4 nor IPv6")]
    AddressLength(usize),
    /// Not a port.
    #[error("{0} is not a port")]
    Port(u32),
    /// Longer than [`LONGEST_WAIT`].
    #[error("a wait of {0} ms is too long")]
    Wait(u32),
}

impl From<&TraceRequest> for v1::Trace {
    fn from(request: &TraceRequest) -> Self {
        let endpoint = |client: &SocketAddr| v1::Endpoint {
            ip: match client.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            }
            .into(),
            port: client.port().into(),
        };
        v1::Trace {
            id: request.id,
            clients: request.clients.iter().map(endpoint).collect(),
            wait_ms: u32::try_from(request.wait.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl TryFrom<&v1::Trace> for TraceRequest {
    type Error = TraceError;

    fn try_from(trace: &v1::Trace) -> Result<Self, TraceError> {
        if !(1..=MAX_PROBES).contains(&trace.clients.len()) {
            return Err(TraceError::Count(trace.clients.len()));
        }
        let wait = Duration::from_millis(trace.wait_ms.into());
        if wait > LONGEST_WAIT {
            return Err(TraceError::Wait(trace.wait_ms));
        }
        let clients = trace.clients.iter().map(socket).collect::<Result<_, _>>()?;
        Ok(TraceRequest {
            id: trace.id,
            clients,
            wait,
        })
    }
}

fn socket(endpoint: &v1::Endpoint) -> Result<SocketAddr, TraceError> {
    let bytes = &endpoint.ip[..];
    let ip = <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| TraceError::AddressLength(bytes.len()))?;
    match u16::try_from(endpoint.port) {
        Ok(port @ 1..) => Ok(SocketAddr::new(ip, port)),
        Ok(0) | Err(_) => Err(TraceError::Port(endpoint.port)),
    }
}

/// What stands in a probe's way on the host where it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Obstacle {
    /// The host cannot tell.
    #[default]
    Unknown,
    /// The host does not have the address that the probe is for.
    NoAddress,
    /// The reverse-path filter dropped packets meanwhile.
    ReversePath,
    /// A listener's backlog was full meanwhile.
    Backlog,
    /// The listener dropped SYNs for another reason: the host knows no way back.
    NoRoute,
    /// None of these: most likely a firewall dropped the SYN, or the answer.
    Firewall,
    /// The host has the address that the probe bears: it is a client, and answers end in its own kernel.
    ClientHere,
}

impl From<Obstacle> for v1::Obstacle {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Unknown => Self::Unspecified,
            Obstacle::NoAddress => Self::NoAddress,
            Obstacle::ReversePath => Self::ReversePath,
            Obstacle::Backlog => Self::Backlog,
            Obstacle::NoRoute => Self::NoRoute,
            Obstacle::Firewall => Self::Firewall,
            Obstacle::ClientHere => Self::ClientHere,
        }
    }
}

impl From<v1::Obstacle> for Obstacle {
    fn from(obstacle: v1::Obstacle) -> Self {
        match obstacle {
            v1::Obstacle::Unspecified => Self::Unknown,
            v1::Obstacle::NoAddress => Self::NoAddress,
            v1::Obstacle::ReversePath => Self::ReversePath,
            v1::Obstacle::Backlog => Self::Backlog,
            v1::Obstacle::NoRoute => Self::NoRoute,
            v1::Obstacle::Firewall => Self::Firewall,
            v1::Obstacle::ClientHere => Self::ClientHere,
        }
    }
}

/// What a host saw of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// Its place in [`TraceRequest::clients`].
    pub client: u32,
    /// The device on which the SYN came in, or empty.
    pub syn_device: String,
    /// A device on which an answer left towards the client, or empty.
    pub leaked_device: String,
    /// Whether an answer came to where the interceptor captures.
    pub captured: bool,
    /// Why a SYN that came in was not answered.
    pub obstacle: Obstacle,
}

/// What a host saw of some probes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceReport {
    /// The number of the request.
    pub id: u64,
    /// What was seen, of each probe at most once.
    pub sights: Vec<Sight>,
    /// Why the host could not look, or empty.
    pub problem: String,
    /// Whether the host is an assistant, which sees answers only.
    pub assistant: bool,
}

impl From<TraceReport> for v1::Traced {
    fn from(report: TraceReport) -> Self {
        let sight = |sight: Sight| v1::Sight {
            client: sight.client,
            syn_device: sight.syn_device,
            leaked_device: sight.leaked_device,
            captured: sight.captured,
            obstacle: v1::Obstacle::from(sight.obstacle).into(),
        };
        v1::Traced {
            id: report.id,
            sights: report.sights.into_iter().map(sight).collect(),
            problem: report.problem,
            assistant: report.assistant,
        }
    }
}

impl From<v1::Traced> for TraceReport {
    /// Never fails: texts are made fit for one line of a log, what is too much is left out.
    fn from(traced: v1::Traced) -> Self {
        let sight = |sight: v1::Sight| Sight {
            // One of a later version is unknown here.
            obstacle: sight.obstacle().into(),
            client: sight.client,
            syn_device: device(sight.syn_device),
            leaked_device: device(sight.leaked_device),
            captured: sight.captured,
        };
        TraceReport {
            id: traced.id,
            sights: traced
                .sights
                .into_iter()
                .take(MAX_PROBES)
                .map(sight)
                .collect(),
            problem: printable(&traced.problem),
            assistant: traced.assistant,
        }
    }
}

/// The name of a device, which stands in commands that an operator may run: of one that is none, or that a shell would
/// read otherwise, only that there is one.
fn device(name: String) -> String {
    /// The longest that the kernel has (`IFNAMSIZ`, less its end).
    const LONGEST: usize = 15;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:_@-".contains(c);
    match name.len() <= LONGEST && name.chars().all(plain) {
        true => name,
        false => "DEV".to_owned(),
    }
}

fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_wire_and_nonsense_does_not() {
        let request = TraceRequest {
            id: 7,
            clients: vec![
                "198.18.1.1:1000".parse().unwrap(),
                "[2001:db8::1]:2".parse().unwrap(),
            ],
            wait: Duration::from_millis(1500),
        };
        let mut wire = v1::Trace::from(&request);
        assert_eq!(TraceRequest::try_from(&wire), Ok(request));
        wire.wait_ms = 5001;
        assert_eq!(TraceRequest::try_from(&wire), Err(TraceError::Wait(5001)));
        wire.wait_ms = 1;
        wire.clients[0].port = 0;
        assert_eq!(TraceRequest::try_from(&wire), Err(TraceError::Port(0)));
        wire.clients[0].ip = vec![1, 2, 3].into();
        assert_eq!(
            TraceRequest::try_from(&wire),
            Err(TraceError::AddressLength(3))
        );
        wire.clients.clear();
        assert_eq!(TraceRequest::try_from(&wire), Err(TraceError::Count(0)));
    }

    #[test]
    fn obstacles_survive_the_wire_and_those_of_a_later_version_are_unknown() {
        for obstacle in [
            Obstacle::Unknown,
            Obstacle::NoAddress,
            Obstacle::ReversePath,
            Obstacle::Backlog,
            Obstacle::NoRoute,
            Obstacle::Firewall,
            Obstacle::ClientHere,
        ] {
            let sight = Sight {
                obstacle,
                ..Sight::default()
            };
            let report = TraceReport {
                sights: vec![sight],
                ..TraceReport::default()
            };
            let mut wire = v1::Traced::from(report.clone());
            assert_eq!(TraceReport::from(wire.clone()), report);
            wire.sights[0].obstacle = 99;
            let read = TraceReport::from(wire);
            assert_eq!(read.sights[0].obstacle, Obstacle::Unknown);
        }
    }

    #[test]
    fn a_report_is_cut_to_what_a_log_can_hold() {
        let sight = v1::Sight {
            syn_device: "eth0.7".to_owned(),
            leaked_device: "eth0;reboot #".to_owned(),
            ..v1::Sight::default()
        };
        let traced = v1::Traced {
            sights: vec![sight; 1000],
            problem: "e\nth".repeat(200),
            ..v1::Traced::default()
        };
        let report = TraceReport::from(traced);
        assert_eq!(report.sights.len(), MAX_PROBES);
        let Sight {
            syn_device,
            leaked_device,
            ..
        } = &report.sights[0];
        assert_eq!(
            (syn_device.as_str(), leaked_device.as_str()),
            ("eth0.7", "DEV")
        );
        let problem = &report.problem;
        assert!(problem.starts_with("e th") && problem.chars().count() == MAX_TEXT);
    }
}

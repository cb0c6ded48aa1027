//! Looks at all devices of this host for a copier's probes: which hop do they miss?
//!
//! A thread of its own does this, one question after the other, with small rings that see nothing
//! but the probes.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use millrace_capture::filter::HEADERS_ONLY;
use millrace_capture::wait::MAX_SOURCES;
use millrace_capture::{Device, Filter, FilterSpec, Ring, RingConfig, ServiceFilter, wait};
use millrace_channel::server::HeaderQueue;
use millrace_proto::{Obstacle, Sight, TraceReport, TraceRequest};
use millrace_wire::{Decoder, Endpoint, Flags, TcpPacket, Tunnels, Verify};
use parking_lot::{Mutex, MutexGuard};

use crate::obstacle::{self, Counted};

/// Questions that may wait.
const WAITING: usize = 4;
/// Frames taken from one device before the others get their turn.
const FRAMES_IN_A_ROW: usize = 1024;
/// Size of each ring in bytes: a probe is a few small packets.
const BUFFER: usize = 64 << 10;
/// Longest sleep, so that rings are read in turn.
const NAP: Duration = Duration::from_millis(50);

/// What the tracer has to know of the interceptor.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The devices on which responses are captured.
    pub devices: Vec<String>,
    /// Whether this host is an assistant.
    pub assistant: bool,
}

/// The probes that are looked for, and which answers the worker has taken: what comes through a
/// queue is on no device.
#[derive(Clone, Debug, Default)]
struct Lookout(Arc<Probes>);

#[derive(Debug, Default)]
struct Probes {
    /// Whether any is looked for: the worker asks for every packet.
    any: AtomicBool,
    answered: Mutex<HashMap<SocketAddr, bool>>,
}

impl Lookout {
    fn set(&self, clients: &[SocketAddr]) {
        *self.lock() = clients.iter().map(|client| (*client, false)).collect();
        self.0.any.store(!clients.is_empty(), Ordering::Relaxed);
    }

    fn note(&self, client: SocketAddr) {
        if self.0.any.load(Ordering::Relaxed)
            && let Some(answered) = self.lock().get_mut(&client)
        {
            *answered = true;
        }
    }

    fn is_answered(&self, client: SocketAddr) -> bool {
        self.lock().get(&client) == Some(&true)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, bool>> {
        self.0.answered.lock()
    }
}

/// Asks the tracer's thread.
#[derive(Debug)]
pub struct Tracer {
    jobs: SyncSender<(TraceRequest, HeaderQueue)>,
    assistant: bool,
    lookout: Lookout,
}

impl Tracer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When none can be started.
    pub fn start(setting: Setting) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING);
        let assistant = setting.assistant;
        let lookout = Lookout::default();
        let its = lookout.clone();
        std::thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || serve(&waiting, &setting, &its))?;
        Ok(Self {
            jobs,
            assistant,
            lookout,
        })
    }

    /// The worker has taken a response to this client. Costs next to nothing while no probe is
    /// looked for.
    pub fn note_captured(&self, client: Endpoint) {
        self.lookout.note(client.into());
    }

    /// Has a question answered to `queue`; never waits.
    pub fn ask(&self, request: TraceRequest, queue: HeaderQueue) {
        let refused = match self.jobs.try_send((request, queue)) {
            Ok(()) => return,
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        let (request, queue) = refused;
        queue.traced(TraceReport {
            id: request.id,
            problem: "busy with the probes of other copiers".to_owned(),
            assistant: self.assistant,
            ..TraceReport::default()
        });
    }
}

fn serve(jobs: &Receiver<(TraceRequest, HeaderQueue)>, setting: &Setting, lookout: &Lookout) {
    while let Ok((request, queue)) = jobs.recv() {
        let mut report = TraceReport {
            id: request.id,
            assistant: setting.assistant,
            ..TraceReport::default()
        };
        lookout.set(&request.clients);
        match look(&request, setting, lookout) {
            Ok(sights) => report.sights = sights,
            Err(problem) => report.problem = problem,
        }
        lookout.set(&[]);
        queue.traced(report);
    }
}

/// One probe under observation.
struct Watched {
    client: SocketAddr,
    /// Where it goes, once its SYN was seen.
    target: Option<IpAddr>,
    sight: Sight,
}

impl Watched {
    fn is_seen(&self) -> bool {
        self.sight.captured || !self.sight.leaked_device.is_empty()
    }
}

fn look(
    request: &TraceRequest,
    setting: &Setting,
    lookout: &Lookout,
) -> Result<Vec<Sight>, String> {
    let devices = Device::list();
    let local: HashSet<IpAddr> = devices
        .iter()
        .flat_map(|device| device.addresses.iter().copied())
        .collect();
    let mut rings = open(request, &devices)?;
    let mut watched: Vec<Watched> = (0..)
        .zip(&request.clients)
        .map(|(number, client)| Watched {
            client: *client,
            target: None,
            sight: Sight {
                client: number,
                ..Sight::default()
            },
        })
        .collect();
    let mut decoder = Decoder::new();
    let before = Counted::now();
    let deadline = Instant::now() + request.wait;
    while !watched.iter().all(Watched::is_seen) {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            break;
        };
        let fds: Vec<_> = rings.iter().map(|(_, ring)| ring.as_fd()).collect();
        wait(&fds, Some(left.min(NAP))).map_err(|error| error.to_string())?;
        for (device, ring) in &mut rings {
            let link = ring.link_type();
            ring.read(FRAMES_IN_A_ROW, |frame| {
                let len = frame.original_len as usize;
                let decoded =
                    decoder.decode(frame.timestamp, link, frame.data, len, Verify::Nothing);
                if let Ok(packet) = decoded {
                    let seen = Seen {
                        device,
                        captured_here: setting.devices.contains(device),
                        outgoing: frame.outgoing,
                        local: &local,
                    };
                    seen.note(&packet, &mut watched);
                }
            });
        }
        for one in &mut watched {
            one.sight.captured |= lookout.is_answered(one.client);
        }
    }
    let counts = (before, Counted::now());
    let unanswered = |it: &&Watched| it.target.is_some() && !it.is_seen();
    let syns = watched.iter().filter(unanswered).count() as u64;
    for one in &mut watched {
        // What comes back to this host's own address ends in its kernel, wherever this looks for it.
        if local.contains(&one.client.ip()) {
            one.sight.obstacle = Obstacle::ClientHere;
            continue;
        }
        // An assistant is not where SYNs are answered.
        let is_seen = one.is_seen();
        let target = one.target.filter(|_| !setting.assistant && !is_seen);
        one.sight.obstacle = target.map_or(Obstacle::Unknown, |target| {
            obstacle::of(target, &local, syns, counts)
        });
    }
    let sights = watched.into_iter().map(|it| it.sight);
    Ok(sights
        .filter(|sight| {
            sight.captured || !sight.syn_device.is_empty() || !sight.leaked_device.is_empty()
        })
        .collect())
}

fn open(request: &TraceRequest, devices: &[Device]) -> Result<Vec<(String, Ring)>, String> {
    let services = request.clients.iter().map(|client| ServiceFilter {
        address: Some(client.ip()),
        port: client.port(),
    });
    let filter = Filter::Services(FilterSpec {
        services: services.collect(),
        local_addresses: Vec::new(),
        exclude: Vec::new(),
        client_snap_len: HEADERS_ONLY,
        server_snap_len: HEADERS_ONLY,
        whole_services: Vec::new(),
        tunnels: Tunnels::none(),
    });
    let mut rings = Vec::new();
    let mut problem = "no device is up".to_owned();
    let up = devices
        .iter()
        .filter(|device| device.up && !device.loopback);
    for device in up.take(MAX_SOURCES) {
        let config = RingConfig {
            buffer_bytes: BUFFER,
            snap_len: HEADERS_ONLY,
            ..RingConfig::new(device.name.clone(), filter.clone())
        };
        match Ring::open(&config) {
            Ok(ring) => rings.push((device.name.clone(), ring)),
            // It may have gone meanwhile, or carry no IP.
            Err(error) => problem = error.to_string(),
        }
    }
    if rings.is_empty() {
        return Err(problem);
    }
    Ok(rings)
}

/// A frame, and where it was seen.
struct Seen<'a> {
    device: &'a str,
    captured_here: bool,
    outgoing: bool,
    local: &'a HashSet<IpAddr>,
}

impl Seen<'_> {
    fn note(&self, packet: &TcpPacket<'_>, watched: &mut [Watched]) {
        let (source, destination) = (packet.tuple.source, packet.tuple.destination);
        for one in watched {
            let sight = &mut one.sight;
            if SocketAddr::from(source) == one.client {
                if !self.outgoing && packet.header.flags.has(Flags::SYN) {
                    sight.syn_device = self.device.to_owned();
                    one.target = Some(destination.ip);
                }
            } else if SocketAddr::from(destination) == one.client {
                if self.captured_here || self.local.contains(&destination.ip) {
                    sight.captured = true;
                } else if self.outgoing && self.local.contains(&source.ip) {
                    // What this host merely forwards is another host's to divert.
                    sight.leaked_device = self.device.to_owned();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_takes_is_noted_for_the_probes_that_are_looked_for() {
        let lookout = Lookout::default();
        let probe: SocketAddr = "198.18.1.1:4000".parse().unwrap();
        let other: SocketAddr = "198.18.1.1:4001".parse().unwrap();
        lookout.note(probe);
        assert!(!lookout.is_answered(probe), "nobody looked");
        lookout.set(&[probe]);
        lookout.note(other);
        lookout.note(probe);
        assert!(lookout.is_answered(probe));
        assert!(!lookout.is_answered(other));
        lookout.set(&[]);
        assert!(!lookout.is_answered(probe));
    }
}

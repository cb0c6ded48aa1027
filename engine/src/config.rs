//! What an engine is told once, at the start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use millrace_wire::{Endpoint, FourTuple};

use crate::caps::Caps;
use crate::intensity::{Intensity, IntensityKey};
use crate::recorded::Recorded;
use crate::source::{Rules, Share, SourcePool, Space};

/// The address of a live service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveAddress {
    /// Any of [`Config::local_addresses`] that is of the target's family, or of either family when replicas get
    /// addresses of a pool.
    Host,
    /// This one.
    At(IpAddr),
    /// Those that [`Config::followed`] has for the service: they come and go.
    Followed,
}

/// A live service and the target that its sessions are copied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where the live service is.
    pub live: LiveAddress,
    /// Port of the live service.
    pub live_port: u16,
    /// Where replicas go.
    pub target: Endpoint,
}

/// Everything an engine is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is copied, and where to. One with an address goes before one that is followed, and that before one at any.
    pub services: Vec<Service>,
    /// The addresses of services that are followed, by the service's place in `services`, each list in order.
    pub followed: Vec<Vec<IpAddr>>,
    /// The host's own addresses, for services without one; empty: any address.
    pub local_addresses: Vec<IpAddr>,
    /// Networks whose hosts reach each other without a router, as first address and length of the prefix, where targets
    /// are in one: see [`ClientKind::Segment`].
    pub segments: Vec<(IpAddr, u8)>,
    /// Source addresses of replicas.
    pub sources: SourcePool,
    /// Whether the target's address and port change on the way (destination NAT between director
    /// and real server): answers are then known by the replica's side alone, and no two replicas
    /// share a source, whatever their target.
    pub nat: bool,
    /// Stands in for clients on the live host's loopback address, one for each family.
    pub loopback_clients: Vec<IpAddr>,
    /// The part of all sources that is this engine's own, where several share them.
    pub share: Option<Share>,
    /// How long a source port rests before it is given out again, where there are others.
    pub port_rest: Duration,
    /// Replicas of each session to begin with: see [`crate::Engine::set_intensity`].
    pub intensity: Intensity,
    /// Every session that the intensity chooses gets this many times as many replicas: a fifth of the sessions three
    /// times is an intensity of 0.2 and a factor of 3. At most 1023 replicas come of it.
    pub factor: u16,
    /// The key of the hash that chooses sessions; engines with the same one choose the same.
    pub intensity_key: IntensityKey,
    /// The second replica of a session and those after it begin up to this much later than the
    /// first, and stay behind it.
    pub spread: Duration,
    /// Bounds on what targets get.
    pub caps: Caps,
    /// Whether a turn waits for the target's answer to the turn before.
    pub gate: bool,
    /// Only copy sessions seen from their SYN.
    pub only_from_syn: bool,
    /// Whether a replica that is behind its client pauses between turns as long as the client did. Without, it pauses
    /// less until it has caught up.
    pub keep_pauses: bool,
    /// Largest packet sent, IP header included, in bytes.
    pub max_packet: u16,
    /// Maximum segment size offered to targets; `None`: what `max_packet` leaves.
    pub offered_mss: Option<u16>,
    /// Memory for sessions and their payload, in bytes.
    pub memory_limit: u64,
    /// A replica that hears nothing from its target for this long, while something is unanswered,
    /// is given up.
    pub answer_timeout: Duration,
    /// A turn without the first byte of an answer after this long is counted as overdue.
    pub overdue_after: Duration,
    /// A session without a segment from client or live server for this long is given up.
    pub idle_timeout: Duration,
    /// What the live server acknowledged and capture has not delivered this much later is lost.
    pub gap_grace: Duration,
    /// A connection that is over is remembered for so long, and longer where repetitions of its segments came later.
    pub late: Duration,
    /// The segments come from a recording, and their times are its own; `None`: they come as they
    /// are captured.
    pub recorded: Option<Recorded>,
    /// Whether connections that targets open to the live service are copied: behind a gateway or proxy that has the
    /// target's address they are those of clients.
    pub copy_targets: bool,
    /// Whether a target that answered and falls silent is stopped: see [`crate::Event::TargetSilent`].
    pub stop_on_silence: bool,
    /// The share of sessions whose turns are told ([`crate::Engine::poll_told`]); what is above 1 counts as 1.
    pub sampled: Intensity,
    /// Seed of all that is random: hash keys and initial sequence numbers.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            followed: Vec::new(),
            local_addresses: Vec::new(),
            segments: Vec::new(),
            sources: SourcePool::Clients,
            nat: false,
            loopback_clients: Vec::new(),
            share: None,
            port_rest: Duration::from_secs(60),
            intensity: Intensity::ONE,
            factor: 1,
            intensity_key: IntensityKey::default(),
            spread: Duration::ZERO,
            caps: Caps::default(),
            gate: true,
            only_from_syn: false,
            keep_pauses: false,
            max_packet: 1500,
            offered_mss: None,
            memory_limit: 512 << 20,
            answer_timeout: Duration::from_secs(120),
            overdue_after: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3600),
            gap_grace: Duration::from_secs(1),
            late: Duration::from_secs(30),
            recorded: None,
            copy_targets: false,
            stop_on_silence: true,
            sampled: Intensity::ZERO,
            seed: 0,
        }
    }
}

/// Kinds of source addresses that replicas bear: answers to them may leave a target by different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Addresses of the live host itself.
    Own,
    /// Addresses in the target's own network: its answers may pass by its routes.
    Segment,
    /// All others, and those of a pool.
    Outside,
}

impl ClientKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Own, Self::Segment, Self::Outside];

    /// The name that reports and logs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "of the live host itself",
            Self::Segment => "in the target's network",
            Self::Outside => "outside",
        }
    }
}

/// A service's target, and a kind of source addresses: what is known of the way there and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way(u16);

impl Way {
    pub(crate) const fn new(service: u16, kind: ClientKind) -> Self {
        Self(service * ClientKind::ALL.len() as u16 + kind as u16)
    }

    /// Index of the service.
    pub(crate) const fn service(self) -> u16 {
        self.0 / ClientKind::ALL.len() as u16
    }

    pub(crate) fn kind(self) -> ClientKind {
        let number = usize::from(self.0) % ClientKind::ALL.len();
        ClientKind::ALL
            .get(number)
            .copied()
            .unwrap_or(ClientKind::Outside)
    }

    /// Its place in a list of all ways.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// All ways to the targets of so many services.
    pub(crate) fn all(services: usize) -> impl Iterator<Item = Self> {
        let most = u16::MAX / ClientKind::ALL.len() as u16;
        let services = 0..u16::try_from(services).map_or(most, |count| count.min(most));
        services.flat_map(|service| ClientKind::ALL.map(|kind| Self::new(service, kind)))
    }
}

/// Whether an address is in a network.
fn is_in(ip: &IpAddr, (base, prefix): &(IpAddr, u8)) -> bool {
    let shifted = |bits: u128, width: u32| {
        bits.checked_shr(width.saturating_sub(u32::from(*prefix)))
            .unwrap_or(0)
    };
    match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => {
            shifted(ip.to_bits().into(), 32) == shifted(base.to_bits().into(), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) => {
            shifted(ip.to_bits(), 128) == shifted(base.to_bits(), 128)
        }
        _ => false,
    }
}

/// Which way a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the live server.
    ToLive,
    /// From the live server to a client.
    FromLive,
    /// Neither: nothing that is copied.
    Other,
}

impl Config {
    /// Which way a segment with these ends goes. Packets to or from the target of a service without
    /// an address are never taken for live traffic, or a copier would copy its own packets again.
    pub fn direction(&self, tuple: &FourTuple) -> Direction {
        if self.service_of(tuple.destination).is_some() {
            Direction::ToLive
        } else if self.service_of(tuple.source).is_some() {
            Direction::FromLive
        } else {
            Direction::Other
        }
    }

    /// What sources copies may have.
    pub(crate) fn source_rules(&self) -> Rules {
        let number = |target: Endpoint| {
            // With addresses that change on the way, the source alone tells flows apart.
            let mut services = self.services.iter();
            let first = services.position(|s| self.nat || s.target == target);
            first
                .and_then(|first| u16::try_from(first).ok())
                .unwrap_or(0)
        };
        Rules {
            own: [self.space(true), self.space(false)],
            targets: self.services.iter().map(|s| number(s.target)).collect(),
            port_rest: self.port_rest,
            seed: self.seed,
        }
    }

    /// The sources that replicas towards IPv4 (or IPv6) targets may have.
    pub fn space(&self, v4: bool) -> Space {
        let like = match v4 {
            true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            false => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Space::new(&self.sources, self.share, &like)
    }

    /// Whether clients' own pace is kept: a recording may be replayed as fast as targets answer.
    pub fn has_pace(&self) -> bool {
        self.recorded
            .is_none_or(|recorded| recorded.speed.is_finite())
    }

    /// The kind of a source address of replicas towards this target.
    pub(crate) fn kind_of(&self, source: &IpAddr, target: &IpAddr) -> ClientKind {
        let shares = |segment: &&(IpAddr, u8)| is_in(source, segment) && is_in(target, segment);
        if self.sources != SourcePool::Clients {
            ClientKind::Outside
        } else if self.local_addresses.contains(source) {
            ClientKind::Own
        } else if self.segments.iter().any(|segment| shares(&segment)) {
            ClientKind::Segment
        } else {
            ClientKind::Outside
        }
    }

    /// The index of the service at this address: of several the first with the address itself, else the first that is
    /// followed there, else the first at any address of this host, one of whose family the target is before others.
    #[inline]
    pub(crate) fn service_of(&self, at: Endpoint) -> Option<usize> {
        let mut others = false;
        for (index, service) in self.services.iter().enumerate() {
            if service.live_port == at.port {
                match service.live {
                    LiveAddress::At(ip) if ip == at.ip => return Some(index),
                    LiveAddress::At(_) => {}
                    LiveAddress::Host | LiveAddress::Followed => others = true,
                }
            }
        }
        if others {
            self.unnamed_service_of(at)
        } else {
            None
        }
    }

    /// The same, of the services without an address of their own.
    #[inline(never)]
    fn unnamed_service_of(&self, at: Endpoint) -> Option<usize> {
        let services = self.services.iter().enumerate();
        let ranked = services
            .filter(|(_, service)| service.live_port == at.port)
            .filter_map(|(index, service)| Some((self.rank(index, service, at)?, index)));
        ranked.min().map(|(_, index)| index)
    }

    /// How well a service without an address of its own fits this one, which has its port: less is better.
    fn rank(&self, index: usize, service: &Service, at: Endpoint) -> Option<u8> {
        // Replicas of clients of the other family need addresses of the target's.
        let same_family = service.target.ip.is_ipv4() == at.ip.is_ipv4();
        if !same_family && self.sources == SourcePool::Clients {
            return None;
        }
        let is_target = service.target == at;
        match service.live {
            LiveAddress::At(_) => None,
            LiveAddress::Followed => (!is_target && self.follows(index, &at.ip)).then_some(0),
            LiveAddress::Host => {
                let local =
                    self.local_addresses.is_empty() || self.local_addresses.contains(&at.ip);
                let offline = self.recorded.is_some();
                (local && (offline || !is_target)).then_some(if same_family { 1 } else { 2 })
            }
        }
    }

    /// Whether this is one of the addresses of a service that is followed.
    pub(crate) fn follows(&self, service: usize, ip: &IpAddr) -> bool {
        let addresses = self.followed.get(service);
        addresses.is_some_and(|all| all.binary_search(ip).is_ok())
    }
}

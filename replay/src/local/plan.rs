//! Which way `--local` goes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use millrace_capture::{Device, Filter, ResponseFilter, RingConfig, ServiceFilter};
use millrace_daemon::exit::ExitError;
use millrace_engine::{Config, Share};
use millrace_notation::address::{AddressRange, ClientPool};

/// Memory for answers that were not read yet, on each device: 32,768 headers.
const ANSWER_BUFFER: usize = 16 << 20;

/// Networks that exist nowhere, for replicas towards a target on this host: of the range for
/// benchmarks (RFC 2544) and that for documentation (RFC 3849).
pub(crate) const DEFAULT_NETS: &str = "198.19.240.0/20,2001:db8:6d72::/112";
/// Replicas that bear this host's own address have a quarter of all ports, the lowest: the kernel
/// takes its own from 32768 on.
const QUARTERS: u16 = 4;

/// What `--local` sets up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlan {
    /// Sources of replicas: first and last address of each range.
    pub sources: Vec<(IpAddr, IpAddr)>,
    /// The share of them that is used, whatever `-f` says; `None`: just what it says.
    pub share: Option<Share>,
    /// How the answers are caught.
    pub way: CatchBy,
    /// The targets.
    pub targets: Vec<SocketAddr>,
    /// Ports of targets whose answers are needed with their payload.
    pub payload_ports: Vec<u16>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// The targets.
    pub targets: Vec<SocketAddr>,
    /// The client pool (`-c`).
    pub pool: Option<&'a ClientPool>,
    /// Where replicas are to come from towards a target on this host (`--local-net`).
    pub net: Option<&'a ClientPool>,
    /// The share of the sources (`-f`).
    pub share: Option<Share>,
}

/// How answers are caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatchBy {
    /// The targets are on this host: a tun device takes the answers.
    Tun,
    /// The targets are elsewhere, the sources are this host's own addresses: a shield keeps its TCP
    /// from answering. Devices on which answers arrive.
    Shield(Vec<String>),
    /// The targets are elsewhere, the sources are of a pool that is routed to this host. Devices on
    /// which answers arrive.
    Pool(Vec<String>),
}

impl LocalPlan {
    /// Decides.
    ///
    /// # Errors
    /// Targets that are partly here and partly elsewhere, or that cannot be reached.
    pub fn new(wanted: Wanted<'_>) -> Result<Self, ExitError> {
        let Wanted {
            mut targets,
            pool,
            net,
            share,
        } = wanted;
        targets.sort_unstable();
        targets.dedup();
        let devices = Device::list();
        let is_here = |ip: IpAddr| {
            ip.is_loopback() || devices.iter().any(|device| device.addresses.contains(&ip))
        };
        let here = targets.iter().filter(|target| is_here(target.ip())).count();
        if here != 0 && here != targets.len() {
            return Err(ExitError::usage(
                "--local: some targets of -x are on this host and others are not: replay them one \
                 after the other",
            ));
        }
        if here != 0 {
            let nets = match (pool, net) {
                (Some(pool), _) | (None, Some(pool)) => pool.clone(),
                (None, None) => DEFAULT_NETS
                    .parse::<ClientPool>()
                    .map_err(|error| ExitError::start(error.to_string()))?,
            };
            check_free(&nets, &devices)?;
            return Ok(Self {
                sources: for_targets(ranges(&nets), &targets),
                share: None,
                way: CatchBy::Tun,
                targets,
                payload_ports: Vec::new(),
            });
        }
        if net.is_some() {
            return Err(ExitError::usage(
                "--local-net is for a target on this host, and those of -x are elsewhere: leave it out, \
                 or name addresses that are routed to this host with -c",
            ));
        }
        let mut own = Vec::new();
        for target in &targets {
            own.push(own_address(*target)?);
        }
        own.sort();
        own.dedup();
        if let Some([one, other]) = own
            .array_windows()
            .find(|[a, b]| a.is_ipv4() == b.is_ipv4())
            && pool.is_none()
        {
            return Err(ExitError::usage(format!(
                "--local: this host reaches the targets of -x from different addresses, {one} and \
                 {other}: replay them one after the other"
            )));
        }
        let mut names: Vec<String> = devices
            .iter()
            .filter(|device| own.iter().any(|ip| device.addresses.contains(ip)))
            .map(|device| device.name.clone())
            .collect();
        names.sort();
        names.dedup();
        Ok(match pool {
            Some(pool) => Self {
                sources: ranges(pool),
                share: None,
                way: CatchBy::Pool(names),
                targets,
                payload_ports: Vec::new(),
            },
            None => Self {
                sources: own.into_iter().map(|ip| (ip, ip)).collect(),
                share: Some(own_share(share)?),
                way: CatchBy::Shield(names),
                targets,
                payload_ports: Vec::new(),
            },
        })
    }

    /// Whether replicas bear addresses that this host's own connections have too.
    pub const fn bears_own_addresses(&self) -> bool {
        matches!(self.way, CatchBy::Shield(_))
    }

    /// What this host's own addresses can hold at the same time, in words.
    pub fn capacity(&self, engine: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        for v4 in [true, false] {
            for (ip, _, ports) in engine.space(v4).blocks() {
                lines.push(format!(
                    "ports {} to {} of {ip}: at most {} copied connections at the same time for each \
                     target",
                    ports.first,
                    ports.last,
                    ports.len()
                ));
            }
        }
        lines
    }

    /// The targets as capture filters name them.
    pub(crate) fn services(&self) -> Vec<ServiceFilter> {
        self.targets
            .iter()
            .map(|target| ServiceFilter {
                address: Some(target.ip()),
                port: target.port(),
            })
            .collect()
    }

    /// A ring for the answers that arrive on a device.
    pub(super) fn ring(&self, device: &str) -> RingConfig {
        let headers = ResponseFilter {
            sources: self.services(),
            whole_ports: self.payload_ports.clone(),
            ..ResponseFilter::default()
        };
        let snap_len = match self.payload_ports.as_slice() {
            [] => headers.snap_len,
            _ => RingConfig::DEFAULT_SNAP_LEN,
        };
        RingConfig {
            buffer_bytes: ANSWER_BUFFER,
            snap_len,
            ..RingConfig::new(device, Filter::Responses(headers))
        }
    }
}

fn ranges(pool: &ClientPool) -> Vec<(IpAddr, IpAddr)> {
    let range = |range: &AddressRange| (range.first(), range.last());
    pool.ranges().iter().map(range).collect()
}

/// Those of the families that targets have: a host may lack the other.
fn for_targets(
    mut sources: Vec<(IpAddr, IpAddr)>,
    targets: &[SocketAddr],
) -> Vec<(IpAddr, IpAddr)> {
    sources.retain(|(first, _)| {
        let same_family = |target: &SocketAddr| target.is_ipv4() == first.is_ipv4();
        targets.iter().any(same_family)
    });
    sources
}

/// The share of all ports that is this share of those that the kernel leaves alone.
fn own_share(asked: Option<Share>) -> Result<Share, ExitError> {
    let (index, of) = asked.map_or((0, 1), |share| (share.index(), share.of()));
    of.checked_mul(QUARTERS)
        .and_then(|of| Share::new(index, of))
        .ok_or_else(|| {
            ExitError::usage(format!(
                "-f {index}/{of}: with --local the share is one of this host's own ports, which are too \
                 few for so many: write K/N with as many shares as there are replays at a time, 256 at \
                 most"
            ))
        })
}

/// Addresses of this host must not be routed into a tun device.
fn check_free(nets: &ClientPool, devices: &[Device]) -> Result<(), ExitError> {
    for device in devices {
        if let Some(ip) = device.addresses.iter().find(|ip| nets.contains(**ip)) {
            return Err(ExitError::usage(format!(
                "--local: the copied connections would come from {nets}, and {ip} of device {} is \
                 one of these addresses: name a network that is not in use with --local-net",
                device.name,
                nets = if nets.ranges().len() == 1 {
                    "a network"
                } else {
                    "networks"
                },
            )));
        }
    }
    Ok(())
}

/// The address from which this host would talk to a target. Nothing is sent.
fn own_address(target: SocketAddr) -> Result<IpAddr, ExitError> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    UdpSocket::bind(any)
        .and_then(|socket| {
            socket.connect(target)?;
            Ok(socket.local_addr()?.ip())
        })
        .map_err(|error| {
            ExitError::start(format!(
                "--local: no way to the target {target}: {error}; check it with `ip route get {}`",
                target.ip()
            ))
        })
}

#[cfg(test)]
mod tests {
    use millrace_engine::SourcePool;

    use super::*;

    #[test]
    fn every_share_of_the_hosts_own_ports_is_its_own_and_below_the_kernels() {
        let own: IpAddr = [198, 18, 2, 10].into();
        let ports = |asked: Option<(u16, u16)>| {
            let asked = asked.map(|(index, of)| Share::new(index, of).unwrap());
            let engine = Config {
                sources: SourcePool::Ranges(vec![(own, own)]),
                share: Some(own_share(asked).unwrap()),
                ..Config::default()
            };
            let (_, _, block) = engine.space(true).blocks().next().unwrap();
            (block.first, block.last)
        };
        assert_eq!(ports(None), (1024, 17_151));
        assert_eq!(ports(Some((0, 1))), (1024, 17_151));
        for of in [2, 3, 256] {
            let blocks: Vec<_> = (0..of).map(|index| ports(Some((index, of)))).collect();
            assert!(blocks.is_sorted_by(|a, b| a.1 < b.0), "{blocks:?}");
            assert!(
                blocks
                    .iter()
                    .all(|(low, high)| *low >= 1024 && *high < 32_768)
            );
        }
        let error = own_share(Share::new(7, 1024)).unwrap_err().to_string();
        assert!(error.contains("256 at most"), "{error}");
    }

    #[test]
    fn a_network_for_a_target_on_this_host_is_refused_for_one_elsewhere() {
        let net = "198.18.9.0/24".parse().unwrap();
        let wanted = Wanted {
            targets: vec!["198.18.2.20:80".parse().unwrap()],
            net: Some(&net),
            ..Wanted::default()
        };
        let error = LocalPlan::new(wanted).unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(error.to_string().starts_with("--local-net is"), "{error}");
    }

    #[test]
    fn only_networks_of_the_targets_families_are_used() {
        let nets = ranges(&DEFAULT_NETS.parse().unwrap());
        let of = |targets: &[&str]| {
            let targets: Vec<SocketAddr> = targets.iter().map(|one| one.parse().unwrap()).collect();
            let families = for_targets(nets.clone(), &targets);
            families
                .iter()
                .map(|(first, _)| first.is_ipv4())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&["127.0.0.1:80"]), [true]);
        assert_eq!(of(&["[::1]:80"]), [false]);
        assert_eq!(of(&["127.0.0.1:80", "[::1]:80"]), [true, false]);
    }
}

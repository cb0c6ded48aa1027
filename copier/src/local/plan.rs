//! Which way `--local` goes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use millrace_capture::{Device, RingConfig, ServiceFilter};
use millrace_engine::Share;
use millrace_fleet::address::{AddressRange, ClientPool};
use millrace_fleet::exit::ExitError;

use crate::options::Options;

/// Networks that exist nowhere, for replicas towards a target on this host: of the range for
/// benchmarks (RFC 2544) and that for documentation (RFC 3849).
pub const DEFAULT_NETS: &str = "198.19.240.0/20,2001:db8:6d72::/112";
/// Replicas that bear this host's own address have a quarter of all ports: the lowest, since the
/// kernel takes its own from 32768 on.
const OWN_PORTS: (u16, u16) = (0, 4);

/// What `--local` sets up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlan {
    /// Sources of replicas: first and last address of each range.
    pub sources: Vec<(IpAddr, IpAddr)>,
    /// The share of them that is used; `None`: what `-f` says.
    pub share: Option<Share>,
    /// How the answers are caught.
    pub way: Way,
    /// The targets.
    pub targets: Vec<SocketAddr>,
}

/// How answers are caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
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
    pub fn new(options: &Options) -> Result<Self, ExitError> {
        let targets: Vec<SocketAddr> = options.services.iter().map(|one| one.target).collect();
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
        let pool = options.client_pool.as_ref();
        if here != 0 {
            let nets = match (pool, &options.offline.local_net) {
                (Some(pool), _) | (None, Some(pool)) => pool.clone(),
                (None, None) => DEFAULT_NETS
                    .parse::<ClientPool>()
                    .map_err(|error| ExitError::start(error.to_string()))?,
            };
            check_free(&nets, &devices)?;
            return Ok(Self {
                sources: ranges(&nets),
                share: None,
                way: Way::Tun,
                targets,
            });
        }
        let mut own = Vec::new();
        for target in &targets {
            own.push(own_address(*target)?);
        }
        own.sort();
        own.dedup();
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
                way: Way::Pool(names),
                targets,
            },
            None => Self {
                sources: own.into_iter().map(|ip| (ip, ip)).collect(),
                share: match options.intensity.share {
                    None => Share::new(OWN_PORTS.0, OWN_PORTS.1),
                    Some(_) => None,
                },
                way: Way::Shield(names),
                targets,
            },
        })
    }

    /// The targets as capture filters name them.
    pub fn services(&self) -> Vec<ServiceFilter> {
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
        RingConfig::new(
            device,
            millrace_capture::Filter::Responses(millrace_capture::ResponseFilter {
                sources: self.services(),
                ..millrace_capture::ResponseFilter::default()
            }),
        )
    }
}

fn ranges(pool: &ClientPool) -> Vec<(IpAddr, IpAddr)> {
    let range = |range: &AddressRange| (range.first(), range.last());
    pool.ranges().iter().map(range).collect()
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

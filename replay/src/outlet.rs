//! What packets leave through. Its sockets are opened before privileges are given up: the kernel
//! grants a buffer beyond its own limit only to CAP_NET_ADMIN.

use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::{CaptureError, LinkSocket, NextHopConfig, NextHops, Sender, SenderConfig};
use millrace_daemon::exit::ExitError;

use crate::conntrack;

/// How long the next hops to all targets are waited for at the start.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// What packets are to leave through.
#[derive(Clone, Debug)]
pub enum SendPath {
    /// At the link layer if all targets can be reached so, else the host's routing.
    Auto {
        /// Whether the host's routing may be used though it tracks connections.
        tracked: bool,
    },
    /// The host's routing.
    Routed {
        /// See [`SendPath::Auto`].
        tracked: bool,
    },
    /// One device.
    Link(NextHopConfig),
}

/// How packets are sent, and whereto.
#[derive(Clone, Debug)]
pub struct OutletConfig {
    /// What they leave through.
    pub way: SendPath,
    /// How large they are, and what may wait.
    pub sender: SenderConfig,
    /// The targets' addresses.
    pub targets: Vec<IpAddr>,
}

/// Open sockets, not sending yet.
#[derive(Debug)]
pub enum Outlet {
    /// Through the kernel's routing.
    Routed(Sender),
    /// At the link layer.
    Link(LinkSocket, NextHopConfig),
}

/// What a way comes to on this host.
enum Found {
    /// Through the kernel's routing: why.
    Routed(String),
    /// At the link layer.
    Link(NextHopConfig),
}

impl Found {
    /// # Errors
    /// When the kernel cannot be asked.
    fn of(config: &OutletConfig) -> Result<Self, ExitError> {
        Ok(match &config.way {
            SendPath::Link(hops) => Self::Link(hops.clone()),
            SendPath::Routed { .. } => Self::Routed("-o says so".to_owned()),
            SendPath::Auto { .. } => match other_than_ethernet(&config.targets)? {
                None => Self::Link(NextHopConfig::any_ethernet()),
                Some(reason) => Self::Routed(reason),
            },
        })
    }

    /// Refuses to send through the kernel's routing on a host that tracks connections.
    fn refuse_tracked(&self, way: &SendPath) -> Result<(), ExitError> {
        match (self, way) {
            (Self::Link(_), _)
            | (_, SendPath::Auto { tracked: true } | SendPath::Routed { tracked: true }) => Ok(()),
            (Self::Routed(why), _) => conntrack::refuse(why),
        }
    }
}

/// What keeps packets from being sent, since this host would track them.
///
/// # Errors
/// That, with what to do; or the kernel cannot be asked.
pub fn refuse_tracked(config: &OutletConfig) -> Result<(), ExitError> {
    Found::of(config)?.refuse_tracked(&config.way)
}

impl Outlet {
    /// Opens what is asked for.
    ///
    /// # Errors
    /// No privilege, no such device, or a host that tracks connections.
    pub fn open(config: &OutletConfig) -> Result<Self, ExitError> {
        let found = Found::of(config)?;
        found.refuse_tracked(&config.way)?;
        match found {
            Found::Link(hops) => {
                let socket =
                    LinkSocket::open(&config.sender, hops.device.as_deref()).map_err(failed)?;
                Ok(Self::Link(socket, hops))
            }
            Found::Routed(why) => {
                if matches!(config.way, SendPath::Auto { .. }) {
                    tracing::info!("sending through this host's routing: {why}");
                }
                Ok(Self::Routed(Sender::raw(&config.sender).map_err(failed)?))
            }
        }
    }

    /// Whether the kernel handles what is sent, and may track it.
    pub const fn is_routed(&self) -> bool {
        matches!(self, Self::Routed(_))
    }

    /// The sender. It may start a thread, which must not keep privileges.
    ///
    /// # Errors
    /// When the device is gone or no thread can be started.
    pub fn sender(self, config: &OutletConfig) -> Result<Sender, ExitError> {
        let sender = match self {
            Self::Routed(sender) => sender,
            Self::Link(socket, hops) => Sender::link(socket, &next_hops(hops, &config.targets)?),
        };
        let (granted, asked) = (sender.send_buffer(), config.sender.send_buffer);
        if granted < asked {
            tracing::warn!(
                "the kernel grants {} of {} KiB to send from, so that bursts may be lost \
                 (send.errors, no_buffers): start with CAP_NET_ADMIN, or `sysctl -w \
                 net.core.wmem_max={asked}` before",
                granted >> 10,
                asked >> 10
            );
        }
        Ok(sender)
    }
}

/// Why some target cannot, or must not, be reached at the link layer, if one cannot.
fn other_than_ethernet(targets: &[IpAddr]) -> Result<Option<String>, ExitError> {
    if NextHops::has_ipsec_policies() {
        return Ok(Some(
            "this host has IPsec policies, which the link layer would pass by".to_owned(),
        ));
    }
    for target in targets {
        let reason = NextHops::other_than_ethernet(*target).map_err(failed)?;
        if reason.is_some() {
            return Ok(reason);
        }
    }
    Ok(None)
}

fn next_hops(config: NextHopConfig, targets: &[IpAddr]) -> Result<NextHops, ExitError> {
    let over = config
        .device
        .as_ref()
        .map_or_else(String::new, |device| format!(" over {device}"));
    let hops = NextHops::start(config).map_err(failed)?;
    for target in targets {
        hops.add(*target);
    }
    hops.wait_resolved(RESOLVED_WITHIN);
    for (target, reason) in hops.unresolved() {
        tracing::warn!("no way to {target}{over}: {reason}; trying on");
    }
    Ok(hops)
}

fn failed(error: CaptureError) -> ExitError {
    ExitError::start(error.to_string())
}

//! What packets leave through. Its sockets are opened before privileges are given up: the kernel
//! grants a buffer beyond its own limit only to CAP_NET_ADMIN.

use std::time::Duration;

use millrace_capture::{CaptureError, LinkSocket, NextHopConfig, NextHops, Sender};
use millrace_daemon::exit::ExitError;

use crate::conntrack;
use crate::plan::{OutletPlan, Plan};

/// How long the next hops to all targets are waited for at the start.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// Open sockets, not sending yet.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// Through the kernel's routing.
    Routed(Sender),
    /// At the link layer.
    Link(LinkSocket, NextHopConfig),
}

/// The way that a plan comes to on this host.
enum Way {
    /// Through the kernel's routing: why.
    Routed(String),
    /// At the link layer.
    Link(NextHopConfig),
}

impl Way {
    /// # Errors
    /// When the kernel cannot be asked.
    fn of(plan: &Plan) -> Result<Self, ExitError> {
        Ok(match &plan.outlet {
            OutletPlan::Link(hops) => Self::Link(hops.clone()),
            OutletPlan::Routed { .. } => Self::Routed("-o says so".to_owned()),
            OutletPlan::Auto { .. } => match other_than_ethernet(plan)? {
                None => Self::Link(NextHopConfig::any_ethernet()),
                Some(reason) => Self::Routed(reason),
            },
        })
    }

    /// Refuses to send through the kernel's routing on a host that tracks connections.
    fn refuse_tracked(&self, plan: &Plan) -> Result<(), ExitError> {
        match (self, &plan.outlet) {
            (Self::Link(_), _)
            | (_, OutletPlan::Auto { tracked: true } | OutletPlan::Routed { tracked: true }) => {
                Ok(())
            }
            (Self::Routed(why), _) => conntrack::refuse(why),
        }
    }
}

/// What keeps a plan's packets from being sent, since this host would track them.
///
/// # Errors
/// That, with what to do; or the kernel cannot be asked.
pub(crate) fn refuse_tracked(plan: &Plan) -> Result<(), ExitError> {
    Way::of(plan)?.refuse_tracked(plan)
}

impl Outlet {
    /// Opens what the plan asks for.
    ///
    /// # Errors
    /// No privilege, no such device, or a host that tracks connections.
    pub(crate) fn open(plan: &Plan) -> Result<Self, ExitError> {
        let way = Way::of(plan)?;
        way.refuse_tracked(plan)?;
        match way {
            Way::Link(hops) => {
                let socket =
                    LinkSocket::open(&plan.sender, hops.device.as_deref()).map_err(failed)?;
                Ok(Self::Link(socket, hops))
            }
            Way::Routed(why) => {
                if matches!(plan.outlet, OutletPlan::Auto { .. }) {
                    tracing::info!("sending through this host's routing: {why}");
                }
                Ok(Self::Routed(Sender::raw(&plan.sender).map_err(failed)?))
            }
        }
    }

    /// Whether the kernel handles what is sent, and may track it.
    pub(crate) const fn is_routed(&self) -> bool {
        matches!(self, Self::Routed(_))
    }

    /// The sender. It may start a thread, which must not keep privileges.
    ///
    /// # Errors
    /// When the device is gone or no thread can be started.
    pub(crate) fn sender(self, plan: &Plan) -> Result<Sender, ExitError> {
        let sender = match self {
            Self::Routed(sender) => sender,
            Self::Link(socket, config) => Sender::link(socket, &next_hops(config, plan)?),
        };
        let (granted, asked) = (sender.send_buffer(), plan.sender.send_buffer);
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
fn other_than_ethernet(plan: &Plan) -> Result<Option<String>, ExitError> {
    if NextHops::has_ipsec_policies() {
        return Ok(Some(
            "this host has IPsec policies, which the link layer would pass by".to_owned(),
        ));
    }
    for service in &plan.engine.services {
        let reason = NextHops::other_than_ethernet(service.target.ip).map_err(failed)?;
        if reason.is_some() {
            return Ok(reason);
        }
    }
    Ok(None)
}

fn next_hops(config: NextHopConfig, plan: &Plan) -> Result<NextHops, ExitError> {
    let over = config
        .device
        .as_ref()
        .map_or_else(String::new, |device| format!(" over {device}"));
    let hops = NextHops::start(config).map_err(failed)?;
    for service in &plan.engine.services {
        hops.add(service.target.ip);
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

//! What packets leave through. Its sockets are opened before privileges are given up: the kernel
//! grants a buffer beyond its own limit only to CAP_NET_ADMIN.

use std::time::Duration;

use millrace_capture::{CaptureError, LinkSocket, NextHopConfig, NextHops, Sender};
use millrace_fleet::exit::ExitError;

use crate::plan::Plan;

/// How long the next hops to all targets are waited for at the start.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// Open sockets, not sending yet.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// Through the kernel's routing.
    Routed(Sender),
    /// At the link layer of a device.
    Link(LinkSocket, NextHopConfig),
}

impl Outlet {
    /// Opens what the plan asks for.
    ///
    /// # Errors
    /// No privilege, or no such device.
    pub(crate) fn open(plan: &Plan) -> Result<Self, ExitError> {
        Ok(match &plan.next_hops {
            None => Self::Routed(Sender::raw(&plan.sender).map_err(failed)?),
            Some(hops) => {
                let socket = LinkSocket::open(&plan.sender, &hops.device).map_err(failed)?;
                Self::Link(socket, hops.clone())
            }
        })
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

fn next_hops(config: NextHopConfig, plan: &Plan) -> Result<NextHops, ExitError> {
    let device = config.device.clone();
    let hops = NextHops::start(config).map_err(failed)?;
    for service in &plan.engine.services {
        hops.add(service.target.ip);
    }
    hops.wait_resolved(RESOLVED_WITHIN);
    for (target, reason) in hops.unresolved() {
        tracing::warn!("no way to {target} over {device}: {reason}; trying on");
    }
    Ok(hops)
}

fn failed(error: CaptureError) -> ExitError {
    ExitError::start(error.to_string())
}

//! Open connections that a plan would cut off.

use crate::host::{HostConfig, Mode};
use crate::kernel::model::{ESTABLISHED, Socket};
use crate::need::{Need, Selectors};
use crate::plan::refusal::{Circumstances, Danger, Refusal, refuse};

/// A service with connections that no copier opened seems to have real users, who would get no answers any more.
/// Peers of the pass-list go on being answered, and so does this host itself where routes divert.
pub(super) fn of_services(
    host: &HostConfig,
    need: &Need,
    selectors: &Selectors,
    around: &Circumstances<'_>,
) -> Result<(), Refusal> {
    // A chain of the firewall takes these, too.
    let stays_here = host.mode != Mode::Nfqueue;
    for service in &need.services {
        let cut = around.sockets.iter().filter(|socket| {
            let remote = socket.remote.ip();
            socket.state == ESTABLISHED
                && socket.local == *service
                && selected(selectors, socket)
                && !selected(around.copied, socket)
                && !host.passes(remote)
                && !(stays_here && (remote.is_loopback() || around.snapshot.is_local(remote)))
        });
        let cut = cut.count();
        if cut > 0 && !host.force.contains(service) {
            return refuse(
                Danger::Connection,
                format!(
                    "service {service}: {cut} connections to it are established and are no copies (ss -tn state \
                     established src {service}): does it serve real users? They would get no answers any more. \
                     Name peers that must go on being answered in the pass-list (-x); if these connections may \
                     be cut off (copies of a copier that ran without this agent), start the agent with --force {service}"
                ),
            );
        }
    }
    Ok(())
}

/// A pool without services takes every connection to its addresses.
pub(super) fn of_pool(
    host: &HostConfig,
    need: &Need,
    around: &Circumstances<'_>,
) -> Result<(), Refusal> {
    for socket in around.sockets {
        let remote = socket.remote.ip();
        let Some(to) = need.pool.iter().find(|to| to.contains(remote)) else {
            continue;
        };
        if !socket.may_speak() || selected(around.copied, socket) {
            continue;
        }
        let what = host.own_port(socket.local).unwrap_or("another service");
        let ssh = socket.local.port() == 22 || socket.remote.port() == 22;
        let danger = if ssh { Danger::Ssh } else { Danger::Connection };
        let what = if ssh { "ssh" } else { what };
        return refuse(
            danger,
            format!(
                "pool {to}: it holds {remote}, which has a connection of {what} with this host ({} \
                 to {}): it would be cut off; leave that address out",
                socket.local, socket.remote
            ),
        );
    }
    Ok(())
}

fn selected(selectors: &Selectors, socket: &Socket) -> bool {
    let mut selectors = selectors.iter();
    selectors.any(|it| it.matches(socket.local, socket.remote.ip()))
}

//! Verification by the kernel's own route look-ups: what is to be diverted is, and everything else
//! goes where it went before.

use std::net::{IpAddr, SocketAddr};

use crate::host::{HostConfig, Mode};
use crate::install::{ANY_CLIENT_V6, InstallError, stands_for_clients};
use crate::kernel::model::{Snapshot, Socket};
use crate::kernel::{Answer, Kernel, KernelError, Lookup};
use crate::need::{Selector, Selectors};
use crate::plan::{Layout, ours};
use crate::settings::ANY_CLIENT_V4;

/// Most connections whose way is compared.
const MAX_CONNECTIONS: usize = 128;
/// Most members of the pass-list whose way is compared.
const MAX_PASSED: usize = 64;
/// A port that stands for any.
const ANY_PORT: u16 = 49_152;

/// Where packets that must not be diverted go before a change.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    ways: Vec<(Lookup, Answer, &'static str)>,
}

impl Baseline {
    /// Asks for the pass-list, the default gateways, and the connections that no set of `selectors`
    /// takes; those of this host's own ports first.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take(
        kernel: &mut Kernel,
        host: &HostConfig,
        snapshot: &Snapshot,
        sockets: &[Socket],
        selectors: &[&Selectors],
    ) -> Result<Self, KernelError> {
        let mut questions: Vec<(Lookup, &'static str)> = Vec::new();
        for passed in host.pass_list.iter().take(MAX_PASSED) {
            let to = passed.first();
            questions.push((Lookup::to(to), "a member of the pass-list"));
            let services = selectors.iter().flat_map(|set| set.iter());
            let fitting = services
                .filter_map(|selector| selector.service)
                .find(|service| {
                    service.is_ipv4() == to.is_ipv4() && snapshot.is_local(service.ip())
                });
            if let Some(service) = fitting {
                questions.push((response(service, to), "a member of the pass-list"));
            }
        }
        for gateway in snapshot.default_gateways(host.table) {
            questions.push((Lookup::to(gateway), "the default gateway"));
        }
        let taken = |socket: &Socket| {
            let mut all = selectors.iter().flat_map(|set| set.iter());
            all.any(|selector| selector.matches(socket.local, socket.remote.ip()))
        };
        let mut others: Vec<&Socket> = sockets
            .iter()
            .filter(|socket| socket.may_speak() && !taken(socket))
            .collect();
        others.sort_by_key(|socket| host.own_port(socket.local).is_none());
        for socket in others.into_iter().take(MAX_CONNECTIONS) {
            let lookup = Lookup {
                destination_port: Some(socket.remote.port()),
                ..response(socket.local, socket.remote.ip())
            };
            let what = host.own_port(socket.local).unwrap_or("another service");
            questions.push((lookup, what));
        }
        let mut ways = Vec::with_capacity(questions.len());
        for (lookup, what) in questions {
            // What cannot be asked for now (a link-local peer) cannot be compared.
            if let Ok(answer) = kernel.lookup(&lookup) {
                ways.push((lookup, answer, what));
            }
        }
        Ok(Self { ways })
    }

    /// Asks again. Says how many ways are as they were: all.
    ///
    /// # Errors
    /// The first that is not.
    pub(super) fn check(&self, kernel: &mut Kernel) -> Result<u32, InstallError> {
        for (lookup, before, what) in &self.ways {
            let now = kernel.lookup(lookup)?;
            if now != *before {
                return Err(InstallError::Unverified(format!(
                    "the plan would change the way to {what} ({lookup}): a rule or route of \
                     somebody else interferes (ip rule; ip -6 rule)"
                )));
            }
        }
        Ok(count(self.ways.len()))
    }
}

/// Asks where what is to be diverted goes. Says how many look-ups confirmed it: all.
///
/// # Errors
/// The first that goes elsewhere.
pub(super) fn diverted(
    kernel: &mut Kernel,
    host: &HostConfig,
    snapshot: &Snapshot,
    layout: &Layout,
    wanted: &Selectors,
) -> Result<u32, InstallError> {
    if host.mode == Mode::Nfqueue {
        return chains(snapshot, layout);
    }
    let mut confirmed = 0;
    for selector in wanted {
        for lookup in samples(host, snapshot, selector) {
            let answer = kernel.lookup(&lookup)?;
            if !ends_where_it_should(host, snapshot, &answer, selector.is_ipv4()) {
                return Err(InstallError::Unverified(format!(
                    "{selector} would not be diverted: {lookup} answers {}",
                    shown(snapshot, &answer)
                )));
            }
            confirmed += 1;
        }
    }
    Ok(confirmed)
}

/// A response of a service.
fn response(service: SocketAddr, to: IpAddr) -> Lookup {
    Lookup {
        to,
        from: Some(service.ip()),
        source_port: Some(service.port()),
        destination_port: None,
    }
}

/// Packets that stand for those that a selector takes.
fn samples(host: &HostConfig, snapshot: &Snapshot, selector: &Selector) -> Vec<Lookup> {
    // This host sends nothing from an address that it does not have, and the kernel answers nothing.
    let elsewhere = |service: SocketAddr| !snapshot.is_local(service.ip());
    if selector.service.is_some_and(elsewhere) {
        return Vec::new();
    }
    let fits = |ip: &IpAddr| stands_for_clients(host, snapshot, *ip);
    let clients: Vec<IpAddr> = match selector.to {
        Some(to) if to.is_host() => vec![to.first()],
        Some(to) => vec![to.first(), to.last()],
        None if selector.is_ipv4() => ANY_CLIENT_V4.iter().map(|it| (*it).into()).collect(),
        None => ANY_CLIENT_V6.iter().map(|it| (*it).into()).collect(),
    };
    let clients = clients.into_iter().filter(fits);
    clients
        .map(|to| Lookup {
            to,
            from: selector.service.map(|service| service.ip()),
            source_port: Some(selector.service.map_or(ANY_PORT, |service| service.port())),
            destination_port: Some(ANY_PORT),
        })
        .collect()
}

fn ends_where_it_should(
    host: &HostConfig,
    snapshot: &Snapshot,
    answer: &Answer,
    ipv4: bool,
) -> bool {
    match (host.mode, answer) {
        (Mode::Sink, Answer::Out { link, .. }) => {
            ours::sink(host, snapshot).is_some_and(|sink| sink.index == *link)
        }
        (Mode::Assistant, Answer::Out { gateway, .. }) => *gateway == host.assistant(ipv4),
        (
            Mode::Sink | Mode::Assistant | Mode::Nfqueue,
            Answer::Out { .. } | Answer::Local | Answer::Dropped | Answer::NoRoute,
        ) => false,
    }
}

fn shown(snapshot: &Snapshot, answer: &Answer) -> String {
    match answer {
        Answer::Out { link, gateway } => {
            let name = snapshot.link_at(*link).map_or("?", |link| &link.name);
            match gateway {
                Some(gateway) => format!("via {gateway} dev {name}"),
                None => format!("dev {name}"),
            }
        }
        Answer::Local => "local".to_owned(),
        Answer::Dropped => "blackhole".to_owned(),
        Answer::NoRoute => "no route".to_owned(),
    }
}

/// The firewall has no look-up: the chains are read back and compared.
fn chains(snapshot: &Snapshot, layout: &Layout) -> Result<u32, InstallError> {
    let mut confirmed = 0;
    for (ipv4, wanted) in [(true, &layout.chain_v4), (false, &layout.chain_v6)] {
        let Some(wanted) = wanted else { continue };
        let chain = snapshot.chain(ipv4);
        if !chain.hooked_first || chain.rules != *wanted {
            return Err(InstallError::Unverified(format!(
                "our firewall chain does not read back as it was set ({} -t mangle): it has {} \
                 rules, {} were set",
                crate::kernel::firewall::program(ipv4, "save"),
                chain.rules.len(),
                wanted.len()
            )));
        }
        confirmed += count(wanted.len());
    }
    Ok(confirmed)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

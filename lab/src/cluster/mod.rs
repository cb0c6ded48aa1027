//! A cluster behind a director, beside live servers whose traffic is copied to it.
//!
//! ```text
//! client1..N ── switch ── router ── switch ── live (live2, ...), director, rs1..N, assistant, tester
//!   198.18.1.0/24                     198.18.2.0/24, virtual addresses 198.18.2.50 and 2001:db8:2::50
//!   2001:db8:1::/64                   2001:db8:2::/64
//! ```
//! Real servers route to the clients through the router, as they do in production: only what diverts their responses
//! keeps these from the clients. [`Leaks`] counts those that get through, [`HealthChecks`] is the part of a director
//! that takes real servers out.

mod checks;
mod director;
mod ipvs;
mod leaks;
mod nftables;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::link::{Link, Switch};
use crate::stage::{self, ASSISTANT, Addresses, DEVICE, Network, Place, StageOptions};

pub use checks::{Checked, HealthChecks};
pub use director::{Balancer, Director, Forwarding, Scheduler};
pub use leaks::Leaks;

/// Last parts of the addresses, as in [`crate::stage`].
const DIRECTOR: u8 = 40;
const TESTER: u8 = 41;
const VIP: u8 = 50;
const FIRST_REAL: u8 = 101;
/// Real servers that the address plan has room for.
const MOST_LIVE: u8 = 16;
const MOST_REAL: u8 = 60;

/// How large a cluster is.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Client hosts, at least 1.
    pub clients: u8,
    /// Addresses of each client host, at least 1; at most 240 addresses in all.
    pub addresses_per_client: u8,
    /// Live servers, 1 to 16.
    pub live_servers: u8,
    /// Real servers, 1 to 60.
    pub real_servers: u8,
    /// The ports of the service at the virtual addresses and at the real servers.
    pub ports: Vec<u16>,
    /// What the director is made of.
    pub balancer: Balancer,
    /// How the director forwards.
    pub forwarding: Forwarding,
    /// How it picks a real server.
    pub scheduler: Scheduler,
}

impl ClusterOptions {
    /// One client host with eight addresses, two live servers and three real servers; direct routing, in turn.
    #[must_use]
    pub fn new(ports: &[u16]) -> Self {
        Self {
            clients: 1,
            addresses_per_client: 8,
            live_servers: 2,
            real_servers: 3,
            ports: ports.to_vec(),
            balancer: Balancer::Nftables,
            forwarding: Forwarding::DirectRouting,
            scheduler: Scheduler::RoundRobin,
        }
    }
}

/// The layout. Everything in it goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Where the clients are.
    pub clients: Vec<Place>,
    /// Connects and forwards between the two networks; its address here is the servers' side.
    pub router: Place,
    /// The live servers.
    pub live: Vec<Place>,
    /// The balancer.
    pub director: Director,
    /// The servers behind it: `rs1` is the first.
    pub real_servers: Vec<Place>,
    /// A host in the servers' segment that forwards nothing.
    pub assistant: Place,
    /// A host whose own connections to the virtual addresses are to be answered (the pass-list).
    pub tester: Place,
    /// Responses that were seen where none may be.
    pub leaks: Leaks,
    options: ClusterOptions,
    _router_client_link: Link,
    /// The lab in which all this is. Declared last: cables are let go before it.
    pub lab: Lab,
}

impl Cluster {
    /// Builds it, with all real servers behind the director, which is to be started: [`Director::start`].
    ///
    /// # Errors
    /// When the options do not fit the address plan or the kernel refuses a part.
    pub fn new(options: ClusterOptions) -> Result<Self> {
        let addresses = u16::from(options.clients) * u16::from(options.addresses_per_client);
        if !(1..=240).contains(&addresses)
            || !(1..=MOST_LIVE).contains(&options.live_servers)
            || !(1..=MOST_REAL).contains(&options.real_servers)
            || options.ports.is_empty()
        {
            return Err(Error::Unsupported(format!(
                "{options:?} does not fit: a cluster has a port, 1 to 240 client addresses, 1 to {MOST_LIVE} live servers and \
                 1 to {MOST_REAL} real servers"
            )));
        }
        let lab = Lab::new()?;
        let client_switch = lab.switch("clients")?;
        let server_switch = lab.switch("servers")?;
        let (router, router_client_link) = stage::router(&lab, &client_switch, &server_switch)?;
        let stage = StageOptions {
            clients: options.clients,
            addresses_per_client: options.addresses_per_client,
            live_servers: options.live_servers,
        };
        let clients = stage::clients(&lab, &client_switch, stage)?;
        let live = stage::live_servers(&lab, &server_switch, options.live_servers, router.address)?;
        let real_servers = (0..options.real_servers)
            .map(|number| {
                real_server(
                    &lab,
                    &server_switch,
                    number,
                    options.forwarding,
                    router.address,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let assistant = stage::server(&lab, &server_switch, "assistant", ASSISTANT)?;
        // An IPv6 host without a route answers what is not for it by ICMP errors; one that has a route and does not
        // forward drops it in silence.
        route_default(&assistant.host, router.address)?;
        let tester = stage::server(&lab, &server_switch, "tester", TESTER)?;
        let director = stage::server(&lab, &server_switch, "director", DIRECTOR)?;
        stage::route_clients(&director.host, router.address)?;
        let live_side: Vec<Addresses> = clients
            .iter()
            .flat_map(|client| client.addresses.iter().copied())
            .chain(live.iter().map(|place| place.address))
            .chain([router.address, Network::Clients.address(stage::ROUTER)])
            .chain([director.address, tester.address])
            .collect();
        let leaks = Leaks::watch(
            clients.iter().chain([&router, &director]),
            &live_side,
            vip(),
            &[director.address, tester.address],
        )?;
        let members = real_servers
            .iter()
            .map(|place| Ok((place.address, place.host.mac(DEVICE)?)))
            .collect::<Result<Vec<_>>>()?;
        let director = Director::new(director, vip(), &options, members)?;
        Ok(Self {
            clients,
            router,
            live,
            director,
            real_servers,
            assistant,
            tester,
            leaks,
            options,
            _router_client_link: router_client_link,
            lab,
        })
    }

    /// The virtual addresses.
    #[must_use]
    pub fn vip(&self) -> Addresses {
        vip()
    }

    /// The ports of the service.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.options.ports
    }

    /// How the director forwards.
    #[must_use]
    pub fn forwarding(&self) -> Forwarding {
        self.options.forwarding
    }

    /// The addresses from which a real server's responses come: the virtual ones, or its own behind address
    /// translation.
    #[must_use]
    pub fn response_source(&self, real_server: &Place) -> Addresses {
        match self.options.forwarding {
            Forwarding::DirectRouting => vip(),
            Forwarding::AddressTranslation => real_server.address,
        }
    }

    /// The first client host.
    ///
    /// # Errors
    /// Never for a cluster that was built: it has at least one.
    pub fn client(&self) -> Result<&Place> {
        self.clients
            .first()
            .ok_or_else(|| Error::Unsupported("a cluster without a client".to_owned()))
    }

    /// All hosts, in the order of the figure.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let places = self
            .clients
            .iter()
            .chain([&self.router])
            .chain(&self.live)
            .chain([self.director.place()])
            .chain(&self.real_servers)
            .chain([&self.assistant, &self.tester]);
        places.map(|place| &place.host)
    }
}

fn vip() -> Addresses {
    Network::Servers.address(VIP)
}

/// Gives a host the virtual addresses, of which it must not make connections of its own: RFC 6724, section 5, would
/// choose the IPv6 one for some destinations unless it is deprecated.
fn add_vip(host: &Host, device: &str, vip: Addresses) -> Result<()> {
    host.add_address(device, vip.v4.into(), 32)?;
    host.ip(&[format!(
        "address add {}/128 dev {device} nodad preferred_lft 0",
        vip.v6
    )])
}

fn route_default(host: &Host, router: Addresses) -> Result<()> {
    host.ip(&[
        format!("route add default via {}", router.v4),
        format!("route add default via {}", router.v6),
    ])
}

fn real_server(
    lab: &Lab,
    switch: &Switch,
    number: u8,
    forwarding: Forwarding,
    router: Addresses,
) -> Result<Place> {
    let place = stage::server(
        lab,
        switch,
        &format!("rs{}", number + 1),
        FIRST_REAL + number,
    )?;
    let host = &place.host;
    route_default(host, router)?;
    match forwarding {
        Forwarding::DirectRouting => {
            // The virtual address is taken in, but only the director speaks for it on the wire: LVS-HOWTO, "the ARP
            // problem"; Documentation/networking/ip-sysctl.rst, arp_ignore and arp_announce.
            host.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
            host.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
            host.sysctl(&format!("net/ipv4/conf/{DEVICE}/arp_ignore"), "1")?;
            host.sysctl(&format!("net/ipv4/conf/{DEVICE}/arp_announce"), "2")?;
            add_vip(host, "lo", vip())?;
        }
        Forwarding::AddressTranslation => {}
    }
    Ok(place)
}

//! The standard layout that the demo and the tests play on.
//!
//! ```text
//! client1..N ── switch ── router ── switch ── live (live2, live3), target, assistant
//!   198.18.1.0/24                     198.18.2.0/24
//!   2001:db8:1::/64                   2001:db8:2::/64
//! ```
//! The target's routes to the clients lead to the assistant, which forwards nothing: TCPCopy's usual set-up, in
//! which copied connections are answered to where the interceptor listens and no client ever sees those answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::link::{Link, Switch};

/// The device with which every host of a stage is plugged in (the router's second is `eth1`).
pub const DEVICE: &str = "eth0";
/// Prefix lengths of all networks of a stage.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;
/// Last part of the addresses: IPv4's last byte and IPv6's last group.
pub(crate) const ROUTER: u8 = 1;
const LIVE: u8 = 10;
const TARGET: u8 = 20;
pub(crate) const ASSISTANT: u8 = 30;
const FIRST_CLIENT: u8 = 10;

/// One of the two networks of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Where the clients are: 198.18.1.0/24 and 2001:db8:1::/64.
    Clients,
    /// Where the servers are: 198.18.2.0/24 and 2001:db8:2::/64.
    Servers,
}

impl Network {
    /// The pair of addresses with this last part.
    #[must_use]
    pub fn address(self, last: u8) -> Addresses {
        let number = match self {
            Self::Clients => 1,
            Self::Servers => 2,
        };
        // The IPv6 group is written with the same digits as the IPv4 byte: .20 and ::20.
        let group = u16::from_str_radix(&last.to_string(), 16).unwrap_or_default();
        Addresses {
            v4: Ipv4Addr::new(198, 18, number, last),
            v6: Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, group),
        }
    }

    /// The network itself, as routes name it: IPv4, IPv6.
    #[must_use]
    pub fn prefixes(self) -> (String, String) {
        let zero = self.address(0);
        (
            format!("{}/{PREFIX_V4}", zero.v4),
            format!("{}/{PREFIX_V6}", zero.v6),
        )
    }
}

/// The addresses of one host in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Addresses {
    fn with_prefixes(self) -> [(IpAddr, u8); 2] {
        [(self.v4.into(), PREFIX_V4), (self.v6.into(), PREFIX_V6)]
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// How large the stage is.
#[derive(Clone, Copy, Debug)]
pub struct StageOptions {
    /// Client hosts, at least 1.
    pub clients: u8,
    /// Addresses of each client host, at least 1; at most 240 addresses in all.
    pub addresses_per_client: u8,
    /// Live servers, 1 to 9: `live`, `live2`, `live3`, ...
    pub live_servers: u8,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            clients: 1,
            addresses_per_client: 4,
            live_servers: 1,
        }
    }
}

/// A host of a stage with its cable and addresses.
#[derive(Debug)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// Its cable; [`Link::set_faults`] makes it bad.
    pub link: Link,
    /// Its (first) addresses.
    pub address: Addresses,
    /// All of its addresses, that first one included.
    pub addresses: Vec<Addresses>,
}

/// The standard layout. Everything in it goes when it is dropped.
#[derive(Debug)]
pub struct Stage {
    /// Where the clients are.
    pub clients: Vec<Place>,
    /// Connects and forwards between the two networks; its address here is the servers' side.
    pub router: Place,
    /// The live servers: `live` is the first.
    pub live: Vec<Place>,
    /// Where the copied traffic goes to.
    pub target: Place,
    /// Where the target's answers to clients go to, and end.
    pub assistant: Place,
    /// The clients' side of the router.
    pub router_client_link: Link,
    /// The lab in which all this is. Declared last: cables are let go before it.
    pub lab: Lab,
}

impl Stage {
    /// Builds it.
    ///
    /// # Errors
    /// When the options do not fit the address plan or the kernel refuses a part.
    pub fn new(options: StageOptions) -> Result<Self> {
        let addresses = u16::from(options.clients) * u16::from(options.addresses_per_client);
        if !(1..=240).contains(&addresses) || !(1..=9).contains(&options.live_servers) {
            return Err(Error::Unsupported(format!(
                "{options:?} does not fit: a stage has 1 to 240 client addresses and 1 to 9 live servers"
            )));
        }
        let lab = Lab::new()?;
        let client_switch = lab.switch("clients")?;
        let server_switch = lab.switch("servers")?;
        let (router, router_client_link) = router(&lab, &client_switch, &server_switch)?;
        let clients = clients(&lab, &client_switch, options)?;
        let live = live_servers(&lab, &server_switch, options.live_servers, router.address)?;
        let assistant = server(&lab, &server_switch, "assistant", ASSISTANT)?;
        let target = server(&lab, &server_switch, "target", TARGET)?;
        route_clients(&target.host, assistant.address)?;
        Ok(Self {
            clients,
            router,
            live,
            target,
            assistant,
            router_client_link,
            lab,
        })
    }

    /// The first live server.
    ///
    /// # Errors
    /// Never for a stage that was built: it has at least one.
    pub fn live(&self) -> Result<&Place> {
        self.live
            .first()
            .ok_or_else(|| Error::Unsupported("a stage without a live server".to_owned()))
    }

    /// The first client host.
    ///
    /// # Errors
    /// Never for a stage that was built: it has at least one.
    pub fn client(&self) -> Result<&Place> {
        self.clients
            .first()
            .ok_or_else(|| Error::Unsupported("a stage without a client".to_owned()))
    }

    /// All hosts, in the order of the figure.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let servers = [&self.target, &self.assistant];
        let places = self
            .clients
            .iter()
            .chain([&self.router])
            .chain(&self.live)
            .chain(servers);
        places.map(|place| &place.host)
    }
}

pub(crate) fn router(lab: &Lab, clients: &Switch, servers: &Switch) -> Result<(Place, Link)> {
    let host = lab.host("router")?;
    let address = Network::Servers.address(ROUTER);
    let link = servers.attach(&host, DEVICE, &address.with_prefixes())?;
    let client_side = Network::Clients.address(ROUTER).with_prefixes();
    let client_link = clients.attach(&host, "eth1", &client_side)?;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    Ok((
        Place {
            host,
            link,
            address,
            addresses: vec![address],
        },
        client_link,
    ))
}

pub(crate) fn clients(lab: &Lab, switch: &Switch, options: StageOptions) -> Result<Vec<Place>> {
    let mut last = FIRST_CLIENT;
    let mut clients = Vec::new();
    for number in 1..=options.clients {
        let host = lab.host(&format!("client{number}"))?;
        let addresses: Vec<Addresses> = (last..)
            .take(options.addresses_per_client.into())
            .map(|last| Network::Clients.address(last))
            .collect();
        last = last.saturating_add(options.addresses_per_client);
        let plugged: Vec<_> = addresses
            .iter()
            .flat_map(|pair| pair.with_prefixes())
            .collect();
        let link = switch.attach(&host, DEVICE, &plugged)?;
        route(&host, Network::Servers, Network::Clients.address(ROUTER))?;
        let Some(address) = addresses.first().copied() else {
            continue;
        };
        clients.push(Place {
            host,
            link,
            address,
            addresses,
        });
    }
    Ok(clients)
}

pub(crate) fn live_servers(
    lab: &Lab,
    switch: &Switch,
    count: u8,
    router: Addresses,
) -> Result<Vec<Place>> {
    (0..count)
        .map(|number| {
            let name = if number == 0 {
                "live".to_owned()
            } else {
                format!("live{}", number + 1)
            };
            let place = server(lab, switch, &name, LIVE + number)?;
            route_clients(&place.host, router)?;
            Ok(place)
        })
        .collect()
}

pub(crate) fn server(lab: &Lab, switch: &Switch, name: &str, last: u8) -> Result<Place> {
    let host = lab.host(name)?;
    let address = Network::Servers.address(last);
    let link = switch.attach(&host, DEVICE, &address.with_prefixes())?;
    Ok(Place {
        host,
        link,
        address,
        addresses: vec![address],
    })
}

pub(crate) fn route_clients(host: &Host, via: Addresses) -> Result<()> {
    route(host, Network::Clients, via)
}

fn route(host: &Host, to: Network, via: Addresses) -> Result<()> {
    let (v4, v6) = to.prefixes();
    host.ip(&[
        format!("route add {v4} via {}", via.v4),
        format!("route add {v6} via {}", via.v6),
    ])
}

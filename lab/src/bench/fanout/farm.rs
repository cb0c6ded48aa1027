//! A cluster with many interceptors in few namespaces: each real server diverts its responses into several sinks, by
//! the client's port, and each sink has an interceptor of its own.

use std::net::Ipv4Addr;

use millrace_lab::apps::Nginx;
use millrace_lab::cluster::{Cluster, ClusterOptions};
use millrace_lab::{Error, Host, Place, Process, Result, binary};

use super::PATIENCE;
use crate::demo::{end, ready_at};

/// The service.
pub(super) const PORT: u16 = 80;
/// Real servers at most: each is a namespace with an nginx.
const REAL_SERVERS: usize = 10;
/// The first of a real server's interceptors listens here, the next ones behind it.
const FIRST_PORT: u16 = 36_524;
/// Their admin ports, likewise.
const FIRST_ADMIN: u16 = 9200;
/// The first routing table, likewise.
const FIRST_TABLE: u32 = 4000;

/// A policy rule's range of ports ends before 65535 (fib_rules.h, fib_rule_port_range_valid). No client of the lab has
/// that one: net.ipv4.ip_local_port_range would have to give it, which is left to chance once in 64,000 sessions.
const LAST_PORT: u16 = 65_534;

/// The cluster and what runs on it.
#[derive(Debug)]
pub(super) struct Farm {
    interceptors: Vec<(String, Process)>,
    _servers: Vec<Nginx>,
    cluster: Cluster,
}

impl Farm {
    /// With so many interceptors: one, or a multiple of the number of real servers.
    pub(super) fn new(interceptors: usize) -> Result<Self> {
        let real_servers = interceptors.clamp(1, REAL_SERVERS);
        let each = interceptors / real_servers;
        let mut options = ClusterOptions::new(&[PORT]);
        options.live_servers = 1;
        options.addresses_per_client = 32;
        options.real_servers = u8::try_from(real_servers).unwrap_or(u8::MAX);
        let mut cluster = Cluster::new(options)?;
        // What happens to a sent packet beyond the device is not in the sender's time.
        for live in &cluster.live {
            live.link.receive_in_thread()?;
        }
        let hosts = cluster.real_servers.iter().chain(&cluster.live);
        let servers = hosts
            .map(|place| Nginx::start(&place.host, PORT))
            .collect::<Result<Vec<_>>>()?;
        let mut interceptors = Vec::new();
        for place in &cluster.real_servers {
            for number in 0..u16::try_from(each).unwrap_or(u16::MAX) {
                divert(place, cluster.vip().v4, number, each)?;
                let address = format!("{}:{}", place.address.v4, FIRST_PORT + number);
                interceptors.push((address, interceptor(&place.host, number)?));
            }
        }
        cluster.director.start()?;
        Ok(Self {
            interceptors,
            _servers: servers,
            cluster,
        })
    }

    /// Ends the interceptors as an operator would, and all else after them.
    pub(super) fn end(mut self) -> Result<()> {
        let mut interceptors = self.interceptors.iter_mut();
        interceptors.try_for_each(|(_, interceptor)| end(interceptor, PATIENCE))
    }

    pub(super) fn interceptors(&self) -> usize {
        self.interceptors.len()
    }

    /// All interceptors, as `-s` names them.
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<&str> = self
            .interceptors
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        addresses.join(",")
    }

    pub(super) fn vip(&self) -> Ipv4Addr {
        self.cluster.vip().v4
    }

    pub(super) fn client(&self) -> Result<&Place> {
        self.cluster.client()
    }

    pub(super) fn live(&self) -> Result<&Place> {
        self.cluster
            .live
            .first()
            .ok_or_else(|| Error::Unsupported("a cluster without a live server".to_owned()))
    }
}

/// Share `number` of `shares` of the client's ports goes into a sink of its own.
fn divert(place: &Place, vip: Ipv4Addr, number: u16, shares: usize) -> Result<()> {
    let device = format!("sink{number}");
    let table = FIRST_TABLE + u32::from(number);
    let width = LAST_PORT / u16::try_from(shares).unwrap_or(u16::MAX).max(1);
    let first = number * width + 1;
    let last = if usize::from(number) + 1 == shares {
        LAST_PORT
    } else {
        first + width - 1
    };
    place.host.ip(&[
        format!("link add {device} type veth peer name {device}p"),
        format!("link set {device} arp off up"),
        format!("link set {device}p arp off up"),
        format!("route add default dev {device} table {table}"),
        format!(
            "rule add pref 1000 from {vip} ipproto tcp sport {PORT} dport {first}-{last} lookup {table}"
        ),
    ])
}

fn interceptor(host: &Host, number: u16) -> Result<Process> {
    let device = format!("sink{number}");
    let port = (FIRST_PORT + number).to_string();
    let admin = ([127, 0, 0, 1], FIRST_ADMIN + number).into();
    let admin_name = format!("{admin}");
    let arguments = [
        "--mode",
        "sink",
        "-i",
        &device,
        "-p",
        &port,
        "-B",
        "2",
        "-b",
        "::",
        "--insecure",
        "--admin",
        &admin_name,
    ];
    let log = host.file(&format!("interceptor-{number}.log"));
    let mut process = host.spawn(binary("millrace-interceptor")?, &arguments, &[], &log)?;
    ready_at(host, &mut process, admin)?;
    Ok(process)
}

//! Where this network namespace listens for TCP connections.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;

use millrace_capture::Device;

use super::table::{FILES, LISTEN, Row};

/// Ports that are named at most.
const NAMED: usize = 8;

/// An address and port that something listens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    ip: IpAddr,
    port: u16,
}

/// All of them, and this host's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listeners {
    all: Vec<Listener>,
    own: Vec<IpAddr>,
}

impl Listeners {
    /// Those of this process's namespace; `None` where they cannot be read.
    pub(crate) fn read() -> Option<Self> {
        let texts: Vec<String> = FILES.iter().filter_map(|file| first_lines(file)).collect();
        if texts.is_empty() {
            return None;
        }
        let devices = Device::list().into_iter();
        Some(Self {
            all: texts.iter().flat_map(|text| parse(text)).collect(),
            own: devices.flat_map(|device| device.addresses).collect(),
        })
    }

    /// What they say of a service of which no packet comes, in words; `None` where it should come.
    pub(crate) fn of(&self, live_ip: Option<IpAddr>, port: u16) -> Option<String> {
        if let Some(live) = live_ip.filter(|live| !self.has(*live)) {
            let own = self.own.iter().filter(|ip| !is_of_the_link(**ip));
            let own: Vec<String> = own.take(NAMED).map(ToString::to_string).collect();
            return Some(format!(
                "{live} is no address of this host, which has {}: only mirrored traffic of another host would come by",
                own.join(", ")
            ));
        }
        let at: Vec<IpAddr> = (self.all.iter().filter(|it| it.port == port))
            .map(|it| it.ip)
            .collect();
        if at.is_empty() {
            return Some(match self.ports().as_slice() {
                [] => format!("nothing on this host listens on port {port}"),
                ports => format!(
                    "nothing on this host listens on port {port}, but on {}",
                    listed(ports)
                ),
            });
        }
        let fits = |ip: &IpAddr| ip.is_unspecified() || live_ip.is_none_or(|live| live == *ip);
        if let Some(live) = live_ip.filter(|_| !at.iter().any(fits)) {
            let other: Vec<String> = at.iter().map(ToString::to_string).collect();
            return Some(format!(
                "port {port} of this host is listened on at {}, not at {live}",
                other.join(", ")
            ));
        }
        let asked_for = live_ip.is_some_and(|live| live.is_loopback());
        (self.is_on_loopback(port) && !asked_for).then(|| {
            format!(
                "what listens on port {port} of this host is bound to its loopback address alone: a proxy in front of \
                 it may be what clients speak to"
            )
        })
    }

    /// Whether this host has an address.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }

    /// Whether what listens on a port is bound to loopback alone.
    pub(crate) fn is_on_loopback(&self, port: u16) -> bool {
        let mut at = self.all.iter().filter(|it| it.port == port).peekable();
        at.peek().is_some() && at.all(|it| it.ip.is_loopback())
    }

    fn ports(&self) -> Vec<u16> {
        let reachable = self.all.iter().filter(|it| !it.ip.is_loopback());
        let mut ports: Vec<u16> = reachable.map(|it| it.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// Loopback and link-local addresses (RFC 4291 2.5.6): no service of others is there.
const fn is_of_the_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn listed(ports: &[u16]) -> String {
    let first: Vec<String> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    match ports.len() > NAMED {
        true => format!("{} and others", first.join(", ")),
        false => first.join(", "),
    }
}

/// The part of such a file that holds listeners: the kernel prints them before all other sockets, of which there may be
/// very many.
fn first_lines(file: &str) -> Option<String> {
    let mut lines = BufReader::new(File::open(file).ok()?).lines();
    let mut text = lines.next()?.ok()?;
    let listens = |line: &String| Row::parse(line).is_some_and(|row| row.state == LISTEN);
    for line in lines.map_while(Result::ok).take_while(listens) {
        text.push('\n');
        text += &line;
    }
    Some(text)
}

fn parse(text: &str) -> Vec<Listener> {
    let rows = text.lines().filter_map(Row::parse);
    rows.filter(|row| row.state == LISTEN)
        .map(|row| Listener {
            ip: row.local.ip(),
            port: row.local.port(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(at: &[(&str, u16)]) -> Listeners {
        let listener = |(ip, port): &(&str, u16)| Listener {
            ip: ip.parse().unwrap(),
            port: *port,
        };
        Listeners {
            all: at.iter().map(listener).collect(),
            own: vec![
                "198.18.2.10".parse().unwrap(),
                "198.18.2.11".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn what_the_kernel_prints_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n   \
                    1: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000\n";
        let v6 = "head\n 0: 0000000000000000FFFF00000100007F:0050 \
                  00000000000000000000000000000000:0000 0A 0\n 1: xyz 0A\n";
        #[cfg(target_endian = "little")]
        {
            assert_eq!(parse(text), listeners(&[("127.0.0.1", 8080)]).all);
            assert_eq!(parse(v6), listeners(&[("127.0.0.1", 80)]).all);
        }
        assert_eq!(parse(""), []);
    }

    #[test]
    fn a_swapped_port_another_address_and_loopback_are_told_apart() {
        let here = listeners(&[("0.0.0.0", 22), ("198.18.2.10", 80), ("127.0.0.1", 8080)]);
        let said = |ip: Option<&str>, port| here.of(ip.map(|ip| ip.parse().unwrap()), port);
        assert_eq!(
            said(None, 81).unwrap(),
            "nothing on this host listens on port 81, but on 22, 80"
        );
        assert!(
            said(Some("198.18.2.11"), 80)
                .unwrap()
                .contains("at 198.18.2.10, not at")
        );
        assert!(said(None, 8080).unwrap().contains("loopback"));
        assert_eq!(said(None, 80), None);
        assert_eq!(said(Some("198.18.2.11"), 22), None);
        let other = said(Some("198.18.77.1"), 80).unwrap();
        assert!(other.starts_with("198.18.77.1 is no address of this host, which has 198.18.2.10"));
        assert!(!Listeners::default().of(None, 5).unwrap().contains("but"));
    }
}

//! The floor: what must not reach a client is dropped at the last places before it leaves this host,
//! whatever rules, routes, marks and firewall rules of others have made of its way.
//!
//! Policy rules alone do not hold everything. A packet that a rule of the mangle table marks is
//! routed a second time, without its protocol and ports, so that no rule of ours takes it. Somebody
//! else's policy rule may come before ours, and a REJECT rule answers a copied packet by an ICMP
//! error, which is no TCP. All of them pass the POSTROUTING hook. There the floor lets pass what goes
//! into the sink or to the assistant, to the pass-list and to this host itself, and drops the rest of
//! what is to be diverted, with ICMP errors that quote it. It does so twice: before source addresses are
//! translated, and after, since answers of a service that is redirected (`iptables -j REDIRECT`) bear its
//! address only then. It counts what it drops: in the ordinary way of things that is nothing.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::host::{HostConfig, Mode};
use crate::kernel::floor::{ERRORS, STOPPED};
use crate::kernel::model::FloorState;
use crate::need::{Selector, Selectors};
use millrace_proto::PASSED_MARK;

/// Before and after source address translation (100), and all that others usually have in this hook.
const PRIORITIES: [(&str, i32); 2] = [("before", -450), ("after", 450)];
/// ICMP messages about a packet (RFC 792).
const ERRORS_V4: &str =
    "{ destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem }";
/// As [`ERRORS_V4`] (RFC 4443).
const ERRORS_V6: &str =
    "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }";

/// The table of nftables that is the floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Name of the table.
    pub table: String,
    /// Digest of all of it. The chains bear it in their names, so that their presence can be asked for;
    /// those of another build of this program may be others.
    pub digest: String,
    /// The rules, one line each; both chains have them.
    pub rules: Vec<String>,
}

/// Name of the table on a host.
pub fn table(host: &HostConfig) -> String {
    format!("millrace_{}", host.table)
}

impl Floor {
    /// The floor under `selectors`; none under none.
    pub fn under(host: &HostConfig, selectors: &Selectors) -> Option<Self> {
        if selectors.is_empty() {
            return None;
        }
        let mut rules = vec![let_pass_devices(host)];
        if host.mode == Mode::Nfqueue {
            // What the interceptor's own pass-list lets through.
            rules.push(format!("meta mark {PASSED_MARK:#x} accept"));
        }
        if host.mode == Mode::Assistant {
            rules.extend(host.assistants.iter().map(|ip| {
                let family = family(*ip);
                format!("rt {family} nexthop {ip} accept")
            }));
        }
        for passed in &host.pass_list {
            rules.push(format!("{} daddr {passed} accept", family(passed.first())));
        }
        for selector in selectors {
            rules.push(stopped(selector));
            rules.push(errors(selector));
        }
        let mut digest = DefaultHasher::new();
        (&rules, PRIORITIES, STOPPED, ERRORS).hash(&mut digest);
        Some(Self {
            table: table(host),
            digest: format!("{:016x}", digest.finish()),
            rules,
        })
    }

    /// The names of its chains.
    fn chains(&self) -> [(String, i32); 2] {
        PRIORITIES.map(|(name, priority)| (format!("{name}_{}", self.digest), priority))
    }

    /// Whether it is what stands: the chains' names tell the rules.
    pub fn stands(&self, now: &FloorState) -> bool {
        let names = self.chains().map(|(name, _)| name);
        now.chains.len() == names.len()
            && names.iter().all(|name| now.chains.contains(name))
            && now.rules == names.len() * self.rules.len()
    }

    /// Input of nft that puts the floor in place, instead of the one that is there, at once.
    pub fn program(&self) -> String {
        let Self { table, rules, .. } = self;
        let mut program = removal(table);
        // Writing to a string cannot fail.
        let _ = write!(
            program,
            "table inet {table} {{\ncounter {STOPPED} {{\n}}\ncounter {ERRORS} {{\n}}\n"
        );
        for (chain, priority) in self.chains() {
            let _ = write!(
                program,
                "chain {chain} {{\ntype filter hook postrouting priority {priority}; policy accept;\n"
            );
            for rule in rules {
                let _ = writeln!(program, "{rule}");
            }
            program += "}\n";
        }
        program + "}\n"
    }
}

/// Input of nft that removes the table, whether it is there or not.
pub fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn let_pass_devices(host: &HostConfig) -> String {
    match host.mode {
        // What goes to an address of this host leaves by lo.
        Mode::Sink => format!("oifname {{ \"lo\", \"{}\" }} accept", host.sink_device),
        Mode::Assistant | Mode::Nfqueue => "oifname \"lo\" accept".to_owned(),
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

/// The TCP packets of a selector.
fn stopped(selector: &Selector) -> String {
    let mut words = vec![match selector.service {
        Some(service) => format!(
            "{} saddr {} tcp sport {}",
            family(service.ip()),
            service.ip(),
            service.port()
        ),
        None => "meta l4proto tcp".to_owned(),
    }];
    words.extend(selector.to.map(|to| to_pool(&to)));
    // What is forwarded for another host is none of this one's.
    words.push("fib saddr type local".to_owned());
    words.push(format!("counter name {STOPPED} drop"));
    words.join(" ")
}

/// ICMP errors about packets that a selector's are the answers to.
fn errors(selector: &Selector) -> String {
    let mut words = vec![if selector.is_ipv4() {
        format!("icmp type {ERRORS_V4}")
    } else {
        format!("icmpv6 type {ERRORS_V6}")
    }];
    words.extend(selector.service.map(quoting));
    words.extend(selector.to.map(|to| to_pool(&to)));
    words.push("fib saddr type local".to_owned());
    words.push(format!("counter name {ERRORS} drop"));
    words.join(" ")
}

fn to_pool(to: &millrace_notation::address::Cidr) -> String {
    format!("{} daddr {to}", family(to.first()))
}

/// Matches the packet that an ICMP error quotes behind its 8 bytes of header: a TCP packet to
/// `service`. Copied packets have no IP options and no extension headers.
fn quoting(service: SocketAddr) -> String {
    let port = service.port();
    match service.ip() {
        IpAddr::V4(ip) => format!(
            "@th,136,8 6 @th,192,32 0x{:08x} @th,240,16 {port}",
            u32::from(ip)
        ),
        IpAddr::V6(ip) => format!(
            "@th,112,8 6 @th,256,128 0x{:032x} @th,400,16 {port}",
            u128::from(ip)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(service: &str) -> Selector {
        Selector {
            service: Some(service.parse().unwrap()),
            to: None,
        }
    }

    #[test]
    fn an_error_is_known_by_the_packet_that_it_quotes() {
        assert_eq!(
            errors(&selector("198.18.5.1:8080")),
            "icmp type { destination-unreachable, source-quench, redirect, time-exceeded, \
             parameter-problem } @th,136,8 6 @th,192,32 0xc6120501 @th,240,16 8080 fib saddr type \
             local counter name errors drop"
        );
        let v6 = errors(&selector("[2001:db8:5::1]:80"));
        assert!(
            v6.contains("@th,256,128 0x20010db8000500000000000000000001 @th,400,16 80"),
            "{v6}"
        );
    }

    #[test]
    fn a_pool_narrows_what_is_stopped() {
        let mut narrow = selector("198.18.5.1:80");
        narrow.to = Some("198.18.8.0/24".parse().unwrap());
        assert_eq!(
            stopped(&narrow),
            "ip saddr 198.18.5.1 tcp sport 80 ip daddr 198.18.8.0/24 fib saddr type local counter name \
             stopped drop"
        );
        let pool = Selector {
            service: None,
            ..narrow
        };
        assert_eq!(
            stopped(&pool),
            "meta l4proto tcp ip daddr 198.18.8.0/24 fib saddr type local counter name stopped drop"
        );
    }
}

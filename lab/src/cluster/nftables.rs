//! The director's rules. A connection is known by client address and port, as IPVS knows it: its first SYN picks a
//! real server, a map remembers which.
//!
//! A packet that is under way while rules are replaced goes on in the old rules, whose maps are already empty for it: a
//! rule that looks into one does not match. So each chain ends with a drop. What left it at its end would come to the
//! director's own TCP, which answers clients by resets.

use std::fmt::Write as _;

use super::director::{Forwarding, Member, Scheduler, Service};
use crate::error::{Doing, Error, Result};
use crate::host::Host;
use crate::stage::DEVICE;

/// How long a connection is remembered after its last packet.
const REMEMBERED: &str = "5m";
/// The hash's own seed: without one it would be another in each run.
const SEED: &str = "0x5eed";

/// The rules on a host.
#[derive(Debug)]
pub(super) struct Nftables {
    host: Host,
    ruleset: Ruleset,
}

impl Nftables {
    pub(super) fn start(host: Host, service: Service, members: &[Member]) -> Result<Self> {
        can(service.scheduler)?;
        let mac = host.mac(DEVICE)?;
        let ruleset = Ruleset { service, mac };
        let rules = Self { host, ruleset };
        rules.run(&rules.ruleset.tables())?;
        rules.load(members)?;
        Ok(rules)
    }

    /// Makes these the real servers.
    pub(super) fn load(&self, members: &[Member]) -> Result<()> {
        self.run(&self.ruleset.rules(members))
    }

    pub(super) fn set_scheduler(&mut self, scheduler: Scheduler, members: &[Member]) -> Result<()> {
        can(scheduler)?;
        self.ruleset.service.scheduler = scheduler;
        self.load(members)
    }

    /// One file is one transaction: packets see the old rules or the new ones.
    fn run(&self, rules: &str) -> Result<()> {
        let file = self.host.file("director.nft");
        std::fs::write(&file, rules).doing(|| format!("writing {}", file.display()))?;
        let file = file.display().to_string();
        self.host.check("nft", &["-f", &file]).map(drop)
    }
}

fn can(scheduler: Scheduler) -> Result<()> {
    match scheduler {
        Scheduler::RoundRobin | Scheduler::SourceHash => Ok(()),
        Scheduler::LeastConnections => Err(Error::Unsupported(
            "a director of nftables rules does not count connections".to_owned(),
        )),
    }
}

/// What the rules are made of, apart from the real servers.
#[derive(Clone, Debug)]
struct Ruleset {
    service: Service,
    /// The director's own, which its frames must bear: a switch would else look for the sender at this port.
    mac: String,
}

/// A family's words in nftables.
struct Family {
    name: &'static str,
    /// What tells its clients apart.
    client: &'static str,
    map: &'static str,
    pick: &'static str,
    new: &'static str,
    forward: &'static str,
}

const V4: Family = Family {
    name: "ip",
    client: "ip saddr",
    map: "flows4",
    pick: "pick4",
    new: "new4",
    forward: "forward4",
};
const V6: Family = Family {
    name: "ip6",
    // The last 32 bits of the source address (RFC 8200, section 3): nft 1.0.6 cannot add to a map by all of them.
    client: "@nh,160,32",
    map: "flows6",
    pick: "pick6",
    new: "new6",
    forward: "forward6",
};

impl Ruleset {
    /// Tables, maps and empty chains: loaded once, so that later rules find the connections of earlier ones.
    fn tables(&self) -> String {
        let table = self.table();
        let hook = match self.service.forwarding {
            Forwarding::DirectRouting => format!("ingress device \"{DEVICE}\""),
            // Before connection tracking, which would take a connection without responses for an invalid one.
            Forwarding::AddressTranslation => "prerouting".to_owned(),
        };
        let mut text = format!("table {table} {{\n");
        for family in [V4, V6] {
            let Family {
                client,
                map,
                pick,
                new,
                forward,
                ..
            } = family;
            // Writing to memory cannot fail, here and below.
            let _ = write!(
                text,
                "map {map} {{\n typeof {client} . tcp sport : meta mark\n flags dynamic,timeout\n \
                 timeout {REMEMBERED}\n size 262144\n}}\nchain {pick} {{\n}}\nchain {new} {{\n}}\nchain {forward} {{\n}}\n"
            );
        }
        let _ = write!(
            text,
            "chain in {{\n type filter hook {hook} priority -300;\n"
        );
        let vip = self.service.vip;
        for (family, vip) in [(V4, vip.v4.to_string()), (V6, vip.v6.to_string())] {
            for port in &self.service.ports {
                let (name, pick) = (family.name, family.pick);
                let _ = writeln!(text, " {name} daddr {vip} tcp dport {port} goto {pick}");
            }
        }
        text += "}\n}\n";
        text
    }

    /// The rules for these real servers, in place of all earlier ones.
    fn rules(&self, members: &[Member]) -> String {
        let table = self.table();
        let mut text = String::new();
        let chains = [V4, V6].map(|family| [family.pick, family.new, family.forward]);
        for chain in chains.into_iter().flatten() {
            let _ = writeln!(text, "flush chain {table} {chain}");
        }
        let leaving: Vec<String> = members
            .iter()
            .enumerate()
            .filter(|(_, member)| !member.active)
            .map(|(number, _)| number.to_string())
            .collect();
        for family in [V4, V6] {
            let (name, map) = (family.name, family.map);
            let (pick, new, forward) = (family.pick, family.new, family.forward);
            let mut rule = |chain: &str, rule: &str| {
                let _ = writeln!(text, "add rule {table} {chain} {rule}");
            };
            let client = format!("{} . tcp sport", family.client);
            let known = format!("meta mark set {client} map @{map}");
            let remember = format!("update @{map} {{ {client} : meta mark }}");
            // An update keeps what a key stands for and only makes it last.
            let forget = format!("delete @{map} {{ {client} : meta mark }}");
            let opens = "tcp flags & (syn | ack | rst)";
            if !leaving.is_empty() {
                // A port that is used again is a new connection (IPVS: conn_reuse_mode).
                let leaving = leaving.join(", ");
                rule(
                    pick,
                    &format!(
                        "{opens} == syn {known} meta mark {{ {leaving} }} {forget} goto {new}"
                    ),
                );
            }
            rule(pick, &format!("{known} {remember} goto {forward}"));
            rule(pick, &format!("{opens} == syn goto {new}"));
            let choose = format!("meta mark set {}", self.choice(name, members));
            // One rule: without a choice nothing is remembered.
            rule(new, &format!("{choose} {remember} goto {forward}"));
            rule(forward, &self.send(name, members));
            for chain in [pick, new, forward] {
                rule(chain, "drop");
            }
        }
        text
    }

    fn table(&self) -> &'static str {
        match self.service.forwarding {
            Forwarding::DirectRouting => "netdev director",
            Forwarding::AddressTranslation => "inet director",
        }
    }

    /// The number of the real server of a new connection.
    fn choice(&self, family: &str, members: &[Member]) -> String {
        let active = members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.active)
            .enumerate()
            .map(|(slot, (number, _))| format!("{slot} : {number}"));
        let slots: Vec<String> = active.collect();
        let (count, slots) = (slots.len(), slots.join(", "));
        match self.service.scheduler {
            Scheduler::RoundRobin => format!("numgen inc mod {count} map {{ {slots} }}"),
            Scheduler::SourceHash | Scheduler::LeastConnections => {
                format!("jhash {family} saddr mod {count} seed {SEED} map {{ {slots} }}")
            }
        }
    }

    fn send(&self, family: &str, members: &[Member]) -> String {
        let map = |value: &dyn Fn(&Member) -> String| {
            let entries: Vec<String> = members
                .iter()
                .enumerate()
                .map(|(number, member)| format!("{number} : {}", value(member)))
                .collect();
            entries.join(", ")
        };
        match self.service.forwarding {
            Forwarding::DirectRouting => format!(
                "ether saddr set {} ether daddr set meta mark map {{ {} }} fwd to \"{DEVICE}\"",
                self.mac,
                map(&|member| member.mac.clone())
            ),
            Forwarding::AddressTranslation => format!(
                "{family} daddr set meta mark map {{ {} }} accept",
                map(&|member| match family {
                    "ip6" => member.address.v6.to_string(),
                    _ => member.address.v4.to_string(),
                })
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Network;

    fn ruleset(forwarding: Forwarding, scheduler: Scheduler) -> Ruleset {
        let service = Service {
            vip: Network::Servers.address(50),
            ports: vec![80, 8080],
            forwarding,
            scheduler,
        };
        Ruleset {
            service,
            mac: "02:00:00:00:00:01".to_owned(),
        }
    }

    fn members(active: &[bool]) -> Vec<Member> {
        (101..)
            .zip(active)
            .map(|(last, active)| Member {
                address: Network::Servers.address(last),
                mac: format!("02:00:00:00:01:{:02x}", last),
                active: *active,
            })
            .collect()
    }

    #[test]
    fn a_real_server_that_leaves_gets_nothing_new_and_keeps_what_it_has() {
        let rules = ruleset(Forwarding::DirectRouting, Scheduler::RoundRobin)
            .rules(&members(&[true, false, true]));
        assert!(
            rules.contains("numgen inc mod 2 map { 0 : 0, 1 : 2 }"),
            "{rules}"
        );
        assert!(rules.contains("1 : 02:00:00:00:01:66"), "{rules}");
        let forgets =
            "meta mark { 1 } delete @flows6 { @nh,160,32 . tcp sport : meta mark } goto new6";
        assert!(rules.contains(forgets), "{rules}");
    }

    #[test]
    fn no_chain_lets_a_packet_go_on_to_the_directors_own_tcp() {
        for forwarding in [Forwarding::DirectRouting, Forwarding::AddressTranslation] {
            let rules = ruleset(forwarding, Scheduler::RoundRobin).rules(&members(&[true, false]));
            let chains = [V4, V6].map(|it| [it.pick, it.new, it.forward]);
            for chain in chains.into_iter().flatten() {
                let mine = format!(" {chain} ");
                let last = rules.lines().rfind(|line| line.contains(&mine)).unwrap();
                assert!(last.ends_with(&format!("{mine}drop")), "{last}");
            }
        }
    }

    #[test]
    fn address_translation_changes_the_address_of_each_family() {
        let rules =
            ruleset(Forwarding::AddressTranslation, Scheduler::SourceHash).rules(&members(&[true]));
        assert!(
            rules.contains("ip daddr set meta mark map { 0 : 198.18.2.101 } accept"),
            "{rules}"
        );
        assert!(
            rules.contains("ip6 daddr set meta mark map { 0 : 2001:db8:2::101 } accept"),
            "{rules}"
        );
        assert!(rules.contains("jhash ip6 saddr mod 1 seed"), "{rules}");
    }
}

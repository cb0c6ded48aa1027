//! Counts what the cluster lets out to where nothing of it may come, at the devices themselves: the kernel's netdev
//! hook sees every frame before anything can have dropped it. It assumes nothing of what a leak looks like.

use crate::error::{Error, Result};
use crate::host::Host;
use crate::stage::{Addresses, DEVICE, Place};

/// The table with the counter on each host that is watched.
const TABLE: &str = "leaks";
/// Sets with the ends of the first segments that got out: family, type of its addresses, name, what is in it. Flags
/// would be one part more, which nft 1.0.6 cannot list.
const SEGMENTS: [(&str, &str, &str, &str); 4] = [
    ("ip", "ipv4_addr", "resets4", "tcp flags & rst == rst"),
    ("ip", "ipv4_addr", "segments4", "tcp flags & rst == 0"),
    ("ip6", "ipv6_addr", "resets6", "tcp flags & rst == rst"),
    ("ip6", "ipv6_addr", "segments6", "tcp flags & rst == 0"),
];

/// The hosts that are watched. Counting starts when the cluster is built and never stops.
#[derive(Debug)]
pub struct Leaks {
    hosts: Vec<Host>,
}

impl Leaks {
    /// Counts, whatever the protocol, what comes from anybody but `live`: the live service, clients and whoever
    /// forwards. Copies on their way to `vip` are none, nor is what is meant for `testers`: they are to get their
    /// answers. An ICMP error is one whoever sends it: a live host that sends one about a copied packet disturbs a
    /// client, too.
    pub(super) fn watch<'a>(
        places: impl Iterator<Item = &'a Place>,
        live: &[Addresses],
        vip: Addresses,
        testers: &[Addresses],
    ) -> Result<Self> {
        let answered = [&[vip], testers].concat();
        let list = |addresses: &[Addresses], of: &dyn Fn(&Addresses) -> String| {
            let words: Vec<String> = addresses.iter().map(of).collect();
            words.join(", ")
        };
        let mut rules = " meta pkttype != host accept\n icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, \
                         nd-router-solicit, nd-router-advert, nd-redirect } accept\n"
            .to_owned();
        let mut sets = String::new();
        for (_, kind, set, _) in SEGMENTS {
            sets += &format!(
                "set {set} {{\n type {kind} . inet_service . {kind} . inet_service\n size 64\n flags dynamic\n}}\n"
            );
        }
        for (family, errors, of) in [
            (
                "ip",
                "icmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem }",
                &(|a: &Addresses| a.v4.to_string()) as &dyn Fn(&Addresses) -> String,
            ),
            (
                "ip6",
                "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
                &|a| a.v6.to_string(),
            ),
        ] {
            let leak = format!(
                "{family} daddr != {{ {} }} {family} saddr != {{ {} }}",
                list(&answered, of),
                list(live, of),
            );
            rules += &format!(" {errors} counter name leaks\n {leak} counter name leaks\n");
            for (_, _, set, which) in SEGMENTS.iter().filter(|(of, ..)| *of == family) {
                rules += &format!(
                    " {leak} {which} add @{set} {{ {family} saddr . tcp sport . {family} daddr . tcp dport }}\n"
                );
            }
        }
        let table = format!(
            "table netdev {TABLE} {{\ncounter leaks {{\n}}\n{sets}chain in {{\n type filter hook ingress device \
             \"{DEVICE}\" priority -400;\n{rules}}}\n}}\n"
        );
        let mut hosts = Vec::new();
        for place in places {
            let file = place.host.file("leaks.nft");
            std::fs::write(&file, &table).map_err(|source| Error::Io {
                what: format!("writing {}", file.display()),
                source,
            })?;
            place
                .host
                .check("nft", &["-f", &file.display().to_string()])?;
            hosts.push(place.host.clone());
        }
        Ok(Self { hosts })
    }

    /// Packets seen so far, by host: only hosts that saw any.
    ///
    /// # Errors
    /// When nftables does not say.
    pub fn seen(&self) -> Result<Vec<(String, u64)>> {
        let mut seen = Vec::new();
        for host in &self.hosts {
            let text = host.check("nft", &["-j", "list", "counter", "netdev", TABLE, "leaks"])?;
            let packets = packets(&text).ok_or_else(|| Error::Malformed {
                what: format!("the counter on {}", host.name()),
                detail: text,
            })?;
            if packets > 0 {
                seen.push((host.name().to_owned(), packets));
            }
        }
        Ok(seen)
    }

    /// The first TCP segments of them, each with its host, kind and ends: "client1 resets4: 198.18.2.50 . 80 .
    /// 198.18.1.10 . 4000".
    ///
    /// # Errors
    /// When nftables does not say.
    pub fn segments(&self) -> Result<Vec<String>> {
        let mut segments = Vec::new();
        let leaky: Vec<String> = self.seen()?.into_iter().map(|(name, _)| name).collect();
        for host in self
            .hosts
            .iter()
            .filter(|host| leaky.iter().any(|it| it == host.name()))
        {
            for (_, _, set, _) in SEGMENTS {
                let text = host.check("nft", &["list", "set", "netdev", TABLE, set])?;
                segments.extend(elements(&text).map(|it| format!("{} {set}: {it}", host.name())));
            }
        }
        Ok(segments)
    }
}

/// What a set holds, as nft lists it.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    let list = text
        .split_once("elements = {")
        .and_then(|(_, rest)| rest.split_once('}'));
    list.into_iter()
        .flat_map(|(list, _)| list.split(','))
        .map(str::trim)
}

fn packets(text: &str) -> Option<u64> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    document
        .get("nftables")?
        .as_array()?
        .iter()
        .find_map(|object| object.get("counter")?.get("packets")?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::{elements, packets};

    #[test]
    fn the_counter_is_found_among_the_objects() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "netdev", "name": "leaks", "packets": 7, "bytes": 420}}]}"#;
        assert_eq!(packets(text), Some(7));
        assert_eq!(packets(r#"{"nftables": []}"#), None);
    }

    #[test]
    fn what_got_out_is_read_from_a_set() {
        let text = "table netdev leaks {\n set segments4 {\n  size 64\n  elements = { 198.18.2.50 . 80 . \
                    198.18.1.10 . 4000,\n   198.18.2.50 . 80 . 198.18.1.11 . 4001 }\n }\n}\n";
        let found: Vec<_> = elements(text).collect();
        assert_eq!(
            found,
            [
                "198.18.2.50 . 80 . 198.18.1.10 . 4000",
                "198.18.2.50 . 80 . 198.18.1.11 . 4001"
            ]
        );
        assert_eq!(elements("set segments4 {\n size 64\n}").next(), None);
    }
}

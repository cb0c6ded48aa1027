//! Counts what the cluster lets out to where nothing of it may come, at the devices themselves: the kernel's netdev
//! hook sees every frame before anything can have dropped it. It assumes nothing of what a leak looks like.

use crate::error::{Error, Result};
use crate::host::Host;
use crate::stage::{Addresses, DEVICE, Place};

/// The table with the counter on each host that is watched.
const TABLE: &str = "leaks";

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
            rules += &format!(
                " {errors} counter name leaks\n {family} daddr != {{ {} }} {family} saddr != {{ {} }} counter name leaks\n",
                list(&answered, of),
                list(live, of),
            );
        }
        let table = format!(
            "table netdev {TABLE} {{\ncounter leaks {{\n}}\nchain in {{\n type filter hook ingress device \
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
    use super::packets;

    #[test]
    fn the_counter_is_found_among_the_objects() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "netdev", "name": "leaks", "packets": 7, "bytes": 420}}]}"#;
        assert_eq!(packets(text), Some(7));
        assert_eq!(packets(r#"{"nftables": []}"#), None);
    }
}

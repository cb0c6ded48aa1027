//! Counts responses of the cluster where there may be none, at the devices themselves: the kernel's netdev hook sees
//! every frame before anything can have dropped it.

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
    /// Counts what comes from the service, except what is meant for `testers`: they are to get their answers.
    pub(super) fn watch<'a>(
        places: impl Iterator<Item = &'a Place>,
        sources: &[Addresses],
        ports: &[u16],
        testers: &[Addresses],
    ) -> Result<Self> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let list = |addresses: &[Addresses], of: &dyn Fn(&Addresses) -> String| {
            let words: Vec<String> = addresses.iter().map(of).collect();
            words.join(", ")
        };
        let mut rules = String::new();
        for (family, of) in [
            (
                "ip",
                &(|a: &Addresses| a.v4.to_string()) as &dyn Fn(&Addresses) -> String,
            ),
            ("ip6", &|a| a.v6.to_string()),
        ] {
            rules += &format!(
                " {family} saddr {{ {} }} {family} daddr != {{ {} }} tcp sport {{ {ports} }} counter name responses\n",
                list(sources, of),
                list(testers, of),
            );
        }
        let table = format!(
            "table netdev {TABLE} {{\ncounter responses {{\n}}\nchain in {{\n type filter hook ingress device \
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
            let text = host.check(
                "nft",
                &["-j", "list", "counter", "netdev", TABLE, "responses"],
            )?;
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
            {"counter": {"family": "netdev", "name": "responses", "packets": 7, "bytes": 420}}]}"#;
        assert_eq!(packets(text), Some(7));
        assert_eq!(packets(r#"{"nftables": []}"#), None);
    }
}

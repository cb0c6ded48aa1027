//! Counts packets that reach a host, with nftables at its device: before anything can have dropped them.

use millrace_lab::{DEVICE, Host};

/// A counter on a host.
pub struct PacketCounter(Host);

impl PacketCounter {
    /// Counts from now on what comes in at the host's device and matches, in the words of nftables.
    pub fn start(host: &Host, matches: &str) -> Self {
        let rules = format!(
            "table netdev counted {{\ncounter seen {{\n}}\nchain in {{\ntype filter hook ingress device \"{DEVICE}\" \
             priority 0;\n{matches} counter name seen\n}}\n}}\n"
        );
        let file = host.file("counted.nft");
        std::fs::write(&file, rules).unwrap();
        host.check("nft", &["-f", &file.display().to_string()])
            .unwrap();
        Self(host.clone())
    }

    /// Packets so far.
    pub fn seen(&self) -> u64 {
        counted(&self.0, &["netdev", "counted", "seen"])
    }
}

/// The packets that a counter of nftables has seen, by family, table and name.
pub fn counted(host: &Host, counter: &[&str; 3]) -> u64 {
    let list = [&["list", "counter"], &counter[..]].concat();
    let text = host.check("nft", &list).unwrap();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

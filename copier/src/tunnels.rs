//! Which tunnels are looked into. On a live host a tunnel may be a stranger's: none there, unless they are named.

use millrace_wire::{Tunnel, Tunnels};

/// Tunnels in recordings, and in what mirrors and clouds deliver to devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct TunnelOptions {
    /// Look into these tunnels: vxlan, geneve, gre, erspan, ipip, gue, gtp-u, mpls, pppoe, separated by
    /// commas; all, or none. By default into all of a recording, and into none on devices.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = kinds)]
    pub tunnels: Vec<Kinds>,

    /// UDP ports of VXLAN, in place of 4789 and 8472. On devices VXLAN is looked into with this alone.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub vxlan_ports: Vec<u16>,
}

/// One word of `--tunnels`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(Vec<Tunnel>);

impl TunnelOptions {
    /// What is looked into in a recording.
    pub fn of_recording(&self) -> Tunnels {
        self.chosen_or(Tunnel::ALL.to_vec())
    }

    /// What is looked into in packets that devices deliver.
    pub fn on_devices(&self) -> Tunnels {
        let vxlan = (!self.vxlan_ports.is_empty()).then_some(Tunnel::Vxlan);
        self.chosen_or(vxlan.into_iter().collect())
    }

    /// Whether a kind is named by itself, and not by `all`.
    pub fn names(&self, kind: Tunnel) -> bool {
        self.tunnels.iter().any(|word| word.0 == [kind])
    }

    /// What the options name, or else these kinds.
    fn chosen_or(&self, kinds: Vec<Tunnel>) -> Tunnels {
        let mut chosen = Tunnels {
            kinds,
            ..Tunnels::all()
        };
        if !self.tunnels.is_empty() {
            chosen.kinds = self.tunnels.iter().flat_map(|it| it.0.clone()).collect();
        }
        if !self.vxlan_ports.is_empty() {
            chosen.vxlan_ports.clone_from(&self.vxlan_ports);
        }
        chosen
    }
}

fn kinds(word: &str) -> Result<Kinds, String> {
    match word {
        "all" => Ok(Kinds(Tunnel::ALL.to_vec())),
        "none" => Ok(Kinds(Vec::new())),
        name => {
            let found = Tunnel::ALL.into_iter().find(|kind| kind.name() == name);
            found.map(|kind| Kinds(vec![kind])).ok_or_else(|| {
                let known = Tunnel::ALL.map(Tunnel::name).join(", ");
                format!("no such tunnel; known are {known}, all and none")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tunnels: TunnelOptions,
    }

    fn options(line: &str) -> TunnelOptions {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().tunnels
    }

    #[test]
    fn all_of_a_recording_and_none_of_devices_are_followed_unless_some_are_named() {
        assert_eq!(options("").of_recording(), Tunnels::all());
        assert_eq!(options("").on_devices().kinds, []);
        for line in ["--tunnels all", "--tunnels none", "--tunnels gre,vxlan"] {
            let options = options(line);
            assert_eq!(options.of_recording(), options.on_devices());
        }
        assert_eq!(options("--tunnels all").on_devices(), Tunnels::all());
        assert_eq!(options("--tunnels none").of_recording().kinds, []);
        let some = options("--tunnels gre,vxlan --vxlan-ports 4790,9999").of_recording();
        assert_eq!(some.kinds, [Tunnel::Gre, Tunnel::Vxlan]);
        assert_eq!(some.vxlan_ports, [4790, 9999]);
        let ports = options("--vxlan-ports 4790").on_devices();
        assert_eq!(
            (ports.kinds, ports.vxlan_ports),
            (vec![Tunnel::Vxlan], vec![4790])
        );
        assert!(Line::try_parse_from(["x", "--tunnels", "ipsec"]).is_err());
    }
}

//! Which tunnels are looked into: of recordings only. On a live host a tunnel is a stranger's.

use millrace_wire::{Tunnel, Tunnels};

/// Tunnels in recordings.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct TunnelOptions {
    /// Look into these tunnels of a recording: vxlan, geneve, gre, erspan, ipip, gue, gtp-u, mpls,
    /// pppoe, separated by commas; all (the default), or none.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = kinds)]
    pub tunnels: Vec<Kinds>,

    /// UDP ports of VXLAN, in place of 4789 and 8472.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub vxlan_ports: Vec<u16>,
}

/// One word of `--tunnels`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(Vec<Tunnel>);

impl TunnelOptions {
    /// What they name.
    pub fn chosen(&self) -> Tunnels {
        let mut chosen = Tunnels::all();
        if !self.tunnels.is_empty() {
            chosen.kinds = self.tunnels.iter().flat_map(|it| it.0.clone()).collect();
        }
        if !self.vxlan_ports.is_empty() {
            chosen.vxlan_ports.clone_from(&self.vxlan_ports);
        }
        chosen
    }

    /// The first option that was given, if any.
    pub fn given(&self) -> Option<&'static str> {
        if !self.tunnels.is_empty() {
            return Some("--tunnels");
        }
        (!self.vxlan_ports.is_empty()).then_some("--vxlan-ports")
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

    fn chosen(line: &str) -> Tunnels {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().tunnels.chosen()
    }

    #[test]
    fn all_are_followed_unless_some_are_named() {
        assert_eq!(chosen(""), Tunnels::all());
        assert_eq!(chosen("--tunnels all"), Tunnels::all());
        assert_eq!(chosen("--tunnels none").kinds, []);
        let some = chosen("--tunnels gre,vxlan --vxlan-ports 4790,9999");
        assert_eq!(some.kinds, [Tunnel::Gre, Tunnel::Vxlan]);
        assert_eq!(some.vxlan_ports, [4790, 9999]);
        assert!(Line::try_parse_from(["x", "--tunnels", "ipsec"]).is_err());
    }
}

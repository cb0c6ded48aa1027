//! Our firewall chain, for hosts that divert to a netfilter queue: read by iptables-save, changed
//! by iptables-restore, which puts all lines of one input in place at once or none.
//!
//! The chain stands in the mangle table, whose OUTPUT hook comes before that of the filter table:
//! a rule there that accepts the tested service does not open a way past ours.

use std::io;
use std::process::Stdio;

use super::model::Chain;
use super::tool;

/// Name of our chain.
pub const CHAIN: &str = "MILLRACE";
/// The table it stands in.
pub const TABLE: &str = "mangle";
/// How long to wait for other users of iptables. Seconds.
const LOCK_WAIT: &str = "5";

/// The programs of a family.
pub fn program(ipv4: bool, what: &str) -> String {
    let family = if ipv4 { "iptables" } else { "ip6tables" };
    format!("{family}-{what}")
}

/// Reads the chain; without the programs there is none.
pub(super) fn read(ipv4: bool) -> io::Result<Chain> {
    let output = tool::command(&program(ipv4, "save"))
        .args(["-t", TABLE])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(parse(&String::from_utf8_lossy(&output.stdout)))
        }
        // A kernel without netfilter, or a host without iptables, holds no chain of ours.
        Ok(_) => Ok(Chain::default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Chain::default()),
        Err(error) => Err(error),
    }
}

/// Gives the lines to iptables-restore.
pub(super) fn restore(ipv4: bool, lines: &str) -> io::Result<()> {
    let arguments = ["--noflush", "-w", LOCK_WAIT];
    tool::feed(&program(ipv4, "restore"), &arguments, lines, "iptables")
}

/// Finds our chain in what iptables-save wrote of our table.
fn parse(text: &str) -> Chain {
    let mut chain = Chain::default();
    let mut output_rules = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, ..] if name.strip_prefix(':') == Some(CHAIN) => chain.exists = true,
            ["-A", "OUTPUT", rest @ ..] => {
                output_rules += 1;
                if leads_to_ours(rest) {
                    chain.hooks += 1;
                    chain.hooked_first |= output_rules == 1;
                }
            }
            ["-A", name, rest @ ..] if *name == CHAIN => chain.rules.push(rest.join(" ")),
            _ => {}
        }
    }
    chain.hooked_first &= chain.hooks == 1;
    chain
}

fn leads_to_ours(words: &[&str]) -> bool {
    words.windows(2).any(|pair| pair == ["-j", CHAIN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_and_its_hook_are_found() {
        let text = "*mangle\n:OUTPUT ACCEPT [0:0]\n:MILLRACE - [0:0]\n-A OUTPUT -j MILLRACE\n\
                    -A OUTPUT -j ACCEPT\n-A MILLRACE -d 198.18.2.1/32 -j RETURN\nCOMMIT\n";
        let chain = parse(text);
        assert!(chain.exists && chain.hooked_first);
        assert_eq!(chain.rules, ["-d 198.18.2.1/32 -j RETURN"]);
        let second = parse("*mangle\n-A OUTPUT -j ACCEPT\n-A OUTPUT -j MILLRACE\n");
        assert_eq!((second.hooks, second.hooked_first), (1, false));
        assert_eq!(parse(""), Chain::default());
    }
}

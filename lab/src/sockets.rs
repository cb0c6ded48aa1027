//! What the kernel says about the TCP sockets of the calling thread's namespace.

use std::collections::BTreeSet;

use crate::error::{Doing, Result};

/// `TCP_LISTEN` of the kernel's `enum tcp_state` (include/net/tcp_states.h), as /proc prints it.
const LISTEN: &str = "0A";

/// The ports on which some socket listens, IPv4 or IPv6.
pub(crate) fn listening_ports() -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let file = format!("/proc/thread-self/net/{table}");
        let text = std::fs::read_to_string(&file).doing(|| format!("reading {file}"))?;
        ports.extend(text.lines().filter_map(listening_port));
    }
    Ok(ports)
}

/// The port of a line `N: ADDRESS:PORT REMOTE:PORT STATE ...` (proc_net_tcp.rst), if it is in state LISTEN.
fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let (_, port) = local.rsplit_once(':')?;
    if state == LISTEN {
        u16::from_str_radix(port, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::listening_port;

    #[test]
    fn a_listening_line_gives_its_port_and_others_nothing() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(listening_port(line), Some(8080));
        assert_eq!(listening_port(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st"), None);
        assert_eq!(listening_port(""), None);
    }
}

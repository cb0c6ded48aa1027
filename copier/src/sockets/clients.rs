//! Clients that are connected to services of this host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;

use millrace_notation::address::Mapping;

use super::table::{ESTABLISHED, FILES, Row};

/// Sockets that are looked at in each list: the kernel takes its time over each, and locks a part of its table.
const LOOKED_AT: usize = 50_000;

/// Addresses of clients that are connected now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clients {
    /// How many connections each has.
    pub(crate) connections: BTreeMap<IpAddr, u32>,
    /// Whether there were more sockets than are looked at.
    pub(crate) cut: bool,
}

impl Clients {
    /// Those of these services, in this process's namespace.
    pub(crate) fn read(services: &[Mapping]) -> Self {
        let files = FILES.iter().filter_map(|file| File::open(file).ok());
        let mut cut = false;
        let lines = files.flat_map(|file| {
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take(LOOKED_AT).collect();
            cut |= lines.len() == LOOKED_AT;
            lines
        });
        let connections = Self::of(services, lines);
        Self { connections, cut }
    }

    fn of(services: &[Mapping], lines: impl Iterator<Item = String>) -> BTreeMap<IpAddr, u32> {
        let ours = |row: &Row| {
            let (ip, port) = (row.local.ip(), row.local.port());
            let mut services = services.iter();
            services.any(|it| it.live_port == port && it.live.is_at(&ip))
        };
        let rows = lines.filter_map(|line| Row::parse(&line));
        let mut clients = BTreeMap::new();
        for row in rows.filter(|row| row.state == ESTABLISHED && ours(row)) {
            *clients.entry(row.remote.ip()).or_insert(0) += 1;
        }
        clients
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn open_connections_to_the_services_are_counted_by_client() {
        let row = |local: &str, remote: &str, state: &str| {
            format!("   0: {local} {remote} {state} 00000000:00000000 00:00000000")
        };
        let lines = [
            "  sl  local_address rem_address   st".to_owned(),
            row("0A0212C6:0050", "0A0112C6:C000", "01"),
            row("0A0212C6:0050", "0A0112C6:C001", "01"),
            row("0A0212C6:0050", "0B0112C6:C000", "01"),
            // Another port, another state, another address.
            row("0A0212C6:0051", "0C0112C6:C000", "01"),
            row("0A0212C6:0050", "0C0112C6:C000", "06"),
            row("0B0212C6:0050", "0C0112C6:C000", "01"),
            "no line of such a list".to_owned(),
        ];
        let service: Mapping = "198.18.2.10:80-198.18.2.20:80".parse().unwrap();
        let clients = Clients::of(&[service], lines.into_iter());
        let found: Vec<(String, u32)> = (clients.iter())
            .map(|(ip, count)| (ip.to_string(), *count))
            .collect();
        let wanted = [("198.18.1.10", 2), ("198.18.1.11", 1)];
        assert_eq!(found, wanted.map(|(ip, count)| (ip.to_owned(), count)));
    }
}

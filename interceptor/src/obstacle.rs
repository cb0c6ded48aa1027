//! Why this host does not answer a SYN that came in: what its kernel has counted meanwhile.

use std::collections::HashSet;
use std::net::IpAddr;

use millrace_proto::Obstacle;

/// What the kernel has counted so far in this network namespace (proc(5), /proc/net/netstat).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets that the reverse-path filter dropped.
    reverse_path: u64,
    /// SYNs that found a listener's backlog full.
    backlog: u64,
}

impl Counted {
    /// As it is now; zero where the kernel does not tell.
    pub(crate) fn now() -> Self {
        let text = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
        Self::parse(&text)
    }

    /// The file has two lines for each group: the names, then the values.
    fn parse(text: &str) -> Self {
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let pairs = lines.chunks_exact(2).flat_map(|group| match group {
            [names, values] => names.iter().zip(values).collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut counted = Self::default();
        for (name, value) in pairs {
            let value = || value.parse().unwrap_or(0);
            match *name {
                "IPReversePathFilter" => counted.reverse_path = value(),
                "ListenDrops" => counted.backlog = value(),
                _ => {}
            }
        }
        counted
    }
}

/// What stood in the way of a SYN to `target`, between two counts.
pub(crate) fn of(
    target: IpAddr,
    own: &HashSet<IpAddr>,
    before: Counted,
    after: Counted,
) -> Obstacle {
    if !own.contains(&target) {
        return Obstacle::NoAddress;
    }
    if after.reverse_path > before.reverse_path {
        return Obstacle::ReversePath;
    }
    if after.backlog > before.backlog {
        return Obstacle::Backlog;
    }
    Obstacle::Firewall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read_by_name() {
        let text = "TcpExt: SyncookiesSent ListenDrops IPReversePathFilter TCPMD5NotFound\n\
                    TcpExt: 1 22 333 4\nIpExt: InNoRoutes InOctets\nIpExt: 0 5\n";
        let counted = Counted::parse(text);
        assert_eq!((counted.backlog, counted.reverse_path), (22, 333));
        assert_eq!(Counted::parse("nonsense"), Counted::default());
        // A kernel that runs this test tells.
        assert!(
            std::fs::read_to_string("/proc/self/net/netstat")
                .unwrap()
                .contains("ListenDrops")
        );
    }

    #[test]
    fn the_obstacle_is_the_first_that_is_known() {
        let target: IpAddr = "198.18.5.1".parse().unwrap();
        let own = HashSet::from([target]);
        let zero = Counted::default();
        let grown = |reverse_path, backlog| Counted {
            reverse_path,
            backlog,
        };
        assert_eq!(of(target, &HashSet::new(), zero, zero), Obstacle::NoAddress);
        assert_eq!(of(target, &own, zero, grown(1, 1)), Obstacle::ReversePath);
        assert_eq!(of(target, &own, zero, grown(0, 1)), Obstacle::Backlog);
        assert_eq!(
            of(target, &own, grown(5, 5), grown(5, 5)),
            Obstacle::Firewall
        );
    }
}

//! Why this host does not answer SYNs that came in: what its kernel has counted meanwhile. The counts are of the whole
//! network namespace, so they only count where they have grown by as many as there were SYNs.

use std::collections::HashSet;
use std::net::IpAddr;

use millrace_proto::Obstacle;

/// What the kernel has counted so far in this network namespace (networking/snmp_counter in its documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets that the reverse-path filter dropped.
    reverse_path: u64,
    /// SYNs that found a listener's backlog full.
    backlog: u64,
    /// SYNs that a listener dropped, for whatever reason: also where there is no route back.
    dropped: u64,
}

impl Counted {
    /// As it is now; `None` where the kernel does not tell.
    pub(crate) fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/net/netstat").ok()?;
        Some(Self::parse(&text))
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
            let value = || value.parse::<u64>().unwrap_or(0);
            match *name {
                "IPReversePathFilter" => counted.reverse_path = value(),
                "ListenOverflows" | "TCPReqQFullDrop" => counted.backlog += value(),
                "ListenDrops" => counted.dropped = value(),
                _ => {}
            }
        }
        counted
    }
}

/// What stood in the way of so many SYNs to `target`, between two counts.
pub(crate) fn of(
    target: IpAddr,
    own: &HashSet<IpAddr>,
    syns: u64,
    counts: (Option<Counted>, Option<Counted>),
) -> Obstacle {
    if !own.contains(&target) {
        return Obstacle::NoAddress;
    }
    let (Some(before), Some(after)) = counts else {
        return Obstacle::Unknown;
    };
    let grown = |of: fn(&Counted) -> u64| of(&after).saturating_sub(of(&before)) >= syns.max(1);
    // Linux filters sources of IPv4 alone.
    if target.is_ipv4() && grown(|it| it.reverse_path) {
        Obstacle::ReversePath
    } else if grown(|it| it.backlog) {
        Obstacle::Backlog
    } else if grown(|it| it.dropped) {
        Obstacle::NoRoute
    } else {
        Obstacle::Firewall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops IPReversePathFilter TCPReqQFullDrop\n\
                    TcpExt: 1 22 55 333 4\nIpExt: InNoRoutes InOctets\nIpExt: 0 5\n";
        let counted = Counted::parse(text);
        assert_eq!(
            (counted.backlog, counted.dropped, counted.reverse_path),
            (26, 55, 333)
        );
        assert_eq!(Counted::parse("no counters"), Counted::default());
        assert!(
            Counted::now().is_some(),
            "a kernel that runs this test tells"
        );
    }

    #[test]
    fn the_obstacle_is_the_first_that_has_grown_enough() {
        let target: IpAddr = "198.18.5.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let own = HashSet::from([target, v6]);
        let zero = Some(Counted::default());
        let grown = |reverse_path, backlog, dropped| {
            let after = Counted {
                reverse_path,
                backlog,
                dropped,
            };
            (zero, Some(after))
        };
        assert_eq!(
            of(target, &HashSet::new(), 1, grown(9, 9, 9)),
            Obstacle::NoAddress
        );
        assert_eq!(of(target, &own, 2, grown(2, 2, 2)), Obstacle::ReversePath);
        assert_eq!(of(v6, &own, 2, grown(2, 2, 2)), Obstacle::Backlog);
        assert_eq!(of(target, &own, 2, grown(1, 0, 2)), Obstacle::NoRoute);
        assert_eq!(
            of(target, &own, 2, grown(1, 1, 1)),
            Obstacle::Firewall,
            "of others"
        );
        assert_eq!(of(target, &own, 1, (None, zero)), Obstacle::Unknown);
    }
}

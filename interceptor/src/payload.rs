//! Which packets are captured with their payload: those from the ports of flows that ask for it, for as long as any
//! does and a little longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// So long after the last flow of a port that asked, the next one finds its packets still captured whole.
const LINGER: Duration = Duration::from_secs(10);
/// More ports than this are all ports: the kernel's filter takes no list of any length.
const MOST_PORTS: usize = 64;
/// Stands for all ports.
const ANY: u16 = 0;

/// The ports of targets whose packets are captured whole.
#[derive(Debug, Default)]
pub struct PayloadPorts {
    /// Since when no flow asks for a port's payload; `None` while one does.
    ports: BTreeMap<u16, Option<Instant>>,
    /// The changes that these know of.
    changes: u64,
    /// When the first of them has lingered for long enough.
    due: Option<Instant>,
    whole: Vec<u16>,
}

impl PayloadPorts {
    /// Whether [`PayloadPorts::follow`] may have something to do: the ports that are asked for have changed so often.
    pub fn is_due(&self, now: Instant, changes: u64) -> bool {
        self.changes != changes || self.due.is_some_and(|due| now >= due)
    }

    /// Follows the ports whose flows ask now. Gives all that are to be captured whole, if these are others than before:
    /// none, or port 0 for all of them, can be what they are.
    pub fn follow(&mut self, now: Instant, changes: u64, asked: BTreeSet<u16>) -> Option<Vec<u16>> {
        self.changes = changes;
        for (port, idle) in &mut self.ports {
            match asked.contains(port) {
                true => *idle = None,
                false => drop(idle.get_or_insert(now)),
            }
        }
        self.ports
            .retain(|_, idle| idle.is_none_or(|since| now < since + LINGER));
        for port in asked {
            self.ports.entry(port).or_default();
        }
        let idle = self.ports.values().flatten();
        self.due = idle.min().map(|since| *since + LINGER);
        let whole = match self.ports.contains_key(&ANY) || self.ports.len() > MOST_PORTS {
            true => vec![ANY],
            false => self.ports.keys().copied().collect(),
        };
        (whole != self.whole).then(|| {
            self.whole.clone_from(&whole);
            whole
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_whole_from_its_first_flow_until_a_while_after_its_last() {
        let (mut ports, start) = (PayloadPorts::default(), Instant::now());
        let mut changes = 0;
        let mut follow = |seconds, asked: &[u16]| {
            changes += 1;
            let now = start + Duration::from_secs(seconds);
            assert!(ports.is_due(now, changes));
            let whole = ports.follow(now, changes, asked.iter().copied().collect());
            (whole, ports.due.map(|due| (due - start).as_secs()))
        };
        assert_eq!(follow(0, &[]), (None, None));
        assert_eq!(follow(1, &[3306]), (Some(vec![3306]), None));
        assert_eq!(follow(3, &[80, 3306]), (Some(vec![80, 3306]), None));
        assert_eq!(follow(4, &[80]), (None, Some(14)));
        assert_eq!(follow(13, &[80]), (None, Some(14)), "the next may be near");
        assert_eq!(follow(14, &[80]), (Some(vec![80]), None));
        assert_eq!(follow(15, &[]), (None, Some(25)));
        assert_eq!(follow(24, &[80]), (None, None), "it is back in time");
        assert_eq!(follow(30, &[]), (None, Some(40)));
        assert_eq!(follow(40, &[]), (Some(vec![]), None));
        let now = start + Duration::from_secs(41);
        assert!(!ports.is_due(now, changes));
    }

    #[test]
    fn a_flow_of_any_target_and_more_ports_than_a_filter_takes_mean_all() {
        let now = Instant::now();
        let mut ports = PayloadPorts::default();
        assert_eq!(ports.follow(now, 1, [0, 80].into()), Some(vec![0]));
        assert_eq!(ports.follow(now, 2, (0..=65).collect()), None);
        let mut ports = PayloadPorts::default();
        assert_eq!(ports.follow(now, 1, (1..=65).collect()), Some(vec![0]));
        assert_eq!(
            ports.follow(now, 2, (1..=66).collect()),
            None,
            "all, as before"
        );
    }
}

//! Which packets are captured with their payload: those from the ports of flows that ask for it, for as long as any
//! does and a little longer.

use std::collections::BTreeMap;
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
}

impl PayloadPorts {
    /// Follows the ports whose flows ask now, in order. Gives all that are to be captured whole, if these are others than
    /// before: none, or [`ANY`] alone, are among what it can be.
    pub fn follow(
        &mut self,
        now: Instant,
        asked: impl Iterator<Item = u16> + Clone,
    ) -> Option<Vec<u16>> {
        let before = self.ports.len();
        let mut is_new = false;
        for port in asked.clone() {
            is_new |= self.ports.insert(port, None).is_none();
        }
        if self.ports.is_empty() {
            return None;
        }
        self.ports.retain(|port, idle| {
            if idle.is_none() && !asked.clone().any(|it| it == *port) {
                *idle = Some(now);
            }
            idle.is_none_or(|since| now < since + LINGER)
        });
        (is_new || self.ports.len() != before).then(|| self.whole())
    }

    fn whole(&self) -> Vec<u16> {
        if self.ports.contains_key(&ANY) || self.ports.len() > MOST_PORTS {
            return vec![ANY];
        }
        self.ports.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_whole_from_its_first_flow_until_a_while_after_its_last() {
        let (mut ports, start) = (PayloadPorts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut follow = |seconds, asked: &[u16]| ports.follow(at(seconds), asked.iter().copied());
        assert_eq!(follow(0, &[]), None);
        assert_eq!(follow(1, &[3306]), Some(vec![3306]));
        assert_eq!(follow(2, &[3306]), None);
        assert_eq!(follow(3, &[80, 3306]), Some(vec![80, 3306]));
        assert_eq!(follow(4, &[80]), None);
        assert_eq!(follow(13, &[80]), None, "the next session may be near");
        assert_eq!(follow(14, &[80]), Some(vec![80]));
        assert_eq!(follow(15, &[]), None);
        assert_eq!(follow(24, &[80]), None, "it is back in time");
        assert_eq!(follow(30, &[]), None);
        assert_eq!(follow(40, &[]), Some(vec![]));
        assert_eq!(follow(41, &[]), None);
    }

    #[test]
    fn a_flow_of_any_target_and_more_ports_than_a_filter_takes_mean_all() {
        let now = Instant::now();
        let mut ports = PayloadPorts::default();
        assert_eq!(ports.follow(now, [0, 80].into_iter()), Some(vec![0]));
        let mut ports = PayloadPorts::default();
        assert_eq!(ports.follow(now, 1..=65), Some(vec![0]));
    }
}

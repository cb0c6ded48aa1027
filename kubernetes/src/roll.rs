//! The pods of one watch: what comes, goes, and is told anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// Pods by name, with their addresses.
pub(crate) type Pods = BTreeMap<String, BTreeSet<IpAddr>>;

/// The pods that a watch has told of.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    now: Pods,
    /// Those of a list that is not complete yet.
    listed: Option<Pods>,
}

impl Roll {
    /// Takes in what the watch says. Gives the pods that there are now, once that is known.
    pub(crate) fn hear(&mut self, event: Event<Pod>) -> Option<&Pods> {
        match event {
            Event::Init => {
                self.listed = Some(Pods::new());
                return None;
            }
            Event::InitApply(pod) => {
                note(self.listed.get_or_insert_default(), &pod);
                return None;
            }
            Event::InitDone => self.now = self.listed.take().unwrap_or_default(),
            Event::Apply(pod) => note(&mut self.now, &pod),
            Event::Delete(pod) => {
                self.now.remove(&pod.name_any());
            }
        }
        Some(&self.now)
    }
}

/// Notes a pod that has addresses and containers that run, or takes it off. One that is being ended stays: it serves what
/// is open.
fn note(pods: &mut Pods, pod: &Pod) {
    let name = pod.name_any();
    let addresses = addresses(pod);
    if addresses.is_empty() {
        pods.remove(&name);
    } else {
        pods.insert(name, addresses);
    }
}

fn addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else {
        return BTreeSet::new();
    };
    // The addresses of one that is over may be another's by now.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return BTreeSet::new();
    }
    let several = status.pod_ips.iter().flatten().map(|it| it.ip.as_str());
    let all = several.chain(status.pod_ip.as_deref());
    all.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodIP, PodStatus};

    use super::*;

    fn pod(name: &str, phase: &str, ips: &[&str]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        let ips = ips.iter().map(|ip| PodIP {
            ip: (*ip).to_owned(),
        });
        pod.status = Some(PodStatus {
            phase: Some(phase.to_owned()),
            pod_ips: Some(ips.collect()),
            ..PodStatus::default()
        });
        pod
    }

    fn told(roll: &mut Roll, event: Event<Pod>) -> Vec<String> {
        let pods = roll.hear(event).expect("complete");
        let shown = pods.iter().map(|(name, ips)| format!("{name} {ips:?}"));
        shown.collect()
    }

    #[test]
    fn pods_are_there_from_their_address_to_their_end() {
        let mut roll = Roll::default();
        assert!(roll.hear(Event::Init).is_none());
        let first = pod("web-1", "Running", &["198.18.7.2", "2001:db8:7::2"]);
        assert!(roll.hear(Event::InitApply(first)).is_none());
        let waiting = pod("web-2", "Pending", &[]);
        assert!(roll.hear(Event::InitApply(waiting)).is_none());
        let one = "web-1 {198.18.7.2, 2001:db8:7::2}";
        assert_eq!(told(&mut roll, Event::InitDone), [one]);
        let second = pod("web-2", "Pending", &["198.18.7.3"]);
        let two = "web-2 {198.18.7.3}";
        assert_eq!(told(&mut roll, Event::Apply(second)), [one, two]);
        let over = pod("web-1", "Failed", &["198.18.7.2"]);
        assert_eq!(told(&mut roll, Event::Apply(over)), [two]);
        let gone = pod("web-2", "Running", &["198.18.7.3"]);
        assert!(told(&mut roll, Event::Delete(gone)).is_empty());
    }

    #[test]
    fn a_list_that_is_told_anew_takes_nothing_away_until_it_is_complete() {
        let mut roll = Roll::default();
        let first = pod("web-1", "Running", &["198.18.7.2"]);
        assert_eq!(told(&mut roll, Event::Apply(first)).len(), 1);
        assert!(roll.hear(Event::Init).is_none());
        let second = pod("web-2", "Running", &["198.18.7.3", "no address"]);
        assert!(roll.hear(Event::InitApply(second)).is_none());
        assert_eq!(told(&mut roll, Event::InitDone), ["web-2 {198.18.7.3}"]);
        assert!(roll.hear(Event::Init).is_none());
        assert!(told(&mut roll, Event::InitDone).is_empty());
    }
}

//! What both watches have told: the pods of the node, which of them are chosen, and what is in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use millrace_notation::address::check_single;

use crate::standing::{Doubt, Standing};

/// More pods than a node can have, and more addresses than a pod has: whatever goes beyond is left out.
const MOST_PODS: usize = 4096;
const MOST_ADDRESSES: usize = 16;

/// Labels, as pods have them and Services ask for them.
type Labels = BTreeMap<String, String>;

/// A pod that has addresses, and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Tells it from another one of the same name.
    uid: Option<String>,
    labels: Labels,
    addresses: BTreeSet<IpAddr>,
}

/// What makes a pod one of those that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// The API has not told yet.
    Unknown,
    /// These labels.
    Labels(Labels),
    /// Nothing at all.
    Nothing(Doubt),
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Roll {
    pods: BTreeMap<String, Known>,
    /// Those of a list that is not complete yet.
    listed: Option<BTreeMap<String, Known>>,
    choice: Choice,
    /// Whether the list that is being told has had the Service.
    service_listed: bool,
    /// Pods that were chosen, and are there: what is open with them goes on, whatever is chosen now.
    held: BTreeMap<String, Option<String>>,
    /// Why the answers of the one watch or the other may not be so any more.
    pods_doubt: Option<Doubt>,
    service_doubt: Option<Doubt>,
}

impl Roll {
    /// Nothing is known. The pods are those with these labels, or those that a Service chooses.
    pub(crate) fn new(labels: Option<&[(String, String)]>) -> Self {
        Self {
            pods: BTreeMap::new(),
            listed: None,
            choice: match labels {
                Some(labels) => Choice::Labels(labels.iter().cloned().collect()),
                None => Choice::Unknown,
            },
            service_listed: false,
            held: BTreeMap::new(),
            pods_doubt: Some(Doubt::Asking),
            service_doubt: None,
        }
    }

    /// Takes in what the watch of the node's pods says.
    pub(crate) fn hear_pods(&mut self, news: Result<Event<Pod>, Doubt>) {
        match news {
            Err(doubt) => self.pods_doubt = Some(doubt),
            Ok(Event::Init) => self.listed = Some(BTreeMap::new()),
            Ok(Event::InitApply(pod)) => note(self.listed.get_or_insert_default(), &pod),
            Ok(Event::InitDone) => {
                self.pods = self.listed.take().unwrap_or_default();
                self.pods_doubt = None;
            }
            Ok(Event::Apply(pod)) => note(&mut self.pods, &pod),
            Ok(Event::Delete(pod)) => {
                self.pods.remove(&pod.name_any());
            }
        }
    }

    /// Takes in what the watch of the one Service says.
    pub(crate) fn hear_service(&mut self, news: Result<Event<Service>, Doubt>) {
        let missing = Choice::Nothing(Doubt::NoService);
        match news {
            Err(doubt) => self.service_doubt = Some(doubt),
            Ok(Event::Init) => self.service_listed = false,
            Ok(Event::InitApply(service) | Event::Apply(service)) => {
                self.service_listed = true;
                self.choice = Choice::by(&service);
            }
            Ok(Event::InitDone) => {
                self.service_doubt = None;
                if !self.service_listed {
                    self.choice = missing;
                }
            }
            Ok(Event::Delete(_)) => self.choice = missing,
        }
    }

    /// What is to be told now.
    pub(crate) fn standing(&mut self) -> Standing {
        if let Choice::Labels(wanted) = &self.choice {
            let chosen = self.pods.iter().filter(|(_, pod)| pod.has(wanted));
            let chosen = chosen.map(|(name, pod)| (name.clone(), pod.uid.clone()));
            self.held.extend(chosen);
        }
        let pods = &self.pods;
        let is_there =
            |name: &String, uid: &Option<String>| pods.get(name).is_some_and(|pod| pod.uid == *uid);
        self.held.retain(|name, uid| is_there(name, uid));
        let addresses = |name: &String| Some((name.clone(), pods.get(name)?.addresses.clone()));
        let of_choice = match &self.choice {
            Choice::Nothing(doubt) => Some(doubt.clone()),
            Choice::Unknown => Some(Doubt::Asking),
            Choice::Labels(_) => None,
        };
        let doubts = [&self.pods_doubt, &self.service_doubt, &of_choice];
        Standing {
            pods: self.held.keys().filter_map(addresses).collect(),
            doubt: doubts.into_iter().flatten().next().cloned(),
        }
    }
}

impl Choice {
    fn by(service: &Service) -> Self {
        let selector = service.spec.as_ref().and_then(|it| it.selector.clone());
        match selector.filter(|labels| !labels.is_empty()) {
            Some(labels) => Self::Labels(labels),
            None => Self::Nothing(Doubt::NoSelector),
        }
    }
}

impl Known {
    fn has(&self, wanted: &Labels) -> bool {
        wanted
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// Notes a pod that has addresses and is not over, or takes it off. One that is being ended stays: it serves what is open.
fn note(pods: &mut BTreeMap<String, Known>, pod: &Pod) {
    let name = pod.name_any();
    let addresses = addresses(pod);
    if addresses.is_empty() {
        pods.remove(&name);
    } else if pods.len() < MOST_PODS || pods.contains_key(&name) {
        let known = Known {
            uid: pod.metadata.uid.clone(),
            labels: pod.labels().clone(),
            addresses,
        };
        pods.insert(name, known);
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
    let parsed = all.filter_map(|text| text.parse().ok());
    parsed.filter(is_of_one_host).take(MOST_ADDRESSES).collect()
}

/// Whether a pod can have this address, which comes from the network: capture must not be opened for more.
fn is_of_one_host(ip: &IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && check_single(*ip).is_ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodIP, PodStatus, ServiceSpec};

    use super::*;

    const WEB: (&str, &str) = ("app", "web");
    const BLUE: (&str, &str) = ("colour", "blue");

    fn pod(name: &str, phase: &str, labels: &[(&str, &str)], ips: &[&str]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(format!("{name}-1"));
        pod.metadata.labels = Some(owned(labels));
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

    fn owned(labels: &[(&str, &str)]) -> Labels {
        let labels = labels.iter();
        labels
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn service(labels: &[(&str, &str)]) -> Service {
        Service {
            spec: Some(ServiceSpec {
                selector: Some(owned(labels)),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn by_label() -> Roll {
        Roll::new(Some(&[(WEB.0.to_owned(), WEB.1.to_owned())]))
    }

    fn names(roll: &mut Roll) -> Vec<String> {
        roll.standing().pods.into_keys().collect()
    }

    fn doubt(roll: &mut Roll) -> Option<Doubt> {
        roll.standing().doubt
    }

    fn unanswered() -> Doubt {
        Doubt::Unanswered("gone".to_owned())
    }

    #[test]
    fn pods_are_there_from_their_address_to_their_end() {
        let mut roll = by_label();
        assert_eq!(doubt(&mut roll), Some(Doubt::Asking));
        roll.hear_pods(Ok(Event::Init));
        let both = ["198.18.7.2", "2001:db8:7::2"];
        roll.hear_pods(Ok(Event::InitApply(pod("web-1", "Running", &[WEB], &both))));
        roll.hear_pods(Ok(Event::InitApply(pod("web-2", "Pending", &[WEB], &[]))));
        roll.hear_pods(Ok(Event::InitApply(pod(
            "cart",
            "Running",
            &[],
            &["198.18.7.9"],
        ))));
        assert!(names(&mut roll).is_empty(), "not complete");
        roll.hear_pods(Ok(Event::InitDone));
        assert_eq!(
            roll.standing().addresses(),
            both.map(|ip| ip.parse().unwrap()).into()
        );
        assert_eq!(doubt(&mut roll), None);
        roll.hear_pods(Ok(Event::Apply(pod(
            "web-2",
            "Pending",
            &[WEB],
            &["198.18.7.3"],
        ))));
        assert_eq!(names(&mut roll), ["web-1", "web-2"]);
        roll.hear_pods(Ok(Event::Apply(pod(
            "web-1",
            "Failed",
            &[WEB],
            &["198.18.7.2"],
        ))));
        assert_eq!(names(&mut roll), ["web-2"]);
        roll.hear_pods(Ok(Event::Delete(pod(
            "web-2",
            "Running",
            &[WEB],
            &["198.18.7.3"],
        ))));
        assert!(names(&mut roll).is_empty());
    }

    #[test]
    fn a_list_that_is_told_anew_takes_nothing_away_until_it_is_complete() {
        let mut roll = by_label();
        roll.hear_pods(Ok(Event::Apply(pod(
            "web-1",
            "Running",
            &[WEB],
            &["198.18.7.2"],
        ))));
        roll.hear_pods(Err(unanswered()));
        roll.hear_pods(Ok(Event::Init));
        assert_eq!(names(&mut roll), ["web-1"]);
        assert_eq!(doubt(&mut roll), Some(unanswered()));
        roll.hear_pods(Ok(Event::InitDone));
        assert!(names(&mut roll).is_empty());
        assert_eq!(doubt(&mut roll), None);
    }

    #[test]
    fn a_pod_that_is_not_chosen_any_more_stays_until_it_ends() {
        let mut roll = Roll::new(None);
        roll.hear_pods(Ok(Event::Init));
        roll.hear_pods(Ok(Event::InitApply(pod(
            "blue",
            "Running",
            &[WEB, BLUE],
            &["198.18.7.2"],
        ))));
        roll.hear_pods(Ok(Event::InitApply(pod(
            "green",
            "Running",
            &[WEB],
            &["198.18.7.3"],
        ))));
        roll.hear_pods(Ok(Event::InitDone));
        assert_eq!(doubt(&mut roll), Some(Doubt::Asking), "of the Service");
        roll.hear_service(Ok(Event::Apply(service(&[WEB, BLUE]))));
        assert_eq!(names(&mut roll), ["blue"]);
        roll.hear_service(Ok(Event::Apply(service(&[WEB, ("colour", "green")]))));
        let green = pod(
            "green",
            "Running",
            &[WEB, ("colour", "green")],
            &["198.18.7.3"],
        );
        roll.hear_pods(Ok(Event::Apply(green)));
        assert_eq!(names(&mut roll), ["blue", "green"]);
        roll.hear_service(Ok(Event::Delete(service(&[]))));
        assert_eq!(names(&mut roll), ["blue", "green"]);
        assert_eq!(doubt(&mut roll), Some(Doubt::NoService));
        // Another pod of the same name is another pod.
        let mut other = pod("blue", "Running", &[WEB], &["198.18.7.7"]);
        other.metadata.uid = Some("blue-2".to_owned());
        roll.hear_pods(Ok(Event::Apply(other)));
        assert_eq!(names(&mut roll), ["green"]);
    }

    #[test]
    fn a_service_is_missed_only_once_its_list_is_complete_and_each_doubt_ends_by_itself() {
        let mut roll = Roll::new(None);
        roll.hear_pods(Ok(Event::InitDone));
        roll.hear_service(Ok(Event::Init));
        roll.hear_service(Ok(Event::InitDone));
        assert_eq!(doubt(&mut roll), Some(Doubt::NoService));
        roll.hear_service(Ok(Event::Apply(service(&[]))));
        assert_eq!(doubt(&mut roll), Some(Doubt::NoSelector));
        roll.hear_service(Ok(Event::Apply(service(&[WEB]))));
        assert_eq!(doubt(&mut roll), None);
        roll.hear_service(Err(unanswered()));
        assert_eq!(doubt(&mut roll), Some(unanswered()));
        roll.hear_service(Ok(Event::Init));
        roll.hear_service(Ok(Event::InitApply(service(&[WEB]))));
        roll.hear_service(Ok(Event::InitDone));
        assert_eq!(doubt(&mut roll), None, "the same Service as before");
    }

    #[test]
    fn what_no_pod_can_have_is_no_address() {
        let mut roll = by_label();
        let odd = [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "127.0.0.1",
            "255.255.255.255",
            "no address",
        ];
        roll.hear_pods(Ok(Event::Apply(pod("web-1", "Running", &[WEB], &odd))));
        assert!(names(&mut roll).is_empty());
    }
}

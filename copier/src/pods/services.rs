//! Where services in pods are: addresses by service, and the devices that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use millrace_capture::{ANY, Device};
use millrace_engine::SourcePool;
use millrace_kubernetes::Standing;
use millrace_replay::whereabouts::Followed;

use super::{PodAddress, ServicePods, in_words};
use crate::plan::{Plan, PodDevices, PodPlan, captured};

/// An address that is gone from the API is captured for so much longer: its last packets may be on their way.
const LINGER: Duration = Duration::from_secs(2);

/// The device that leads to each address, as far as one is known.
pub(super) type Leads = BTreeMap<IpAddr, String>;

/// One address of a service.
#[derive(Debug, Default)]
struct Kept {
    /// Until when it holds, where the API has it no more.
    until: Option<Instant>,
    /// The device that led to it last.
    device: Option<String>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Services {
    /// Addresses of each service in pods, in the order of the plan.
    kept: Vec<BTreeMap<IpAddr, Kept>>,
    /// Since when each has had any.
    since: Vec<Option<Instant>>,
    /// What the shard was told last.
    told: Option<Followed>,
}

impl Services {
    pub(super) fn new(services: usize) -> Self {
        Self {
            kept: std::iter::repeat_with(BTreeMap::new)
                .take(services)
                .collect(),
            since: vec![None; services],
            told: None,
        }
    }

    /// What is to be told to the shard, if it is news. `standings` are in the order of the plan's services in pods.
    pub(super) fn update(
        &mut self,
        now: Instant,
        (plan, pods): (&Plan, &PodPlan),
        standings: &[Standing],
        leads: &Leads,
    ) -> Option<Followed> {
        let mut addresses: Vec<Vec<IpAddr>> = vec![Vec::new(); plan.services.len()];
        for (((place, _), standing), kept) in
            pods.services.iter().zip(standings).zip(&mut self.kept)
        {
            let usable = standing.addresses();
            let usable: BTreeSet<IpAddr> = usable
                .into_iter()
                .filter(|ip| fits(plan, *place, ip))
                .collect();
            renew(kept, now, &usable, leads);
            if let Some(of_service) = addresses.get_mut(*place) {
                *of_service = kept.keys().copied().collect();
            }
        }
        for (since, kept) in self.since.iter_mut().zip(&self.kept) {
            match kept.is_empty() {
                true => *since = None,
                false => drop(since.get_or_insert(now)),
            }
        }
        let services = captured(&plan.services, &addresses);
        let hears_live = |port| plan.protocols.hears_live(&plan.engine.services, port);
        let whole = services.iter().filter(|it| hears_live(it.port));
        let followed = Followed {
            whole_services: whole.copied().collect(),
            devices: self.devices(plan, pods),
            services,
            addresses,
        };
        let is_news = self.told.as_ref() != Some(&followed);
        is_news.then(|| self.told.insert(followed).clone())
    }

    /// The devices that the services' packets come by, in order.
    fn devices(&self, plan: &Plan, pods: &PodPlan) -> Vec<String> {
        let ring = plan.ring().into_iter();
        let mut devices: BTreeSet<String> = ring.flat_map(|ring| ring.devices.clone()).collect();
        match pods.devices {
            PodDevices::Found => {
                let kept = self.kept.iter().flat_map(BTreeMap::values);
                devices.extend(kept.filter_map(|it| it.device.clone()));
            }
            PodDevices::All => {
                let all = Device::named(&[ANY.to_owned()]).unwrap_or_default();
                devices.extend(all.into_iter().map(|device| device.name));
            }
            PodDevices::Named => {}
        }
        devices.into_iter().collect()
    }

    /// What is shown of it.
    pub(super) fn shown(
        &self,
        (plan, pods): (&Plan, &PodPlan),
        standings: &[Standing],
        leads: &Leads,
    ) -> Vec<ServicePods> {
        let captured = self.told.as_ref().map_or(&[][..], |it| &it.devices);
        // By port and address: the first service that names them has them.
        let mut taken: BTreeMap<(u16, IpAddr), String> = BTreeMap::new();
        let mut all = Vec::new();
        for (((place, _), standing), since) in pods.services.iter().zip(standings).zip(&self.since)
        {
            let Some(mapping) = plan.services.get(*place) else {
                continue;
            };
            let service = mapping.live_text();
            let mut shared = None;
            let mut of_pod = |(name, ips): (&String, &BTreeSet<IpAddr>)| {
                let usable = ips.iter().filter(|ip| fits(plan, *place, ip));
                let places = usable.map(|ip| {
                    let owner = taken.entry((mapping.live_port, *ip));
                    let owner = owner.or_insert_with(|| service.clone());
                    if *owner != service {
                        shared = Some(format!(
                            "pod {name} is one of {owner}, which -x names first"
                        ));
                    }
                    PodAddress {
                        address: *ip,
                        device: leads
                            .get(ip)
                            .filter(|device| captured.contains(device))
                            .cloned(),
                    }
                });
                (name.clone(), places.collect())
            };
            let found = standing.pods.iter().map(&mut of_pod).collect();
            let (doubt, cure) = standing.doubt.as_ref().map(in_words).unzip();
            all.push(ServicePods {
                node: pods.node.clone(),
                pods: found,
                doubt: doubt.or(shared),
                kind: standing.doubt.as_ref().map(std::mem::discriminant),
                cure: cure.flatten(),
                since: *since,
                service,
            });
        }
        all
    }
}

/// Takes over the addresses of now, and lets those go that have been gone for a while.
fn renew(
    kept: &mut BTreeMap<IpAddr, Kept>,
    now: Instant,
    addresses: &BTreeSet<IpAddr>,
    leads: &Leads,
) {
    for ip in addresses {
        let place = kept.entry(*ip).or_default();
        place.until = None;
        if let Some(device) = leads.get(ip) {
            place.device = Some(device.clone());
        }
    }
    for (ip, place) in kept.iter_mut() {
        if !addresses.contains(ip) {
            place.until.get_or_insert(now + LINGER);
        }
    }
    kept.retain(|_, place| place.until.is_none_or(|until| now < until));
}

/// Whether sessions at an address can be copied: without a pool copies are of their client's family.
fn fits(plan: &Plan, place: usize, ip: &IpAddr) -> bool {
    let target = plan.services.get(place).map(|mapping| mapping.target);
    let same_family = target.is_some_and(|target| target.is_ipv4() == ip.is_ipv4());
    same_family || plan.engine.sources != SourcePool::Clients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_gone_lingers_with_its_device_and_may_come_back() {
        let (mut kept, start) = (BTreeMap::new(), Instant::now());
        let ip: IpAddr = "198.18.7.2".parse().unwrap();
        let leads = Leads::from([(ip, "veth2".to_owned())]);
        let (here, gone) = (BTreeSet::from([ip]), BTreeSet::new());
        renew(&mut kept, start, &here, &leads);
        // The device goes with the pod.
        renew(&mut kept, start + LINGER, &gone, &Leads::new());
        renew(&mut kept, start + LINGER * 3 / 2, &gone, &Leads::new());
        assert_eq!(kept[&ip].device.as_deref(), Some("veth2"));
        renew(&mut kept, start + LINGER * 7 / 4, &here, &Leads::new());
        assert_eq!(kept[&ip].until, None);
        renew(&mut kept, start + LINGER * 2, &gone, &Leads::new());
        renew(&mut kept, start + LINGER * 3, &gone, &Leads::new());
        assert!(kept.is_empty());
    }
}

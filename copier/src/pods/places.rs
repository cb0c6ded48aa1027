//! Where services in pods are: addresses by service, and the devices that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use millrace_kubernetes::Standing;
use millrace_replay::whereabouts::Followed;

use super::{PodPlace, ServicePods, in_words};
use crate::plan::{Plan, PodPlan, captured};

/// An address that is gone from the API is captured for so much longer: its last packets may be on their way.
const LINGER: Duration = Duration::from_secs(2);

/// Finds the device that leads to an address.
pub(super) type Lead<'a> = &'a dyn Fn(&IpAddr) -> Option<String>;

/// Addresses of one service, with the time until which they hold where the API has them no more.
#[derive(Debug, Default)]
struct Kept(BTreeMap<IpAddr, Option<Instant>>);

impl Kept {
    /// Those of now, and those that have just gone.
    fn update(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        self.0.extend(addresses.iter().map(|ip| (*ip, None)));
        for (ip, until) in &mut self.0 {
            if !addresses.contains(ip) {
                until.get_or_insert(now + LINGER);
            }
        }
        self.0
            .retain(|_, until| until.is_none_or(|until| now < until));
        self.0.keys().copied().collect()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Places {
    kept: Vec<Kept>,
    /// What the shard was told last.
    told: Option<Followed>,
}

impl Places {
    pub(super) fn new(services: usize) -> Self {
        Self {
            kept: std::iter::repeat_with(Kept::default)
                .take(services)
                .collect(),
            told: None,
        }
    }

    /// What is to be told to the shard, if it is news. `standings` are in the order of the plan's services in pods.
    pub(super) fn update(
        &mut self,
        now: Instant,
        (plan, pods): (&Plan, &PodPlan),
        standings: &[Standing],
        lead: Lead<'_>,
    ) -> Option<Followed> {
        let mut addresses: Vec<Vec<IpAddr>> = vec![Vec::new(); plan.services.len()];
        for (((place, _), standing), kept) in
            pods.services.iter().zip(standings).zip(&mut self.kept)
        {
            if let Some(of_service) = addresses.get_mut(*place) {
                *of_service = kept.update(now, &standing.addresses());
            }
        }
        let services = captured(&plan.services, &addresses);
        let hears_live = |port| plan.protocols.hears_live(&plan.engine.services, port);
        let whole = services.iter().filter(|it| hears_live(it.port));
        let followed = Followed {
            whole_services: whole.copied().collect(),
            devices: devices(plan, pods, &addresses, lead),
            services,
            addresses,
        };
        let is_news = self.told.as_ref() != Some(&followed);
        is_news.then(|| self.told.insert(followed).clone())
    }
}

/// The devices that the services' packets come by, in order.
fn devices(plan: &Plan, pods: &PodPlan, addresses: &[Vec<IpAddr>], lead: Lead<'_>) -> Vec<String> {
    let ring = plan.ring().into_iter();
    let mut devices: BTreeSet<String> = ring.flat_map(|ring| ring.devices.clone()).collect();
    if pods.finds_devices {
        devices.extend(addresses.iter().flatten().filter_map(lead));
    }
    devices.into_iter().collect()
}

/// What is shown of it.
pub(super) fn shown(
    plan: &Plan,
    pods: &PodPlan,
    standings: &[Standing],
    lead: Lead<'_>,
) -> Vec<ServicePods> {
    let service = |((place, _), standing): (&(usize, _), &Standing)| {
        let of_pod = |(name, ips): (&String, &BTreeSet<IpAddr>)| {
            let places = ips.iter().map(|ip| PodPlace {
                address: *ip,
                device: lead(ip),
            });
            (name.clone(), places.collect())
        };
        let (doubt, cure) = standing.doubt.as_ref().map(in_words).unzip();
        ServicePods {
            service: (plan.services.get(*place)).map_or(String::new(), |it| it.live_text()),
            node: pods.node.clone(),
            pods: standing.pods.iter().map(of_pod).collect(),
            doubt,
            cure: cure.flatten(),
        }
    };
    pods.services.iter().zip(standings).map(service).collect()
}

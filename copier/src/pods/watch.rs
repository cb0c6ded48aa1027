//! Asking the Kubernetes API and this host's routes, and telling the shard.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_capture::Device;
use millrace_kubernetes::{Access, Standing};
use millrace_replay::inbox::Inbox;
use millrace_replay::whereabouts::News;
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use super::services::{Leads, Services};
use super::{KnownPods, ServicePods};
use crate::plan::{Plan, PodPlan};

/// How often the ways to pods are looked up, and addresses that are gone are given up.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the pods of the plan's services as long as the copier runs. Does nothing where none are in pods.
pub(crate) async fn follow(
    plan: Arc<Plan>,
    access: Option<Access>,
    inbox: Arc<Inbox>,
    known: KnownPods,
) {
    let Some((pods, access)) = plan.pods.as_ref().zip(access) else {
        return;
    };
    tracing::info!(
        "pods of node {} are asked for at {}",
        pods.node,
        access.address()
    );
    let mut watches = watches(pods, &access);
    let mut services = Services::new(watches.len());
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = changed(&mut watches) => {}
        }
        let standings: Vec<Standing> = (watches.iter_mut())
            .map(|watch| watch.borrow_and_update().clone())
            .collect();
        let leads = leads(&standings).await;
        let both = (&*plan, pods);
        if let Some(followed) = services.update(Instant::now(), both, &standings, &leads) {
            inbox.tell_whereabouts(News::Followed(followed));
        }
        let now = services.shown(both, &standings, &leads);
        tell(&known.now(), &now);
        known.replace(now);
    }
}

/// What is known of the pods of each service, in order. Those that are the same pods by other ports are asked for once.
fn watches(pods: &PodPlan, access: &Access) -> Vec<Receiver<Standing>> {
    let mut watches: Vec<Receiver<Standing>> = Vec::new();
    for (index, (_, wanted)) in pods.services.iter().enumerate() {
        let mut before = pods.services.iter().take(index).zip(&watches);
        let same = before.find(|((_, other), _)| other == wanted);
        let watch = same.map(|(_, watch)| watch.clone());
        let asked = || millrace_kubernetes::follow(access, &pods.node, wanted);
        watches.push(watch.unwrap_or_else(asked));
    }
    watches
}

/// Returns once one of them has news; never where all have ended.
async fn changed(watches: &mut [Receiver<Standing>]) {
    let changes = watches.iter_mut().map(|watch| {
        Box::pin(async move {
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    drop(futures_util::future::select_all(changes).await);
}

/// The device that leads to each address. The kernel is asked aside: this thread serves the router-agents' streams, too.
async fn leads(standings: &[Standing]) -> Leads {
    let addresses = standings.iter().flat_map(Standing::addresses);
    let addresses: Vec<IpAddr> = addresses.collect();
    let asked = tokio::task::spawn_blocking(move || {
        // An error is no way, and is asked for again.
        let devices = Device::towards(&addresses).unwrap_or_default();
        let pairs = addresses.into_iter().zip(devices);
        pairs
            .filter_map(|(ip, device)| Some((ip, device?)))
            .collect()
    });
    asked.await.unwrap_or_default()
}

/// Says in the log what has changed.
fn tell(before: &[ServicePods], now: &[ServicePods]) {
    for (index, service) in now.iter().enumerate() {
        let before = before.get(index);
        let had = |name: &String| before.and_then(|it| it.pods.get(name));
        let name = &service.service;
        for (pod, places) in &service.pods {
            if had(pod) != Some(places) {
                let places: Vec<String> = (places.iter())
                    .map(|place| match &place.device {
                        Some(device) => format!("{} on {device}", place.address),
                        None => format!("{}, to which no device is known to lead", place.address),
                    })
                    .collect();
                tracing::info!("{name}: pod {pod} is at {}", places.join(", "));
            }
        }
        let gone = before.into_iter().flat_map(|it| it.pods.keys());
        for pod in gone.filter(|pod| !service.pods.contains_key(*pod)) {
            tracing::info!("{name}: pod {pod} is gone");
        }
        // Of one kind words may change, and say nothing new.
        let kind = before.map(|it| (it.kind, it.doubt.is_some()));
        match &service.doubt {
            Some(why) if before.is_some() && kind != Some((service.kind, true)) => {
                tracing::warn!("{name}: {why}");
            }
            None if kind.is_some_and(|(_, doubt)| doubt) => {
                tracing::info!("{name}: its pods are known");
            }
            Some(_) | None => {}
        }
    }
}

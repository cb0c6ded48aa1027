//! Asking the Kubernetes API and this host's routes, and telling the shard.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_capture::Device;
use millrace_kubernetes::{Access, Standing};
use millrace_replay::inbox::Inbox;
use millrace_replay::whereabouts::News;
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use super::places::{Places, shown};
use super::{KnownPods, ServicePods};
use crate::plan::Plan;

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
    let mut watches: Vec<Receiver<Standing>> = (pods.services.iter())
        .map(|(_, of_service)| millrace_kubernetes::follow(&access, &pods.node, of_service))
        .collect();
    let mut places = Places::new(watches.len());
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
        let ways = Ways::of(standings.iter());
        let lead = |ip: &IpAddr| ways.0.get(ip).cloned().flatten();
        if let Some(followed) = places.update(Instant::now(), (&plan, pods), &standings, &lead) {
            inbox.tell_whereabouts(News::Followed(followed));
        }
        let now = shown(&plan, pods, &standings, &lead);
        tell(&known.now(), &now);
        known.replace(now);
    }
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

/// The device that leads to each address.
struct Ways(BTreeMap<IpAddr, Option<String>>);

impl Ways {
    fn of<'a>(standings: impl Iterator<Item = &'a Standing>) -> Self {
        let addresses = standings.flat_map(Standing::addresses);
        // An error is no way, and is asked for again.
        Self(
            addresses
                .map(|ip| (ip, Device::towards(ip).unwrap_or_default()))
                .collect(),
        )
    }
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
                        None => format!("{}, to which no route leads yet", place.address),
                    })
                    .collect();
                tracing::info!("{name}: pod {pod} is copied at {}", places.join(", "));
            }
        }
        let gone = before.into_iter().flat_map(|it| it.pods.keys());
        for pod in gone.filter(|pod| !service.pods.contains_key(*pod)) {
            tracing::info!("{name}: pod {pod} is gone");
        }
        let doubt = before.and_then(|it| it.doubt.as_ref());
        match &service.doubt {
            Some(why) if doubt != Some(why) && before.is_some() => tracing::warn!("{name}: {why}"),
            None if doubt.is_some() => tracing::info!("{name}: its pods are known"),
            Some(_) | None => {}
        }
    }
}

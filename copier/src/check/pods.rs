//! Pods of this node that live services are in.

use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::Device;
use millrace_daemon::check::Verdict;
use millrace_kubernetes::{Access, Doubt, Standing, follow};
use tokio::time::timeout;

use super::Subject;
use crate::plan::{PodDevices, PodPlan};
use crate::pods::{access, in_words};

/// Time for the API to answer.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(super) fn known(subject: &Subject) -> Verdict {
    let plan = &subject.plan;
    let Some(pods) = &plan.pods else {
        return Verdict::ok("no live service is in pods");
    };
    let access = match access(plan) {
        Ok(Some(access)) => access,
        Ok(None) => return Verdict::ok("no live service is in pods"),
        Err(error) => return Verdict::error(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let standings = match runtime {
        Ok(runtime) => runtime.block_on(ask(&access, pods)),
        Err(error) => {
            return Verdict::failure(format!("cannot start a runtime: {error}"), "ulimit -u");
        }
    };
    let name = |place: &usize| {
        plan.services
            .get(*place)
            .map_or(String::new(), |it| it.live_text())
    };
    let mut found = Vec::new();
    for ((place, _), standing) in pods.services.iter().zip(&standings) {
        let service = name(place);
        if let Some(doubt) = &standing.doubt {
            let (why, cure) = in_words(doubt);
            let see = || format!("see that {} can be reached from here", access.address());
            return Verdict::failure(format!("{service}: {why}"), cure.unwrap_or_else(see));
        }
        let addresses = standing.addresses();
        let asked: Vec<IpAddr> = addresses.iter().copied().collect();
        let devices = Device::towards(&asked).unwrap_or_default();
        let lost = asked
            .iter()
            .zip(&devices)
            .find(|(_, device)| device.is_none());
        if let Some((ip, _)) = lost.filter(|_| pods.devices == PodDevices::Found) {
            return Verdict::warning(
                format!("{service}: no device of this host is known to lead to the pod at {ip}"),
                format!(
                    "`ip route get {ip}`; where packets pass by other devices, as with Cilium: -i any"
                ),
            );
        }
        if addresses.is_empty() {
            return Verdict::warning(
                format!("{service}: none of its pods is on node {}", pods.node),
                "name the node that this host is with --node, as `kubectl get nodes` does; otherwise nothing is copied \
                 here until a pod comes",
            );
        }
        let count = standing.pods.len();
        found.push(format!("{service}: {count} on node {}", pods.node));
    }
    Verdict::ok(found.join(", "))
}

/// What the API says of each service, once.
async fn ask(access: &Access, pods: &PodPlan) -> Vec<Standing> {
    let mut watches: Vec<_> = (pods.services.iter())
        .map(|(_, of_service)| follow(access, &pods.node, of_service))
        .collect();
    let all = async {
        for watch in &mut watches {
            // An end of the watch is no answer either.
            let answered = |it: &Standing| it.doubt != Some(Doubt::Asking);
            drop(watch.wait_for(answered).await);
        }
    };
    drop(timeout(PATIENCE, all).await);
    watches.iter().map(|watch| watch.borrow().clone()).collect()
}

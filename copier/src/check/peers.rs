//! Interceptors and router-agents.

use millrace_channel::check::{certificate as usable, reach};
use millrace_channel::tls::Role;
use millrace_daemon::check::Verdict;
use millrace_fleet::consul::look_up;
use millrace_fleet::peers::PeerList;

use super::Subject;

pub(super) fn certificate(subject: &Subject) -> Verdict {
    match subject.plan.local {
        Some(_) => Verdict::ok("there is nobody to talk to"),
        None => usable(&subject.options.common, Role::Copier),
    }
}

pub(super) fn interceptors(subject: &Subject) -> Verdict {
    answer(subject, Role::Interceptor, &subject.plan.interceptors)
}

pub(super) fn router_agents(subject: &Subject) -> Verdict {
    answer(subject, Role::RouterAgent, &subject.plan.router_agents)
}

fn answer(subject: &Subject, role: Role, list: &PeerList) -> Verdict {
    let plan = &subject.plan;
    let mut peers = list.fixed.clone();
    for cluster in &list.clusters {
        let Some(client) = &plan.consul else { break };
        match look_up(client, role, cluster) {
            Ok(found) => peers.extend(found),
            Err(why) => {
                return Verdict::failure(
                    why,
                    "see --consul, and docs/consul.md for what its token needs",
                );
            }
        }
    }
    reach(&peers, &list.fixed, &plan.security, role)
}

pub(super) fn guard(subject: &Subject) -> Verdict {
    let plan = &subject.plan;
    if !plan.router_agents.is_empty() {
        return Verdict::ok("router-agents hold the targets' answers");
    }
    if !plan.bears_clients_addresses() {
        return Verdict::ok("copies do not bear clients' addresses");
    }
    Verdict::warning(
        "copies bear clients' addresses, and no router-agent is named: a route that is lost at the target lets its answers \
         reach them, until they are missed here",
        "run millrace-router-agent on the targets, and name them with --router-agent",
    )
}

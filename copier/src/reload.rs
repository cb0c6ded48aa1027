//! SIGHUP: the options are read again, and what may change while the copier runs is taken over.

use millrace_daemon::config;
use millrace_daemon::signals::HangUps;
use millrace_fleet::peers::PeerList;

use crate::cluster::fleet::Fleet;
use crate::options::Options;
use crate::plan;

/// Reads the options again at every SIGHUP, and takes over which interceptors and router-agents
/// they name.
pub async fn follow(mut hang_ups: HangUps, begun_with: Options, fleet: Fleet) {
    while hang_ups.next().await {
        let taken = reread(&begun_with, !fleet.has_consul()).and_then(|wanted| {
            let taken = fleet.name(&wanted.interceptors, &wanted.router_agents);
            taken.map_err(|error| error.to_string())
        });
        match taken {
            Ok(()) => {}
            Err(error) => tracing::warn!("SIGHUP: {error}; nothing was changed"),
        }
        hang_ups.done();
    }
}

/// What may change.
struct Wanted {
    interceptors: PeerList,
    router_agents: PeerList,
}

fn reread(begun_with: &Options, begun_without_consul: bool) -> Result<Wanted, String> {
    let options: Options = config::parse().map_err(|error| error.to_string())?;
    let wanted = Wanted {
        interceptors: options.interceptors().map_err(|error| error.to_string())?,
        router_agents: plan::router_agents(&options).map_err(|error| error.to_string())?,
    };
    let searches = |wanted: &PeerList| !wanted.clusters.is_empty();
    let searched = [&wanted.interceptors, &wanted.router_agents];
    if begun_without_consul && searched.into_iter().any(searches) {
        return Err(
            "consul: is named, and this copier was started without Consul: start it anew"
                .to_owned(),
        );
    }
    let comparable = |options: &Options| {
        let mut options = options.clone();
        options.interceptors.clone_from(&begun_with.interceptors);
        options.port = begun_with.port;
        options.router_agents.clone_from(&begun_with.router_agents);
        format!("{options:?}")
    };
    if comparable(&options) != comparable(begun_with) {
        tracing::warn!(
            "SIGHUP: more than interceptors and router-agents (-s, -p, --router-agent) has \
             changed: the rest takes effect at the next start"
        );
    }
    Ok(wanted)
}

//! SIGHUP: the options are read again, and what may change while the copier runs is taken over.

use millrace_daemon::config;
use millrace_daemon::signals::HangUps;
use millrace_notation::address::HostPort;

use crate::agents::Agents;
use crate::interceptors::Interceptors;
use crate::options::Options;
use crate::plan;

/// Reads the options again at every SIGHUP, and takes over which interceptors and router-agents
/// they name.
pub async fn follow(
    mut hang_ups: HangUps,
    begun_with: Options,
    interceptors: Interceptors,
    agents: Agents,
) {
    while hang_ups.next().await {
        let taken = reread(&begun_with).and_then(|wanted| {
            // A real server must keep its answers to itself before copies may reach it.
            agents
                .set(&wanted.router_agents)
                .map_err(|error| error.to_string())?;
            interceptors.set(&wanted.interceptors);
            Ok(())
        });
        match taken {
            Ok(()) => {}
            Err(error) => tracing::warn!("SIGHUP: {error}; nothing was changed"),
        }
    }
}

/// What may change.
struct Wanted {
    interceptors: Vec<HostPort>,
    router_agents: Vec<HostPort>,
}

fn reread(begun_with: &Options) -> Result<Wanted, String> {
    let options: Options = config::parse().map_err(|error| error.to_string())?;
    let wanted = Wanted {
        interceptors: options.interceptors().map_err(|error| error.to_string())?,
        router_agents: plan::router_agents(&options).map_err(|error| error.to_string())?,
    };
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

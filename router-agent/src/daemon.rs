//! The daemon: opens everything in the right order, and ends it. What is installed stays when it
//! ends: a restart finds it, and removes what nobody holds any more.

use std::sync::Arc;
use std::time::Instant;

use millrace_channel::hold::Standing;
use millrace_channel::hold::server::{self, HoldServerConfig};
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_daemon::admin::{self, Admin};
use millrace_daemon::daemonize::{self, Launch};
use millrace_daemon::exit::ExitError;
use millrace_daemon::pidfile::PidFile;
use millrace_daemon::privileges::{self, Capability, Needs};
use millrace_daemon::readiness::Readiness;
use millrace_daemon::runtime::Runtime;
use millrace_daemon::{config, drain, listen, logging, signals};
use millrace_fleet::consul::Registrar;
use millrace_fleet::options::Membership;
use serde_json::json;

use crate::agent::Agent;
use crate::check;
use crate::headline;
use crate::host::HostConfig;
use crate::install::Installer;
use crate::kernel::Kernel;
use crate::metrics;
use crate::oneshot;
use crate::options::{ADMIN, Options};
use crate::state::{Opened, StateFile};
use crate::status::Shared;
use crate::thread::{self, Parts};

/// Requests that may wait for the agent's thread.
const WAITING: usize = 64;

/// Runs the router-agent, or one of its commands.
///
/// # Errors
/// One line that says what is wrong: exit code 64 for the command line, 1 for the rest.
pub fn run() -> Result<(), ExitError> {
    let options: Options = config::parse()?;
    match &options.command {
        Some(command) => oneshot::run(&options, command),
        None => serve(&options),
    }
}

fn serve(options: &Options) -> Result<(), ExitError> {
    let host = options.host_config()?;
    let membership = options.register.membership()?.map(|it| {
        let it = it.detail("tls", !options.common.insecure);
        match &host.allow {
            // The virtual addresses among them, where it is for a cluster.
            Some(allowed) => it.detail("allow", allowed),
            None => it,
        }
    });
    let security = Security::from_options(&options.common, Role::RouterAgent)?;
    let startup = match daemonize::launch(options.common.daemon)? {
        Launch::Parent => return Ok(()),
        Launch::Run(startup) => startup,
    };
    let log = logging::init(&options.common.logging())?;
    config::warn_of_misspelt_variables::<Options>();
    check::at_start(options, &host)?;
    let admin_listener = admin::bind(options.common.admin(ADMIN))?;
    let listener = listen::bind_for_peers(options.bind, options.port, options.common.insecure)?;
    let state = open_state(&host)?;
    let _pid_file = options
        .common
        .pid_file
        .as_deref()
        .map(PidFile::create)
        .transpose()?;
    privileges::hand_over(&host.state_dir, &options.common)?;
    let privileges = privileges::reduce(&options.common, &needs(&host, membership.as_ref()))?;

    let runtime = Runtime::new()?;
    let (trigger, watch) = drain::channel();
    let manager = startup.manager();
    signals::install(&runtime, trigger, log, manager.clone())?;
    security.keep_fresh(&runtime)?;

    let mode = host.mode;
    let kernel = Kernel::open().map_err(failed)?;
    let installer = Installer::new(host, kernel, state);
    let agent = Agent::new(installer, Instant::now()).map_err(failed)?;
    let (sender, messages) = std::sync::mpsc::sync_channel(WAITING);
    let config = HoldServerConfig::new(security.clone());
    let standing = Standing::of_this_host();
    let server = server::spawn(config, listener, &runtime, sender, standing.clone())?;
    let shared = Shared::default();
    let id = options.id.clone().unwrap_or_else(listen::host_name);
    let thread = thread::spawn(Parts {
        agent,
        messages,
        id: id.clone(),
        shared: shared.clone(),
        standing,
        drain: watch.clone(),
        heart: manager.heart("agent"),
    })
    .map_err(|error| ExitError::caused("cannot start the agent's thread", &error))?;

    let state = shared.clone();
    let told = move || headline::headline(&state.get());
    manager.follow(&runtime, watch, {
        let told = told.clone();
        move || told().sentence
    });
    let registrar = membership.map(|membership| {
        let bound = server.local_addr();
        membership.register(Role::RouterAgent, id, bound, told, &runtime)
    });
    let registrar = registrar.map(Arc::new);
    let (state, streams, registered) = (shared.clone(), server.clone(), registrar.clone());
    let status = move || {
        let agent = state.get();
        json!({
            "headline": headline::headline(&agent),
            "version": env!("CARGO_PKG_VERSION"),
            "agent": agent,
            "streams": streams.status(),
            "consul": registered.as_deref().map(Registrar::status),
        })
    };
    Admin::new(
        Readiness::new(),
        metrics::registry(shared, server.clone()),
        status,
    )
    .section(security)
    .section(server.handshakes().clone())
    .section(privileges)
    .serve(admin_listener, &runtime, std::future::pending())?;
    tracing::info!(
        "diverting by {mode} for whom asks at {}",
        server.local_addr()
    );
    startup.ready();
    let ended = thread.join();
    if let Some(registrar) = registrar {
        runtime.block_on(registrar.leave());
    }
    server.stop();
    // What is still open is told that the agent ends.
    runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(100)).await });
    ended.map_err(|_| {
        ExitError::start("the agent ended by a fault of its own; please report it with the log")
    })?;
    tracing::info!("ended; what is installed stays until its leases are over, or until remove");
    Ok(())
}

fn failed(error: impl std::error::Error) -> ExitError {
    ExitError::start(error.to_string())
}

fn open_state(host: &HostConfig) -> Result<StateFile, ExitError> {
    match StateFile::open(&host.state_dir).map_err(failed)? {
        Opened::Ours(state) => Ok(state),
        Opened::Taken(pid) => Err(ExitError::start(format!(
            "another router-agent{} works with {}: one is enough for a host; for a second one give \
             another --state-dir, --table, --priority, --protocol, --sink-device and port",
            pid.map(|pid| format!(" (process {pid})"))
                .unwrap_or_default(),
            host.state_dir.display()
        ))),
    }
}

/// What the agent needs for as long as it runs.
fn needs(host: &HostConfig, membership: Option<&Membership>) -> Needs {
    let in_state_dir = ["lock", "state.json"].map(|name| host.state_dir.join(name));
    Needs {
        // iptables, which is started for --mode nfqueue, asks for NET_RAW too.
        keep: vec![Capability::NetAdmin, Capability::NetRaw],
        for_children: true,
        own: in_state_dir.into_iter().filter(|it| it.exists()).collect(),
        read: membership.map(Membership::files).unwrap_or_default(),
        // The lock of iptables is in /run.
        write: vec![
            host.state_dir.clone(),
            "/proc/sys/net".into(),
            "/run".into(),
        ],
    }
}

//! The daemon: opens everything in the right order, and ends it.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use millrace_capture::{Device, PacketQueue, RingConfig, Tap, Waker, check_privilege};
use millrace_channel::server::{self, ServerConfig, ServerHandle};
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_daemon::admin::{self, Admin};
use millrace_daemon::daemonize::{self, Launch};
use millrace_daemon::exit::ExitError;
use millrace_daemon::pidfile::PidFile;
use millrace_daemon::privileges::{self, Capability, Needs};
use millrace_daemon::readiness::Readiness;
use millrace_daemon::runtime::{Runtime, ThreadRuntime};
use millrace_daemon::status::Headline;
use millrace_daemon::{config, drain, listen, logging, signals};
use millrace_fleet::consul::Registrar;
use millrace_fleet::options::Membership;
use serde_json::json;

use crate::check;
use crate::counters::{Counters, Shared};
use crate::forwarding;
use crate::headline;
use crate::metrics;
use crate::options::{Mode, Options, SINK};
use crate::queue;
use crate::rings;
use crate::source::{Direction, Source};
use crate::tracer::{Setting, Tracer};
use crate::worker::{Parts, Worker};

/// Default of `--admin`.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 36_531);

/// Runs the interceptor.
///
/// # Errors
/// One line that says what is wrong: exit code 64 for the command line, 1 for the rest.
pub fn run() -> Result<(), ExitError> {
    let options: Options = config::parse()?;
    options.check()?;
    let security = Security::from_options(&options.common, Role::Interceptor)?;
    let membership = options.register.membership()?;
    let membership = membership.map(|it| it.detail("tls", !options.common.insecure));
    let mode = options.mode();
    let mut ring_configs = rings::configs(&options)?;
    find_devices(&options)?;
    let startup = match daemonize::launch(options.common.daemon)? {
        Launch::Parent => return Ok(()),
        Launch::Run(startup) => startup,
    };
    check_privilege().map_err(failed)?;
    let log = logging::init(&options.common.logging())?;
    config::warn_of_misspelt_variables::<Options>();
    check::SUITE.at_start(&options, &options.common.skip_checks)?;
    let admin_listener = admin::bind(options.common.admin(ADMIN))?;
    let (listener, local) = listen_for_copiers(&options, &mut ring_configs)?;
    let waker = Waker::new().map_err(|error| ExitError::caused("cannot make a waker", &error))?;
    let _pid_file = options
        .common
        .pid_file
        .as_deref()
        .map(PidFile::create)
        .transpose()?;
    let privileges = privileges::reduce(&options.common, &needs(mode, membership.as_ref()))?;
    // They may start a thread, which must not keep privileges.
    let devices = ring_configs
        .iter()
        .flat_map(|it| it.devices.clone())
        .collect();
    let sources = open_sources(&options, mode, ring_configs, &waker)?;

    let runtime = Runtime::small()?;
    // The copiers' streams are served by the worker's thread.
    let streams = ThreadRuntime::new()?;
    let (trigger, watch) = drain::channel();
    let manager = startup.manager();
    signals::install(&runtime, trigger, log, manager.clone())?;

    security.keep_fresh(&runtime)?;
    let wake = waker.clone();
    let id = options.id.clone().unwrap_or_else(listen::host_name);
    let config = ServerConfig::new(security.clone(), id.clone());
    let (server, events) = server::spawn(config, listener, streams.handle(), move || wake.wake())?;
    let readiness = Readiness::new();
    if mode == Mode::Link && !options.allow_forwarding {
        let devices = options.devices.clone();
        // Before the first copier is served.
        server.set_unsafe(forwarding::forwards(&devices));
        let task = readiness.register("a host that does not forward");
        runtime.spawn(forwarding::watch(devices, server.clone(), task));
    }
    let shared = Shared::default();
    let registrar = membership.map(|membership| {
        let (bound, told) = (server.local_addr(), told(mode, &shared, &server));
        Arc::new(membership.register(Role::Interceptor, id, bound, told, &runtime))
    });
    Admin::new(
        readiness.clone(),
        metrics::registry(shared.clone()),
        status(
            told(mode, &shared, &server),
            &shared,
            &server,
            registrar.clone(),
        ),
    )
    .section(security)
    .section(server.handshakes().clone())
    .section(privileges)
    .serve(admin_listener, &runtime, std::future::pending())?;
    tracing::info!(
        "taking responses from {}, listening for copiers on {}",
        shown(&options, mode),
        server.local_addr()
    );

    let tracer = Tracer::start(Setting {
        devices,
        assistant: mode == Mode::Link,
    })
    .map_err(|error| ExitError::caused("cannot start the tracer's thread", &error))?;
    let worker = Worker::new(Parts {
        sources,
        tracer,
        events,
        local,
        waker,
        drain: watch.clone(),
        max_flows: options.max_flows as usize,
        shared: shared.clone(),
        readiness,
        heart: manager.heart("worker"),
    });
    let told = told(mode, &shared, &server);
    manager.follow(&runtime, watch, move || told().sentence);
    let (counters, streams) = streams.run_apart("worker", || startup.ready(), || worker.run())?;
    streams.run(async {
        if let Some(registrar) = registrar {
            registrar.leave().await;
        }
        server.stop().await;
    });
    say_farewell(&counters);
    Ok(())
}

/// Where copiers are heard, and this host's addresses. What is said there is not captured.
fn listen_for_copiers(
    options: &Options,
    rings: &mut [RingConfig],
) -> Result<(TcpListener, HashSet<IpAddr>), ExitError> {
    let listener = listen::bind_for_peers(options.bind, options.port, options.common.insecure)?;
    let local = local_addresses();
    rings::leave_out(rings, &listener, &local)?;
    Ok((listener, local))
}

fn local_addresses() -> HashSet<IpAddr> {
    let devices = Device::list().into_iter();
    devices.flat_map(|device| device.addresses).collect()
}

fn say_farewell(counters: &Counters) {
    tracing::info!(
        "{} response headers returned, {} without an owner, {} dropped, {} frames lost in capture",
        counters.returned,
        counters.unowned,
        counters.dropped,
        counters.capture_dropped
    );
}

fn failed(error: impl std::error::Error) -> ExitError {
    ExitError::start(error.to_string())
}

fn shown(options: &Options, mode: Mode) -> String {
    match mode {
        Mode::Sink if options.devices.is_empty() => format!("the sink {SINK}"),
        Mode::Sink => format!("the sink {}", options.devices.join(", ")),
        Mode::Link => options.devices.join(", "),
        Mode::Nfqueue => format!("NFQUEUE {}", options.queue),
    }
}

/// A device that other hosts' responses arrive on must be there; one of its own is made by whoever diverts into it.
fn find_devices(options: &Options) -> Result<(), ExitError> {
    let named = options.devices.iter();
    let mut named = named.filter(|_| options.mode() == Mode::Link);
    named.try_for_each(|name| Device::find(name).map(drop).map_err(failed))
}

fn open_sources(
    options: &Options,
    mode: Mode,
    configs: Vec<RingConfig>,
    waker: &Waker,
) -> Result<Vec<Source>, ExitError> {
    match mode {
        Mode::Nfqueue => {
            let queue = PacketQueue::open(options.queue, false).map_err(failed)?;
            let heads = queue::start(queue, options.pass_list.clone(), waker.clone())
                .map_err(|error| ExitError::caused("cannot start the queue's thread", &error))?;
            Ok(vec![Source::Queue(heads, VecDeque::new())])
        }
        // The sink belongs to router-agent, which makes it when a copier asks.
        Mode::Sink => Ok(configs
            .into_iter()
            .map(|config| Source::Device(Box::new(Tap::waiting(config)), Direction::Any))
            .collect()),
        Mode::Link => configs
            .into_iter()
            .map(|config| {
                let tap = Tap::open(config).map_err(failed)?;
                Ok(Source::Device(Box::new(tap), Direction::Incoming))
            })
            .collect(),
    }
}

/// What the interceptor needs once its sockets are open.
fn needs(mode: Mode, membership: Option<&Membership>) -> Needs {
    Needs {
        // Rings and queues are opened again when they break.
        keep: match mode {
            Mode::Sink | Mode::Link => vec![Capability::NetRaw],
            Mode::Nfqueue => vec![Capability::NetRaw, Capability::NetAdmin],
        },
        read: membership.map(Membership::files).unwrap_or_default(),
        ..Needs::default()
    }
}

/// How it stands, whenever asked.
fn told(
    mode: Mode,
    shared: &Shared,
    server: &ServerHandle,
) -> impl Fn() -> Headline + Send + Sync + 'static {
    let (counters, streams) = (shared.clone(), server.clone());
    move || {
        let (forwards, open) = (streams.unsafe_because(), streams.status().connections.len());
        headline::headline(mode, forwards.as_deref(), &counters.get(), open)
    }
}

fn status(
    told: impl Fn() -> Headline + Send + Sync + 'static,
    shared: &Shared,
    server: &ServerHandle,
    registrar: Option<Arc<Registrar>>,
) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
    let (counters, streams) = (shared.clone(), server.clone());
    move || {
        json!({
            "headline": told(),
            "version": env!("CARGO_PKG_VERSION"),
            "report": counters.get(),
            "copiers": streams.status(),
            "consul": registrar.as_deref().map(Registrar::status),
        })
    }
}

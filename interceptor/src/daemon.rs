//! The daemon: opens everything in the right order, and ends it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use millrace_capture::{
    Device, Expression, Filter, ResponseFilter, Ring, RingConfig, Waker, check_privilege,
};
use millrace_fleet::admin::{self, Admin};
use millrace_fleet::daemonize::{self, Launch};
use millrace_fleet::exit::ExitError;
use millrace_fleet::pidfile::PidFile;
use millrace_fleet::readiness::Readiness;
use millrace_fleet::server::{self, ServerConfig, ServerHandle};
use millrace_fleet::tls::Role;
use millrace_fleet::transport::Security;
use millrace_fleet::{config, drain, listen, logging, signals};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::counters::Shared;
use crate::metrics;
use crate::options::Options;
use crate::worker::{Parts, Worker};

/// Default of `--admin`.
const ADMIN: &str = "127.0.0.1:36531";

/// Runs the interceptor.
///
/// # Errors
/// One line that says what is wrong: exit code 64 for the command line, 1 for the rest.
pub fn run() -> Result<(), ExitError> {
    let options: Options = config::parse()?;
    let security = Security::from_options(&options.common, Role::Interceptor)?;
    let ring_configs = ring_configs(&options)?;
    let startup = match daemonize::launch(options.common.daemon)? {
        Launch::Parent => return Ok(()),
        Launch::Run(startup) => startup,
    };
    check_privilege().map_err(failed)?;
    let log = logging::init(&options.common.logging())?;
    let admin_listener = admin::bind(admin_address(&options)?)?;
    let listener = listen_for_copiers(&options)?;
    let rings = open_rings(ring_configs)?;
    let _pid_file = options
        .common
        .pid_file
        .as_deref()
        .map(PidFile::create)
        .transpose()?;

    let runtime =
        Runtime::new().map_err(|error| ExitError::caused("cannot start the runtime", &error))?;
    let (trigger, watch) = drain::channel();
    signals::install(runtime.handle(), trigger, log)?;

    security.keep_fresh(runtime.handle())?;
    let waker = Waker::new().map_err(|error| ExitError::caused("cannot make a waker", &error))?;
    let wake = waker.clone();
    let config = ServerConfig::new(security, options.id.clone().unwrap_or_else(host_name));
    let (server, events) = server::spawn(config, listener, runtime.handle(), move || wake.wake())?;
    let shared = Shared::default();
    serve_admin(admin_listener, &runtime, &shared, &server)?;
    tracing::info!(
        "capturing responses on {}, listening for copiers on {}",
        options.devices.join(", "),
        server.local_addr()
    );

    let worker = Worker::new(Parts {
        rings,
        events,
        local: Device::list()
            .into_iter()
            .flat_map(|device| device.addresses)
            .collect(),
        waker,
        drain: watch,
        shared,
    });
    let thread = std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || worker.run())
        .map_err(|error| ExitError::caused("cannot start the worker's thread", &error))?;
    startup.ready();
    let counters = thread.join().map_err(|_| {
        ExitError::start("the worker ended by a fault of its own; please report it with the log")
    })?;
    server.stop();
    tracing::info!(
        "{} response headers returned, {} without an owner, {} dropped, {} frames lost in capture",
        counters.returned,
        counters.unowned,
        counters.dropped,
        counters.capture_dropped
    );
    Ok(())
}

fn failed(error: impl std::error::Error) -> ExitError {
    ExitError::start(error.to_string())
}

fn admin_address(options: &Options) -> Result<SocketAddr, ExitError> {
    match options.common.admin {
        Some(address) => Ok(address),
        None => ADMIN
            .parse()
            .map_err(|_| ExitError::start(format!("no such address: {ADMIN}"))),
    }
}

/// Listens where the operator says, or on all addresses: of both families, or of IPv4 on a host
/// without IPv6.
fn listen_for_copiers(options: &Options) -> Result<TcpListener, ExitError> {
    let bind = |ip| listen::bind(SocketAddr::new(ip, options.port), "--bind and --port");
    match options.bind {
        Some(ip) => bind(ip),
        None if has_ipv6() => bind(Ipv6Addr::UNSPECIFIED.into()),
        None => bind(Ipv4Addr::UNSPECIFIED.into()),
    }
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn ring_configs(options: &Options) -> Result<Vec<RingConfig>, ExitError> {
    let headers = ResponseFilter::default();
    let snap_len = headers.snap_len;
    let filter = match &options.filter {
        Some(text) if text.trim().is_empty() => {
            return Err(ExitError::usage(
                "-F: the expression is empty; leave -F out to capture all responses",
            ));
        }
        Some(text) => Filter::Expression(Expression {
            text: text.clone(),
            exclude: Vec::new(),
        }),
        None => Filter::Responses(headers),
    };
    filter
        .compile(millrace_wire::LinkType::Ethernet, snap_len)
        .map_err(|error| ExitError::usage(error.to_string()))?;
    let mut names = options.devices.clone();
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(ExitError::usage(
            "-i: a device's name is missing; write DEV or DEV,DEV,...",
        ));
    }
    names.sort();
    names.dedup();
    names
        .iter()
        .map(|name| {
            Device::find(name).map_err(failed)?;
            Ok(RingConfig {
                buffer_bytes: (options.buffer_mb as usize) << 20,
                snap_len,
                ..RingConfig::new(name.clone(), filter.clone())
            })
        })
        .collect()
}

fn open_rings(configs: Vec<RingConfig>) -> Result<Vec<(RingConfig, Ring)>, ExitError> {
    configs
        .into_iter()
        .map(|config| {
            let ring = Ring::open(&config).map_err(failed)?;
            Ok((config, ring))
        })
        .collect()
}

fn serve_admin(
    listener: std::net::TcpListener,
    runtime: &Runtime,
    shared: &Shared,
    server: &ServerHandle,
) -> Result<(), ExitError> {
    let (counters, streams) = (shared.clone(), server.clone());
    let status = move || {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "report": counters.get(),
            "copiers": streams.status(),
        })
    };
    Admin::new(Readiness::new(), metrics::registry(shared.clone()), status).serve(
        listener,
        runtime.handle(),
        std::future::pending(),
    )
}

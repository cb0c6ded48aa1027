//! `millrace-copier record`: live traffic into files ([`millrace_recordings::record`]) that `-i FILE` replays later.
//!
//! - [`options`]: what is recorded, and where to.

pub mod options;

use millrace_capture::{
    ANY, Device, Expression, Filter, FilterSpec, RingConfig, ServiceFilter, Waker, check_privilege,
};
use millrace_daemon::drain;
use millrace_daemon::exit::ExitError;
use millrace_daemon::logging;
use millrace_daemon::options::CommonOptions;
use millrace_daemon::privileges::{self, Capability, Needs};
use millrace_daemon::runtime::Runtime;
use millrace_daemon::service_manager::ServiceManager;
use millrace_daemon::signals;
use millrace_recordings::record::files::{Files, directory};
use millrace_recordings::record::recorder::{Recorder, Tape};

use self::options::RecordOptions;
use crate::command::{self, Arguments};

/// Runs the command.
///
/// # Errors
/// Exit code 64 for the command line, 1 when recording cannot begin or go on.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: RecordOptions = command::parse(arguments)?;
    let rings = rings(&options)?;
    check_privilege().map_err(|error| ExitError::start(error.to_string()))?;
    let common = CommonOptions::from(&options);
    let log = logging::init(&common.logging())?;
    privileges::reduce(&common, &needs(&options))?;
    let runtime = Runtime::new()?;
    let (trigger, watch) = drain::channel();
    let mut hang_ups = signals::install(&runtime, trigger, log, ServiceManager::default())?;
    let waker = Waker::new().map_err(|error| ExitError::caused("cannot make a waker", &error))?;

    let tapes = rings
        .into_iter()
        .map(Tape::open)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ExitError::start(error.to_string()))?;
    let files = Files::new(options.rotation()?);
    let mut recorder = Recorder::new(tapes, files, watch.clone(), waker.clone())?;
    let asked = recorder.asked_to_rotate();
    let woken = waker.clone();
    runtime.spawn(async move {
        while hang_ups.next().await {
            asked.ask();
            woken.wake();
        }
    });
    runtime.spawn(async move {
        watch.draining().await;
        waker.wake();
    });
    recorder.run()
}

/// What is needed while recording.
fn needs(options: &RecordOptions) -> Needs {
    Needs {
        keep: vec![Capability::NetRaw],
        write: vec![directory(&options.write).to_owned()],
        ..Needs::default()
    }
}

/// Devices of one recorder: it waits for each, and for a word of its own.
const MAX_DEVICES: usize = millrace_capture::wait::MAX_SOURCES - 1;
/// What a device gets of the capture buffer at least, however many there are.
const LEAST_BUFFER: usize = 1 << 20;

fn rings(options: &RecordOptions) -> Result<Vec<RingConfig>, ExitError> {
    let addresses: Vec<_> = options.services.iter().map(|one| one.0.address).collect();
    let devices = if options.devices.is_empty() {
        Device::carrying(&addresses)
    } else {
        Device::named(&options.devices).map_err(|error| ExitError::start(error.to_string()))?
    };
    if devices.len() > MAX_DEVICES {
        return Err(ExitError::usage(format!(
            "-i: {} devices are more than one recorder records on ({}): name them, or start another one",
            devices.len(),
            MAX_DEVICES
        )));
    }
    if devices.is_empty() {
        return Err(ExitError::start(
            "no device carries the address of -x: check it with `ip address`, or name the devices \
             with -i",
        ));
    }
    let filter = filter(options)?;
    filter
        .compile(millrace_wire::LinkType::Ethernet, options.snap_length)
        .map_err(|error| ExitError::usage(error.to_string()))?;
    let each = (options.buffer_mb as usize) << 20;
    let each = (each / devices.len().max(1)).max(LEAST_BUFFER);
    Ok(devices
        .into_iter()
        .map(|device| RingConfig {
            buffer_bytes: each,
            snap_len: options.snap_length,
            // As with tcpdump, `any` leaves devices as they are.
            promiscuous: !options.no_promiscuous && options.devices != [ANY],
            ..RingConfig::new(device.name, filter.clone())
        })
        .collect())
}

fn filter(options: &RecordOptions) -> Result<Filter, ExitError> {
    match &options.filter {
        Some(text) if text.trim().is_empty() => Err(ExitError::usage(
            "-F: the expression is empty; leave -F out to record what -x names",
        )),
        Some(_) if !options.tunnels.on_devices().kinds.is_empty() => Err(ExitError::usage(
            "-F with --tunnels: the expression alone says what is recorded; leave --tunnels out, and look into tunnels \
             when the file is replayed",
        )),
        Some(text) => Ok(Filter::Expression(Expression {
            text: text.clone(),
            exclude: Vec::new(),
            snap_len: u32::MAX,
        })),
        None if options.services.is_empty() => Err(ExitError::usage(
            "nothing to record: name the services with -x PORT or -x IP:PORT",
        )),
        None => {
            let services: Vec<ServiceFilter> = options.services.iter().map(|one| one.0).collect();
            Ok(Filter::Services(FilterSpec {
                services,
                local_addresses: Device::list()
                    .into_iter()
                    .flat_map(|device| device.addresses)
                    .collect(),
                exclude: Vec::new(),
                client_snap_len: options.snap_length,
                server_snap_len: match options.whole {
                    true => options.snap_length,
                    false => millrace_capture::filter::HEADERS_ONLY,
                },
                whole_services: Vec::new(),
                tunnels: options.tunnels.on_devices(),
            }))
        }
    }
}

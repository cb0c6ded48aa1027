//! What every Millrace daemon shares: options, configuration, log, admin port, and the manners of a Unix daemon.
//!
//! A daemon's `main` reads as a list of these:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use millrace_daemon::daemonize::{self, Launch};
//! use millrace_daemon::exit::{ExitError, main_with};
//! use millrace_daemon::options::CommonOptions;
//! use millrace_daemon::{config, drain, logging, pidfile, runtime, signals};
//!
//! #[derive(Debug, clap::Parser)]
//! #[command(name = "millrace-example", version)]
//! struct Options {
//!     #[command(flatten)]
//!     common: CommonOptions,
//! }
//!
//! fn main() -> ExitCode {
//!     main_with("millrace-example", run)
//! }
//!
//! fn run() -> Result<(), ExitError> {
//!     let options: Options = config::parse()?;
//!     let startup = match daemonize::launch(options.common.daemon)? {
//!         Launch::Parent => return Ok(()),
//!         Launch::Run(startup) => startup,
//!     };
//!     let log = logging::init(&options.common.logging())?;
//!     let _pid_file = options.common.pid_file.as_deref().map(pidfile::PidFile::create).transpose()?;
//!     let runtime = runtime::Runtime::new()?;
//!     let (trigger, watch) = drain::channel();
//!     signals::install(&runtime, trigger, log, startup.manager())?;
//!     startup.ready();
//!     runtime.block_on(watch.draining());
//!     Ok(())
//! }
//! ```

pub mod admin;
pub mod blocking;
pub mod boottime;
pub mod check;
pub mod config;
pub mod daemonize;
pub mod drain;
pub mod exit;
pub mod incarnation;
pub mod listen;
pub mod logging;
pub mod options;
pub mod pidfile;
pub mod privileges;
pub mod quiet;
pub mod readiness;
pub mod request;
pub mod runtime;
pub mod service_manager;
pub mod signals;
pub mod status;

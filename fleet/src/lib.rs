//! What every Millrace daemon shares: the streams between them, options, addresses, and the
//! manners of a Unix daemon.
//!
//! A daemon's `main` reads as a list of these:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use millrace_fleet::daemonize::{self, Launch};
//! use millrace_fleet::exit::{ExitError, main_with};
//! use millrace_fleet::options::CommonOptions;
//! use millrace_fleet::{config, drain, logging, pidfile, signals};
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
//!     let runtime = tokio::runtime::Runtime::new().map_err(|e| ExitError::start(e.to_string()))?;
//!     let (trigger, watch) = drain::channel();
//!     signals::install(runtime.handle(), trigger, log)?;
//!     startup.ready();
//!     runtime.block_on(watch.draining());
//!     Ok(())
//! }
//! ```

pub mod address;
pub mod admin;
pub mod boottime;
pub mod config;
pub mod daemonize;
pub mod drain;
pub mod exit;
pub mod hold;
pub mod incarnation;
pub mod link;
pub mod listen;
pub mod logging;
pub mod options;
pub mod pidfile;
pub mod privileges;
pub mod quiet;
pub mod readiness;
pub mod server;
pub mod signals;
pub mod sync;
pub mod tls;
pub mod transport;

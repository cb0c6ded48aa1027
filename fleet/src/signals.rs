//! Unix signals: SIGTERM and SIGINT drain and then end, SIGHUP reopens the log file.

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::{DrainTrigger, Stage};
use crate::exit::ExitError;
use crate::logging::Log;

/// Watches the signals for as long as the runtime lives.
///
/// # Errors
/// When the kernel refuses a handler (exit code 1).
pub fn install(runtime: &Handle, trigger: DrainTrigger, log: Log) -> Result<(), ExitError> {
    let _inside = runtime.enter();
    let watch = |kind: SignalKind| -> Result<Signal, ExitError> {
        signal(kind).map_err(|error| ExitError::caused("cannot watch signals", &error))
    };
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    runtime.spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = hangup.recv() => {
                    log.reopen();
                    continue;
                }
                else => return,
            };
            match trigger.advance() {
                Stage::Running => {}
                Stage::Draining => {
                    tracing::info!("{name}: draining; a second one ends the process at once");
                }
                Stage::Exit => tracing::warn!("{name}: ending at once"),
            }
        }
    });
    Ok(())
}

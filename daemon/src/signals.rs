//! Unix signals: SIGTERM and SIGINT drain and then end, SIGHUP reopens the log file and has
//! everything read again that may have changed.

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::drain::{DrainTrigger, Stage};
use crate::exit::ExitError;
use crate::logging::Log;

/// Tells of SIGHUPs. Cheap to clone; each clone is told of each.
#[derive(Debug, Clone)]
pub struct HangUps(watch::Receiver<()>);

impl HangUps {
    /// Waits for the next SIGHUP; several in quick succession may count as one. False when the
    /// signals are not watched any more.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Watches the signals for as long as the runtime lives.
///
/// # Errors
/// When the kernel refuses a handler (exit code 1).
pub fn install(runtime: &Handle, trigger: DrainTrigger, log: Log) -> Result<HangUps, ExitError> {
    let _inside = runtime.enter();
    let watch = |kind: SignalKind| -> Result<Signal, ExitError> {
        signal(kind).map_err(|error| ExitError::caused("cannot watch signals", &error))
    };
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let (hung_up, hang_ups) = watch::channel(());
    runtime.spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = hangup.recv() => {
                    log.reopen();
                    hung_up.send_replace(());
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
    Ok(HangUps(hang_ups))
}

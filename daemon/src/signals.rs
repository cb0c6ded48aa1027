//! Unix signals: SIGTERM and SIGINT drain and then end, SIGHUP reopens the log file and has
//! everything read again that may have changed.

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::drain::{DrainTrigger, Stage};
use crate::exit::ExitError;
use crate::logging::Log;
use crate::service_manager::ServiceManager;

/// Tells of SIGHUPs. Cheap to clone; each clone is told of each.
#[derive(Debug, Clone)]
pub struct HangUps {
    signals: watch::Receiver<()>,
    manager: ServiceManager,
}

impl HangUps {
    /// Waits for the next SIGHUP; several in quick succession may count as one. False when the
    /// signals are not watched any more.
    pub async fn next(&mut self) -> bool {
        self.signals.changed().await.is_ok()
    }

    /// What the last one was for is done: the service manager is told.
    pub fn done(&self) {
        self.manager.reloaded();
    }
}

/// Watches the signals for as long as the runtime lives. Whoever keeps what is returned says with [`HangUps::done`]
/// when it has done its part.
///
/// # Errors
/// When the kernel refuses a handler (exit code 1).
pub fn install(
    runtime: &Handle,
    trigger: DrainTrigger,
    log: Log,
    manager: ServiceManager,
) -> Result<HangUps, ExitError> {
    let _inside = runtime.enter();
    let watch = |kind: SignalKind| -> Result<Signal, ExitError> {
        signal(kind).map_err(|error| ExitError::caused("cannot watch signals", &error))
    };
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let (hung_up, signals) = watch::channel(());
    let hang_ups = HangUps {
        signals,
        manager: manager.clone(),
    };
    runtime.spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = hangup.recv() => {
                    manager.reloading();
                    log.reopen();
                    if hung_up.send(()).is_err() {
                        // Nobody else has anything to read again.
                        manager.reloaded();
                    }
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
    Ok(hang_ups)
}

//! Looking at the files every few seconds and on SIGHUP, and warning before the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::store::{Look, Store};
use millrace_daemon::exit::ExitError;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// The end of a certificate is warned of from here on. Seconds.
const WARN_BEFORE: i64 = 7 * 24 * 3600;

/// How often it is warned of again.
const WARN_EVERY: Duration = Duration::from_secs(12 * 3600);

impl Store {
    /// Keeps the certificates fresh for as long as the runtime and the store live.
    ///
    /// # Errors
    /// When the kernel refuses to report SIGHUP (exit code 1).
    pub(crate) fn watch(self: &Arc<Self>, runtime: &Handle) -> Result<(), ExitError> {
        let _inside = runtime.enter();
        let mut hangup = signal(SignalKind::hangup())
            .map_err(|error| ExitError::caused("cannot watch signals", &error))?;
        let store = Arc::downgrade(self);
        runtime.spawn(async move {
            let mut warned: Option<Instant> = None;
            loop {
                let Some(store) = store.upgrade() else { return };
                // File systems may hang; that must not stop a thread of the runtime.
                let look = tokio::task::spawn_blocking(move || {
                    let look = store.look();
                    (store, look)
                });
                let Ok((store, look)) = look.await else {
                    return;
                };
                if report(&store, &look) {
                    warned = None;
                }
                warn_of_the_end(&store, &mut warned);
                drop(store);
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    Some(()) = hangup.recv() => {}
                }
            }
        });
        Ok(())
    }
}

/// Whether other certificates are in use now.
fn report(store: &Store, look: &Look) -> bool {
    match look {
        Look::Same => false,
        Look::Reloaded => {
            let status = store.status();
            tracing::info!(
                "certificates read again: {} until {}; open streams stay as they are",
                status.id,
                status.not_after
            );
            true
        }
        Look::Unusable(error) => {
            tracing::warn!(
                "the changed certificate files are not used, the old ones stay: {error}"
            );
            false
        }
    }
}

fn warn_of_the_end(store: &Store, warned: &mut Option<Instant>) {
    let status = store.status();
    let left = status.expires_in_seconds;
    if left >= WARN_BEFORE || warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
        return;
    }
    *warned = Some(Instant::now());
    let cert = store.files().cert.display();
    if left < 0 {
        tracing::warn!(
            "the certificate {cert} expired at {}: peers refuse new connections; replace --cert \
             and --key, they are read again by themselves",
            status.not_after
        );
    } else {
        tracing::warn!(
            "the certificate {cert} expires in {} hours, at {}: replace --cert and --key, they are \
             read again by themselves",
            left / 3600,
            status.not_after
        );
    }
}

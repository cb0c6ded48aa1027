//! A daemon's tokio runtime, whose end nothing can hold up.

use std::ops::Deref;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::exit::ExitError;

/// How long the end of a daemon waits for what blocks a thread of its runtime.
const PATIENCE: Duration = Duration::from_secs(1);

/// A runtime. When it is dropped, tasks end at once. What blocks a thread is waited for no longer than a second: a
/// look-up of a name blocks one for as long as name servers do not answer.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    owned: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// A runtime with a thread for each core.
    ///
    /// # Errors
    /// When the kernel lacks what a runtime needs, with exit code 1.
    pub fn new() -> Result<Self, ExitError> {
        Self::of_threads(|_| {})
    }

    /// A runtime with threads as `describe` says.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn of_threads(describe: impl FnOnce(&mut Builder)) -> Result<Self, ExitError> {
        let mut builder = Builder::new_multi_thread();
        describe(&mut builder);
        let built = builder.enable_all().build();
        let runtime =
            built.map_err(|error| ExitError::caused("cannot start the runtime", &error))?;
        Ok(Self {
            handle: runtime.handle().clone(),
            owned: Some(runtime),
        })
    }
}

/// What tasks are started with.
impl Deref for Runtime {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let runtime = Runtime::new().unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (release, hang) = mpsc::channel::<()>();
        let hanging = runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            // Until the test lets go of it.
            hang.recv()
        });
        has_begun.recv().unwrap();
        drop(runtime);
        assert!(!hanging.is_finished());
        drop(release);
    }
}

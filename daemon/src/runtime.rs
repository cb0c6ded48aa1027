//! A daemon's tokio runtime, whose end nothing can hold up.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::exit::ExitError;

/// Tasks of a [`ThreadRuntime`] that go on before its own work does: of each of some hundred streams two, so that what was
/// handed to all of them leaves at once.
const TASKS_IN_A_ROW: u32 = 1024;
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
        Self::built_by(&mut Builder::new_multi_thread())
    }

    /// A runtime with one thread of its own.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn small() -> Result<Self, ExitError> {
        Self::built_by(Builder::new_multi_thread().worker_threads(1))
    }

    fn built_by(builder: &mut Builder) -> Result<Self, ExitError> {
        let runtime = build(builder)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            owned: Some(runtime),
        })
    }
}

fn build(builder: &mut Builder) -> Result<tokio::runtime::Runtime, ExitError> {
    let built = builder.enable_all().build();
    built.map_err(|error| ExitError::caused("cannot start the runtime", &error))
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

/// A runtime without a thread: its tasks go on within [`ThreadRuntime::run`], on the thread that calls it, and nowhere else. Its
/// end is that of a [`Runtime`].
#[derive(Debug)]
pub struct ThreadRuntime(Runtime);

impl ThreadRuntime {
    /// A runtime whose tasks wait.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn new() -> Result<Self, ExitError> {
        let mut builder = Builder::new_current_thread();
        Runtime::built_by(builder.event_interval(TASKS_IN_A_ROW)).map(Self)
    }

    /// What tasks are started with. (Its `block_on` would wait in vain for time and sockets.)
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Does this work, and the tasks whenever it waits, on a thread of this name, and waits for its end. `begun` is called
    /// once the thread is there.
    ///
    /// # Errors
    /// When there can be no thread, when the work fails, or when it ends by a fault of its own; with exit code 1.
    pub fn run_apart<T, W>(
        self,
        name: &str,
        begun: impl FnOnce(),
        work: impl FnOnce() -> W + Send + 'static,
    ) -> Result<(T, Self), ExitError>
    where
        T: Send + 'static,
        W: Future<Output = io::Result<T>>,
    {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || self.run(work()).map(|done| (done, self)))
            .map_err(|error| {
                ExitError::caused(format!("cannot start the {name}'s thread"), &error)
            })?;
        begun();
        let ended = thread.join().map_err(|_| {
            let what =
                format!("the {name} ended by a fault of its own; please report it with the log");
            ExitError::start(what)
        })?;
        ended.map_err(|error| {
            ExitError::caused(format!("the {name} cannot wait for packets"), &error)
        })
    }

    /// Does this work on this thread, and the tasks whenever it waits.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.0.owned {
            Some(runtime) => runtime.block_on(work),
            // It is there until the end.
            None => self.0.handle.block_on(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_of_a_runtime_without_threads_go_on_where_it_is_run() {
        let runtime = ThreadRuntime::new().unwrap();
        let here = std::thread::current().id();
        let task = runtime
            .handle()
            .spawn(async { std::thread::current().id() });
        assert!(!task.is_finished());
        assert_eq!(runtime.run(task).unwrap(), here);
    }

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

//! Waiting for the network where no runtime runs: in commands, and before a daemon has started its own.

use std::future::Future;
use std::io;

use tokio::runtime::Builder;

/// Waits for `future` on this thread.
///
/// # Errors
/// When the kernel lacks what a runtime needs.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let output = runtime.block_on(future);
    // A look-up of a name may block a thread for as long as name servers do not answer: it is not waited for.
    runtime.shutdown_background();
    Ok(output)
}

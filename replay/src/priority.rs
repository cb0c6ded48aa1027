//! The scheduling priority of the capture thread.

use rustix::process::{getpriority_process, setpriority_process};

/// The calling thread has another priority for as long as this lives; threads that it starts
/// meanwhile inherit it for good.
#[derive(Debug)]
pub struct Raised {
    before: Option<i32>,
}

/// Gives the calling thread the priority `nice`, if that is allowed: with CAP_SYS_NICE, or as far as
/// RLIMIT_NICE goes. Where it is not, that is said, and everything works as before.
pub fn raise(nice: i32) -> Raised {
    // On Linux a priority belongs to a thread (setpriority(2), "C library/kernel differences").
    let before = getpriority_process(None).ok();
    match setpriority_process(None, nice) {
        Ok(()) => Raised { before },
        Err(error) => {
            tracing::info!(
                "the capture thread keeps the priority of the others (--capture-nice {nice}: {error}; \
                 it takes CAP_SYS_NICE)"
            );
            Raised { before: None }
        }
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Back to less, which is always allowed.
            let _ = setpriority_process(None, before);
        }
    }
}

//! Waiting for something to become true, never for longer than said.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(10);

/// Returns as soon as `condition` holds.
///
/// # Errors
/// [`Error::TimedOut`], with `what`, when it did not hold within `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_some(what, limit, || condition().then_some(()))
}

/// As [`wait_for`], for a condition that comes with a value.
///
/// # Errors
/// [`Error::TimedOut`], with `what`, when there was no value within `limit`.
pub fn wait_some<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(Error::TimedOut {
                what: what.to_owned(),
                waited: limit,
            });
        }
        std::thread::sleep(PACE);
    }
}

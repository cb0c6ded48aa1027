//! Locks that survive a panic of another thread: the state behind them is valid between any two
//! statements, so a poisoned lock is still good.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

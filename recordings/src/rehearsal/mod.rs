//! A replay without a network: the packets go through the same feed to the same engine. The target is an ideal one, and
//! the clock jumps from one event to the next.
//!
//! - `ideal`: the target.

mod ideal;

use std::os::fd::AsFd;
use std::time::Duration;

use millrace_capture::{Waker, wait};
use millrace_daemon::exit::ExitError;
use millrace_engine::{Engine, Event, Time};
use millrace_pilot::Mode;

use self::ideal::IdealTarget;
use crate::feed::{Feed, FeedConfig, Step};

/// The clock's beginning.
const BEGIN: Time = Time::from_micros(1_000_000);
/// The longest jump while the feed waits for what has no timer.
const LONGEST_JUMP: Duration = Duration::from_millis(100);
/// The shortest.
const SHORTEST_JUMP: Duration = Duration::from_micros(1);
/// The files' reader is looked for so often, should it end without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A replay that is over.
pub struct Rehearsed {
    /// The engine, with what it has counted.
    pub engine: Engine,
    /// The recording, read to its end.
    pub feed: Feed,
}

/// Replays at an ideal target.
///
/// # Errors
/// Files that cannot be read.
pub fn rehearse(config: FeedConfig, mut engine: Engine) -> Result<Rehearsed, ExitError> {
    let cannot = |error: &dyn std::error::Error| ExitError::caused("cannot read the files", error);
    let waker = Waker::new().map_err(|error| cannot(&error))?;
    let mut feed = Feed::open(config, waker.clone())?;
    let mut target = IdealTarget::default();
    let mut now = BEGIN;
    engine.set_open(now, true);
    loop {
        let step = feed.step(now, &mut engine, Mode::Running);
        exchange(now, &mut engine, &mut target);
        let due = match step {
            Step::More => continue,
            Step::Reading => {
                wait(&[waker.as_fd()], Some(LOOK_AGAIN)).map_err(|error| cannot(&error))?;
                waker.clear();
                continue;
            }
            Step::At(due) => due,
            Step::Waiting | Step::Over => now + LONGEST_JUMP,
        };
        if feed.is_finished(now, &engine) {
            break;
        }
        let timers = [target.poll_timeout(), engine.poll_timeout()];
        let next = timers.into_iter().flatten().fold(due, Time::min);
        now = next.max(now + SHORTEST_JUMP);
    }
    engine.shutdown(now);
    Ok(Rehearsed { engine, feed })
}

/// Lets engine and target say to each other what is due.
fn exchange(now: Time, engine: &mut Engine, target: &mut IdealTarget) {
    target.deliver(now, engine);
    engine.timeout(now);
    while let Some(packet) = engine.poll_transmit(now) {
        target.take(now, &packet);
    }
    while let Some(event) = engine.poll_event() {
        match event {
            Event::FlowClosed { key } => target.forget(key),
            Event::FlowOpened { .. }
            | Event::TargetSilent(_)
            | Event::ConversationFailed { .. }
            | Event::HeardEnough { .. }
            | Event::Misdirected { .. } => {}
        }
    }
}

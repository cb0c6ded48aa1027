//! A stream on tokio: hands what happens to its machine, and does what that says.

use std::time::Duration;

use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::random_u64;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::machine::{Action, Machine};
use super::{Terms, Wire};

/// As good as never: a stream that waits for nothing has been closed.
const NEVER: Duration = Duration::from_secs(3600);

/// Keeps a stream up on `runtime` until `closed`.
pub(crate) fn spawn<W>(wire: W, terms: Terms, runtime: &Handle, closed: CancellationToken)
where
    W: Wire<Outgoing: Send, Incoming: Send + 'static, Pong: Send, Refusal: Send> + Send + 'static,
{
    runtime.spawn(run(Machine::new(wire, terms, random_u64), closed));
}

async fn run<W: Wire>(mut machine: Machine<W>, closed: CancellationToken) {
    let mut line = Line::None;
    let mut deadline = machine.deadline();
    let alarm = sleep_until(alarm_at(deadline));
    tokio::pin!(alarm);
    let cancelled = closed.cancelled();
    tokio::pin!(cancelled);
    loop {
        // Set only when it changes: most messages do not change it, and there may be many.
        if machine.deadline() != deadline {
            deadline = machine.deadline();
            alarm.as_mut().reset(alarm_at(deadline));
        }
        let actions = tokio::select! {
            biased;
            () = &mut cancelled => machine.close(BootTime::now()),
            () = &mut alarm => {
                // Whatever it says, the next alarm is a new one: this one has gone off.
                deadline = None;
                machine.tick(BootTime::now())
            }
            heard = line.next() => match heard {
                Ok(message) => machine.heard(message, BootTime::now()),
                Err(reason) => machine.failed(reason, BootTime::now()),
            },
        };
        for action in actions {
            match action {
                Action::Connect => line = Line::Opening(machine.contract().dial()),
                Action::Send(message) => {
                    // A first message finds room; a ping that finds none is on a connection that stands still, and
                    // HTTP/2's own pings will tell.
                    machine.contract().send(message);
                }
                Action::HangUp => line = Line::None,
                Action::Warn(said) => tracing::warn!("{said}"),
                Action::Debug(said) => tracing::debug!("{said}"),
                Action::Stop => return,
            }
        }
    }
}

/// The alarm's clock stands still while the machine sleeps: it goes off late then, and not early.
fn alarm_at(deadline: Option<BootTime>) -> Instant {
    let wait = deadline.map_or(NEVER, |it| it.since(BootTime::now()));
    Instant::now() + wait
}

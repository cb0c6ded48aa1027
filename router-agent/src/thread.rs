//! The agent's thread: takes what the streams ask for, one after the other, and looks after the
//! leases in between.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_channel::hold::Standing;
use millrace_channel::hold::server::{HoldMessage, refused, replaced};
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::service_manager::Heart;
use millrace_proto::PROTOCOL_VERSION;
use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::{HoldRefused, Holding};

use crate::agent::{Agent, Held};
use crate::install::InstallError;
use crate::need::Need;
use crate::status::Shared;

/// Longest wait for a message, so that leases end in time.
const TICK: Duration = Duration::from_millis(250);

/// How often the kernel's news are looked at while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// What the thread needs.
#[derive(Debug)]
pub struct Parts {
    /// The agent.
    pub agent: Agent,
    /// What the streams ask for.
    pub messages: Receiver<HoldMessage>,
    /// Name of this agent towards holders.
    pub id: String,
    /// Where it shows its state.
    pub shared: Shared,
    /// What it tells the holders of this host.
    pub standing: Standing,
    /// Tells it to end.
    pub drain: DrainWatch,
    /// Shows that it lives.
    pub heart: Heart,
}

/// Starts it; its state is shown from the beginning.
///
/// # Errors
/// When the kernel has no thread to give.
pub fn spawn(mut parts: Parts) -> std::io::Result<JoinHandle<()>> {
    parts.shared.replace(&mut parts.agent, Instant::now());
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || run(parts))
}

fn run(parts: Parts) {
    let Parts {
        mut agent,
        messages,
        id,
        shared,
        standing,
        drain,
        heart,
    } = parts;
    while drain.stage() == Stage::Running {
        heart.beat();
        match next(&mut agent, &messages, &standing) {
            Ok(message) => handle(&mut agent, &id, message, &standing),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        agent.tick(Instant::now());
        standing.say(agent.unsound());
        standing.warn(agent.warnings.each());
        standing.looked();
        shared.replace(&mut agent, Instant::now());
    }
}

/// The next message; a time-out too when there is something to do without one.
fn next(
    agent: &mut Agent,
    messages: &Receiver<HoldMessage>,
    standing: &Standing,
) -> Result<HoldMessage, RecvTimeoutError> {
    let until = Instant::now() + TICK;
    loop {
        let received = messages.recv_timeout(GLANCE);
        let now = Instant::now();
        let waits = matches!(received, Err(RecvTimeoutError::Timeout));
        if !waits || agent.has_news(now) || now >= until {
            return received;
        }
        standing.looked();
    }
}

fn handle(agent: &mut Agent, id: &str, message: HoldMessage, standing: &Standing) {
    let now = Instant::now();
    match message {
        HoldMessage::Asked {
            stream,
            holder_id,
            need,
            from,
            reply,
        } => {
            // The older stream's request may be queued behind the newer one's.
            if agent.leases().is_replaced(&holder_id, stream) {
                let _ = reply.send(Err(replaced()));
                return;
            }
            let held = Need::try_from(&need)
                .map_err(|error| refused(Code::Malformed, error.0))
                .and_then(|need| {
                    let held = agent.hold(now, &holder_id, stream, need, from);
                    held.map_err(|error| refusal(&error))
                });
            let answer = held.map(|held| holding(agent, id, held));
            // What the answer says is said no second time.
            standing.warn(agent.warnings.each());
            // A holder that has gone meanwhile is told of by its stream's end.
            let _ = reply.send(answer);
        }
        HoldMessage::Ended { stream, holder_id } => agent.lost(now, &holder_id, stream),
    }
}

fn refusal(error: &InstallError) -> HoldRefused {
    let code = match error {
        InstallError::Refused(_) => Code::Dangerous,
        InstallError::Kernel(_) | InstallError::State(_) | InstallError::Unverified(_) => {
            Code::Failed
        }
    };
    refused(code, error.to_string())
}

fn holding(agent: &mut Agent, id: &str, held: Held) -> Holding {
    let host = agent.installer().host();
    let mut holding = Holding {
        protocol_version: PROTOCOL_VERSION,
        agent_id: id.to_owned(),
        grace_seconds: u32::try_from(host.grace.as_secs()).unwrap_or(u32::MAX),
        verified: held.verified,
        warnings: held.warnings,
        ..Holding::default()
    };
    holding.set_mode(host.mode.to_proto());
    holding
}

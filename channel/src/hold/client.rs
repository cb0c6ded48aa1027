//! The holder's side: asks an agent for what is needed, and again whenever the stream was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::hold_reply::Kind as Reply;
use millrace_proto::v1::hold_request::Kind;
use millrace_proto::v1::router_agent_client::RouterAgentClient;
use millrace_proto::v1::{
    HoldPing, HoldRefused, HoldReply, HoldRequest, Holder, Holding, Need, Standing,
};
use millrace_proto::{MAX_MESSAGE_BYTES, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

use super::status::{Change, HoldStatus, Tracker};
use crate::link::{Backoff, printable};
use crate::tls::{Expect, Role};
use crate::transport::{self, Diagnosis, Opened, Security, Timeouts};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::Incarnation;
use millrace_daemon::quiet::{Quiet, times_before};
use millrace_notation::address::HostPort;

/// How often the agent is asked what its host is like: what it says is worth something for twice as
/// long.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// A host may answer HTTP/2 pings while the agent on it hangs.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// An agent that has to change the kernel's state first takes a moment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests that may wait to be sent.
const OUTBOUND: usize = 8;

/// What a hold needs to know.
#[derive(Debug, Clone)]
pub struct HoldConfig {
    /// The agent; its name is resolved anew at each attempt.
    pub address: HostPort,
    /// Its certificate must confirm the address: the operator has not named it.
    pub must_confirm: bool,
    /// How the channel is protected.
    pub security: Security,
    /// Stable name of this holder.
    pub holder_id: String,
    /// This run of this holder.
    pub incarnation: Incarnation,
    /// What is to be diverted.
    pub need: Need,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// How long the agent may be silent.
    pub timeouts: Timeouts,
}

impl HoldConfig {
    /// The defaults: as those of [`crate::link::LinkConfig`].
    pub fn new(
        address: HostPort,
        security: Security,
        holder_id: impl Into<String>,
        need: Need,
    ) -> Self {
        HoldConfig {
            address,
            must_confirm: false,
            security,
            holder_id: holder_id.into(),
            incarnation: Incarnation::of_this_process(),
            need,
            backoff: Backoff::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// What happens to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldEvent {
    /// What was asked for stands, and was verified.
    Held {
        /// The agent's name.
        agent_id: String,
        /// What is to be mended on its host.
        warnings: Vec<String>,
    },
    /// The agent refuses; it is asked again at the slowest pace.
    Refused {
        /// Why.
        code: Code,
        /// Why, in one line.
        reason: String,
    },
    /// What was asked for stands no more, the agent says; the stream stays.
    Troubled {
        /// Why, in the operator's words.
        reason: String,
    },
    /// It stands again.
    Mended,
    /// The stream is gone; it is opened again by itself.
    Lost {
        /// Why, in the operator's words.
        reason: String,
    },
}

type OnEvent = Box<dyn Fn(HoldEvent) + Send + Sync>;

struct Shared {
    config: HoldConfig,
    on_event: OnEvent,
    need: watch::Sender<Need>,
    tracker: Tracker,
    /// What was wrong at the agent's host.
    said: Quiet<String>,
    closed: CancellationToken,
}

/// A running hold. Cheap to clone; the lease is given up when the last clone is dropped.
#[derive(Clone)]
pub struct HoldHandle {
    shared: Arc<Shared>,
    _close_when_dropped: Arc<DropGuard>,
}

impl std::fmt::Debug for HoldHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HoldHandle")
            .field("address", &self.shared.config.address)
            .finish_non_exhaustive()
    }
}

/// Starts a hold on `runtime`. `on_event` is called from the runtime, in order, and must not block.
pub fn spawn(
    config: HoldConfig,
    runtime: &Handle,
    on_event: impl Fn(HoldEvent) + Send + Sync + 'static,
) -> HoldHandle {
    let closed = CancellationToken::new();
    let shared = Arc::new(Shared {
        need: watch::Sender::new(config.need.clone()),
        config,
        on_event: Box::new(on_event),
        tracker: Tracker::default(),
        said: Quiet::default(),
        closed: closed.clone(),
    });
    runtime.spawn(keep_up(shared.clone()));
    HoldHandle {
        shared,
        _close_when_dropped: Arc::new(closed.drop_guard()),
    }
}

impl HoldHandle {
    /// Whether what was asked for is in force at `now`, the present: held, and must_confirm by the agent
    /// a fifth of a second ago at most, and twice as long as its answer took; or held by an agent that
    /// has said that it will be back. Takes no lock, and asks no clock.
    pub fn is_held(&self, now: BootTime) -> bool {
        self.shared.tracker.is_held(now)
    }

    /// Whether what was asked for was in force and is not any more. As [`HoldHandle::is_held`].
    pub fn has_lapsed(&self, now: BootTime) -> bool {
        self.shared.tracker.has_lapsed(now)
    }

    /// Asks for something else from now on.
    pub fn set_need(&self, need: Need) {
        self.shared.need.send_replace(need);
    }

    /// The hold as an operator wants to see it.
    pub fn status(&self) -> HoldStatus {
        self.shared.tracker.status(&self.shared.config.address)
    }

    /// Gives the lease up; the agent keeps it for its grace time.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }
}

/// Why a stream ended or did not come up.
enum End {
    Closed,
    Failed(String),
    Refused(HoldRefused),
}

async fn keep_up(shared: Arc<Shared>) {
    let mut failures: u32 = 0;
    let mut reported = String::new();
    let address = &shared.config.address;
    loop {
        shared.tracker.attempt();
        let started = Instant::now();
        let mut was_held = false;
        let end = tokio::select! {
            biased;
            () = shared.closed.cancelled() => End::Closed,
            end = ask_and_pump(&shared, &mut was_held) => end,
        };
        let mut slow = false;
        let reason = match end {
            End::Closed => {
                shared.tracker.lost("closed");
                return;
            }
            End::Failed(reason) => {
                let reason = printable(&reason);
                shared.tracker.lost(&reason);
                if was_held {
                    (shared.on_event)(HoldEvent::Lost {
                        reason: reason.clone(),
                    });
                }
                reason
            }
            End::Refused(refused) => {
                let code = refused.code();
                let said = printable(&refused.reason);
                let reason = format!("refused: {said}");
                // An agent that ends leaves everything in place for its successor.
                if code == Code::ShuttingDown {
                    shared.tracker.succeeded(&reason);
                    (shared.on_event)(HoldEvent::Lost { reason: said });
                } else {
                    slow = true;
                    shared.tracker.refused(&reason);
                    (shared.on_event)(HoldEvent::Refused { code, reason: said });
                }
                reason
            }
        };
        if was_held && started.elapsed() >= shared.config.backoff.max {
            failures = 0;
        }
        failures = failures.saturating_add(1);
        if was_held || reason != reported {
            tracing::warn!("router-agent {address}: {reason}; trying again until it holds");
            reported = reason;
        } else {
            tracing::debug!("router-agent {address}: {reason}; attempt {failures}");
        }
        let wait = if slow {
            shared.config.backoff.max
        } else {
            shared.config.backoff.jittered(failures)
        };
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

async fn ask_and_pump(shared: &Shared, was_held: &mut bool) -> End {
    let config = &shared.config;
    let mut need = shared.need.subscribe();
    let holder = Holder {
        protocol_version: PROTOCOL_VERSION,
        holder_id: config.holder_id.clone(),
        incarnation: config.incarnation.id,
        started_at_ms: config.incarnation.started_at_ms,
        need: Some(need.borrow_and_update().clone()),
    };
    let (requests, outbound) = mpsc::channel(OUTBOUND);
    let open = async {
        let Opened { channel, diagnosis } = transport::channel(
            &config.address,
            &config.security,
            Expect {
                role: Role::RouterAgent,
                must_confirm: config.must_confirm,
            },
            &config.timeouts,
        )
        .await?;
        let said = |status: tonic::Status| diagnosis.explain(&status);
        let mut client =
            RouterAgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        // The channel has room: it is new.
        let _ = requests.send(request(Kind::Holder(holder))).await;
        let response = client.hold(ReceiverStream::new(outbound)).await;
        let mut inbound = response.map_err(said)?.into_inner();
        let first = inbound.message().await.map_err(said)?;
        Ok::<_, String>((inbound, first, diagnosis))
    };
    let limit = config.timeouts.connect + ANSWER_TIMEOUT;
    let (inbound, first, diagnosis) = match timeout(limit, open).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(reason)) => return End::Failed(reason),
        Err(_) => {
            return End::Failed(format!(
                "connected, but no answer within {ANSWER_TIMEOUT:?}: is it a {AGENT}?"
            ));
        }
    };
    match first.and_then(|reply| reply.kind) {
        Some(Reply::Holding(holding)) => {
            if let Err(reason) = held(shared, holding) {
                return End::Failed(reason);
            }
            *was_held = true;
        }
        Some(Reply::Refused(refused)) => return End::Refused(refused),
        Some(Reply::Pong(_) | Reply::Standing(_)) | None => {
            return End::Failed("its first message is neither Holding nor Refused".to_owned());
        }
    }
    pump(shared, inbound, &requests, &mut need, &diagnosis).await
}

/// The program's name, for messages.
const AGENT: &str = "millrace-router-agent";

fn request(kind: Kind) -> HoldRequest {
    HoldRequest { kind: Some(kind) }
}

/// Longest list of warnings that is kept.
const MAX_WARNINGS: usize = 64;

fn held(shared: &Shared, mut holding: Holding) -> Result<(), String> {
    let version = holding.protocol_version;
    if !(OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&version) {
        return Err(format!(
            "it speaks protocol version {version}, this side {OLDEST_PROTOCOL_VERSION} to \
             {PROTOCOL_VERSION}: upgrade the older of the two"
        ));
    }
    holding.agent_id = printable(&holding.agent_id);
    holding.warnings.truncate(MAX_WARNINGS);
    for warning in &mut holding.warnings {
        *warning = printable(warning);
    }
    let address = &shared.config.address;
    tracing::info!(
        "router-agent {address} ({}): holds, must_confirm by {} route look-ups",
        holding.agent_id,
        holding.verified
    );
    for warning in &holding.warnings {
        tracing::warn!("router-agent {address}: {warning}");
    }
    let event = HoldEvent::Held {
        agent_id: holding.agent_id.clone(),
        warnings: holding.warnings.clone(),
    };
    shared.tracker.holding(holding);
    (shared.on_event)(event);
    Ok(())
}

/// Takes in what the agent says of its host.
fn stands(shared: &Shared, standing: Standing) {
    let address = &shared.config.address;
    match shared.tracker.standing(standing) {
        Change::None => {}
        Change::Troubled(reason) => {
            // An agent may find the same again and again.
            if let Some(more) = shared.said.say(reason.clone(), Instant::now()) {
                tracing::error!(
                    "router-agent {address}: responses are not diverted there as they should be, so \
                     nothing is sent: {reason}{}",
                    times_before(more)
                );
            }
            (shared.on_event)(HoldEvent::Troubled { reason });
        }
        Change::Mended => {
            tracing::debug!("router-agent {address}: responses are diverted there again");
            (shared.on_event)(HoldEvent::Mended);
        }
    }
}

async fn pump(
    shared: &Shared,
    mut inbound: Streaming<HoldReply>,
    requests: &mpsc::Sender<HoldRequest>,
    need: &mut watch::Receiver<Need>,
    diagnosis: &Diagnosis,
) -> End {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nonce = 0;
    let mut awaited: Option<BootTime> = None;
    loop {
        tokio::select! {
            reply = inbound.message() => match reply {
                Ok(Some(reply)) => match reply.kind {
                    Some(Reply::Holding(holding)) => {
                        if let Err(reason) = held(shared, holding) {
                            return End::Failed(reason);
                        }
                    }
                    Some(Reply::Refused(refused)) => return End::Refused(refused),
                    Some(Reply::Pong(pong)) if pong.nonce == nonce => {
                        let asked_at = awaited.take();
                        if let Some(standing) = pong.standing {
                            stands(shared, standing);
                        }
                        if let Some(asked_at) = asked_at {
                            shared.tracker.heard(asked_at);
                        }
                    }
                    Some(Reply::Standing(standing)) => stands(shared, standing),
                    // An old pong, or a kind of a later version.
                    Some(Reply::Pong(_)) | None => {}
                },
                Ok(None) => return End::Failed("the agent ended the stream".to_owned()),
                Err(status) => return End::Failed(diagnosis.explain(&status)),
            },
            changed = need.changed() => {
                if changed.is_err() {
                    return End::Closed;
                }
                let need = need.borrow_and_update().clone();
                // Not waited for, since the pongs must be watched; the next connection begins with it.
                if requests.try_send(request(Kind::Need(need))).is_err() {
                    return End::Failed("it takes no more requests".to_owned());
                }
            },
            _ = ping.tick() => match awaited {
                Some(sent) if BootTime::now().since(sent) > PONG_TIMEOUT => {
                    return End::Failed(format!("no pong for {PONG_TIMEOUT:?}: it hangs"));
                }
                Some(_) => {}
                None => {
                    nonce += 1;
                    awaited = Some(BootTime::now());
                    // A full queue is a connection that stands still: HTTP/2's pings will tell.
                    let _ = requests.try_send(request(Kind::Ping(HoldPing { nonce })));
                }
            },
        }
    }
}

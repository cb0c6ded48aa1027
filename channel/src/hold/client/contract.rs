//! What holder and agent say to each other: what is needed, whether it stands, and what the host is like.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::hold_reply::Kind as Reply;
use millrace_proto::v1::hold_request::Kind;
use millrace_proto::v1::router_agent_client::RouterAgentClient;
use millrace_proto::v1::{
    HoldPing, HoldRefused, HoldReply, HoldRequest, Holder, Holding, Standing,
};
use millrace_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{HoldEvent, Shared};
use crate::hold::status::Change;
use crate::tls::Role;
use crate::upkeep::{
    Contract, Dial, End, Refusal, Taken, Terms, Wire, call, check_version, printable,
};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::quiet::times_before;

/// How often the agent is asked what its host is like: what it says is worth something for twice as
/// long.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// An agent that has to change the kernel's state first takes a moment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests that may wait to be sent.
const OUTBOUND: usize = 8;
/// Longest list of warnings that is kept.
const MAX_WARNINGS: usize = 64;
/// The program's name, for messages.
const AGENT: &str = "millrace-router-agent";

/// The holder's side at one agent, from connection to connection.
pub(super) struct HolderContract {
    shared: Arc<Shared>,
    /// Where this connection's requests go.
    requests: Option<mpsc::Sender<HoldRequest>>,
}

impl HolderContract {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        HolderContract {
            shared,
            requests: None,
        }
    }

    pub(super) fn terms(&self) -> Terms {
        let config = &self.shared.config;
        Terms {
            peer: format!("router-agent {}", config.peer.address),
            until: "it holds",
            answer_within: config.peer.timeouts.connect + ANSWER_TIMEOUT,
            no_answer: format!(
                "connected, but no answer within {ANSWER_TIMEOUT:?}: is it a {AGENT}?"
            ),
            ended: "the agent ended the stream",
            ping_every: PING_INTERVAL,
            pong: "pong",
            backoff: config.peer.backoff,
        }
    }

    /// Takes in that the agent holds what was asked for.
    fn held(&self, mut holding: Holding) -> Result<(), End<HoldRefused>> {
        check_version(holding.protocol_version, "this side").map_err(End::Failed)?;
        holding.agent_id = printable(&holding.agent_id);
        holding.warnings = readable(&holding.warnings);
        let address = &self.shared.config.peer.address;
        tracing::info!(
            "router-agent {address} ({}): holds, confirmed by {} route look-ups",
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
        self.shared.tracker.holding(holding);
        (self.shared.on_event)(event);
        Ok(())
    }

    /// Takes in what an operator should know now.
    fn warned(&self, lines: &[String]) {
        let address = &self.shared.config.peer.address;
        let lines = readable(lines);
        let before = self.shared.tracker.warned(lines.clone());
        for warning in lines.iter().filter(|it| !before.contains(it)) {
            // One may come and go.
            if let Some(more) = self.shared.said.say(warning.clone(), Instant::now()) {
                tracing::warn!("router-agent {address}: {warning}{}", times_before(more));
            }
        }
        for warning in before.iter().filter(|it| !lines.contains(it)) {
            tracing::debug!("router-agent {address}: no longer: {warning}");
        }
    }

    /// Takes in what the agent says of its host.
    fn stands(&self, standing: Standing) {
        let shared = &self.shared;
        let address = &shared.config.peer.address;
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
}

impl Contract for HolderContract {
    type Outgoing = HoldRequest;
    type Incoming = HoldReply;
    type Pong = Option<Standing>;
    type Refusal = HoldRefused;

    fn first(&mut self) -> HoldRequest {
        self.shared.tracker.attempt();
        let config = &self.shared.config;
        request(Kind::Holder(Holder {
            protocol_version: PROTOCOL_VERSION,
            holder_id: config.holder_id.clone(),
            incarnation: config.incarnation.id,
            started_at_ms: config.incarnation.started_at_ms,
            need: Some(self.shared.config.need.clone()),
        }))
    }

    fn judge(&mut self, answer: Option<HoldReply>) -> Result<(), End<HoldRefused>> {
        match answer.and_then(|reply| reply.kind) {
            Some(Reply::Holding(holding)) => self.held(holding),
            Some(Reply::Refused(refused)) => Err(End::Refused(refused)),
            Some(Reply::Pong(_) | Reply::Standing(_) | Reply::Warnings(_)) | None => Err(
                End::Failed("its first message is neither Holding nor Refused".to_owned()),
            ),
        }
    }

    fn take(&mut self, reply: HoldReply) -> Taken<Self> {
        match reply.kind {
            Some(Reply::Holding(holding)) => self.held(holding)?,
            Some(Reply::Refused(refused)) => return Err(End::Refused(refused)),
            Some(Reply::Pong(pong)) => return Ok(Some((pong.nonce, pong.standing))),
            Some(Reply::Standing(standing)) => self.stands(standing),
            Some(Reply::Warnings(warnings)) => self.warned(&warnings.lines),
            // A kind of a later version.
            None => {}
        }
        Ok(None)
    }

    fn ping(&mut self, nonce: u64) -> HoldRequest {
        request(Kind::Ping(HoldPing { nonce }))
    }

    fn pong(&mut self, standing: Option<Standing>, asked_at: BootTime) {
        if let Some(standing) = standing {
            self.stands(standing);
        }
        self.shared.tracker.heard(asked_at);
    }

    fn ended(&mut self, end: End<HoldRefused>, reason: &str, was_held: bool) {
        self.requests = None;
        let (tracker, on_event) = (&self.shared.tracker, &self.shared.on_event);
        match end {
            End::Closed => tracker.lost(reason),
            End::Failed(_) => {
                tracker.lost(reason);
                if was_held {
                    on_event(HoldEvent::Lost {
                        reason: reason.to_owned(),
                    });
                }
            }
            End::Refused(refused) => {
                let code = refused.code();
                let said = printable(&refused.reason);
                // An agent that ends leaves everything in place for its successor.
                if refused.passes() {
                    tracker.succeeded(reason);
                    on_event(HoldEvent::Lost { reason: said });
                } else {
                    tracker.refused(reason);
                    on_event(HoldEvent::Refused { code, reason: said });
                }
            }
        }
    }
}

impl Wire for HolderContract {
    fn dial(&mut self) -> Dial<HoldReply> {
        let (requests, outbound) = mpsc::channel(OUTBOUND);
        self.requests = Some(requests);
        let shared = self.shared.clone();
        Box::pin(async move {
            let open = async |channel| {
                RouterAgentClient::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .hold(ReceiverStream::new(outbound))
                    .await
            };
            call(&shared.config.peer, Role::RouterAgent, open).await
        })
    }

    fn send(&mut self, message: HoldRequest) -> bool {
        let sent = self.requests.as_ref().map(|it| it.try_send(message));
        sent.is_some_and(|it| it.is_ok())
    }
}

impl Refusal for HoldRefused {
    fn reason(&self) -> &str {
        &self.reason
    }

    fn passes(&self) -> bool {
        self.code() == Code::ShuttingDown
    }
}

/// An agent's warnings, as far as they are kept.
fn readable(lines: &[String]) -> Vec<String> {
    let kept = lines.iter().take(MAX_WARNINGS);
    kept.map(|line| printable(line)).collect()
}

fn request(kind: Kind) -> HoldRequest {
    HoldRequest { kind: Some(kind) }
}

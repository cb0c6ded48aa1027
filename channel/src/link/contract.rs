//! What copier and interceptor say to each other: Hello and Welcome, route info and response headers.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::interceptor_client::InterceptorClient;
use millrace_proto::v1::interceptor_message::Kind as Answer;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{CopierMessage, Hello, InterceptorMessage, Ping, Refused, Welcome};
use millrace_proto::{ClientRange, MAX_MESSAGE_BYTES, PROTOCOL_VERSION};

use super::queue::{OutboundControl, connection};
use super::{LinkEvent, Shared};
use crate::tls::Role;
use crate::upkeep::{
    Contract, Dial, End, Refusal, Taken, Terms, Wire, call, check_version, printable,
};
use millrace_daemon::boottime::BootTime;

/// How often the round trip through the interceptor is measured.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Messages about claims of others in a second, on average: they cannot be left out.
const ABOUT_CLAIMS: u32 = 1000;
/// What an operator is told of more.
const TOO_MANY: &str = "it says more of other copiers' claims than there can be to say";

/// What an operator is told when there is nothing more to read.
const ENDED: &str = "the interceptor ended the stream";

/// The copier's side of one link, from connection to connection.
pub(super) struct CopierContract {
    shared: Arc<Shared>,
    /// Where this connection's messages go, and what waits there.
    outbound: Option<(OutboundControl, Arc<AtomicUsize>)>,
    about_claims: Allowance,
    /// When the last ping was sent: more exactly than the machine counts.
    pinged: Instant,
}

/// A module would wait for what never comes.
const NO_PAYLOAD: &str = "it does not return the payload of answers, which protocol modules need: run the same version \
                          of both";

impl CopierContract {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        CopierContract {
            shared,
            outbound: None,
            about_claims: Allowance::default(),
            pinged: Instant::now(),
        }
    }

    pub(super) fn terms(&self) -> Terms {
        let config = &self.shared.config;
        let answer_within = config.peer.timeouts.connect * 2;
        Terms {
            peer: format!("interceptor {}", config.peer.address),
            until: "it is back",
            answer_within,
            no_answer: format!(
                "connected, but no answer to Hello within {answer_within:?}: is it a \
                 millrace-interceptor?"
            ),
            ended: ENDED,
            ping_every: PING_INTERVAL,
            pong: "Pong",
            backoff: config.peer.backoff,
        }
    }

    fn welcomed(&self, mut welcome: Welcome) -> Result<(), String> {
        welcome.interceptor_id = printable(&welcome.interceptor_id);
        check_version(welcome.protocol_version, "this copier")?;
        let shared = &self.shared;
        if shared.config.needs_payload && !welcome.carries_payload {
            return Err(NO_PAYLOAD.to_owned());
        }
        let epoch = shared.counters.up(&welcome.interceptor_id);
        let limits = welcome.limits.unwrap_or_default();
        let max_message = match usize::try_from(limits.max_message_bytes) {
            Ok(0) | Err(_) => MAX_MESSAGE_BYTES,
            Ok(limit) => limit,
        };
        if let Some((control, queued)) = &self.outbound {
            shared
                .outbound
                .open(epoch, control, queued.clone(), max_message);
        }
        tracing::info!(
            "interceptor {} ({}): connected",
            shared.config.peer.address,
            welcome.interceptor_id
        );
        (shared.on_event)(LinkEvent::Up {
            epoch,
            interceptor_id: welcome.interceptor_id,
            incarnation: welcome.incarnation,
        });
        Ok(())
    }

    /// The event that a message is, if it is one.
    fn event(&mut self, answer: Answer) -> Result<Option<LinkEvent>, End<Refused>> {
        let shared = &self.shared;
        Ok(Some(match answer {
            Answer::Headers(headers) => {
                let bytes = headers.records;
                let (count, dropped) = (headers.count, headers.dropped);
                shared.counters.headers(bytes.len(), count, dropped);
                LinkEvent::Headers {
                    bytes,
                    count,
                    dropped,
                    ready_at: headers.ready_at,
                }
            }
            Answer::Granted(_) if shared.outbound.take_grant() => LinkEvent::Granted,
            Answer::Others(_) | Answer::Taken(_) if !self.about_claims.pay() => {
                return Err(End::Failed(TOO_MANY.to_owned()));
            }
            Answer::Others(others) => match ClientRange::read_all(&others.ranges) {
                Ok(ranges) => LinkEvent::Others { ranges },
                Err(error) => return Err(End::Failed(format!("its ranges of others: {error}"))),
            },
            Answer::Taken(taken) => LinkEvent::Taken {
                flows: taken.flows,
                ended: taken.ended,
            },
            Answer::Traced(traced) => LinkEvent::Traced(traced.into()),
            Answer::Conflict(conflict) => LinkEvent::Conflict {
                ids: conflict.flow_ids,
            },
            Answer::Refused(refused) => return Err(End::Refused(refused)),
            // A second Welcome, or a grant that nobody asked for.
            Answer::Welcome(_) | Answer::Granted(_) | Answer::Pong(_) => return Ok(None),
        }))
    }
}

impl Contract for CopierContract {
    type Outgoing = CopierMessage;
    type Incoming = InterceptorMessage;
    type Pong = ();
    type Refusal = Refused;

    fn first(&mut self) -> CopierMessage {
        self.shared.counters.attempt();
        self.about_claims = Allowance::default();
        let config = &self.shared.config;
        message(Kind::Hello(Hello {
            protocol_version: PROTOCOL_VERSION,
            copier_id: config.copier_id.clone(),
            incarnation: config.incarnation.id,
            started_at_ms: config.incarnation.started_at_ms,
            link: config.link,
            links: config.links,
            claims: config.claims,
        }))
    }

    fn judge(&mut self, answer: Option<InterceptorMessage>) -> Result<(), End<Refused>> {
        let Some(answer) = answer else {
            return Err(End::Failed(ENDED.to_owned()));
        };
        match answer.kind {
            Some(Answer::Welcome(welcome)) => self.welcomed(welcome).map_err(End::Failed),
            Some(Answer::Refused(refused)) => Err(End::Refused(refused)),
            Some(
                Answer::Headers(_)
                | Answer::Pong(_)
                | Answer::Conflict(_)
                | Answer::Granted(_)
                | Answer::Others(_)
                | Answer::Taken(_)
                | Answer::Traced(_),
            )
            | None => Err(End::Failed("its first message is not Welcome".to_owned())),
        }
    }

    fn take(&mut self, message: InterceptorMessage) -> Taken<Self> {
        self.shared.counters.received();
        match message.kind {
            Some(Answer::Pong(pong)) => Ok(Some((pong.nonce, ()))),
            Some(answer) => {
                if let Some(event) = self.event(answer)? {
                    (self.shared.on_event)(event);
                }
                Ok(None)
            }
            // A kind of a later version.
            None => Ok(None),
        }
    }

    fn ping(&mut self, nonce: u64) -> CopierMessage {
        self.pinged = Instant::now();
        message(Kind::Ping(Ping { nonce }))
    }

    fn pong(&mut self, (): (), _: BootTime) {
        self.shared.counters.rtt(self.pinged.elapsed());
    }

    fn ended(&mut self, end: End<Refused>, reason: &str, was_up: bool) {
        let shared = &self.shared;
        shared.outbound.close();
        self.outbound = None;
        shared.counters.down(reason);
        if was_up {
            let epoch = shared.counters.status(&shared.config, 0).epoch;
            (shared.on_event)(LinkEvent::Down {
                epoch,
                reason: reason.to_owned(),
            });
        }
        if let End::Refused(refused) = end {
            (shared.on_event)(LinkEvent::Refused {
                code: refused.code(),
                reason: printable(&refused.reason),
                owner: printable(&refused.owner),
            });
        }
    }
}

impl Wire for CopierContract {
    fn dial(&mut self) -> Dial<InterceptorMessage> {
        let (control, outbound) = connection(self.shared.counters.sent.clone());
        self.outbound = Some((control, outbound.counter()));
        let shared = self.shared.clone();
        Box::pin(async move {
            let open = async |channel| {
                InterceptorClient::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .attach(outbound)
                    .await
            };
            call(&shared.config.peer, Role::Interceptor, open).await
        })
    }

    fn send(&mut self, message: CopierMessage) -> bool {
        let Some((control, _)) = &self.outbound else {
            return false;
        };
        control.send(message);
        true
    }
}

impl Refusal for Refused {
    fn reason(&self) -> &str {
        &self.reason
    }

    fn passes(&self) -> bool {
        self.code() == Code::ShuttingDown
    }
}

fn message(kind: Kind) -> CopierMessage {
    CopierMessage { kind: Some(kind) }
}

/// Counts messages that cannot be left out, against what an interceptor may send.
#[derive(Debug)]
struct Allowance {
    since: Instant,
    used: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            used: 0,
        }
    }
}

impl Allowance {
    /// Takes in one more. Says whether it is allowed.
    fn pay(&mut self) -> bool {
        if self.since.elapsed() > Duration::from_secs(1) {
            *self = Self::default();
        }
        self.used += 1;
        self.used <= ABOUT_CLAIMS
    }
}

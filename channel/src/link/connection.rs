//! From one attempt to the next: connect, say Hello, pump until the stream ends, wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::interceptor_client::InterceptorClient;
use millrace_proto::v1::interceptor_message::Kind as Answer;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{Hello, InterceptorMessage, Ping, Refused, Welcome};
use millrace_proto::{ClientRange, MAX_MESSAGE_BYTES, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::Streaming;

use super::queue::{OutboundControl, connection};
use super::{LinkEvent, Shared};
use crate::tls::{Expect, Role};
use crate::transport::{self, Diagnosis, Opened, Timeouts};

/// How often the round trip through the interceptor is measured.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// A host may answer HTTP/2 pings while the interceptor behind it hangs.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Messages about claims of others in a second, on average: they cannot be left out.
const ABOUT_CLAIMS: u32 = 1000;
/// What an operator is told of more.
const TOO_MANY: &str = "it says more of other copiers' claims than there can be to say";

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

/// Why a connection ended or did not come up.
enum End {
    /// The link was closed by this side.
    Closed,
    Failed(String),
    Refused(Refused),
}

/// Runs until the link is closed.
pub(super) async fn keep_up(shared: Arc<Shared>) {
    let mut failures: u32 = 0;
    let mut reported = String::new();
    loop {
        shared.counters.attempt();
        let started = Instant::now();
        let mut was_up = false;
        let closed = shared.closed.clone();
        let end = tokio::select! {
            biased;
            () = closed.cancelled() => End::Closed,
            end = connect_and_pump(&shared, &mut was_up) => end,
        };
        let (reason, refused) = match end {
            End::Closed => ("closed".to_owned(), None),
            End::Failed(reason) => (printable(&reason), None),
            End::Refused(mut refused) => {
                refused.reason = printable(&refused.reason);
                refused.owner = printable(&refused.owner);
                (format!("refused: {}", refused.reason), Some(refused))
            }
        };
        shared.outbound.close();
        shared.counters.down(&reason);
        if was_up {
            let epoch = shared.counters.status(&shared.config, 0).epoch;
            (shared.on_event)(LinkEvent::Down {
                epoch,
                reason: reason.clone(),
            });
        }
        if shared.closed.is_cancelled() {
            return;
        }

        // A stream that broke at once is no success: otherwise it would be hammered.
        if was_up && started.elapsed() >= shared.config.backoff.max {
            failures = 0;
        }
        failures = failures.saturating_add(1);
        let mut wait = shared.config.backoff.jittered(failures);
        let address = &shared.config.address;
        if was_up || reason != reported {
            tracing::warn!("interceptor {address}: {reason}; trying again until it is back");
            reported = reason;
        } else {
            tracing::debug!("interceptor {address}: {reason}; attempt {failures}");
        }
        if let Some(refused) = refused {
            // It would say the same again at once; one that ends may be back at once.
            if refused.code() != Code::ShuttingDown {
                wait = shared.config.backoff.max;
            }
            (shared.on_event)(LinkEvent::Refused {
                code: refused.code(),
                reason: refused.reason,
                owner: refused.owner,
            });
        }
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

async fn connect_and_pump(shared: &Shared, was_up: &mut bool) -> End {
    let limit = shared.config.connect_timeout;
    let (control, outbound) = connection(shared.counters.sent.clone());
    let queued = outbound.counter();
    control.send(Kind::Hello(hello(shared)));

    let open = async {
        let Opened { channel, diagnosis } = open_channel(shared).await?;
        let said = |status: tonic::Status| diagnosis.explain(&status);
        let mut client =
            InterceptorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let response = client.attach(outbound).await.map_err(said)?;
        let mut inbound = response.into_inner();
        let first = inbound.message().await.map_err(said)?;
        let first = first.ok_or("the interceptor ended the stream")?;
        Ok::<_, String>((inbound, first, diagnosis))
    };
    let (inbound, first, diagnosis) = match timeout(limit * 2, open).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(reason)) => return End::Failed(reason),
        Err(_) => {
            return End::Failed(format!(
                "connected, but no answer to Hello within {:?}: is it a millrace-interceptor?",
                limit * 2
            ));
        }
    };
    let welcome = match first.kind {
        Some(Answer::Welcome(mut welcome)) => {
            welcome.interceptor_id = printable(&welcome.interceptor_id);
            welcome
        }
        Some(Answer::Refused(refused)) => return End::Refused(refused),
        Some(
            Answer::Headers(_)
            | Answer::Pong(_)
            | Answer::Conflict(_)
            | Answer::Granted(_)
            | Answer::Others(_)
            | Answer::Taken(_)
            | Answer::Traced(_),
        )
        | None => {
            return End::Failed("its first message is not Welcome".to_owned());
        }
    };
    if let Err(reason) = check_version(&welcome) {
        return End::Failed(reason);
    }

    let epoch = shared.counters.up(&welcome.interceptor_id);
    *was_up = true;
    let limits = welcome.limits.unwrap_or_default();
    let max_message = match usize::try_from(limits.max_message_bytes) {
        Ok(0) | Err(_) => MAX_MESSAGE_BYTES,
        Ok(limit) => limit,
    };
    shared.outbound.open(epoch, &control, queued, max_message);
    tracing::info!(
        "interceptor {} ({}): connected",
        shared.config.address,
        welcome.interceptor_id
    );
    (shared.on_event)(LinkEvent::Up {
        epoch,
        interceptor_id: welcome.interceptor_id,
        incarnation: welcome.incarnation,
    });
    pump(shared, inbound, &control, &diagnosis).await
}

fn hello(shared: &Shared) -> Hello {
    let config = &shared.config;
    Hello {
        protocol_version: PROTOCOL_VERSION,
        copier_id: config.copier_id.clone(),
        incarnation: config.incarnation.id,
        started_at_ms: config.incarnation.started_at_ms,
        link: config.link,
        links: config.links,
        claims: config.claims,
    }
}

fn check_version(welcome: &Welcome) -> Result<(), String> {
    let version = welcome.protocol_version;
    if (OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&version) {
        return Ok(());
    }
    Err(format!(
        "it speaks protocol version {version}, this copier {OLDEST_PROTOCOL_VERSION} to \
         {PROTOCOL_VERSION}: upgrade the older of the two"
    ))
}

async fn pump(
    shared: &Shared,
    mut inbound: Streaming<InterceptorMessage>,
    control: &OutboundControl,
    diagnosis: &Diagnosis,
) -> End {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut about_claims = Allowance::default();
    let mut nonce = 0;
    let mut awaited: Option<Instant> = None;
    loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(message)) => {
                    shared.counters.received();
                    match message.kind {
                        Some(Answer::Headers(headers)) => {
                            let bytes = headers.records;
                            shared.counters.headers(bytes.len(), headers.count, headers.dropped);
                            (shared.on_event)(LinkEvent::Headers {
                                bytes,
                                count: headers.count,
                                dropped: headers.dropped,
                            });
                        }
                        Some(Answer::Granted(_)) => {
                            if shared.outbound.take_grant() {
                                (shared.on_event)(LinkEvent::Granted);
                            }
                        }
                        Some(Answer::Others(_)) if !about_claims.pay() => {
                            return End::Failed(TOO_MANY.to_owned());
                        }
                        Some(Answer::Others(others)) => {
                            match ClientRange::read_all(&others.ranges) {
                                Ok(ranges) => (shared.on_event)(LinkEvent::Others { ranges }),
                                Err(error) => {
                                    return End::Failed(format!("its ranges of others: {error}"));
                                }
                            }
                        }
                        Some(Answer::Taken(taken)) => {
                            if !about_claims.pay() {
                                return End::Failed(TOO_MANY.to_owned());
                            }
                            (shared.on_event)(LinkEvent::Taken {
                                flows: taken.flows,
                                ended: taken.ended,
                            });
                        }
                        Some(Answer::Traced(traced)) => {
                            (shared.on_event)(LinkEvent::Traced(traced.into()));
                        }
                        Some(Answer::Conflict(conflict)) => {
                            let ids = conflict.flow_ids;
                            (shared.on_event)(LinkEvent::Conflict { ids });
                        }
                        Some(Answer::Pong(pong)) if pong.nonce == nonce => {
                            if let Some(sent) = awaited.take() {
                                shared.counters.rtt(sent.elapsed());
                            }
                        }
                        Some(Answer::Refused(refused)) => return End::Refused(refused),
                        // An old Pong, a second Welcome, or a kind of a later version.
                        Some(Answer::Pong(_) | Answer::Welcome(_)) | None => {}
                    }
                }
                Ok(None) => return End::Failed("the interceptor ended the stream".to_owned()),
                Err(status) => return End::Failed(diagnosis.explain(&status)),
            },
            _ = ping.tick() => match awaited {
                Some(sent) if sent.elapsed() > PONG_TIMEOUT => {
                    return End::Failed(format!("no Pong for {PONG_TIMEOUT:?}: it hangs"));
                }
                Some(_) => {}
                None => {
                    nonce += 1;
                    awaited = Some(Instant::now());
                    control.send(Kind::Ping(Ping { nonce }));
                }
            },
        }
    }
}

async fn open_channel(shared: &Shared) -> Result<Opened, String> {
    let config = &shared.config;
    let timeouts = Timeouts {
        connect: config.connect_timeout,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    };
    transport::channel(
        &config.address,
        &config.security,
        Expect {
            role: Role::Interceptor,
            must_confirm: config.must_confirm,
        },
        &timeouts,
    )
    .await
}

/// The longest text of a peer that is passed on. Characters.
const MAX_TEXT: usize = 400;

/// A peer's text, fit for one line of a log.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

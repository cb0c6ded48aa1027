//! The agent's side: takes Hold streams, checks what they say, and hands it to the thread that owns
//! the kernel's state. One stream's requests are taken one at a time, so none can flood that
//! thread; a stream that breaks the contract is refused with one line, ended and counted.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::hold_reply::Kind as Reply;
use millrace_proto::v1::hold_request::Kind;
use millrace_proto::v1::router_agent_server::{RouterAgent, RouterAgentServer};
use millrace_proto::v1::{
    HoldPong, HoldRefused, HoldReply, HoldRequest, Holder, Holding, Need, Warnings,
};
use millrace_proto::{MAX_MESSAGE_BYTES, OLDEST_PROTOCOL_VERSION};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::standing::Standing;
use crate::tls::{Identity, Role, Roles};
use crate::transport::{Handshakes, Peer, Security};
use crate::upkeep::{Bounds, First, Serving, check_name, first, shown, unreadable};
use millrace_daemon::exit::ExitError;
use millrace_daemon::quiet::{Quiet, times_before};

/// Replies that may wait for a holder.
const OUTBOUND: usize = 8;

/// Number of a stream, unique in this process.
pub type StreamId = u64;

/// What a server needs to know. Every number bounds what a peer can make this process hold.
#[derive(Debug, Clone)]
pub struct HoldServerConfig {
    /// How the channel is protected.
    pub security: Security,
    /// Open TCP connections; further ones wait in the kernel.
    pub max_connections: usize,
    /// Open streams.
    pub max_streams: usize,
    /// A stream without a first message ends after this.
    pub first_timeout: Duration,
    /// A holder that has not read its replies for this long hangs: its stream ends.
    pub reply_timeout: Duration,
    /// HTTP/2 ping interval.
    pub keepalive_interval: Duration,
    /// An unanswered ping ends the connection after this.
    pub keepalive_timeout: Duration,
}

impl HoldServerConfig {
    /// The defaults.
    pub fn new(security: Security) -> Self {
        HoldServerConfig {
            security,
            max_connections: 256,
            max_streams: 128,
            first_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
        }
    }
}

/// What the streams tell the agent's thread.
#[derive(Debug)]
pub enum HoldMessage {
    /// A holder asks for something, in place of what it had.
    Asked {
        /// Its stream.
        stream: StreamId,
        /// Its name, checked.
        holder_id: String,
        /// What it needs, unchecked.
        need: Need,
        /// Where it comes from.
        from: Option<IpAddr>,
        /// To be answered.
        reply: oneshot::Sender<Result<Holding, HoldRefused>>,
    },
    /// A stream has ended. A newer one of the same holder may have taken over before.
    Ended {
        /// The stream.
        stream: StreamId,
        /// Its holder.
        holder_id: String,
    },
}

/// Counts since the process started, and what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HoldServerStatus {
    /// Open streams.
    pub streams: usize,
    /// Streams that were opened.
    pub opened: u64,
    /// Streams ended because they broke the contract.
    pub malformed: u64,
    /// Streams ended because a newer one of the same holder came.
    pub replaced: u64,
    /// Streams refused because there were too many.
    pub overloaded: u64,
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    malformed: AtomicU64,
    replaced: AtomicU64,
    overloaded: AtomicU64,
}

/// The open stream of a holder.
struct Open {
    stream: StreamId,
    started_at_ms: u64,
    cancel: CancellationToken,
}

struct Shared {
    config: HoldServerConfig,
    messages: std::sync::mpsc::SyncSender<HoldMessage>,
    standing: Standing,
    holders: Mutex<HashMap<String, Open>>,
    next: AtomicU64,
    counters: Counters,
    handshakes: Handshakes,
    /// Who was refused why.
    said: Quiet<(Option<IpAddr>, String)>,
    stop: CancellationToken,
}

/// A running server. It ends when this is dropped, or by [`HoldServer::stop`].
#[derive(Clone)]
pub struct HoldServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    _stop_when_dropped: Arc<tokio_util::sync::DropGuard>,
}

impl std::fmt::Debug for HoldServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HoldServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Starts to serve on `listener` (see [`millrace_daemon::listen::bind`]). What the streams ask for goes into
/// `messages`, without waiting: while it is full, further requests are refused as too many. Holders
/// are told of `standing`.
///
/// # Errors
/// When the runtime cannot take the listener (exit code 1).
pub fn spawn(
    config: HoldServerConfig,
    listener: std::net::TcpListener,
    runtime: &Handle,
    messages: std::sync::mpsc::SyncSender<HoldMessage>,
    standing: Standing,
) -> Result<HoldServer, ExitError> {
    let serving = Serving::new(listener, runtime, "holders")?;
    let address = serving.address();
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        config,
        messages,
        standing,
        holders: Mutex::default(),
        next: AtomicU64::new(1),
        counters: Counters::default(),
        handshakes: Handshakes::new(),
        said: Quiet::default(),
        stop: stop.clone(),
    });
    runtime.spawn(serve(shared.clone(), serving));
    Ok(HoldServer {
        shared,
        address,
        _stop_when_dropped: Arc::new(stop.drop_guard()),
    })
}

impl HoldServer {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The streams and counts, for /status and metrics.
    pub fn status(&self) -> HoldServerStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        HoldServerStatus {
            streams: self.shared.holders.lock().len(),
            opened: load(&counters.opened),
            malformed: load(&counters.malformed),
            replaced: load(&counters.replaced),
            overloaded: load(&counters.overloaded),
        }
    }

    /// Who was let in and who was not, before any stream.
    pub fn handshakes(&self) -> &Handshakes {
        &self.shared.handshakes
    }

    /// Tells every holder that this agent ends, and stops serving.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }
}

async fn serve(shared: Arc<Shared>, serving: Serving) {
    let config = &shared.config;
    let service = RouterAgentServer::new(Service(shared.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let bounds = Bounds {
        security: &config.security,
        roles: Roles::of(&[Role::Copier, Role::Operator]),
        max_connections: config.max_connections,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    };
    serving
        .run(service, bounds, &shared.handshakes, &shared.stop)
        .await;
}

struct Service(Arc<Shared>);

type Outbound = mpsc::Sender<Result<HoldReply, Status>>;

#[tonic::async_trait]
impl RouterAgent for Service {
    type HoldStream = ReceiverStream<Result<HoldReply, Status>>;

    async fn hold(
        &self,
        request: Request<Streaming<HoldRequest>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let (outbound, replies) = mpsc::channel(OUTBOUND);
        tokio::spawn(run(self.0.clone(), request.into_inner(), outbound, peer));
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

/// One stream, from its first message to its end.
async fn run(
    shared: Arc<Shared>,
    mut inbound: Streaming<HoldRequest>,
    outbound: Outbound,
    peer: Option<Peer>,
) {
    shared.counters.opened.fetch_add(1, Ordering::Relaxed);
    let _vouched = peer.as_ref().map(Peer::vouch);
    let from = peer.as_ref().and_then(Peer::address);
    let identity = peer.as_ref().and_then(Peer::identity);
    let shown = shown(from);
    let cancel = shared.stop.child_token();
    let holder = match first(&mut inbound, shared.config.first_timeout, &cancel).await {
        First::Message(HoldRequest {
            kind: Some(Kind::Holder(holder)),
        }) => check(holder, identity),
        First::Message(_) => Err(malformed("its first message does not say who it is")),
        First::Unreadable(why) => Err(malformed(why)),
        First::Late => Err(malformed("no first message came in time")),
        First::Gone => return,
    };
    let admitted = holder.and_then(|holder| {
        let stream = admit(&shared, &holder, &cancel)?;
        Ok((holder, stream))
    });
    let (holder, stream) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return refuse(&shared, &outbound, "?", from, refused),
    };
    let name = holder.holder_id.clone();
    tracing::info!("holder {name} at {shown}: stream opened");
    let end = attend(
        &shared,
        &mut inbound,
        &outbound,
        holder,
        stream,
        from,
        &cancel,
    )
    .await;
    match end {
        Some(refused) => refuse(&shared, &outbound, &name, from, refused),
        None => tracing::info!("holder {name} at {shown}: stream ended"),
    }
    {
        let mut holders = shared.holders.lock();
        if holders.get(&name).is_some_and(|open| open.stream == stream) {
            holders.remove(&name);
        }
    }
    let ended = HoldMessage::Ended {
        stream,
        holder_id: name,
    };
    tell(&shared, ended).await;
}

/// The agent's thread may be busy for a moment; an end must not get lost.
async fn tell(shared: &Shared, mut message: HoldMessage) {
    loop {
        message = match shared.messages.try_send(message) {
            Ok(()) | Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return,
            Err(std::sync::mpsc::TrySendError::Full(message)) => message,
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until the stream ends; why it is refused, if it is.
async fn attend(
    shared: &Shared,
    inbound: &mut Streaming<HoldRequest>,
    outbound: &Outbound,
    holder: Holder,
    stream: StreamId,
    from: Option<SocketAddr>,
    cancel: &CancellationToken,
) -> Option<HoldRefused> {
    let name = holder.holder_id;
    let from = from.map(|address| address.ip().to_canonical());
    let mut need = holder.need;
    let mut standing = shared.standing.changes();
    let mut warnings = shared.standing.warnings();
    let mut told = Vec::new();
    loop {
        if let Some(need) = need.take() {
            let (reply, answer) = oneshot::channel();
            let asked = HoldMessage::Asked {
                stream,
                holder_id: name.clone(),
                need,
                from,
                reply,
            };
            if shared.messages.try_send(asked).is_err() {
                return Some(refused(Code::Overloaded, "the agent is busy"));
            }
            match answer.await {
                Ok(Ok(holding)) => {
                    // What was said before this stream began is news to it.
                    let standing = shared.standing.message();
                    told.clone_from(&holding.warnings);
                    for reply in [Reply::Holding(holding), Reply::Standing(standing)] {
                        if !say(shared, outbound, reply).await {
                            return Some(deaf());
                        }
                    }
                }
                Ok(Err(refused)) => return Some(refused),
                Err(_) => return Some(ending()),
            }
        }
        let message = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                return Some(if shared.stop.is_cancelled() { ending() } else { replaced() });
            }
            () = outbound.closed() => return None,
            // Its sender lives as long as this server.
            _ = standing.changed() => {
                if !say(shared, outbound, Reply::Standing(shared.standing.message())).await {
                    return Some(deaf());
                }
                continue;
            }
            _ = warnings.changed() => {
                let now = warnings.borrow_and_update().get(&name).cloned();
                if let Some(lines) = now.filter(|lines| *lines != told) {
                    told.clone_from(&lines);
                    if !say(shared, outbound, Reply::Warnings(Warnings { lines })).await {
                        return Some(deaf());
                    }
                }
                continue;
            }
            message = inbound.message() => message,
        };
        match message {
            Ok(Some(message)) => match message.kind {
                Some(Kind::Need(asked)) => need = Some(asked),
                Some(Kind::Ping(ping)) => {
                    let pong = HoldPong {
                        nonce: ping.nonce,
                        standing: Some(shared.standing.message()),
                    };
                    if !say(shared, outbound, Reply::Pong(pong)).await {
                        return Some(deaf());
                    }
                }
                Some(Kind::Holder(_)) => return Some(malformed("it says twice who it is")),
                None => return Some(malformed("a message of unknown kind")),
            },
            Ok(None) => return None,
            Err(status) => return unreadable(&status).map(malformed),
        }
    }
}

/// Whether the holder takes it in time. HTTP/2 answers pings below a stream that nobody reads, so
/// they do not tell.
async fn say(shared: &Shared, outbound: &Outbound, kind: Reply) -> bool {
    let reply = Ok(HoldReply { kind: Some(kind) });
    let said = outbound.send_timeout(reply, shared.config.reply_timeout);
    // One that is gone is told of by its stream's end.
    !matches!(said.await, Err(SendTimeoutError::Timeout(_)))
}

fn deaf() -> HoldRefused {
    malformed("it does not read what it is told")
}

fn refuse(
    shared: &Shared,
    outbound: &Outbound,
    who: &str,
    from: Option<SocketAddr>,
    refused: HoldRefused,
) {
    let counters = &shared.counters;
    match refused.code() {
        Code::Malformed | Code::Version => {
            counters.malformed.fetch_add(1, Ordering::Relaxed);
        }
        Code::Replaced => {
            counters.replaced.fetch_add(1, Ordering::Relaxed);
        }
        Code::Overloaded => {
            counters.overloaded.fetch_add(1, Ordering::Relaxed);
        }
        Code::Unspecified | Code::Dangerous | Code::Failed | Code::ShuttingDown => {}
    }
    // Holders that are refused ask again every other second.
    let key = (from.map(|it| it.ip()), refused.reason.clone());
    if let Some(more) = shared.said.say(key, Instant::now()) {
        let (at, more) = (shown(from), times_before(more));
        tracing::warn!("holder {who} at {at} refused: {}{more}", refused.reason);
    }
    // One that does not read has had its time.
    let _ = outbound.try_send(Ok(HoldReply {
        kind: Some(Reply::Refused(refused)),
    }));
}

fn check(holder: Holder, identity: Option<&Identity>) -> Result<Holder, HoldRefused> {
    if holder.protocol_version < OLDEST_PROTOCOL_VERSION {
        return Err(refused(
            Code::Version,
            format!(
                "it speaks protocol version {}, this agent {OLDEST_PROTOCOL_VERSION} and later: \
                 upgrade the holder",
                holder.protocol_version
            ),
        ));
    }
    check_name(&holder.holder_id, "a holder", identity).map_err(malformed)?;
    if holder.need.is_none() {
        return Err(malformed("it does not say what it needs"));
    }
    Ok(holder)
}

/// Takes a stream in; an older one of the same holder is ended.
fn admit(
    shared: &Shared,
    holder: &Holder,
    cancel: &CancellationToken,
) -> Result<StreamId, HoldRefused> {
    let mut holders = shared.holders.lock();
    match holders.get(&holder.holder_id) {
        Some(open) if open.started_at_ms > holder.started_at_ms => return Err(replaced()),
        Some(open) => open.cancel.cancel(),
        None if holders.len() >= shared.config.max_streams => {
            return Err(refused(
                Code::Overloaded,
                format!("there are {} holders already", holders.len()),
            ));
        }
        None => {}
    }
    let stream = shared.next.fetch_add(1, Ordering::Relaxed);
    let open = Open {
        stream,
        started_at_ms: holder.started_at_ms,
        cancel: cancel.clone(),
    };
    holders.insert(holder.holder_id.clone(), open);
    Ok(stream)
}

/// A newer stream of the same holder has taken over.
pub fn replaced() -> HoldRefused {
    refused(Code::Replaced, "a newer stream of this holder took over")
}

fn ending() -> HoldRefused {
    refused(
        Code::ShuttingDown,
        "the agent is ending; what is installed stays for its grace time",
    )
}

fn malformed(reason: impl Into<String>) -> HoldRefused {
    refused(Code::Malformed, reason)
}

/// A refusal.
pub fn refused(code: Code, reason: impl Into<String>) -> HoldRefused {
    HoldRefused {
        code: code.into(),
        reason: reason.into(),
    }
}

//! The interceptor's side of all streams: who is attached, what they own, and what they get.
//!
//! Route info becomes [`AttachEvent`]s in one bounded channel that the worker reads; when
//! it is full, the streams are read more slowly, nothing grows. Response headers go out through
//! one [`HeaderQueue`] per stream, which the worker fills without ever waiting. A stream
//! that breaks the contract is refused with one line, ended and counted; the others do not notice.

mod config;
mod events;
mod headers;
mod hello;
mod rate;
mod registry;
mod status;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_proto::v1::interceptor_server::{Interceptor, InterceptorServer};
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{CopierMessage, Refused};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use crate::tls::Role;
use crate::transport::{Handshakes, Peer};
use crate::upkeep::{Bounds, Serving};
use millrace_daemon::exit::ExitError;
use millrace_daemon::quiet::Quiet;

pub use config::ServerConfig;
pub use events::{AttachEvent, AttachEvents, Attached};
pub use headers::{HeaderQueue, HeaderStream, QueueStatus};
pub use status::{ConnectionStatus, ServerStatus};

use registry::Registry;
use status::Counters;

/// How long what waits for copiers may take to leave at the end, and how often it is looked at.
const LAST_HEADERS: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A wake-up call for the worker, after an event was queued. Must not block.
type Wake = Box<dyn Fn() + Send + Sync>;

/// What the streams share.
struct Shared {
    config: ServerConfig,
    wake: Wake,
    events: mpsc::Sender<AttachEvent>,
    registry: Registry,
    counters: Counters,
    stop: CancellationToken,
    handshakes: Handshakes,
    /// Why nobody is served, if so.
    unsafe_because: Mutex<Option<String>>,
    /// Refusals, by address and code.
    said: Quiet<(Option<IpAddr>, i32)>,
}

/// A running server. It ends when this is dropped, or by [`ServerHandle::stop`].
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    ended: CancellationToken,
    _stop_when_dropped: Arc<DropGuard>,
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Starts to serve on `listener` (see [`millrace_daemon::listen::bind`]). `wake` is called after each event.
///
/// # Errors
/// When the runtime cannot take the listener (exit code 1).
pub fn spawn(
    config: ServerConfig,
    listener: std::net::TcpListener,
    runtime: &Handle,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(ServerHandle, AttachEvents), ExitError> {
    let serving = Serving::new(listener, runtime, "copiers")?;
    let address = serving.address();
    let (sender, receiver) = mpsc::channel(config.event_capacity.max(1));
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        wake: Box::new(wake),
        events: sender,
        registry: Registry::new(config.max_streams),
        unsafe_because: Mutex::default(),
        counters: Counters::default(),
        stop: stop.clone(),
        handshakes: Handshakes::new(),
        said: Quiet::default(),
        config,
    });
    let ended = CancellationToken::new();
    let end = ended.clone().drop_guard();
    runtime.spawn(serve(shared.clone(), serving, end));
    let handle = ServerHandle {
        shared,
        ended,
        address,
        _stop_when_dropped: Arc::new(stop.drop_guard()),
    };
    Ok((handle, AttachEvents::new(receiver)))
}

async fn serve(shared: Arc<Shared>, serving: Serving, _end: DropGuard) {
    let config = &shared.config;
    let service = InterceptorServer::new(Service(shared.clone()))
        .max_decoding_message_size(config.max_message_bytes);
    let bounds = Bounds {
        security: &config.security,
        roles: Role::Copier.into(),
        max_connections: config.max_connections,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    };
    serving
        .run(service, bounds, &shared.handshakes, &shared.stop)
        .await;
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Interceptor for Service {
    type AttachStream = HeaderStream;

    async fn attach(
        &self,
        request: Request<Streaming<CopierMessage>>,
    ) -> Result<Response<HeaderStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let cancel = self.0.stop.child_token();
        let queue = HeaderQueue::new(self.0.config.queue_bytes);
        let stream = queue.stream(cancel.clone());
        let inbound = request.into_inner();
        tokio::spawn(stream::run(self.0.clone(), inbound, queue, cancel, peer));
        Ok(Response::new(stream))
    }
}

impl ServerHandle {
    /// Where it listens; the port is the real one if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The streams and counts, for /status and metrics.
    pub fn status(&self) -> ServerStatus {
        self.shared
            .counters
            .status(&self.shared.registry, &self.shared.handshakes)
    }

    /// Who was let in and who was not, before any stream.
    pub fn handshakes(&self) -> &Handshakes {
        &self.shared.handshakes
    }

    /// Why nobody is served, if nobody is: see [`ServerHandle::set_unsafe`].
    pub fn unsafe_because(&self) -> Option<String> {
        self.shared.unsafe_because.lock().clone()
    }

    /// While there is a reason, no copier is served: those that are attached are told at once.
    pub fn set_unsafe(&self, reason: Option<String>) {
        let new = {
            let mut unsafe_because = self.shared.unsafe_because.lock();
            let new = *unsafe_because != reason;
            unsafe_because.clone_from(&reason);
            new
        };
        if let Some(reason) = reason.filter(|_| new) {
            self.shared
                .registry
                .refuse_all(&hello::refused(Code::Unsafe, reason));
        }
    }

    /// Tells every copier that this interceptor ends, and stops serving. What was handed to the streams leaves before, as
    /// far as that takes no longer than a tenth of a second; then it waits until they have heard it, half a second at most.
    pub async fn stop(&self) {
        let deadline = Instant::now() + LAST_HEADERS;
        while self.shared.registry.has_queued() && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
        }
        self.shared.registry.refuse_all(&Refused {
            code: Code::ShuttingDown.into(),
            reason: "the interceptor is ending".to_owned(),
            owner: String::new(),
        });
        self.shared.stop.cancel();
        self.ended.cancelled().await;
    }
}

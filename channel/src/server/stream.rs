//! One stream, from its Hello to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use millrace_proto::flow::{check_flow_ids, check_flows};
use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{CopierMessage, Hello, Limits, Refused, Welcome};
use millrace_proto::{ClaimSet, MAX_MESSAGE_BYTES, TraceRequest};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::hello::{check, malformed, refused};
use super::rate::Rate;
use super::registry::Open;
use super::{AttachEvent, Attached, HeaderQueue, Shared};
use crate::transport::Peer;
use crate::upkeep::{First, first, shown, unreadable};
use millrace_daemon::incarnation::Incarnation;
use millrace_daemon::quiet::times_before;
use millrace_routes::interceptor::ConnId;

/// What a trace counts as towards the limit of bytes per second: it has the interceptor open
/// sockets, which is to stay rare.
const TRACE_COST: usize = 1 << 20;

/// What a claim counts as: each of its ranges is compared with each of every other copier's, and
/// claims are as rare as streams.
const CLAIM_COST: usize = 1 << 20;

/// Why a stream ended.
enum End {
    /// The peer ended it, or is gone.
    Peer,
    /// A newer stream took over, the server stops, or the receiver refused.
    Cancelled,
    /// The peer broke the contract.
    Refused(Refused),
    /// Nobody reads the events any more.
    NoReceiver,
}

pub(super) async fn run(
    shared: Arc<Shared>,
    mut inbound: Streaming<CopierMessage>,
    queue: HeaderQueue,
    cancel: CancellationToken,
    peer: Option<Peer>,
) {
    let _vouched = peer.as_ref().map(Peer::vouch);
    let address = peer.as_ref().and_then(Peer::address);
    let shown = shown(address);
    let refuse = |who: &str, refused: Refused| {
        shared.counters.refused(refused.code());
        let key = (address.map(|it| it.ip()), refused.code);
        if let Some(more) = shared.said.say(key, Instant::now()) {
            let more = times_before(more);
            tracing::warn!("copier {who} at {shown} refused: {}{more}", refused.reason);
        }
        queue.refuse_with(refused);
    };
    let kind = match first(&mut inbound, shared.config.hello_timeout, &cancel).await {
        First::Message(message) => message.kind,
        First::Unreadable(why) => return refuse("?", malformed(why)),
        First::Late => return refuse("?", malformed("no Hello came in time")),
        First::Gone => return queue.close(),
    };
    let Some(Kind::Hello(hello)) = kind else {
        return refuse("?", malformed("its first message is not Hello"));
    };
    let identity = peer.as_ref().and_then(Peer::identity);
    let version = match check(&hello, identity) {
        Ok(version) => version,
        Err(refused) => return refuse("?", refused),
    };

    let finished = CancellationToken::new();
    // However this ends: a newer stream of the same link waits for it.
    let _finished = finished.clone().drop_guard();
    let open = Open {
        hello: hello.clone(),
        address,
        queue: queue.clone(),
        cancel: cancel.clone(),
        finished,
    };
    let (conn, replaced) = match shared.registry.add(open) {
        Ok(added) => added,
        Err(refused) => return refuse(&hello.copier_id, refused),
    };
    // Whoever says so from now on finds this stream in the registry.
    let unsafe_because = shared.unsafe_because.lock().clone();
    if let Some(reason) = unsafe_because {
        shared.registry.remove(conn);
        return refuse(&hello.copier_id, refused(Code::Unsafe, reason));
    }
    for old in replaced {
        shared.counters.refused(Code::Replaced);
        let mut reason = refused(
            Code::Replaced,
            "a newer stream of this copier took over: if another copier has its name, too, give one of them another (--id)",
        );
        reason.owner.clone_from(&hello.copier_id);
        old.queue.refuse_with(reason);
        old.cancel.cancel();
        // So that the receiver never sees two streams of one link at a time.
        old.finished.cancelled().await;
    }

    let name = hello.copier_id.clone();
    tracing::info!("copier {name} at {shown}: link {} attached", hello.link);
    let end = attached(
        &shared,
        &mut inbound,
        &queue,
        &cancel,
        conn,
        hello,
        version,
        address,
    )
    .await;
    match end {
        End::Peer => tracing::info!("copier {name} at {shown}: detached"),
        End::Cancelled => tracing::info!("copier {name} at {shown}: stream ended by this side"),
        End::Refused(refused) => refuse(&name, refused),
        End::NoReceiver => refuse(
            &name,
            refused(
                Code::ShuttingDown,
                "the interceptor does not take route info any more",
            ),
        ),
    }
    queue.close();
    let detached = AttachEvent::Detached { conn };
    let _ = shared.events.send(detached).await;
    (shared.wake)();
    shared.registry.remove(conn);
}

#[expect(
    clippy::too_many_arguments,
    reason = "the state of one stream, used once"
)]
async fn attached(
    shared: &Shared,
    inbound: &mut Streaming<CopierMessage>,
    queue: &HeaderQueue,
    cancel: &CancellationToken,
    conn: ConnId,
    hello: Hello,
    version: u32,
    address: Option<SocketAddr>,
) -> End {
    let config = &shared.config;
    let claims = hello.claims;
    let who = Attached {
        copier_id: hello.copier_id,
        incarnation: Incarnation {
            id: hello.incarnation,
            started_at_ms: hello.started_at_ms,
        },
        link: hello.link,
        links: hello.links,
        claims,
        address,
        queue: queue.clone(),
    };
    let Ok(room) = shared.events.reserve().await else {
        return End::NoReceiver;
    };
    shared.counters.attached();
    // First of all: whoever hears of the stream may push headers at once, and a stream begins with
    // Welcome.
    queue.welcome(Welcome {
        protocol_version: version,
        interceptor_id: config.interceptor_id.clone(),
        incarnation: config.incarnation.id,
        limits: Some(Limits {
            max_message_bytes: u32::try_from(config.max_message_bytes.min(MAX_MESSAGE_BYTES))
                .unwrap_or(u32::MAX),
            max_bytes_per_second: config.max_bytes_per_second,
        }),
        carries_payload: true,
    });
    room.send(AttachEvent::Attached { conn, who });
    (shared.wake)();

    let mut rate = Rate::new(config.max_bytes_per_second);
    loop {
        let message = tokio::select! {
            biased;
            () = cancel.cancelled() => return End::Cancelled,
            message = inbound.message() => message,
        };
        let kind = match message {
            Ok(Some(message)) => message.kind,
            Ok(None) => return End::Peer,
            Err(status) => {
                let end = unreadable(&status).map(|why| End::Refused(malformed(why)));
                return end.unwrap_or(End::Peer);
            }
        };
        if queue.is_closed() {
            return End::Cancelled;
        }
        shared.counters.message();
        let (event, bytes) = match check_message(shared, queue, conn, claims, kind) {
            Ok(step) => step,
            Err(refused) => return End::Refused(refused),
        };
        if let Some(event) = event {
            if shared.events.send(event).await.is_err() {
                return End::NoReceiver;
            }
            (shared.wake)();
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return End::Cancelled,
            () = rate.pay(bytes) => {}
        }
    }
}

/// What a message says, checked, and what it costs.
fn check_message(
    shared: &Shared,
    queue: &HeaderQueue,
    conn: ConnId,
    claims: bool,
    kind: Option<Kind>,
) -> Result<(Option<AttachEvent>, usize), Refused> {
    let step = match kind {
        Some(Kind::Announce(announce)) => {
            let flows = announce.flows;
            let count = check_flows(&flows).map_err(|it| malformed(format!("Announce: {it}")))?;
            shared.counters.announced(flows.len(), count);
            let bytes = flows.len();
            (Some(AttachEvent::Announce { conn, flows, count }), bytes)
        }
        Some(Kind::Forget(forget)) => {
            let ids = forget.flow_ids;
            let count = check_flow_ids(&ids).map_err(|it| malformed(format!("Forget: {it}")))?;
            shared.counters.forgotten(ids.len(), count);
            let bytes = ids.len();
            (Some(AttachEvent::Forget { conn, ids, count }), bytes)
        }
        Some(Kind::Claim(claim)) => {
            if !claims {
                return Err(malformed(
                    "Claim from a copier that said it announces flows",
                ));
            }
            let claim =
                ClaimSet::try_from(&claim).map_err(|it| malformed(format!("Claim: {it}")))?;
            (Some(AttachEvent::Claim { conn, claim }), CLAIM_COST)
        }
        Some(Kind::ResyncBegin(_)) => (Some(AttachEvent::ResyncBegin { conn }), 0),
        Some(Kind::ResyncEnd(_)) => (Some(AttachEvent::ResyncEnd { conn }), 0),
        Some(Kind::Trace(trace)) => {
            let request =
                TraceRequest::try_from(&trace).map_err(|it| malformed(format!("Trace: {it}")))?;
            (Some(AttachEvent::Trace { conn, request }), TRACE_COST)
        }
        Some(Kind::Ping(ping)) => {
            queue.pong(ping.nonce);
            (None, 0)
        }
        Some(Kind::Hello(_)) => return Err(malformed("a second Hello")),
        // A kind of a later version: the Welcome told the copier which one is spoken.
        None => return Err(malformed("a message of unknown kind")),
    };
    Ok(step)
}

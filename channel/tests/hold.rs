//! The Hold stream between real ends: leases asked for, changed, replaced and lost; and peers that
//! break the contract.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod log;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use millrace_channel::hold::server::{self, HoldMessage, HoldServer, HoldServerConfig, refused};
use millrace_channel::hold::{self, HoldConfig, HoldEvent, HoldHandle, Standing};
use millrace_channel::transport::Security;
use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::Incarnation;
use millrace_proto::PROTOCOL_VERSION;
use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::hold_reply::Kind as Reply;
use millrace_proto::v1::hold_request::Kind;
use millrace_proto::v1::router_agent_client::RouterAgentClient;
use millrace_proto::v1::{HoldPing, HoldRequest, Holder, Holding, Need, ServiceAddress};
use tokio::runtime::{Handle, Runtime};

use log::Lines;

const PATIENCE: Duration = Duration::from_secs(10);
/// No client of another test is given a port of this address, so that an agent finds its own again.
const OWN: &str = "127.0.1.1:0";

/// An agent whose thread is this test.
struct Agent {
    server: HoldServer,
    messages: Receiver<HoldMessage>,
    standing: Standing,
    /// Looks at its host: as long as this lives.
    _looks: Sender<()>,
}

impl Agent {
    fn start(runtime: &Handle, address: &str) -> Self {
        let listener = millrace_daemon::listen::bind(address.parse().unwrap(), "-p").unwrap();
        let (sender, messages) = sync_channel(4);
        let config = HoldServerConfig {
            first_timeout: Duration::from_millis(500),
            reply_timeout: Duration::from_millis(500),
            ..HoldServerConfig::new(Security::Insecure)
        };
        let standing = Standing::of_this_host();
        let (looks, stop) = channel();
        let looking = standing.clone();
        std::thread::spawn(move || {
            let pause = Duration::from_millis(20);
            while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                looking.looked();
            }
        });
        Self {
            server: server::spawn(config, listener, runtime, sender, standing.clone()).unwrap(),
            messages,
            standing,
            _looks: looks,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Grants or refuses the next thing that is asked for; who asked, and for which port.
    fn answer(&self, grant: bool) -> (String, u32) {
        loop {
            match self.messages.recv_timeout(PATIENCE).unwrap() {
                HoldMessage::Asked {
                    holder_id,
                    need,
                    reply,
                    ..
                } => {
                    let holding = Holding {
                        protocol_version: PROTOCOL_VERSION,
                        agent_id: "rs1".to_owned(),
                        grace_seconds: 2,
                        warnings: vec!["mend\nthis".to_owned()],
                        ..Holding::default()
                    };
                    let no = refused(Code::Dangerous, "it would cut off ssh");
                    let answer = if grant { Ok(holding) } else { Err(no) };
                    let _ = reply.send(answer);
                    return (holder_id, need.services[0].port);
                }
                HoldMessage::Ended { .. } => {}
            }
        }
    }

    /// Waits until a stream of this holder has ended.
    fn ended(&self, holder: &str) {
        loop {
            if let HoldMessage::Ended { holder_id, .. } =
                self.messages.recv_timeout(PATIENCE).unwrap()
                && holder_id == holder
            {
                return;
            }
        }
    }
}

fn need(port: u32) -> Need {
    Need {
        services: vec![ServiceAddress {
            ip: vec![198, 18, 5, 1].into(),
            port,
        }],
        ..Need::default()
    }
}

fn hold_at(runtime: &Handle, address: SocketAddr, id: &str) -> (HoldHandle, Receiver<HoldEvent>) {
    let mut config = HoldConfig::new(address.into(), Security::Insecure, id, need(80));
    config.incarnation = Incarnation::start();
    let (events, seen) = sync_channel(64);
    let handle = hold::spawn(config, runtime, move |event| drop(events.send(event)));
    (handle, seen)
}

/// Who asks for port 80.
fn holder(id: &str) -> Holder {
    Holder {
        protocol_version: PROTOCOL_VERSION,
        holder_id: id.to_owned(),
        incarnation: 1,
        started_at_ms: 1,
        need: Some(need(80)),
    }
}

fn next(seen: &Receiver<HoldEvent>) -> HoldEvent {
    seen.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_need_is_held_and_given_up() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (handle, seen) = hold_at(runtime.handle(), agent.address(), "copier-1");
    assert!(!handle.is_held(BootTime::now()));
    assert_eq!(agent.answer(true), ("copier-1".to_owned(), 80));
    let HoldEvent::Held { agent_id, warnings } = next(&seen) else {
        panic!()
    };
    assert_eq!(
        (agent_id.as_str(), warnings[0].as_str()),
        ("rs1", "mend this")
    );
    until("it holds", || handle.is_held(BootTime::now()));
    assert!(handle.status().connected);
    handle.close();
    agent.ended("copier-1");
}

#[test]
fn a_refusal_is_no_hold_and_is_asked_again() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (handle, seen) = hold_at(runtime.handle(), agent.address(), "copier-1");
    agent.answer(false);
    let HoldEvent::Refused { code, reason } = next(&seen) else {
        panic!()
    };
    assert_eq!(
        (code, reason.as_str()),
        (Code::Dangerous, "it would cut off ssh")
    );
    assert!(!handle.is_held(BootTime::now()));
    agent.answer(true);
    assert!(matches!(next(&seen), HoldEvent::Held { .. }));
    until("it holds", || handle.is_held(BootTime::now()));
}

/// Until it does: the agent's word is asked for ten times a second.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A holder of what an agent has granted, and vouches for.
fn held_by(runtime: &Runtime, agent: &Agent) -> (HoldHandle, Receiver<HoldEvent>) {
    let (handle, seen) = hold_at(runtime.handle(), agent.address(), "copier-1");
    agent.answer(true);
    assert!(matches!(next(&seen), HoldEvent::Held { .. }));
    until("it holds", || handle.is_held(BootTime::now()));
    (handle, seen)
}

#[test]
fn a_holder_whose_agent_is_killed_holds_nothing_from_then_on_and_finds_it_again() {
    let runtime = Runtime::new().unwrap();
    let other = Runtime::new().unwrap();
    let agent = Agent::start(other.handle(), OWN);
    let address = agent.address();
    let (handle, seen) = held_by(&runtime, &agent);
    // As if killed: its sockets go with its runtime.
    let _unannounced = std::mem::ManuallyDrop::new(agent);
    other.shutdown_background();
    assert!(matches!(next(&seen), HoldEvent::Lost { .. }));
    assert!(!handle.is_held(BootTime::now()) && handle.has_lapsed(BootTime::now()));
    let again = Agent::start(runtime.handle(), &address.to_string());
    again.answer(true);
    assert!(matches!(next(&seen), HoldEvent::Held { .. }));
    until("it holds again", || handle.is_held(BootTime::now()));
}

#[test]
fn an_agent_that_says_that_it_ends_is_waited_for_for_half_of_the_grace_time() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (handle, seen) = held_by(&runtime, &agent);
    agent.server.stop();
    assert!(matches!(next(&seen), HoldEvent::Lost { .. }));
    let grace = Instant::now();
    assert!(handle.is_held(BootTime::now()), "within the grace time");
    until("it lapses", || handle.has_lapsed(BootTime::now()));
    assert!(grace.elapsed() <= PATIENCE);
}

#[test]
fn what_the_agent_finds_wrong_reaches_the_holder_unasked_and_so_does_its_end() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (handle, seen) = held_by(&runtime, &agent);
    agent.standing.say(Some("a rule is\nin the way"));
    let reason = "a rule is in the way".to_owned();
    assert_eq!(next(&seen), HoldEvent::Troubled { reason });
    assert!(handle.has_lapsed(BootTime::now()));
    assert_eq!(handle.status().trouble, "a rule is in the way");
    agent.standing.say(None);
    assert_eq!(next(&seen), HoldEvent::Mended);
    until("it holds again", || handle.is_held(BootTime::now()));
    assert!(handle.status().trouble.is_empty());
}

#[test]
fn what_an_operator_should_know_is_what_holds_now() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (handle, _seen) = held_by(&runtime, &agent);
    let say = |holder: &str, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        agent.standing.warn([(holder.to_owned(), lines)].into());
    };
    say("copier-1", &["eth0 is\nstrict", "no floor"]);
    until("both are known", || {
        handle.status().warnings == ["eth0 is strict", "no floor"]
    });
    say("copier-1", &["no floor"]);
    until("one is known", || handle.status().warnings == ["no floor"]);
    // Of another holder, and then of none: nothing is said to this one.
    say("copier-2", &["a service is not here"]);
    say("copier-1", &["no floor", "last"]);
    until("the last is known", || {
        handle.status().warnings == ["no floor", "last"]
    });
    say("copier-1", &[]);
    until("all was mended", || handle.status().warnings.is_empty());
}

#[test]
fn an_agent_whose_thread_hangs_is_not_believed() {
    let runtime = Runtime::new().unwrap();
    let Agent {
        server,
        messages,
        standing,
        _looks: looks,
    } = Agent::start(runtime.handle(), OWN);
    let (handle, seen) = hold_at(runtime.handle(), server.local_addr(), "copier-1");
    let HoldMessage::Asked { reply, .. } = messages.recv_timeout(PATIENCE).unwrap() else {
        panic!()
    };
    let _ = reply.send(Ok(Holding {
        protocol_version: PROTOCOL_VERSION,
        grace_seconds: 60,
        ..Holding::default()
    }));
    assert!(matches!(next(&seen), HoldEvent::Held { .. }));
    until("it holds", || handle.is_held(BootTime::now()));
    drop(looks);
    assert!(matches!(next(&seen), HoldEvent::Troubled { .. }));
    assert!(handle.has_lapsed(BootTime::now()) && handle.status().connected);
    standing.looked();
    assert_eq!(next(&seen), HoldEvent::Mended);
}

#[test]
fn of_two_streams_of_one_holder_the_later_start_wins() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let (_old, seen_old) = hold_at(runtime.handle(), agent.address(), "copier-1");
    agent.answer(true);
    assert!(matches!(next(&seen_old), HoldEvent::Held { .. }));
    std::thread::sleep(Duration::from_millis(5));
    let (new, seen_new) = hold_at(runtime.handle(), agent.address(), "copier-1");
    agent.answer(true);
    assert!(matches!(next(&seen_new), HoldEvent::Held { .. }));
    let HoldEvent::Refused { code, .. } = next(&seen_old) else {
        panic!()
    };
    assert_eq!(code, Code::Replaced);
    // The old one asks again, and is refused again; the new one does not notice.
    assert!(matches!(
        next(&seen_old),
        HoldEvent::Refused {
            code: Code::Replaced,
            ..
        }
    ));
    until("it holds", || new.is_held(BootTime::now()));
    assert!(seen_new.try_recv().is_err());
}

fn kind(kind: Kind) -> HoldRequest {
    HoldRequest { kind: Some(kind) }
}

/// What an agent answers to requests of a peer that is no proper holder.
async fn provoke(address: SocketAddr, requests: Vec<HoldRequest>) -> Option<Code> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = channel.unwrap().connect().await.unwrap();
    // The peer stays: silence is a part of what is tried.
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    for request in requests {
        sender.send(request).await.unwrap();
    }
    let outbound = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut inbound = RouterAgentClient::new(channel)
        .hold(outbound)
        .await
        .unwrap()
        .into_inner();
    loop {
        match inbound.message().await.ok()??.kind? {
            Reply::Refused(refused) => return Some(refused.code()),
            Reply::Holding(_) | Reply::Pong(_) | Reply::Standing(_) | Reply::Warnings(_) => {}
        }
    }
}

#[test]
fn who_breaks_the_contract_is_refused_and_counted() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let request = |kind| HoldRequest { kind: Some(kind) };
    let holder = |id: &str, version: u32, need: Option<Need>| {
        request(Kind::Holder(Holder {
            protocol_version: version,
            holder_id: id.to_owned(),
            need,
            ..Holder::default()
        }))
    };
    let long = "x".repeat(129);
    let cases = [
        (
            vec![request(Kind::Ping(HoldPing { nonce: 1 }))],
            Code::Malformed,
        ),
        (vec![request(Kind::Need(need(80)))], Code::Malformed),
        (vec![HoldRequest { kind: None }], Code::Malformed),
        (vec![], Code::Malformed),
        (vec![holder("", 1, Some(need(80)))], Code::Malformed),
        (vec![holder("a b", 1, Some(need(80)))], Code::Malformed),
        (vec![holder(&long, 1, Some(need(80)))], Code::Malformed),
        (vec![holder("a", 1, None)], Code::Malformed),
        (vec![holder("a", 0, Some(need(80)))], Code::Version),
    ];
    let count = cases.len() as u64;
    for (requests, expected) in cases {
        let shown = format!("{requests:?}");
        let code = runtime.block_on(provoke(agent.address(), requests));
        assert_eq!(code, Some(expected), "{shown}");
    }
    let status = agent.server.status();
    assert_eq!((status.malformed, status.streams), (count, 0), "{status:?}");
    assert!(
        agent.messages.try_recv().is_err(),
        "the agent's thread saw none of it"
    );
}

#[test]
fn a_holder_that_asks_for_something_else_is_answered_for_that() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let requests = [Kind::Holder(holder("copier-1")), Kind::Need(need(81))].map(kind);
    runtime.spawn(provoke(agent.address(), requests.into()));
    assert_eq!(agent.answer(true), ("copier-1".to_owned(), 80));
    assert_eq!(agent.answer(true), ("copier-1".to_owned(), 81));
}

#[tokio::test]
async fn a_holder_that_is_refused_again_and_again_is_told_of_once() {
    let lines = Lines::capture();
    let agent = Agent::start(&Handle::current(), OWN);
    for times in 1..=3 {
        let code = provoke(agent.address(), vec![HoldRequest { kind: None }]).await;
        assert_eq!(code, Some(Code::Malformed));
        assert_eq!(agent.server.status().malformed, times);
    }
    lines.one().await;
}

#[test]
fn while_the_agents_thread_is_busy_further_requests_are_refused() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    // Its thread (this test) reads nothing: four requests wait, the others are too many.
    let holds: Vec<_> = (0..6)
        .map(|n| hold_at(runtime.handle(), agent.address(), &format!("copier-{n}")))
        .collect();
    let until = Instant::now() + PATIENCE;
    while agent.server.status().overloaded < 2 {
        assert!(Instant::now() < until, "{:?}", agent.server.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        holds
            .iter()
            .all(|(handle, _)| !handle.is_held(BootTime::now()))
    );
}

#[test]
fn a_holder_that_does_not_read_is_ended_and_its_lease_told_of() {
    let runtime = Runtime::new().unwrap();
    let agent = Agent::start(runtime.handle(), OWN);
    let address = agent.address();
    let _deaf = runtime.spawn(async move {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        // HTTP/2's pings are answered all the same.
        let channel = channel.unwrap().initial_stream_window_size(0);
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        let outbound = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = RouterAgentClient::new(channel.connect().await.unwrap());
        let requests = tokio::spawn(async move {
            sender
                .send(kind(Kind::Holder(holder("deaf"))))
                .await
                .unwrap();
            for nonce in 1..100 {
                sender
                    .send(kind(Kind::Ping(HoldPing { nonce })))
                    .await
                    .unwrap();
            }
            std::future::pending::<()>().await;
        });
        let _inbound = client.hold(outbound).await;
        requests.await.unwrap();
    });
    assert_eq!(agent.answer(true).0, "deaf");
    agent.ended("deaf");
    let status = agent.server.status();
    assert_eq!((status.streams, status.malformed), (0, 1), "{status:?}");
}

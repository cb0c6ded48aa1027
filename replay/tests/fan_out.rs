//! Route info to several interceptors, over real links on loopback: who is told what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unused_crate_dependencies
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_channel::link::{self, LinkConfig, LinkHandle};
use millrace_channel::server::{
    self, AttachEvent, AttachEvents, HeaderQueue, ServerConfig, ServerHandle,
};
use millrace_channel::transport::Security;
use millrace_channel::upkeep::Backoff;
use millrace_daemon::listen;
use millrace_daemon::quiet::Quiet;
use millrace_daemon::readiness::Readiness;
use millrace_engine::{Config, Engine, Event, LiveAddress, ReplicaKey, Service, SourcePool, Time};
use millrace_notation::address::DefaultPort;
use millrace_proto::trace::MAX_PROBES;
use millrace_proto::v1::refused::Code;
use millrace_proto::{ClaimSet, ClientRange, FlowIds, FlowRecords, TraceRequest};
use millrace_replay::inbox::{Inbox, Message};
use millrace_replay::probe::Prober;
use millrace_replay::routes::{EngineFlows, LinkRoutes, Routes, moment, unreadable};
use millrace_routes::copier::{FlowTarget, LinkEvent, LinkId, Uplink};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpPacket};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(10);
const LIVE: &str = "198.18.2.10:80";
const TARGET: &str = "198.18.2.20:8080";

struct Interceptor {
    server: ServerHandle,
    events: AttachEvents,
    /// Of the last stream, where claims are answered.
    queue: Option<HeaderQueue>,
    began: Instant,
}

impl Interceptor {
    fn start(address: &str) -> Self {
        Self::with(address, ServerConfig::new(Security::Insecure, "rs"))
    }

    fn with(address: &str, config: ServerConfig) -> Self {
        let listener = listen::bind(address.parse().unwrap(), "-p").unwrap();
        let (server, events) = server::spawn(config, listener, &Handle::current(), || {}).unwrap();
        Self {
            server,
            events,
            queue: None,
            began: Instant::now(),
        }
    }

    /// What it hears next of flows: (announced ids, forgotten ids).
    async fn hears(&mut self) -> (Vec<u64>, Vec<u64>) {
        loop {
            match timeout(PATIENCE, self.events.next())
                .await
                .unwrap()
                .unwrap()
            {
                AttachEvent::Announce { flows, .. } => {
                    let ids = FlowRecords::new(&flows).map(|flow| flow.unwrap().id);
                    return (ids.collect(), Vec::new());
                }
                AttachEvent::Forget { ids, .. } => {
                    let ids = FlowIds::new(&ids).map(Result::unwrap);
                    return (Vec::new(), ids.collect());
                }
                AttachEvent::ResyncEnd { .. } => return (Vec::new(), Vec::new()),
                AttachEvent::Attached { .. }
                | AttachEvent::Detached { .. }
                | AttachEvent::ResyncBegin { .. }
                | AttachEvent::Claim { .. }
                | AttachEvent::Trace { .. } => {}
            }
        }
    }
}

/// What becomes of a claim.
enum Answer {
    Grant,
    Refuse,
}

impl Interceptor {
    /// Waits for the next claim, without ranges if it is `given_up`, and answers it.
    async fn claimed(&mut self, copier: &mut Copier, given_up: bool, answer: Option<Answer>) {
        let claim = loop {
            let event = timeout(Duration::from_millis(5), self.events.next());
            match event.await {
                Ok(Some(AttachEvent::Attached { who, .. })) => self.queue = Some(who.queue),
                Ok(Some(AttachEvent::Claim { claim, .. })) => break claim,
                Ok(event) => drop(event.unwrap()),
                Err(_) => copier.until_up(0).await,
            }
            assert!(self.began.elapsed() < PATIENCE);
        };
        assert_eq!(claim.ranges.is_empty(), given_up);
        let queue = self.queue.as_ref().unwrap();
        match answer {
            Some(Answer::Grant) => queue.grant([]),
            Some(Answer::Refuse) => queue.refuse(Code::ClaimConflict, "taken", "other"),
            None => {}
        }
    }
}

/// A copier without a network: an engine with sessions, and route info to interceptors.
struct Copier {
    engine: Engine,
    routes: Routes,
    inbox: Arc<Inbox>,
    links: Vec<LinkHandle>,
    now: Time,
}

impl Copier {
    fn new() -> Self {
        Self::with(SourcePool::Clients)
    }

    fn with(sources: SourcePool) -> Self {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        let engine = Engine::new(Config {
            services: vec![Service {
                live: LiveAddress::At(endpoint(LIVE).ip),
                live_port: endpoint(LIVE).port,
                target: endpoint(TARGET),
            }],
            sources,
            ..Config::default()
        });
        Self {
            engine,
            routes: Routes::default(),
            inbox: Arc::new(Inbox::new()),
            links: Vec::new(),
            now: Time::from_micros(1_700_000_000_000_000),
        }
    }

    fn attach(&mut self, number: u32, interceptor: &Interceptor) {
        self.attach_with(number, interceptor, None);
    }

    fn attach_with(&mut self, number: u32, interceptor: &Interceptor, claim: Option<ClaimSet>) {
        let id = LinkId {
            interceptor: number,
            link: 0,
        };
        self.link(id, 1, interceptor.server.local_addr(), claim);
    }

    fn link(&mut self, id: LinkId, links: u32, to: SocketAddr, claim: Option<ClaimSet>) {
        let address = to.to_string();
        let address = DefaultPort(1).parse_list(&address).unwrap().remove(0);
        let mut config = LinkConfig {
            link: id.link,
            links,
            claims: claim.is_some(),
            ..LinkConfig::new(address, Security::Insecure, "copier")
        };
        config.peer.backoff = Backoff {
            first: Duration::from_millis(10),
            max: Duration::from_millis(100),
        };
        let inbox = self.inbox.clone();
        let handle = link::spawn(config, &Handle::current(), move |event| {
            inbox.push(id, event);
        });
        self.links.push(handle.clone());
        self.routes
            .add(LinkRoutes::new(id, handle, links, claim, FlowTarget::Exact));
    }

    /// Takes in what the links say, until `count` streams came up.
    async fn until_up(&mut self, mut count: usize) {
        let mut inputs = std::collections::VecDeque::new();
        for _ in 0..1000 {
            self.inbox.take(&mut inputs);
            for input in inputs.drain(..) {
                if let Message::Link(id, event) = input {
                    let up = usize::from(matches!(event, LinkEvent::Up { .. }));
                    count = count.saturating_sub(up);
                    self.hear(id, &event);
                }
            }
            if count == 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} links did not come up");
    }

    /// Takes in what the links say, until it is so.
    async fn until(&mut self, is_so: impl Fn(&Routes) -> bool) {
        let began = Instant::now();
        while !is_so(&self.routes) {
            assert!(began.elapsed() < PATIENCE);
            self.until_up(0).await;
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A client connects; the flow of its replica begins.
    fn session(&mut self, port: u16) -> ReplicaKey {
        let client = Endpoint::new("198.18.1.1".parse().unwrap(), port);
        let live: SocketAddr = LIVE.parse().unwrap();
        let there = FourTuple::new(client, live.into());
        for (tuple, seq, ack, flags) in [
            (there, 100, 0, Flags::SYN),
            (there.reversed(), 500, 101, Flags::SYN | Flags::ACK),
            (there, 101, 501, Flags::ACK),
        ] {
            let header = TcpHeader {
                seq: Seq(seq),
                ack: Seq(ack),
                flags,
                window: 1000,
                ..TcpHeader::default()
            };
            let packet = TcpPacket {
                tuple,
                header,
                payload: &[],
                payload_len: 0,
            };
            self.engine.segment(self.now, self.now, &packet);
        }
        self.tell_flows().expect("a replica")
    }

    /// Announces what begins; gives the last of it.
    fn tell_flows(&mut self) -> Option<ReplicaKey> {
        let mut opened = None;
        while let Some(event) = self.engine.poll_event() {
            if let Event::FlowOpened { key, tuple } = event {
                let (engine, now) = (&mut self.engine, self.now);
                let flows = EngineFlows { engine, now };
                self.routes.flow_opened(key.flow_id(), &tuple, &flows);
                opened = Some(key);
            }
        }
        opened
    }

    /// An interceptor reports a conflict.
    fn conflict(&mut self, interceptor: u32, key: ReplicaKey) {
        let (engine, now) = (&mut self.engine, self.now);
        self.routes.on_conflict(
            moment(now),
            interceptor,
            key.flow_id(),
            &mut EngineFlows { engine, now },
        );
        self.tell_flows();
    }

    /// Time passes, and what has gathered goes out.
    fn flush(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.flush_now();
    }

    /// What has gathered goes out.
    fn flush_now(&mut self) {
        let (engine, now) = (&mut self.engine, self.now);
        self.routes
            .flush(moment(now), &mut EngineFlows { engine, now });
    }

    /// Something happened on a link.
    fn hear(&mut self, id: LinkId, event: &LinkEvent) {
        let (engine, now) = (&mut self.engine, self.now);
        let mut flows = EngineFlows { engine, now };
        self.routes.on_event(moment(now), id, event, &mut flows);
    }

    /// A flow's response came back through an interceptor.
    fn heard(&mut self, interceptor: u32, key: ReplicaKey) {
        let (engine, now) = (&mut self.engine, self.now);
        let flows = EngineFlows { engine, now };
        self.routes.heard(interceptor, key.flow_id(), &flows);
    }
}

async fn three() -> (Copier, Vec<Interceptor>) {
    let mut copier = Copier::new();
    let mut interceptors = Vec::new();
    for number in 0..3 {
        let interceptor = Interceptor::start("127.0.0.1:0");
        copier.attach(number, &interceptor);
        interceptors.push(interceptor);
    }
    copier.until_up(3).await;
    for interceptor in &mut interceptors {
        assert_eq!(
            interceptor.hears().await,
            (vec![], vec![]),
            "a first resync"
        );
    }
    (copier, interceptors)
}

#[tokio::test]
async fn a_flow_is_announced_to_all_and_kept_by_the_one_that_answers() {
    let (mut copier, mut interceptors) = three().await;
    let key = copier.session(1000);
    copier.flush();
    for interceptor in &mut interceptors {
        assert_eq!(interceptor.hears().await.0, [key.flow_id()]);
    }

    copier.heard(1, key);
    copier.heard(1, key);
    copier.flush();
    assert_eq!(interceptors[0].hears().await.1, [key.flow_id()]);
    assert_eq!(interceptors[2].hears().await.1, [key.flow_id()]);
    assert!(copier.routes.may_own(1, key.flow_id()));
    assert!(!copier.routes.may_own(0, key.flow_id()));

    // The end is only of interest to the owner; the others hear of the next flow at once.
    copier.routes.flow_closed(key.flow_id());
    let next = copier.session(1001);
    copier.flush();
    assert_eq!(interceptors[0].hears().await.0, [next.flow_id()]);
    assert_eq!(interceptors[2].hears().await.0, [next.flow_id()]);
    assert_eq!(interceptors[1].hears().await.0, [next.flow_id()]);
    assert_eq!(interceptors[1].hears().await.1, [key.flow_id()]);
}

#[tokio::test]
async fn an_interceptor_that_is_back_hears_of_its_own_flows_and_of_nobodys() {
    let (mut copier, mut interceptors) = three().await;
    let (mine, others, nobodys) = (
        copier.session(1000),
        copier.session(1001),
        copier.session(1002),
    );
    copier.flush();
    copier.heard(0, mine);
    copier.heard(2, others);
    copier.flush();

    let address = interceptors[0].server.local_addr().to_string();
    interceptors.remove(0).server.stop().await;
    sleep(Duration::from_millis(50)).await;
    let mut back = Interceptor::start(&address);
    copier.until_up(1).await;
    copier.flush();
    let (mut announced, _) = back.hears().await;
    announced.sort_unstable();
    let mut wanted = [mine.flow_id(), nobodys.flow_id()];
    wanted.sort_unstable();
    assert_eq!(announced, wanted);
}

#[tokio::test]
async fn when_an_interceptor_is_none_any_more_its_flows_are_offered_to_the_others() {
    let (mut copier, mut interceptors) = three().await;
    let key = copier.session(1000);
    copier.flush();
    for interceptor in &mut interceptors {
        interceptor.hears().await;
    }
    copier.heard(1, key);
    copier.flush();
    interceptors[0].hears().await;

    copier.routes.remove(moment(copier.now), 1);
    copier.flush();
    assert_eq!(interceptors[0].hears().await.0, [key.flow_id()]);
    assert_eq!(copier.routes.connected(), [0, 2]);
}

#[tokio::test]
async fn a_flow_that_all_interceptors_refuse_moves_once() {
    let (mut copier, mut interceptors) = three().await;
    copier.engine.set_open(copier.now, true);
    let key = copier.session(1000);
    copier.flush();
    for number in 0..3 {
        copier.conflict(number, key);
    }
    assert_eq!(copier.engine.stats().replicas_moved, 1);
    copier.flush();
    // Those whose reports came late are asked again about the new flow.
    for (number, announcements) in [(0, 2), (1, 3), (2, 3)] {
        for _ in 0..announcements {
            assert_eq!(interceptors[number].hears().await.0, [key.flow_id()]);
        }
    }
    // The new one is another copier's too.
    copier.conflict(2, key);
    assert_eq!(copier.engine.stats().replicas_moved, 2);
}

#[tokio::test]
async fn announcements_gather_though_one_interceptor_has_no_room() {
    let (mut copier, _interceptors) = three().await;
    copier.engine.set_open(copier.now, true);
    // From here on nothing leaves, since nothing is awaited.
    let request = TraceRequest {
        id: 1,
        clients: vec!["198.18.1.1:1".parse().unwrap(); MAX_PROBES],
        wait: Duration::ZERO,
    };
    while copier.links[0].queued_bytes() < 2 << 20 {
        copier.links[0].trace(1, &request).unwrap();
    }
    let link = LinkId {
        interceptor: 0,
        link: 0,
    };
    let up = LinkEvent::Up {
        epoch: 1,
        interceptor_id: "rs".to_owned(),
        incarnation: 1,
    };
    copier.hear(link, &up);
    let queued = |copier: &Copier| copier.links[1].queued_bytes();
    copier.session(1000);
    copier.flush();
    let before = queued(&copier);
    assert!(before > 0, "the first goes at once");
    for port in 1001..1010 {
        copier.session(port);
        copier.flush_now();
    }
    assert_eq!(queued(&copier), before);
    copier.flush();
    assert!(queued(&copier) > before);
}

#[tokio::test]
async fn first_contact_waits_a_moment_for_interceptors_that_are_not_connected_yet() {
    let mut copier = Copier::new();
    copier.routes.set_diverted(true);
    let up = Interceptor::start("127.0.0.1:0");
    copier.attach(0, &up);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let id = LinkId {
        interceptor: 1,
        link: 0,
    };
    copier.link(id, 1, silent.local_addr().unwrap(), None);
    copier.until_up(1).await;
    let mut prober = Prober::new(copier.now, &mut copier.engine, true, &Readiness::new());
    copier.engine.set_open(copier.now, true);
    copier.session(1000);
    let mut begun = |copier: &mut Copier| {
        prober.advance(copier.now, &mut copier.engine, &mut copier.routes, false);
        std::iter::from_fn(|| prober.poll_transmit()).count()
    };
    assert_eq!(begun(&mut copier), 0);
    copier.now = copier.now + Duration::from_secs(3);
    assert_eq!(begun(&mut copier), 1, "it bears a client's address");
}

#[tokio::test]
async fn an_interceptor_is_asked_after_probes_on_the_link_that_is_up() {
    let mut copier = Copier::new();
    let mut interceptor = Interceptor::start("127.0.0.1:0");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let links = [
        silent.local_addr().unwrap(),
        interceptor.server.local_addr(),
    ];
    for (link, to) in (0..).zip(links) {
        let id = LinkId {
            interceptor: 0,
            link,
        };
        copier.link(id, 2, to, None);
    }
    copier.until_up(1).await;
    let request = TraceRequest {
        id: 7,
        clients: vec!["198.18.1.1:1".parse().unwrap()],
        wait: Duration::ZERO,
    };
    copier.routes.trace(&request);
    loop {
        let event = timeout(PATIENCE, interceptor.events.next()).await.unwrap();
        if let Some(AttachEvent::Trace { request, .. }) = event {
            assert_eq!(request.id, 7);
            break;
        }
    }
}

#[tokio::test]
async fn nonsense_is_laid_at_its_interceptors_door_once() {
    let (copier, interceptors) = three().await;
    let said = Quiet::default();
    let tell = |interceptor| unreadable(&copier.routes, &said, interceptor, Instant::now());
    let line = tell(1).unwrap();
    let address = interceptors[1].server.local_addr().to_string();
    assert!(line.contains(&address), "{line}");
    assert!(tell(1).is_none());
    assert!(tell(2).is_some());
}

#[tokio::test]
async fn an_interceptor_that_takes_only_small_messages_is_not_sent_them_again_and_again() {
    let mut copier = Copier::new();
    for port in 1000..1010 {
        copier.session(port);
    }
    let mut config = ServerConfig::new(Security::Insecure, "rs");
    config.max_message_bytes = 128;
    let small = Interceptor::with("127.0.0.1:0", config);
    copier.attach(0, &small);
    copier.until_up(1).await;
    for _ in 0..3 {
        copier.flush();
    }
    assert_eq!(
        copier.routes.poll_timeout(moment(copier.now)),
        None,
        "nothing is due"
    );
    assert!(copier.routes.connected().is_empty());
    // Others are none the worse for it.
    let usual = Interceptor::start("127.0.0.1:0");
    copier.attach(1, &usual);
    copier.until_up(1).await;
    copier.flush();
    assert_eq!(copier.routes.connected(), [1]);
}

#[tokio::test]
async fn a_pool_that_one_interceptor_refuses_is_given_up_at_those_after_it_until_it_is_granted() {
    let mut copier = Copier::new();
    copier.routes.set_diverted(true);
    let named = |id| {
        let config = ServerConfig::new(Security::Insecure, id);
        Interceptor::with("127.0.0.1:0", config)
    };
    let (mut first, mut second) = (named("rs-a"), named("rs-b"));
    let range = ClientRange::new(
        "198.18.9.1".parse().unwrap(),
        "198.18.9.9".parse().unwrap(),
        1,
        65_535,
    );
    let claim = ClaimSet {
        ranges: vec![range.unwrap()],
        targets: Vec::new(),
        ..ClaimSet::default()
    };
    copier.attach_with(0, &second, Some(claim.clone()));
    second
        .claimed(&mut copier, false, Some(Answer::Grant))
        .await;
    copier.until(|routes| routes.is_open()).await;
    copier.attach_with(1, &first, Some(claim));
    first
        .claimed(&mut copier, false, Some(Answer::Refuse))
        .await;
    second.claimed(&mut copier, true, None).await;
    assert!(!copier.routes.is_open());
    assert!(copier.routes.connected().is_empty());
    // The other copier has ended.
    first.claimed(&mut copier, false, Some(Answer::Grant)).await;
    second
        .claimed(&mut copier, false, Some(Answer::Grant))
        .await;
    copier.until(|routes| routes.connected().len() == 2).await;
    assert!(copier.routes.is_open());
}

#[tokio::test]
async fn flows_in_a_part_that_another_copier_claims_are_announced_before_it_is_yielded() {
    let ip = |n: u8| std::net::Ipv4Addr::new(198, 18, 9, n).into();
    let range = |first, last| ClientRange::new(ip(first), ip(last), 1, 65_535).unwrap();
    let mut copier = Copier::with(SourcePool::Ranges(vec![(ip(1), ip(2))]));
    copier.routes.set_diverted(true);
    let mut interceptor = Interceptor::start("127.0.0.1:0");
    let claim = ClaimSet {
        ranges: vec![range(1, 2)],
        yields: true,
        ..ClaimSet::default()
    };
    copier.attach_with(0, &interceptor, Some(claim.clone()));
    interceptor
        .claimed(&mut copier, false, Some(Answer::Grant))
        .await;
    copier.until(|routes| routes.is_open()).await;
    let keys: Vec<_> = (0..20).map(|n| copier.session(1000 + n)).collect();
    let theirs = |key: &&ReplicaKey| copier.engine.flow(**key).unwrap().source.ip == ip(2);
    let theirs: Vec<_> = keys.iter().filter(theirs).copied().collect();
    assert!(!theirs.is_empty() && theirs.len() < keys.len());

    interceptor.queue.as_ref().unwrap().others(&[range(2, 2)]);
    let mut announced = Vec::new();
    let without = loop {
        copier.until_up(0).await;
        let event = timeout(Duration::from_millis(5), interceptor.events.next());
        match event.await {
            Ok(Some(AttachEvent::Announce { flows, .. })) => {
                announced.extend(FlowRecords::new(&flows).flatten().map(|flow| flow.id));
            }
            Ok(Some(AttachEvent::Claim { claim, .. })) => break claim.without,
            Ok(event) => drop(event.unwrap()),
            Err(_) => assert!(interceptor.began.elapsed() < PATIENCE),
        }
    };
    assert_eq!(without, [range(2, 2)]);
    let mut expected: Vec<_> = theirs.iter().map(|key| key.flow_id()).collect();
    expected.sort_unstable();
    announced.sort_unstable();
    assert_eq!(announced, expected);
    // It goes on with what is its own, and nothing new begins in the other's part.
    assert!(copier.routes.is_open());
    for n in 0..20 {
        let key = copier.session(2000 + n);
        assert_eq!(copier.engine.flow(key).unwrap().source.ip, ip(1));
    }
    // An interceptor that is added later hears the same from the beginning, and nothing is sent before it has granted
    // the rest.
    let mut later = Interceptor::start("127.0.0.1:0");
    copier.attach_with(1, &later, Some(claim));
    copier.until_up(1).await;
    assert!(!copier.routes.is_open());
    let mut named = Vec::new();
    let without = loop {
        match timeout(PATIENCE, later.events.next())
            .await
            .unwrap()
            .unwrap()
        {
            AttachEvent::Attached { who, .. } => later.queue = Some(who.queue),
            AttachEvent::Announce { flows, .. } => {
                named.extend(FlowRecords::new(&flows).flatten().map(|flow| flow.id));
            }
            AttachEvent::Claim { claim, .. } => break claim.without,
            _ => {}
        }
    };
    named.sort_unstable();
    assert_eq!((without, named), (vec![range(2, 2)], expected));
    later.queue.as_ref().unwrap().grant([]);
    copier.until(|routes| routes.is_open()).await;
    // A flow that ends is forgotten.
    copier.routes.flow_closed(theirs[0].flow_id());
    copier.flush();
    assert_eq!(interceptor.hears().await.1, [theirs[0].flow_id()]);
}

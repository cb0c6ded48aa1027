//! Copiers, interceptors and the links between them, in one thread and on a clock that jumps.

mod copier;
mod rng;
mod wire;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use millrace_proto::{ClaimSet, ClientRange, FlowId, FlowKey, HeaderRecord};
use millrace_routes::copier::{LinkEvent, LinkId};
use millrace_routes::interceptor::{ConnId, Peer, Registry, Word};
use millrace_wire::FourTuple;

use copier::Copier;
pub use rng::Rng;
use wire::{Line, Message, Reply, Wire};

/// See [`millrace_routes::interceptor::LEASE`].
const NOTICED_AFTER: Duration = Duration::from_secs(5);

/// Where copies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The clients' addresses: flows are announced.
    Clients,
    /// One pool that every copier wants whole.
    OnePool,
    /// The first copier has what no other one claims; each of these claims its share.
    Shares,
}

impl Sources {
    /// The ports that a copier may take, and what it claims.
    fn of(self, copier: usize, client: IpAddr) -> ((u16, u16), Option<ClaimSet>) {
        let claim = |first, last, yields| {
            let range = ClientRange::new(client, client, first, last);
            Some(ClaimSet {
                ranges: vec![range.unwrap()],
                yields,
                ..ClaimSet::default()
            })
        };
        let first = 1000 + 20 * copier as u16;
        match self {
            Self::Clients => ((1000, 1119), None),
            Self::OnePool => ((1000, 1099), claim(1000, 1099, false)),
            Self::Shares if copier == 0 => ((1000, 1099), claim(1000, 1099, true)),
            Self::Shares => ((first, first + 19), claim(first, first + 19, false)),
        }
    }
}

struct Interceptor {
    registry: Registry,
    run: u64,
    streams: HashMap<ConnId, Line>,
}

impl Interceptor {
    fn start(run: u64) -> Self {
        Self {
            registry: Registry::new(10_000),
            run,
            streams: HashMap::new(),
        }
    }

    /// Says what there is to say.
    fn speak(&mut self) {
        while let Some((conn, word)) = self.registry.poll_word() {
            let Some(line) = self.streams.get(&conn) else {
                continue;
            };
            let replies = match word {
                Word::Granted(taken) => {
                    let taken = taken.into_iter().map(|flows| LinkEvent::Taken {
                        flows: flows.into(),
                        ended: false,
                    });
                    taken.chain([LinkEvent::Granted]).collect()
                }
                Word::Refused(owner) => vec![LinkEvent::Refused {
                    code: millrace_proto::v1::refused::Code::ClaimConflict,
                    reason: String::new(),
                    owner,
                }],
                Word::Others(ranges) => vec![LinkEvent::Others { ranges }],
                Word::Taken { flows, ended } => vec![LinkEvent::Taken {
                    flows: flows.into(),
                    ended,
                }],
                Word::Conflict(id) => {
                    line.reply(Reply::Conflict(id));
                    continue;
                }
                // A target repeats what matters.
                Word::Late(_) => continue,
            };
            let refused = matches!(replies.last(), Some(LinkEvent::Refused { .. }));
            for event in replies {
                line.reply(Reply::Event(event));
            }
            if refused {
                // The stream ends with it.
                line.0.borrow_mut().is_cut = true;
            }
        }
    }
}

/// The whole.
pub struct World {
    pub now: Duration,
    rng: Rng,
    sources: Sources,
    copiers: Vec<Copier>,
    interceptors: Vec<Interceptor>,
    /// The connections that the target has: whose they are.
    connections: HashMap<FourTuple, (usize, FlowId)>,
    last_number: u64,
    /// Connections that copiers have made.
    pub connects: u64,
}

impl World {
    pub fn new(seed: u64, sources: Sources) -> Self {
        let mut rng = Rng::new(seed);
        let (copiers, interceptors) = (1 + rng.below(4), 1 + rng.below(4));
        let links = 1 + rng.below(2) as u32;
        let mut world = Self {
            now: Duration::from_secs(1000),
            rng,
            sources,
            copiers: Vec::new(),
            interceptors: (0..interceptors as u64).map(Interceptor::start).collect(),
            connections: HashMap::new(),
            last_number: interceptors as u64,
            connects: 0,
        };
        for number in 0..copiers {
            let copier = world.started(number, links);
            world.copiers.push(copier);
        }
        world
    }

    fn started(&mut self, number: usize, links: u32) -> Copier {
        let run = self.number();
        let count = self.interceptors.len();
        Copier::start(number, run, links, self.sources, count, &mut self.rng)
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Something happens.
    pub fn step(&mut self) {
        let copier = self.rng.below(self.copiers.len());
        let at = self.rng.below(self.interceptors.len());
        let link = self.rng.below(self.copiers[copier].links as usize);
        match self.rng.below(40) {
            0 => self.restart_interceptor(at),
            1 if self.rng.once_in(3) => self.restart_copier(copier),
            1 | 2 => self.copiers[copier].lines[at][link].cut(self.now, &mut self.rng),
            3..=6 => self.connect(copier, at, link),
            7..=9 => self.open(copier),
            10 => self.close_one(copier),
            11 => self.hear_enough(copier),
            12..=15 => self.answer_one(copier),
            16..=20 => {
                let time = Duration::from_millis(self.rng.below(40) as u64);
                self.pass(time);
                self.copiers[copier].flush(self.now);
            }
            21 => {
                let time = Duration::from_millis(self.rng.below(3000) as u64);
                self.pass(time);
            }
            22..=30 => self.deliver_up(copier, at, link),
            _ => self.deliver_down(copier, at, link),
        }
    }

    fn restart_interceptor(&mut self, at: usize) {
        let run = self.number();
        self.interceptors[at] = Interceptor::start(run);
        for copier in &self.copiers {
            for line in &copier.lines[at] {
                line.cut(self.now, &mut self.rng);
                let mut wire = line.0.borrow_mut();
                wire.conn = None;
                wire.up.clear();
            }
        }
        // The kernel of its host resets its connections.
        for copier in 0..self.copiers.len() {
            self.notice(copier, |line| line.conn.is_none());
        }
    }

    /// A copier reads what has come on these of its links and notices that they are cut.
    fn notice(&mut self, copier: usize, which: impl Fn(&Wire) -> bool) {
        for at in 0..self.interceptors.len() {
            for link in 0..self.copiers[copier].links as usize {
                let line = self.copiers[copier].lines[at][link].clone();
                let is_unknown = || {
                    let wire = line.0.borrow();
                    wire.is_cut && wire.epoch.is_some() && which(&wire)
                };
                while is_unknown() {
                    self.deliver_down(copier, at, link);
                }
            }
        }
    }

    /// Time passes. No copier takes longer than five seconds to notice that a link is gone.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for copier in 0..self.copiers.len() {
            self.notice(copier, |line| line.cut_at + NOTICED_AFTER <= now);
        }
        for interceptor in &mut self.interceptors {
            interceptor.registry.expire(now);
            interceptor.speak();
        }
    }

    /// What it had at the target is reset by its next run, or times out there.
    fn restart_copier(&mut self, number: usize) {
        let links = self.copiers[number].links;
        let old = self.copiers[number].lines.clone();
        self.connections.retain(|_, (owner, _)| *owner != number);
        self.copiers[number] = self.started(number, links);
        for (line, old) in self.copiers[number]
            .lines
            .iter()
            .flatten()
            .zip(old.iter().flatten())
        {
            old.cut(self.now, &mut self.rng);
            // The interceptor has still to notice, unless the new run takes over.
            line.0.borrow_mut().conn = old.0.borrow().conn;
            line.0.borrow_mut().is_cut = true;
        }
    }

    /// A copier connects, if it knows that it is not connected.
    fn connect(&mut self, copier: usize, at: usize, link: usize) {
        let line = self.copiers[copier].lines[at][link].clone();
        if line.0.borrow().epoch.is_some() {
            return;
        }
        self.detach(at, &line);
        self.connects += 1;
        let conn = ConnId(self.number());
        let interceptor = &mut self.interceptors[at];
        let (one, run) = (&self.copiers[copier], interceptor.run);
        let peer = Peer {
            copier_id: one.name.clone(),
            run: one.run,
            link: link as u32,
            links: one.links,
        };
        interceptor.registry.attach(conn, peer);
        interceptor.streams.insert(conn, line.clone());
        line.connect(conn, |epoch| LinkEvent::Up {
            epoch,
            interceptor_id: format!("rs{at}"),
            incarnation: run,
        });
        interceptor.speak();
    }

    fn detach(&mut self, at: usize, line: &Line) {
        if let Some(conn) = line.0.borrow_mut().conn.take() {
            self.interceptors[at].registry.detach(self.now, conn);
            self.interceptors[at].streams.remove(&conn);
        }
        self.interceptors[at].speak();
    }

    fn open(&mut self, copier: usize) {
        if let Some(tuple) = self.copiers[copier].open() {
            self.assert_alone(copier, tuple);
        }
    }

    fn close_one(&mut self, number: usize) {
        let copier = &mut self.copiers[number];
        let nth = self.rng.below(copier.book.flows.len().max(1));
        if let Some((id, flow)) = copier.book.flows.iter().nth(nth) {
            let (id, tuple) = (*id, flow.tuple);
            copier.close(id);
            if self.connections.get(&tuple) == Some(&(number, id)) {
                self.connections.remove(&tuple);
            }
        }
    }

    fn hear_enough(&mut self, number: usize) {
        let copier = &mut self.copiers[number];
        let nth = self.rng.below(copier.book.flows.len().max(1));
        if let Some(id) = copier.book.flows.keys().nth(nth).copied() {
            copier.hear_enough(id);
        }
    }

    fn answer_one(&mut self, copier: usize) {
        let flows = &self.copiers[copier].book.flows;
        let nth = self.rng.below(flows.len().max(1));
        if let Some((id, flow)) = flows.iter().nth(nth) {
            self.answer(copier, *id, flow.tuple);
        }
    }

    /// The target got a packet of this flow: the first one opens a connection, and a response goes to the interceptor
    /// on its real server.
    fn answer(&mut self, copier: usize, id: FlowId, tuple: FourTuple) {
        self.connections.entry(tuple).or_insert((copier, id));
        let at = self.real_server(&tuple);
        let (now, interceptor) = (self.now, &mut self.interceptors[at]);
        match interceptor.registry.find(&tuple) {
            Some((conn, _)) => {
                if let Some(line) = interceptor.streams.get(&conn) {
                    line.reply(Reply::Header(tuple));
                }
            }
            None => interceptor.registry.keep(now, tuple, header()),
        }
    }

    /// Where the director sends a flow.
    fn real_server(&self, tuple: &FourTuple) -> usize {
        usize::from(tuple.source.port) % self.interceptors.len()
    }

    /// An interceptor reads what a copier has sent, or notices that nothing more comes.
    fn deliver_up(&mut self, copier: usize, at: usize, link: usize) {
        let line = self.copiers[copier].lines[at][link].clone();
        let (message, conn, is_cut) = {
            let mut wire = line.0.borrow_mut();
            (wire.up.pop_front(), wire.conn, wire.is_cut)
        };
        let Some(conn) = conn else { return };
        let interceptor = &mut self.interceptors[at];
        let registry = &mut interceptor.registry;
        match message {
            Some(Message::ResyncBegin) => registry.begin_resync(conn),
            Some(Message::ResyncEnd) => registry.end_resync(conn),
            Some(Message::Announce(flows)) => registry.announce(conn, &flows),
            Some(Message::Forget(ids)) => registry.forget(conn, &ids),
            Some(Message::Claim(claim)) => registry.claim(conn, claim),
            None if is_cut => return self.detach(at, &line),
            None => {}
        }
        interceptor.speak();
    }

    /// A copier reads what an interceptor has said, or notices that nothing more comes.
    fn deliver_down(&mut self, number: usize, at: usize, link: usize) {
        let id = LinkId {
            interceptor: at as u32,
            link: link as u32,
        };
        let (now, copier) = (self.now, &mut self.copiers[number]);
        let line = copier.lines[at][link].clone();
        let reply = line.0.borrow_mut().down.pop_front();
        match reply {
            Some(Reply::Event(event)) => {
                copier.routes.on_event(now, id, &event, &mut copier.book);
            }
            Some(Reply::Conflict(flow)) => {
                copier
                    .routes
                    .on_conflict(now, id.interceptor, flow, &mut copier.book);
            }
            Some(Reply::Header(tuple)) => {
                // Its own connection's, or it means nothing here.
                if let Some((_, flow)) = self.connections.get(&tuple).filter(|it| it.0 == number)
                    && let Some(mine) = copier.book.flows.get_mut(flow)
                    && mine.tuple == tuple
                {
                    mine.connected = true;
                    copier.routes.heard(id.interceptor, *flow, &copier.book);
                }
            }
            None if line.0.borrow().is_cut => {
                let epoch = line.0.borrow_mut().epoch.take();
                if let Some(epoch) = epoch {
                    let reason = String::new();
                    let event = LinkEvent::Down { epoch, reason };
                    copier.routes.on_event(now, id, &event, &mut copier.book);
                }
            }
            None => {}
        }
        copier.announce_moved();
        self.assert_one_owner();
    }

    /// No more faults: every link comes up again, targets answer, and time passes.
    pub fn calm(&mut self, rounds: usize) {
        for round in 0..rounds {
            self.pass(Duration::from_secs(2));
            for copier in 0..self.copiers.len() {
                self.copiers[copier].flush(self.now);
                let flows: Vec<_> = {
                    let flows = self.copiers[copier].book.flows.iter();
                    flows.map(|(id, flow)| (*id, flow.tuple)).collect()
                };
                for (id, tuple) in flows {
                    let owner = self.connections.get(&tuple);
                    if round > 8 && owner.is_some_and(|owner| *owner != (copier, id)) {
                        // The target has another connection there: its handshake times out.
                        self.copiers[copier].close(id);
                    } else {
                        self.answer(copier, id, tuple);
                    }
                }
            }
            for _ in 0..8 {
                self.exchange();
            }
        }
    }

    /// Everything that is on its way arrives.
    fn exchange(&mut self) {
        for copier in 0..self.copiers.len() {
            for at in 0..self.interceptors.len() {
                for link in 0..self.copiers[copier].links as usize {
                    let line = self.copiers[copier].lines[at][link].clone();
                    let is_idle = |line: &Line| {
                        let wire = line.0.borrow();
                        let heard = wire.up.is_empty() && wire.down.is_empty();
                        heard && !(wire.is_cut && (wire.conn.is_some() || wire.epoch.is_some()))
                    };
                    while !is_idle(&line) {
                        self.deliver_up(copier, at, link);
                        self.deliver_down(copier, at, link);
                    }
                    self.connect(copier, at, link);
                }
            }
        }
    }

    /// Messages that copiers have sent.
    pub fn sent(&self) -> u64 {
        self.copiers.iter().map(Copier::sent).sum()
    }

    pub fn flows(&self) -> usize {
        let copiers = self.copiers.iter();
        copiers.map(|copier| copier.book.flows.len()).sum()
    }

    /// Every session ends.
    pub fn close_all(&mut self) {
        for copier in &mut self.copiers {
            let ids: Vec<FlowId> = copier.book.flows.keys().copied().collect();
            for id in ids {
                copier.close(id);
            }
        }
        self.connections.clear();
    }

    /// Of copiers that want one pool, one at most sends that has it from any one interceptor. (Two that reach no
    /// interceptor in common cannot know of each other.)
    fn assert_one_owner(&self) {
        if self.sources != Sources::OnePool {
            return;
        }
        for at in 0..self.interceptors.len() {
            let copiers = self.copiers.iter();
            let open = copiers.filter(|it| it.routes.is_open() && it.is_heard_by(at));
            assert!(open.count() <= 1, "two copiers send with one pool");
        }
    }

    /// A flow that begins with claimed sources is no other copier's that hears of the same responses.
    fn assert_alone(&self, copier: usize, tuple: FourTuple) {
        if self.sources == Sources::Clients {
            return;
        }
        let at = self.real_server(&tuple);
        if !self.copiers[copier].is_heard_by(at) {
            return;
        }
        for (number, other) in self.copiers.iter().enumerate() {
            let has = other.book.flows.values().any(|flow| flow.tuple == tuple);
            let both = number != copier && has && other.is_heard_by(at);
            assert!(!both, "{tuple:?} has two owners");
        }
    }

    /// What must be so when nothing has gone wrong for long enough.
    pub fn assert_settled(&self) {
        let open = self.copiers.iter().filter(|copier| copier.routes.is_open());
        let expected = match self.sources {
            Sources::OnePool => 1,
            Sources::Clients | Sources::Shares => self.copiers.len(),
        };
        assert_eq!(open.count(), expected, "copiers that may send");
        let mut seen = HashMap::new();
        for (number, copier) in self.copiers.iter().enumerate() {
            if !copier.routes.is_open() {
                continue;
            }
            for (id, flow) in &copier.book.flows {
                let other = seen.insert(flow.tuple, number);
                assert_eq!(other, None, "{:?} has two owners", flow.tuple);
                self.assert_found(number, *id, flow.tuple, flow.listened);
            }
            for (id, tuple) in &copier.book.left_behind {
                self.assert_left(number, *id, *tuple);
            }
        }
    }

    /// A response to this flow comes to its copier, under a name that it knows, and with its payload if that is wanted.
    fn assert_found(&self, number: usize, id: FlowId, tuple: FourTuple, listened: bool) {
        let copier = &self.copiers[number];
        let interceptor = &self.interceptors[self.real_server(&tuple)];
        let found = interceptor.registry.find(&tuple);
        let (conn, key) = found.unwrap_or_else(|| panic!("{tuple:?} has lost its owner"));
        let lines = &copier.lines[self.real_server(&tuple)];
        let is_its = lines.iter().any(|line| line.0.borrow().conn == Some(conn));
        assert!(is_its, "{tuple:?} is another copier's");
        let known = match key {
            FlowKey::Id(found) => found == id,
            FlowKey::Tuple { target, client } => {
                client == tuple.source.into() && target == tuple.destination.into()
            }
        };
        assert!(known, "{tuple:?} is known as {key:?}");
        let carried = interceptor.registry.wants_payload(conn, key);
        assert_eq!(carried, listened, "payload of {tuple:?}");
    }

    /// No interceptor takes responses of the flow that a replica had before it moved for its own.
    fn assert_left(&self, number: usize, id: FlowId, tuple: FourTuple) {
        let copier = &self.copiers[number];
        if copier
            .book
            .flows
            .get(&id)
            .is_some_and(|flow| flow.tuple == tuple)
        {
            // It is back there.
            return;
        }
        for (interceptor, lines) in self.interceptors.iter().zip(&copier.lines) {
            let found = interceptor.registry.find(&tuple);
            let is_its = found.is_some_and(|(conn, key)| {
                let is_on = |line: &Line| line.0.borrow().conn == Some(conn);
                key == FlowKey::Id(id) && lines.iter().any(is_on)
            });
            assert!(!is_its, "{tuple:?} is still flow {id}");
        }
    }

    /// No interceptor knows of a flow that has ended.
    pub fn assert_nothing_left(&self) {
        for interceptor in &self.interceptors {
            assert_eq!(interceptor.registry.counts().flows, 0, "flows left behind");
            let ports: Vec<u16> = interceptor.registry.payload_ports().collect();
            assert!(ports.is_empty(), "payload of nobody: {ports:?}");
        }
    }
}

fn header() -> HeaderRecord {
    HeaderRecord {
        key: FlowKey::Id(0),
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        payload_len: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: Default::default(),
        sack_count: 0,
    }
}

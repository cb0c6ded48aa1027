//! First contact with one target, for one kind of clients: when volleys begin, and what comes of them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use millrace_engine::{ClientKind, Engine, SourcePool, Time};
use millrace_wire::Endpoint;

use super::verdict::Verdict;
use super::volley::{self, Bearing, Volley};
use super::{LARGEST_ID, own};
use crate::routes::Routes;

/// Pause before a volley is repeated: doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a volley is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// ... and where it may have reached real clients.
const LONGEST_CLIENTS_PAUSE: Duration = Duration::from_secs(60);
/// A target that falls silent within this time after it was opened does so again.
const SOON: Duration = Duration::from_secs(60);
/// How long this host's own address is believed to be the same.
const OWN_ADDRESS_BELIEVED: Duration = Duration::from_secs(1);
/// After so many volleys in vain sessions of a kind of clients that is judged by itself are refused.
const REFUSED_AFTER: u32 = 2;
/// How often an unchanged verdict is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// So many clients' addresses are tried in turn.
const CLIENTS: usize = 32;
/// What is known of one target.
#[derive(Debug)]
pub(super) enum State {
    /// A volley is to begin; after this time.
    Waiting(Time),
    /// A volley is under way.
    Asking(Box<Volley>),
    /// Answers came back.
    Proven,
    /// Never again: see [`Verdict::Misdirected`].
    GivenUp,
}

/// One target, and one kind of clients: their answers may go other ways than those of others.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Endpoint,
    /// Places in the engine's list of services.
    pub(super) services: Vec<usize>,
    pub(super) kind: ClientKind,
    pub(super) state: State,
    /// Whose addresses the probes of the last volley bore.
    pub(super) bearing: Bearing,
    /// ... and of the one whose verdict is known.
    pub(super) judged: Bearing,
    /// Whether agents keep answers from all clients, so that what is found stands for every kind.
    pub(super) shared: bool,
    /// What the first of two volleys showed, which came back.
    pub(super) halfway: Option<Verdict>,
    /// How often it fell silent soon after it was opened, and when it was.
    pub(super) stops: u32,
    pub(super) opened_at: Time,
    pub(super) volleys: u32,
    /// Volleys since it was open.
    pub(super) failed: u32,
    /// Addresses of clients of this kind.
    pub(super) clients: VecDeque<IpAddr>,
    /// The address that this host has towards it, and until when that is believed.
    pub(super) own: (Option<IpAddr>, Time),
    pub(super) verdict: Option<Verdict>,
    pub(super) said_at: Time,
}

impl Target {
    /// One that nothing is known of, with the first of its services.
    pub(super) fn new(now: Time, address: Endpoint, service: usize, kind: ClientKind) -> Self {
        Self {
            address,
            services: vec![service],
            kind,
            state: State::Waiting(now),
            bearing: Bearing::Own,
            judged: Bearing::Own,
            shared: false,
            halfway: None,
            stops: 0,
            opened_at: Time::default(),
            volleys: 0,
            failed: 0,
            clients: VecDeque::new(),
            own: (None, now),
            verdict: None,
            said_at: Time::default(),
        }
    }

    pub(super) fn begin(
        &mut self,
        now: Time,
        next_id: &mut u64,
        engine: &mut Engine,
        routes: &mut Routes,
        own: Option<IpAddr>,
    ) {
        let pool = engine.config().sources != SourcePool::Clients;
        if self.shared != own.is_some() {
            self.shared = own.is_some();
            self.halfway = None;
        }
        // With an address of this host first, then with a client's: what comes back to one may not get to the target
        // with the other (rp_filter, anti-spoofing). Without agents one probe before the others.
        let second = self.halfway.is_some();
        self.bearing = match pool || own.is_some() && !second {
            true => Bearing::Own,
            false => Bearing::Clients,
        };
        let interceptors = routes.connected();
        // Those that are away have real servers, too.
        let size = match (pool, second == own.is_some()) {
            (false, true) => 1,
            (true, _) | (_, false) => volley::size(interceptors.len() + routes.absent().len()),
        };
        let mut sources: Vec<Endpoint> = Vec::new();
        let client = match self.bearing {
            Bearing::Own => own,
            Bearing::Clients => self.client(engine),
        };
        for attempt in 0..2 * size {
            let at = now + Duration::from_micros(attempt as u64);
            let mut services = self.services.iter();
            match services.find_map(|service| engine.probe_source(at, *service, client)) {
                Some(source) if !sources.contains(&source) => sources.push(source),
                Some(_) => {}
                None => break,
            }
            if sources.len() == size {
                break;
            }
        }
        if sources.is_empty() {
            return;
        }
        self.volleys += 1;
        self.failed += 1;
        let first_id = *next_id;
        *next_id += sources.len() as u64;
        if *next_id > LARGEST_ID / 2 {
            *next_id = 1;
        }
        let volley = Volley::begin(
            now,
            volley::Aim {
                target: self.address,
                nat: engine.config().nat,
                bearing: self.bearing,
            },
            first_id,
            &sources,
            interceptors,
        );
        for (id, tuple) in volley.flows() {
            routes.open(id, &tuple);
        }
        for (source, number) in volley.syns() {
            engine.note_probe(self.address, source, number);
        }
        self.state = State::Asking(Box::new(volley));
    }

    /// The address of this host that a probe may bear.
    pub(super) fn own_address(&mut self, now: Time) -> Option<IpAddr> {
        let (known, until) = self.own;
        if now < until {
            return known;
        }
        let own = own::address_towards(self.address.ip);
        self.own = (own, now + OWN_ADDRESS_BELIEVED);
        own
    }

    /// Whose address the probes of the next volley bear, where they bear a client's: the way back may
    /// differ from client to client, so each volley asks for another one.
    fn client(&mut self, engine: &Engine) -> Option<IpAddr> {
        let kinds = match self.shared {
            true => &ClientKind::ALL[..],
            false => std::slice::from_ref(&self.kind),
        };
        for (service, kind) in self
            .services
            .iter()
            .flat_map(|it| kinds.iter().map(move |kind| (*it, *kind)))
        {
            for client in engine.waiting_clients(service, kind, CLIENTS) {
                if !self.clients.contains(&client) {
                    self.clients.push_back(client);
                }
            }
            // Of one that fell silent perhaps only sessions are left that are open.
            if self.clients.is_empty() && self.stops > 0 {
                self.clients.extend(engine.a_client(service, kind));
            }
        }
        while self.clients.len() > CLIENTS {
            self.clients.pop_front();
        }
        let turn = usize::try_from(self.volleys).unwrap_or(0);
        let turn = turn.checked_rem(self.clients.len())?;
        self.clients.get(turn).copied()
    }

    /// The volley is over. Says whether the target is open now.
    pub(super) fn conclude(&mut self, now: Time, engine: &mut Engine, routes: &mut Routes) -> bool {
        let State::Asking(volley) = &mut self.state else {
            return false;
        };
        for (id, _) in volley.flows() {
            routes.close(id);
        }
        let clients_own = engine.config().sources == SourcePool::Clients;
        let own_came_back = self.shared && self.halfway.is_some();
        let verdict = volley.verdict(routes, clients_own, own_came_back);
        let round_trip = volley.round_trip();
        let open = verdict.is_open();
        if open && clients_own && self.halfway.is_none() {
            self.halfway = Some(verdict);
            // What a volley like it missed is there now; a client may be long in coming.
            if self.judged == self.bearing {
                self.verdict = None;
            }
            self.state = State::Waiting(now);
            return false;
        }
        // The volley with more probes has more to tell.
        let verdict = match self.halfway.take() {
            Some(first) if open && self.shared => first,
            Some(_) | None => verdict,
        };
        let changed = self.verdict.as_ref() != Some(&verdict);
        if changed || now >= self.said_at + SAY_AGAIN {
            self.said_at = now;
            match (open, verdict.is_doubtful()) {
                (true, false) => tracing::info!("{}: {verdict}", self.name()),
                (true, true) => tracing::warn!("{}: {verdict}", self.name()),
                (false, _) => tracing::warn!("{}: nothing is replayed yet: {verdict}", self.name()),
            }
        }
        let may_have_leaked = verdict.may_have_leaked();
        let (explains_silence, waits) = (verdict.explains_silence(), verdict.is_refusal());
        (self.verdict, self.judged) = (Some(verdict), self.bearing);
        if open {
            for service in self.services.iter().filter(|_| explains_silence) {
                engine.tolerate_silence(*service);
            }
            self.open(now, engine, round_trip);
            return true;
        }
        let pause = match may_have_leaked && self.bearing == Bearing::Clients {
            // Each probe may have hit a client.
            true => {
                (FIRST_PAUSE.saturating_mul(2 << self.failed.min(6))).min(LONGEST_CLIENTS_PAUSE)
            }
            false => (FIRST_PAUSE.saturating_mul(1 << self.failed.min(6)) / 2).min(LONGEST_PAUSE),
        };
        self.state = State::Waiting(now + pause);
        // Their sessions would fill the memory that others need. An application that is not there yet is waited for.
        if !self.shared && clients_own && !waits && self.failed >= REFUSED_AFTER {
            if self.failed == REFUSED_AFTER {
                tracing::warn!(
                    "{}: their sessions are refused until a probe comes back",
                    self.name()
                );
            }
            for service in &self.services {
                engine.refuse_way(now, *service, self.kind);
            }
        }
        false
    }

    pub(super) fn open(&mut self, now: Time, engine: &mut Engine, round_trip: Duration) {
        self.state = State::Proven;
        self.failed = 0;
        self.opened_at = now;
        for service in &self.services {
            engine.note_round_trip(*service, round_trip);
            engine.set_way_open(now, *service, self.kind, true);
        }
    }

    /// It fell silent: it is contacted anew.
    pub(super) fn fell_silent(&mut self, now: Time) {
        self.stops = match now.since(self.opened_at) < SOON {
            true => self.stops + 1,
            false => 1,
        };
        // The first time at once; what falls silent again and again is left alone for longer.
        let pause = match self.stops {
            0 | 1 => Duration::ZERO,
            stops => FIRST_PAUSE.saturating_mul(1 << stops.min(6)) / 4,
        };
        self.state = State::Waiting(now + pause.min(LONGEST_PAUSE));
        self.halfway = None;
        self.verdict = None;
    }

    /// How the log names it.
    pub(super) fn name(&self) -> String {
        match self.clients_name() {
            Some(clients) => format!("target {}, clients {clients}", self.address),
            None => format!("target {}", self.address),
        }
    }

    /// The kind of clients that it is judged for, where others may be judged otherwise.
    pub(super) fn clients_name(&self) -> Option<&'static str> {
        (!self.shared && self.bearing == Bearing::Clients).then(|| self.kind.name())
    }
}

//! Where replicas and probes come from: addresses, ports, initial sequence numbers.

use std::hash::BuildHasher;
use std::net::IpAddr;

use millrace_wire::{Endpoint, FourTuple, Seq};

use super::Engine;
use crate::config::{ClientKind, Service, Way};
use crate::source::SourcePool;
use crate::time::Time;

/// Probes come from these ports, first included, last not.
const PROBE_PORTS: (u16, u16) = (1024, 65_535);
/// ... and where all of these are taken.
const LAST_PROBE_PORTS: (u16, u16) = (512, 1023);
const fn port_of(ports: (u16, u16), hash: u64) -> u16 {
    ports.0 + (hash % (ports.1 - ports.0) as u64) as u16
}

impl Engine {
    /// The client's address as the target may see it: one on the live host's loopback address
    /// is replaced, since no network would carry it.
    pub(super) fn apparent_client(
        &self,
        client: Endpoint,
        service: &Service,
    ) -> Result<Endpoint, ()> {
        let is_loopback = |ip: &IpAddr| ip.to_canonical().is_loopback();
        if !is_loopback(&client.ip) || is_loopback(&service.target.ip) {
            return Ok(client);
        }
        let v4 = service.target.ip.is_ipv4();
        let stand_in = self
            .config
            .loopback_clients
            .iter()
            .find(|ip| ip.is_ipv4() == v4);
        if matches!(self.config.sources, SourcePool::Ranges(_)) {
            return Ok(client);
        }
        stand_in.map(|ip| Endpoint::new(*ip, client.port)).ok_or(())
    }

    /// Takes a source for a replica of `client` towards the target of this service.
    pub(super) fn choose_source(
        &mut self,
        now: Time,
        client: Endpoint,
        service: u16,
        random: u64,
    ) -> Option<Endpoint> {
        let target = self.config.services.get(usize::from(service))?.target;
        // A client that comes back with its port finds it free as soon as its last replica has
        // nothing more to deliver: the target tells the new connection from the old one by
        // sequence number and timestamp, which only rise (RFC 6191).
        let own = self.replicas.find(&FourTuple::new(client, target));
        if let Some(old) = own.filter(|key| self.replicas.is_lingering(*key)) {
            self.remove_replica(now, old);
        }
        let taken = self
            .allocator
            .take(now, client, service, &target.ip, random)?;
        self.stats.ports_reused_early += u64::from(taken.early);
        Some(taken.source)
    }

    /// RFC 9293 3.4.1: a clock of 4 µs ticks and a keyed hash of the flow, so that a flow that is
    /// used again goes on above its last numbers.
    pub(super) fn initial_sequence(&self, now: Time, source: Endpoint, service: u16) -> Seq {
        let clock = (now.as_micros() / 4) as u32;
        Seq(clock.wrapping_add(self.hasher.hash_one((source, service)) as u32))
    }

    /// The addresses of one kind of clients whose sessions wait for this service's target (its place in
    /// [`crate::Config::services`]), each once, those that have waited longest first: `most` of them.
    pub fn waiting_clients(&self, service: usize, kind: ClientKind, most: usize) -> Vec<IpAddr> {
        let way = self.ways.find(service, kind).into_iter();
        let waiting = way.flat_map(|way| way.waiting());
        let mut clients = Vec::new();
        for replica in waiting.filter_map(|key| self.replicas.get(key)) {
            if clients.len() == most {
                break;
            }
            let ip = replica.source().ip;
            if !clients.contains(&ip) {
                clients.push(ip);
            }
        }
        clients
    }

    /// The address of some client of this kind whose session is copied to this service's target.
    pub fn a_client(&self, service: usize, kind: ClientKind) -> Option<IpAddr> {
        let way = Way::new(u16::try_from(service).ok()?, kind);
        let mut replicas = self.replicas.all.iter();
        let (_, its) = replicas.find(|(_, replica)| replica.way() == way)?;
        Some(its.source().ip)
    }

    /// A source address and port for a probe of this service's target (its place in
    /// [`crate::Config::services`]): one that no replica uses, of the kind that replicas bear. Where
    /// they bear their clients' own, it is one of `client`.
    pub fn probe_source(
        &mut self,
        now: Time,
        service: usize,
        client: Option<IpAddr>,
    ) -> Option<Endpoint> {
        let target = self.config.services.get(service)?.target;
        let hash = self.hasher.hash_one((now, service));
        let service = u16::try_from(service).ok()?;
        // Not the client's own port: that is the replica's.
        let client = match self.config.sources {
            SourcePool::Ranges(_) => Endpoint::new(target.ip, port_of(PROBE_PORTS, hash)),
            SourcePool::Clients => Endpoint::new(client?, port_of(PROBE_PORTS, hash)),
        };
        if let Some(source) = self.choose_source(now, client, service, hash) {
            // No replica holds it: it rests, and is not chosen again soon.
            self.allocator.release(now, service, source);
            return Some(source);
        }
        // All others are held by sessions that wait for this very probe, as behind a balancer with one
        // address. No replica bears such a port unless its client does.
        let source = Endpoint::new(client.ip, port_of(LAST_PROBE_PORTS, hash));
        let own = matches!(self.config.sources, SourcePool::Clients)
            && self
                .replicas
                .find(&FourTuple::new(source, target))
                .is_none();
        own.then_some(source)
    }
}

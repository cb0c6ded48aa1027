//! Copies that come back as live traffic, because the way behind the target leads to the live service again:
//! a target that is a balancer for it, DNAT on the way. Copying them would go round and round, and their packets would
//! meet connections of real clients. So the target is stopped for good, without one more packet of a copy: a reset might
//! reach the live server, too.

use std::collections::VecDeque;
use std::net::IpAddr;

use millrace_wire::{Endpoint, FourTuple, Seq, TcpPacket};

use super::{Engine, Event};
use crate::config::ClientKind;
use crate::stats::{AbortReason, RefusalReason};
use crate::time::Time;

/// How a copy was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirection {
    /// A SYN of this engine's came in as a client's.
    OwnPacket,
    /// The target is a client of the live service. Its connections are left out, the others go on.
    TargetIsClient,
}

/// So many probes are remembered: those of a few volleys.
const PROBES: usize = 256;

/// What copies that come back are known by.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    /// Where probes went, their sources and numbers.
    probes: VecDeque<(Endpoint, Endpoint, Seq)>,
    /// Targets that were met as clients.
    met: Vec<Endpoint>,
}

impl Engine {
    /// A probe of first contact goes out to `target`, with this number: it may come back as a client's, too.
    pub fn note_probe(&mut self, target: Endpoint, source: Endpoint, number: Seq) {
        let probes = &mut self.signs.probes;
        if probes.len() == PROBES {
            probes.pop_front();
        }
        probes.push_back((target, source, number));
    }

    /// Whether a client's SYN is no client's, but comes of a copy. Then it is counted as refused.
    pub(super) fn is_misdirected(&mut self, now: Time, packet: &TcpPacket<'_>) -> bool {
        // What a recording holds was captured before anything was sent.
        if self.clock.is_recorded() {
            return false;
        }
        let (target, misdirection, is_news) = if let Some(target) = self.own(packet) {
            self.stop_target(now, target);
            (target, Misdirection::OwnPacket, true)
        } else if let Some(target) = self.target_with(&packet.tuple.source.ip) {
            let is_news = !self.signs.met.contains(&target);
            if is_news {
                self.signs.met.push(target);
            }
            (target, Misdirection::TargetIsClient, is_news)
        } else {
            return false;
        };
        self.stats.sessions_refused.add(RefusalReason::Misdirected);
        self.stats.bytes_refused += packet.payload_len as u64;
        if is_news {
            self.events.push_back(Event::Misdirected {
                target,
                misdirection,
            });
        }
        true
    }

    /// The target to which a replica or probe went that bears this address and number in its SYN.
    fn own(&self, packet: &TcpPacket<'_>) -> Option<Endpoint> {
        let (source, number) = (packet.tuple.source, packet.header.seq);
        let mut probes = self.signs.probes.iter();
        let probe = probes.find(|(_, from, its)| *from == source && *its == number);
        if let Some((target, ..)) = probe {
            return Some(*target);
        }
        let mut targets = self.config.services.iter().map(|service| service.target);
        targets.find(|target| {
            let flow = FourTuple::new(source, *target);
            let replica = self
                .replicas
                .find(&flow)
                .and_then(|key| self.replicas.get(key));
            replica.is_some_and(|replica| replica.has_sent_syn(number))
        })
    }

    /// The target that a client is, if it is one on another host whose own connections are left out.
    pub(super) fn target_with(&self, client: &IpAddr) -> Option<Endpoint> {
        if client.is_loopback()
            || self.config.copy_targets
            || self.clock.is_recorded()
            || self.config.local_addresses.contains(client)
        {
            return None;
        }
        let mut targets = self.config.services.iter().map(|service| service.target);
        targets.find(|target| target.ip == *client)
    }

    /// Sends nothing more to a target, not even a reset, and opens nothing towards it.
    fn stop_target(&mut self, now: Time, target: Endpoint) {
        let services = self.config.services.iter().enumerate();
        let its = services.filter(|(_, service)| service.target == target);
        let its: Vec<usize> = its.map(|(index, _)| index).collect();
        for index in &its {
            for kind in ClientKind::ALL {
                if let Some(way) = self.ways.find_mut(*index, kind) {
                    way.set_open(now, false);
                    way.refused = Some(RefusalReason::Misdirected);
                }
            }
        }
        let is_its = |service: u16| its.contains(&usize::from(service));
        for key in self
            .replicas
            .keys_where(|replica| is_its(replica.service()))
        {
            self.with_replica(now, key, |replica, cx| {
                replica.abort(cx, AbortReason::Misdirected);
            });
        }
    }
}

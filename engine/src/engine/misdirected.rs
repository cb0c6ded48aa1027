//! Copies that come back as live traffic, because the way behind the target leads to the live service again:
//! a target that is a balancer for it, DNAT on the way, two hosts that copy to each other. Copying them would go round
//! and round, and their packets would meet connections of real clients. So the service is stopped for good, without one
//! more packet: a reset might reach the live server, too.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use millrace_wire::{Endpoint, FourTuple, Seq, TcpPacket};

use super::{Engine, Event};
use crate::config::ClientKind;
use crate::session::Phase;
use crate::stats::{AbortReason, RefusalReason};
use crate::time::Time;

/// Over this time SYNs are judged together.
const WINDOW: Duration = Duration::from_secs(10);
/// So many of them must have met an open connection with the same ends, and half of all. A client that was started
/// anew sends one.
const LEAST_MEETING: u32 = 8;

/// How a copy was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirection {
    /// A SYN of this engine's came in as a client's.
    OwnPacket,
    /// SYNs keep coming in for connections that clients have open with the live server: copies that somebody made of
    /// copies.
    Meeting,
    /// The target is a client of the live service. Its connections are left out, the others go on.
    TargetIsClient,
}

/// So many probes are remembered: those of a few volleys.
const PROBES: usize = 64;

/// What copies that come back are known by.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    /// Sources and numbers of probes.
    probes: VecDeque<(Endpoint, Seq)>,
    /// SYNs since then.
    since: Time,
    syns: u32,
    meeting: u32,
    /// Whether a target was met as a client.
    target_said: bool,
}

impl Engine {
    /// A probe of first contact with this number goes out: it may come back as a client's, too.
    pub fn note_probe(&mut self, source: Endpoint, number: Seq) {
        let probes = &mut self.signs.probes;
        if probes.len() == PROBES {
            probes.pop_front();
        }
        probes.push_back((source, number));
    }

    /// Whether a client's SYN is no client's, but comes of a copy. Then it is counted as refused.
    pub(super) fn is_misdirected(&mut self, now: Time, packet: &TcpPacket<'_>) -> bool {
        // What a recording holds was captured before anything was sent.
        if self.config.recorded.is_some() {
            return false;
        }
        let Some(service) = self.config.service_of(packet.tuple.destination) else {
            return false;
        };
        let misdirection = if self.is_own(packet) {
            Misdirection::OwnPacket
        } else if self.is_target(&packet.tuple.source.ip) {
            Misdirection::TargetIsClient
        } else if self.meets_too_many(now, packet) {
            Misdirection::Meeting
        } else {
            return false;
        };
        self.stats.sessions_refused.add(RefusalReason::Misdirected);
        self.stats.bytes_refused += packet.payload_len as u64;
        match misdirection {
            Misdirection::TargetIsClient => {
                if std::mem::replace(&mut self.signs.target_said, true) {
                    return true;
                }
            }
            Misdirection::OwnPacket | Misdirection::Meeting => self.stop_target(now, service),
        }
        self.events.push_back(Event::Misdirected {
            service,
            misdirection,
        });
        true
    }

    /// Whether it is the SYN of a replica or probe that bears the same address.
    fn is_own(&self, packet: &TcpPacket<'_>) -> bool {
        let probe = (packet.tuple.source, packet.header.seq);
        if self.signs.probes.contains(&probe) {
            return true;
        }
        let mut services = self.config.services.iter();
        services.any(|service| {
            let flow = FourTuple::new(packet.tuple.source, service.target);
            let replica = self.find_flow(&flow).and_then(|key| self.replicas.get(key));
            replica.is_some_and(|replica| replica.has_sent_syn(packet.header.seq))
        })
    }

    /// Whether a client is a target: one that is another host.
    pub(super) fn is_target(&self, client: &IpAddr) -> bool {
        let mut services = self.config.services.iter();
        services.any(|service| service.target.ip == *client)
            && !client.is_loopback()
            && !self.config.local_addresses.contains(client)
            && self.config.recorded.is_none()
    }

    /// Whether it is one of too many that meet an open connection of a client.
    fn meets_too_many(&mut self, now: Time, packet: &TcpPacket<'_>) -> bool {
        let session = self.find_session(&packet.tuple);
        let session = session.and_then(|key| self.sessions.get(key));
        let meets = session.is_some_and(|session| {
            matches!(session.phase, Phase::Active { .. })
                && !session.is_over()
                && packet.header.seq.add(1) != session.stream.first_seq()
        });
        let signs = &mut self.signs;
        if now >= signs.since + WINDOW {
            (signs.since, signs.syns, signs.meeting) = (now, 0, 0);
        }
        signs.syns += 1;
        signs.meeting += u32::from(meets);
        meets && signs.meeting >= LEAST_MEETING && 2 * signs.meeting >= signs.syns
    }

    /// Sends nothing more to this service's target, not even a reset, and opens nothing towards it.
    fn stop_target(&mut self, now: Time, service: usize) {
        let Some(target) = self.config.services.get(service).map(|it| it.target) else {
            return;
        };
        let services = self.config.services.iter().enumerate();
        let its = services.filter(|(_, service)| service.target == target);
        let its: Vec<usize> = its.map(|(index, _)| index).collect();
        for index in &its {
            for kind in ClientKind::ALL {
                if let Some(way) = self.way_mut(*index, kind) {
                    way.set_open(now, false);
                    way.refused = Some(RefusalReason::Misdirected);
                }
            }
        }
        let replicas = self.replicas.iter();
        let replicas =
            replicas.filter(|(_, replica)| its.contains(&usize::from(replica.service())));
        let keys: Vec<_> = replicas.map(|(key, _)| key).collect();
        for key in keys {
            self.with_replica(now, key, |replica, cx| {
                replica.abort(cx, AbortReason::Misdirected);
            });
        }
    }
}

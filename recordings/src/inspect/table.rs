//! All connections of a recording, within a bound, and the services that they add up to.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use millrace_wire::{Endpoint, Flags, TcpPacket};

use super::connection::{Connection, name};
use super::findings::{ServiceFindings, Side};

/// Connections that are followed at once, about 150 MB; beyond it those are counted as they are
/// that were not seen for the longest.
const MAX_CONNECTIONS: usize = 262_144;
/// Services that are told apart: in a port scan every port is one.
const MAX_SERVICES: usize = 65_536;
/// A connection that is over is remembered for so long, for its last retransmissions, in
/// nanoseconds.
const REMEMBERED: u64 = 5_000_000_000;
/// Packets after which connections that are over are looked for.
const SWEEP: u64 = 65_536;

/// Connections and services.
#[derive(Debug, Default)]
pub struct Table {
    connections: HashMap<(Endpoint, Endpoint), Connection>,
    services: BTreeMap<Endpoint, ServiceFindings>,
    packets: u64,
    forgotten: u64,
}

impl Table {
    /// Takes a packet, seen at `now` (nanoseconds from the recording's beginning).
    pub fn take(&mut self, now: u64, packet: &TcpPacket<'_>) {
        self.packets += 1;
        if self.packets.is_multiple_of(SWEEP) || self.connections.len() >= MAX_CONNECTIONS {
            self.sweep(now);
        }
        let services = &self.services;
        let fresh = || Connection::new(now, packet, |end| services.contains_key(end));
        let connection = match self.connections.entry(name(&packet.tuple)) {
            Entry::Vacant(_) if packet.header.flags.has(Flags::RST) => return,
            Entry::Vacant(place) => place.insert(fresh()),
            Entry::Occupied(place) => {
                let place = place.into_mut();
                if place.is_another(packet) {
                    let over = std::mem::replace(place, fresh());
                    count(&mut self.services, over);
                }
                place
            }
        };
        let server = connection.server;
        connection.take(now, packet);
        if connection.client_side.packets + connection.server_side.packets == 1
            && self.services.len() < MAX_SERVICES
        {
            // From now on it is known as a server's end.
            self.services.entry(server).or_default();
        }
    }

    /// Connections that were counted before their end because there were too many.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The services, those with the most bytes of clients first.
    pub fn into_services(mut self) -> Vec<ServiceFindings> {
        for (_, connection) in std::mem::take(&mut self.connections) {
            count(&mut self.services, connection);
        }
        let mut all: Vec<_> = self
            .services
            .into_iter()
            .map(|(server, service)| ServiceFindings {
                address: server.ip.to_string(),
                port: server.port,
                ..service
            })
            .filter(|service| service.sessions > 0)
            .collect();
        all.sort_by_key(|service| std::cmp::Reverse((service.client.bytes, service.sessions)));
        all
    }

    fn sweep(&mut self, now: u64) {
        let services = &mut self.services;
        self.connections.retain(|_, connection| {
            let keep = !connection.is_over() || now.saturating_sub(connection.last) < REMEMBERED;
            if !keep {
                count(services, connection.clone());
            }
            keep
        });
        if self.connections.len() < MAX_CONNECTIONS {
            return;
        }
        let mut seen: Vec<u64> = self.connections.values().map(|one| one.last).collect();
        let middle = seen.len() / 2;
        let (_, limit, _) = seen.select_nth_unstable(middle);
        let limit = *limit;
        let forgotten = &mut self.forgotten;
        let mut surplus = middle;
        self.connections.retain(|_, connection| {
            let keep = connection.last > limit || surplus == 0;
            if !keep {
                surplus -= 1;
                *forgotten += u64::from(!connection.is_over());
                count(services, connection.clone());
            }
            keep
        });
    }
}

/// Adds a connection to its service.
fn count(services: &mut BTreeMap<Endpoint, ServiceFindings>, mut connection: Connection) {
    let full = services.len() >= MAX_SERVICES && !services.contains_key(&connection.server);
    if full {
        return;
    }
    connection.client_side.end();
    connection.server_side.end();
    let service = services.entry(connection.server).or_default();
    let Connection {
        client_side,
        server_side,
        ..
    } = &connection;
    let begun = client_side.syn || server_side.syn;
    service.sessions += 1;
    service.without_beginning += u64::from(!begun);
    service.without_end += u64::from(!connection.is_over());
    service.reset += u64::from(connection.reset);
    service.without_client += u64::from(!client_side.is_seen());
    service.without_responses += u64::from(!server_side.is_seen());
    service.refused += u64::from(connection.reset && !server_side.syn && begun);
    service.joining += u64::from(client_side.joins);
    service.urgent += u64::from(client_side.urgent);
    service.incomplete += u64::from(client_side.missing > 0 || client_side.cut > 0);
    for (side, direction) in [
        (&mut service.client, client_side),
        (&mut service.server, server_side),
    ] {
        let Side {
            packets,
            bytes,
            repeated,
            out_of_order,
            cut_packets,
            missing,
        } = side;
        *packets += direction.packets;
        *bytes += direction.bytes;
        *repeated += direction.repeated;
        *out_of_order += direction.out_of_order;
        *cut_packets += direction.cut;
        *missing += direction.missing;
    }
    let (first, last) = (connection.first as f64 / 1e9, connection.last as f64 / 1e9);
    service.first_seconds = match service.sessions {
        1 => first,
        _ => service.first_seconds.min(first),
    };
    service.last_seconds = service.last_seconds.max(last);
}

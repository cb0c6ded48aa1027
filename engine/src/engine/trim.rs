//! Freeing what no replica of a session needs any more.

use super::Engine;
use crate::key::SessionKey;
use crate::replica::Needs;

impl Engine {
    /// Frees what no replica of a session needs any more, if there may be anything.
    pub(super) fn trim_if_due(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| self.replicas.may_free(key, session, &self.pool)) {
            self.trim(key);
        }
    }

    /// Frees what no replica of a session needs any more.
    pub(super) fn trim(&mut self, key: SessionKey) {
        let first = self.sessions.first_replica(key);
        let least = self.replicas.least_needs(key, first);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        let copies = session.copies();
        let (stream, turns, _) = session.parts();
        if least.stream == Needs::NOTHING.stream {
            // What cannot be delivered any more was captured all the same.
            let given_up = stream.discard(&mut self.pool);
            self.stats.give_up(given_up, copies);
        } else {
            stream.release(&mut self.pool, least.stream);
        }
        turns.forget_before(least.marks.min(turns.next_number()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpOptions, TcpPacket};

    use super::*;
    use crate::config::{Config, LiveAddress, Service};
    use crate::engine::FlowRef;
    use crate::intensity::Intensity;
    use crate::key::ReplicaKey;
    use crate::time::Time;

    const REPLICAS: u16 = 200;
    const SEGMENTS: u32 = 20;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    fn header(seq: u32, ack: u32, flags: Flags) -> TcpHeader {
        TcpHeader {
            seq: Seq(seq),
            ack: Seq(ack),
            flags,
            window: 60_000,
            ..TcpHeader::default()
        }
    }

    /// What every replica has sent last: the number behind it.
    fn sent(engine: &mut Engine, now: Time) -> Vec<(ReplicaKey, u32)> {
        let mut all = Vec::new();
        while let Some(transmit) = engine.poll_transmit(now) {
            let payload = transmit
                .payload
                .iter()
                .map(|part| part.len())
                .sum::<usize>();
            let syn = u32::from(transmit.header.flags.has(Flags::SYN));
            all.push((
                transmit.key,
                transmit.header.seq.0.wrapping_add(payload as u32 + syn),
            ));
        }
        all
    }

    #[test]
    fn a_segment_costs_a_look_or_two_at_each_replica_and_not_their_square() {
        let (client, live) = (endpoint("198.18.1.1:5000"), endpoint("198.18.2.10:80"));
        let mut engine = Engine::new(Config {
            services: vec![Service {
                live: LiveAddress::At(live.ip),
                live_port: live.port,
                target: endpoint("198.18.2.20:80"),
            }],
            intensity: Intensity::replicas(REPLICAS),
            spread: Duration::ZERO,
            ..Config::default()
        });
        let mut now = Time::from_micros(1_700_000_000_000_000);
        engine.set_open(now, true);
        let there = FourTuple::new(client, live);
        let segment = |engine: &mut Engine, now: Time, there: FourTuple, header, payload: &[u8]| {
            let packet = TcpPacket {
                tuple: there,
                header,
                payload,
                payload_len: payload.len(),
            };
            engine.segment(now, now, &packet);
        };
        segment(&mut engine, now, there, header(100, 0, Flags::SYN), &[]);
        let answer = header(500, 101, Flags::SYN | Flags::ACK);
        segment(&mut engine, now, there.reversed(), answer, &[]);
        segment(&mut engine, now, there, header(101, 501, Flags::ACK), &[]);
        for (key, next) in sent(&mut engine, now) {
            let mut answer = header(9000, next, Flags::SYN | Flags::ACK);
            answer.options = TcpOptions {
                mss: Some(1460),
                ..TcpOptions::default()
            };
            engine.target_header(now, FlowRef::Id(key.flow_id()), &answer, 0);
        }
        assert_eq!(sent(&mut engine, now).len(), usize::from(REPLICAS), "ACKs");

        engine.replicas.looks = 0;
        for number in 0..SEGMENTS {
            now = now.plus_micros(100);
            let data = header(101 + 1000 * number, 501, Flags::ACK);
            segment(&mut engine, now, there, data, &[7; 1000]);
            let all = sent(&mut engine, now);
            assert_eq!(all.len(), usize::from(REPLICAS));
            assert_eq!(engine.gauges().backlog, 1000);
            for (key, next) in all {
                assert_eq!(engine.gauges().backlog, 1000, "until the last has it");
                let answer = header(9001, next, Flags::ACK);
                engine.target_header(now, FlowRef::Id(key.flow_id()), &answer, 0);
            }
            assert_eq!(engine.gauges().backlog, 0, "nobody needs it any more");
        }
        let each = engine.replicas.looks / u64::from(SEGMENTS) / u64::from(REPLICAS);
        assert!(each <= 4, "{each} looks at each replica for one segment");
    }
}

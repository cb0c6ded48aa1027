//! Freeing what no replica of a session needs any more.
//!
//! A session may have a thousand replicas, each of which moves on many times: a look at all of them
//! at every step would cost their square. So it is kept how many need just the least, and all are
//! looked at again only once none of these does any more.

use super::Engine;
use crate::key::SessionKey;
use crate::replica::Needs;
use crate::session::Session;

/// The least that the replicas of a session needed when all were looked at last.
#[derive(Debug)]
pub(super) struct Kept {
    least: Needs,
    /// Replicas that still need the least of the stream.
    of_stream: u16,
    /// Replicas that still need the least of the marks.
    of_marks: u16,
}

impl Kept {
    /// Needs of nobody.
    const NOBODYS: Self = Self {
        least: Needs::NOTHING,
        of_stream: 0,
        of_marks: 0,
    };

    /// One more replica is looked at.
    fn look(&mut self, needs: Needs) {
        if needs.stream == self.least.stream {
            self.of_stream += 1;
        } else if needs.stream < self.least.stream {
            (self.least.stream, self.of_stream) = (needs.stream, 1);
        }
        if needs.marks == self.least.marks {
            self.of_marks += 1;
        } else if needs.marks < self.least.marks {
            (self.least.marks, self.of_marks) = (needs.marks, 1);
        }
    }

    /// What a replica needs has changed.
    pub(super) fn change(&mut self, before: Needs, after: Needs) {
        if before.stream == self.least.stream && after.stream != before.stream {
            self.of_stream = self.of_stream.saturating_sub(1);
        }
        if before.marks == self.least.marks && after.marks != before.marks {
            self.of_marks = self.of_marks.saturating_sub(1);
        }
    }

    /// Whether something may be free that the session still has.
    fn is_outdated(&self, session: &Session) -> bool {
        let stream = match self.least.stream == Needs::NOTHING.stream {
            true => session.stream.stored() > 0 || session.stream.held_bytes() > 0,
            false => self.of_stream == 0,
        };
        stream || (self.least.marks != Needs::NOTHING.marks && self.of_marks == 0)
    }
}

impl Engine {
    /// Frees what no replica of a session needs any more, if there may be anything.
    pub(super) fn trim_if_due(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let is_due = match self.kept.get(key) {
            Some(kept) => kept.is_outdated(session),
            // One replica is looked at faster than it is counted.
            None => {
                let first = session.first_replica.and_then(|key| self.replicas.get(key));
                first.is_none_or(|replica| {
                    replica.sibling.is_some() || session.can_free(&self.pool, replica.needs())
                })
            }
        };
        if is_due {
            self.trim(key);
        }
    }

    /// Frees what no replica of a session needs any more.
    pub(super) fn trim(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut kept = Kept::NOBODYS;
        let mut count = 0;
        let mut next = session.first_replica;
        while let Some(replica) = next.and_then(|key| self.replicas.get(key)) {
            #[cfg(test)]
            {
                self.looks += 1;
            }
            count += 1;
            kept.look(replica.needs());
            next = replica.sibling;
        }
        let before = session.load();
        let Needs { stream, marks } = kept.least;
        if stream == Needs::NOTHING.stream {
            // What cannot be delivered any more was captured all the same.
            let given_up = session.stream.discard(&mut self.pool);
            self.stats.give_up(given_up, session.copies());
        } else {
            session.stream.release(&mut self.pool, stream);
        }
        session
            .turns
            .forget_before(marks.min(session.turns.next_number()));
        if count > 1 {
            self.kept.insert(key, kept);
        } else {
            self.kept.remove(key);
        }
        self.account(key, before);
    }

    /// Brings the sums of memory and backlog up to date after a session has changed.
    pub(super) fn account(&mut self, key: SessionKey, before: (usize, u64)) {
        if let Some(session) = self.sessions.get(key) {
            let (heap, backlog) = session.load();
            self.heap = (self.heap + heap).saturating_sub(before.0);
            self.backlog = (self.backlog + backlog).saturating_sub(before.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpOptions, TcpPacket};

    use super::*;
    use crate::config::{Config, Service};
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
                live_ip: Some(live.ip),
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

        engine.looks = 0;
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
        let each = engine.looks / u64::from(SEGMENTS) / u64::from(REPLICAS);
        assert!(each <= 4, "{each} looks at each replica for one segment");
    }
}

//! Packets to the targets.

use millrace_wire::{FourTuple, TcpHeader};

use super::Engine;
use crate::key::ReplicaKey;
use crate::replica::Outgoing;
use crate::time::Time;

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Whose packet it is.
    pub key: ReplicaKey,
    /// From the replica's source to the target.
    pub tuple: FourTuple,
    /// The TCP header.
    pub header: TcpHeader,
    /// The payload in pieces, each of which may be empty.
    pub payload: [&'a [u8]; 3],
}

impl Transmit<'_> {
    /// Payload bytes.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(|piece| piece.len()).sum()
    }
}

impl Engine {
    /// The next packet to send, if there is one.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit<'_>> {
        if !self.shaper.may_send(now) {
            return None;
        }
        if let Some((key, tuple, header)) = self.next_reset() {
            self.stats.packets_sent += 1;
            self.shaper.sent(0);
            return Some(Transmit {
                key,
                tuple,
                header,
                payload: [&[]; 3],
            });
        }
        let (key, outgoing) = loop {
            let key = self.replicas.first_ready()?;
            // A reset ends what a target would repeat.
            if self.is_stopped(key) && !self.replicas.is_lingering(key) {
                self.replicas.pass_first_ready();
                continue;
            }
            let next = self.run_replica(now, key, |replica, cx| replica.next_outgoing(cx));
            if let Some(outgoing) = next.flatten() {
                break (key, outgoing);
            }
            self.replicas.pass_first_ready();
            self.settle(now, key);
        };
        self.note_asked(now, key, &outgoing);
        self.transmit(key, &outgoing)
    }

    /// While nothing else may be sent: acknowledges what targets' packets have brought, each by a bare
    /// acknowledgement to `send`. A target repeats what is not acknowledged, and its way may lead
    /// elsewhere by then. The acknowledgement closes the window, so that it draws out nothing new;
    /// [`Engine::path_restored`] has it opened again.
    ///
    /// With `all`, also what may wait for a later packet: to be asked for once, at the beginning.
    pub fn acknowledge(&mut self, now: Time, all: bool, mut send: impl FnMut(Transmit<'_>)) {
        let keys: Vec<ReplicaKey> = match all {
            true => self.replicas.keys_where(|_| true),
            false => self.replicas.ready().collect(),
        };
        for key in keys {
            let next = self.run_replica(now, key, |replica, cx| replica.next_acknowledgement(cx));
            if let Some(outgoing) = next.flatten()
                && let Some(transmit) = self.transmit(key, &outgoing)
            {
                send(transmit);
            }
        }
    }

    fn transmit(&mut self, key: ReplicaKey, outgoing: &Outgoing) -> Option<Transmit<'_>> {
        self.stats.packets_sent += 1;
        self.shaper.sent(outgoing.len);
        let (replica, tuple, talk) = self.replicas.for_sending(key)?;
        let session = self.sessions.get(replica.session)?;
        let payload = match (usize::try_from(outgoing.len), replica.cursor()) {
            (Ok(len @ 1..), Some(cursor)) => {
                let stream = match talk {
                    None => session.stream(),
                    Some(talk) => &talk.played().stream,
                };
                stream.read(&self.pool, cursor, outgoing.offset, len)
            }
            _ => [&[][..]; 3],
        };
        Some(Transmit {
            key,
            tuple,
            header: outgoing.header,
            payload,
        })
    }
}

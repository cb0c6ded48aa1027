//! All that an interceptor knows of its copiers: messages go in, words come out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use millrace_proto::flow::MAX_FLOW_BYTES;
use millrace_proto::{BATCH_BYTES, ClaimSet, ClientRange, FlowId, FlowKey, HeaderRecord};
use millrace_wire::FourTuple;

use super::claims::Change;
use super::owners::{self, Owners};
use super::pending::Pending;
use super::{ConnId, Peer};

/// What is to be said on a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// Its claim is granted; these flows within it (flow records, in batches that fit into a message) are another's.
    Granted(Vec<Vec<u8>>),
    /// Its claim is refused: this copier holds a part of it.
    Refused(String),
    /// Its claim yields, and others have these ranges of it.
    Others(Vec<ClientRange>),
    /// A flow that it announced is another copier's.
    Conflict(FlowId),
    /// Another copier has these flows (records) within its claim, or has them no more.
    Taken {
        /// Flow records.
        flows: Vec<u8>,
        /// They have ended.
        ended: bool,
    },
    /// Headers that waited for their owner.
    Late(Vec<HeaderRecord>),
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Announced flows.
    pub flows: usize,
    /// Flows that were not taken because too many are announced already.
    pub over_limit: u64,
    /// Flows that were announced while another copier owned them.
    pub conflicts: u64,
    /// Claims that were refused.
    pub claim_conflicts: u64,
    /// Headers that wait for their owner.
    pub waiting: usize,
    /// Headers that waited in vain.
    pub unowned: u64,
}

/// All streams, what they own, and headers that nobody owns yet.
#[derive(Debug)]
pub struct Registry {
    owners: Owners,
    pending: Pending,
    words: VecDeque<(ConnId, Word)>,
    claim_conflicts: u64,
}

impl Registry {
    /// Nobody, with room for `limit` announced flows in all. One stream may hold three quarters of them, so that it
    /// cannot shut out the others.
    pub fn new(limit: usize) -> Self {
        Self {
            owners: Owners::new(limit),
            pending: Pending::default(),
            words: VecDeque::new(),
            claim_conflicts: 0,
        }
    }

    /// The next thing to say. To be asked for after each message until there is nothing more.
    pub fn poll_word(&mut self) -> Option<(ConnId, Word)> {
        self.words.pop_front()
    }

    /// A stream is open.
    pub fn attach(&mut self, conn: ConnId, peer: Peer) {
        let gone = self.owners.attach(conn, peer);
        self.tell_taken(conn, &gone, true);
    }

    /// A stream is gone. What its copier owned stays its own for [`super::LEASE`], since it may not have noticed, and may be
    /// back. `now` is the time since any fixed moment.
    pub fn detach(&mut self, now: Duration, conn: ConnId) {
        let changes = self.owners.detach(now, conn);
        self.tell(changes);
    }

    /// A stream owns these flows from now on (checked records).
    pub fn announce(&mut self, conn: ConnId, flows: &[u8]) {
        let announced = self.owners.announce(conn, flows);
        let conflicts = announced.conflicts.into_iter();
        self.words
            .extend(conflicts.map(|id| (conn, Word::Conflict(id))));
        self.tell_taken(conn, &announced.owned, false);
        if self.pending.is_empty() {
            return;
        }
        for flow in announced.owned {
            if owners::is_any_target(&flow) {
                let late = self.pending.take_client(flow.source);
                self.return_each(late);
            } else {
                let late = self.pending.take(&flow);
                self.return_late(&flow, late);
            }
        }
    }

    /// A stream owns these flows no more (checked ids).
    pub fn forget(&mut self, conn: ConnId, ids: &[u8]) {
        let gone = self.owners.forget(conn, ids);
        self.tell_taken(conn, &gone, true);
    }

    /// All that a stream owns follows.
    pub fn begin_resync(&mut self, conn: ConnId) {
        self.owners.begin_resync(conn);
    }

    /// What a stream did not name since the begin is not its own any more.
    pub fn end_resync(&mut self, conn: ConnId) {
        let gone = self.owners.end_resync(conn);
        self.tell_taken(conn, &gone, true);
    }

    /// A stream claims these ranges, in place of those before.
    pub fn claim(&mut self, conn: ConnId, claim: ClaimSet) {
        match self.owners.claim(conn, claim) {
            Ok(changes) => {
                self.tell(changes);
                let awaited = self.owners.awaited(conn);
                if let Some(peer) = self.owners.peer(conn).filter(|_| !awaited.is_empty()) {
                    tracing::info!(
                        "copier {} waits for its share of the client pool until copier {} has yielded it",
                        peer.copier_id,
                        awaited.join(", ")
                    );
                }
                let owners = &self.owners;
                let late = self.pending.take_if(|flow| owners.find(flow).is_some());
                self.return_each(late);
            }
            Err(conflict) => {
                self.claim_conflicts += 1;
                if let Some(peer) = self.owners.peer(conn) {
                    tracing::warn!(
                        "refused the client pool of copier {}: copier {} holds a part of it",
                        peer.copier_id,
                        conflict.owner
                    );
                }
                self.words.push_back((conn, Word::Refused(conflict.owner)));
            }
        }
    }

    /// The stream that owns a flow, from the replica's source to the target, and the name that its copier has for it.
    pub fn find(&self, flow: &FourTuple) -> Option<(ConnId, FlowKey)> {
        self.owners.find(flow)
    }

    /// Whether responses to a flow that was found are to go to its stream with their payload.
    pub fn wants_payload(&self, conn: ConnId, key: FlowKey) -> bool {
        self.owners.wants_payload(conn, key)
    }

    /// The ports of targets whose responses are wanted with their payload, in order; 0 stands for any.
    pub fn payload_ports(&self) -> impl Iterator<Item = u16> {
        self.owners.payload_ports()
    }

    /// How often these have changed: who has seen as many need not look.
    pub const fn payload_port_changes(&self) -> u64 {
        self.owners.payload_port_changes()
    }

    /// Keeps a header of a flow that nobody owns yet, for a second at most. `now` is the time since any fixed moment.
    pub fn keep(&mut self, now: Duration, flow: FourTuple, header: HeaderRecord) {
        self.pending.keep(now, flow, header);
    }

    /// Gives up headers that have waited too long, and ends leases. To be called every 100 ms or so.
    pub fn expire(&mut self, now: Duration) {
        self.pending.expire(now);
        let (gone, changes) = self.owners.expire(now);
        for (conn, flows) in gone {
            self.tell_taken(conn, &flows, true);
        }
        self.tell(changes);
    }

    /// Whether any copier is attached.
    pub fn has_streams(&self) -> bool {
        self.owners.has_streams()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts {
            flows: self.owners.flow_count(),
            over_limit: self.owners.over_limit_count(),
            conflicts: self.owners.conflict_count(),
            claim_conflicts: self.claim_conflicts,
            waiting: self.pending.len(),
            unowned: self.pending.expired(),
        }
    }

    /// Tells streams what has become of claims.
    fn tell(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.words.push_back(match change {
                Change::Granted(conn) => {
                    let taken = self.owners.taken_within(conn);
                    (conn, Word::Granted(taken))
                }
                Change::Others(conn, ranges) => (conn, Word::Others(ranges)),
            });
        }
    }

    /// Tells those in whose shares these flows of another copier lie.
    fn tell_taken(&mut self, conn: ConnId, flows: &[FourTuple], ended: bool) {
        let mut batches: HashMap<ConnId, Vec<u8>> = HashMap::new();
        for flow in flows {
            if let Some((share, record)) = self.owners.intruded_by(conn, flow) {
                let batch = batches.entry(share).or_default();
                batch.extend(record);
                if batch.len() + MAX_FLOW_BYTES > BATCH_BYTES {
                    let flows = std::mem::take(batch);
                    self.words.push_back((share, Word::Taken { flows, ended }));
                }
            }
        }
        let rest = batches.into_iter().filter(|(_, flows)| !flows.is_empty());
        let rest = rest.map(|(share, flows)| (share, Word::Taken { flows, ended }));
        self.words.extend(rest);
    }

    fn return_each(&mut self, flows: Vec<(FourTuple, Vec<HeaderRecord>)>) {
        for (flow, late) in flows {
            self.return_late(&flow, late);
        }
    }

    /// Returns headers of a flow whose owner has become known.
    fn return_late(&mut self, flow: &FourTuple, late: Vec<HeaderRecord>) {
        // A replica that moved twice within one message has none: nobody waits for its first flow.
        if let Some((conn, key)) = self.owners.find(flow).filter(|_| !late.is_empty()) {
            let late = late
                .into_iter()
                .map(|header| HeaderRecord { key, ..header });
            self.words.push_back((conn, Word::Late(late.collect())));
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;

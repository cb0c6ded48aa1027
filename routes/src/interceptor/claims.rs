//! Which copier has which part of the client pools.
//!
//! A claim that does not yield is a share: no two shares overlap. A claim that yields takes the
//! rest, so a new share may lie within it. Then its copier is told; it opens no flow in the share any
//! more, announces the flows that it still has there, and claims again without the share. Only then
//! is the share granted.
//!
//! A stream may end on this side long before its copier notices, and that one sends meanwhile. So a granted claim is a
//! lease: it outlives its stream until its copier must have noticed, unless the copier claims again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use millrace_proto::{ClaimSet, ClientRange, MAX_CLAIM_ENTRIES};

use super::owners::MOST_LEASES;
use super::{ConnId, LEASE, Peer};

/// A claim that could not be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The copier that holds a part of it.
    pub(super) owner: String,
}

/// What has become of a stream's claim, which is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Its claim is granted.
    Granted(ConnId),
    /// Its claim yields, and others have these ranges of it.
    Others(ConnId, Vec<ClientRange>),
}

/// The claim of one stream.
#[derive(Debug)]
struct Held {
    copier_id: String,
    run: u64,
    link: u32,
    claim: ClaimSet,
    /// Of a share: every copier that held a part of it has yielded that. Of a claim that yields: it names the shares of
    /// others, and leaves them out.
    granted: bool,
    /// The stream is gone; for so long its copier may not have noticed.
    leased_until: Option<Duration>,
}

impl Held {
    /// Whether this claim yields, and another copier's share lies within it.
    fn is_shared_with(&self, share: &Held) -> bool {
        self.claim.yields
            && !share.claim.yields
            && self.copier_id != share.copier_id
            && self.claim.overlaps(&share.claim)
    }

    /// Whether nothing of this range is claimed, or all of it is left out.
    fn leaves_out(&self, range: &ClientRange) -> bool {
        self.claim.without.contains(range)
            || !self.claim.ranges.iter().any(|own| own.overlaps(range))
    }

    /// Whether this is a granted claim with this client for this target.
    fn holds(&self, target: SocketAddr, client: SocketAddr) -> bool {
        self.granted && self.leased_until.is_none() && self.claim.contains(target, client)
    }
}

/// The claims of all streams.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: HashMap<ConnId, Held>,
}

impl Claims {
    /// Takes a claim in place of the stream's earlier one; one without ranges gives that up. Gives
    /// what is to be said, in order.
    ///
    /// # Errors
    /// Another copier holds a part of it and does not yield, or would have to yield more pieces than a claim can
    /// name. Streams of the same copier share its claim.
    pub(super) fn claim(
        &mut self,
        conn: ConnId,
        who: &Peer,
        claim: ClaimSet,
    ) -> Result<Vec<Change>, Conflict> {
        let copier_id = &who.copier_id;
        let before = self.held.get(&conn);
        let is_other = before.is_some_and(|it| it.claim.ranges != claim.ranges);
        let mut words = Vec::new();
        if claim.ranges.is_empty() || is_other {
            words = self.remove(conn);
        }
        if claim.ranges.is_empty() {
            words.extend(self.end_leases(who));
            return Ok(words);
        }
        if let Some(owner) = self.in_the_way(copier_id, &claim) {
            return Err(Conflict {
                owner: owner.to_owned(),
            });
        }
        let yields = claim.yields;
        let had = self.held.get(&conn).is_some_and(|it| it.granted);
        let held = Held {
            copier_id: copier_id.clone(),
            run: who.run,
            link: who.link,
            claim,
            granted: yields && had,
            leased_until: None,
        };
        let before = self.held.insert(conn, held);
        if yields {
            let others = self.others(conn);
            if let Some(held) = self.held.get_mut(&conn) {
                if others.iter().all(|range| held.leaves_out(range)) {
                    held.granted = true;
                    words.push(Change::Granted(conn));
                } else {
                    words.push(Change::Others(conn, others));
                }
            }
        } else {
            let told: Vec<ConnId> = self.holders_of(conn).map(|(conn, _)| conn).collect();
            for holder in told {
                let others = self.others(holder);
                if others.len() > MAX_CLAIM_ENTRIES {
                    match before {
                        Some(before) => self.held.insert(conn, before),
                        None => self.held.remove(&conn),
                    };
                    let owner = self.held.get(&holder).map(|it| it.copier_id.clone());
                    return Err(Conflict {
                        owner: owner.unwrap_or_default(),
                    });
                }
                words.push(Change::Others(holder, others));
            }
        }
        words.extend(self.end_leases(who));
        words.extend(self.settle());
        Ok(words)
    }

    /// A stream is gone. Gives what is to be said.
    pub(super) fn detach(&mut self, now: Duration, conn: ConnId) -> Vec<Change> {
        match self.held.get_mut(&conn) {
            Some(held) if held.granted => {
                held.leased_until = Some(now + LEASE);
            }
            Some(_) | None => return self.remove(conn),
        }
        let held = self.held.iter();
        let leases = held.filter_map(|(conn, it)| Some((it.leased_until?, *conn)));
        let leases: Vec<(Duration, ConnId)> = leases.collect();
        match leases.iter().min() {
            Some((_, oldest)) if leases.len() > MOST_LEASES => self.remove(*oldest),
            Some(_) | None => Vec::new(),
        }
    }

    /// Ends leases that have run out. Gives what is to be said.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Change> {
        self.release(|held| held.leased_until.is_some_and(|until| until <= now))
    }

    /// A copier has said anew what it claims on a link: what it had there on streams that are gone is its no more, nor
    /// what an earlier run of it had anywhere.
    fn end_leases(&mut self, who: &Peer) -> Vec<Change> {
        self.release(|held| {
            held.leased_until.is_some()
                && held.copier_id == who.copier_id
                && (held.link == who.link || held.run != who.run)
        })
    }

    fn release(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Change> {
        let held = self.held.iter();
        let over: Vec<ConnId> = held
            .filter(|(_, held)| which(held))
            .map(|it| *it.0)
            .collect();
        over.into_iter()
            .flat_map(|conn| self.remove(conn))
            .collect()
    }

    /// A stream gives up its claim, or its lease is over. Gives what is to be said.
    fn remove(&mut self, conn: ConnId) -> Vec<Change> {
        let Some(gone) = self.held.remove(&conn) else {
            return Vec::new();
        };
        let mut words = Vec::new();
        for (holder, it) in &self.held {
            if it.is_shared_with(&gone) {
                words.push(Change::Others(*holder, self.others(*holder)));
            }
        }
        words.extend(self.settle());
        words
    }

    /// The stream that has this client for this target: a share comes before a claim that yields.
    /// `link` says whether a stream is the one among its copier's for this client.
    pub(super) fn find(
        &self,
        target: SocketAddr,
        client: SocketAddr,
        link: impl Fn(ConnId) -> bool,
    ) -> Option<ConnId> {
        let holders = self.held.iter();
        let holders = holders.filter(|(conn, held)| held.holds(target, client) && link(**conn));
        let first = holders.min_by_key(|(_, held)| held.claim.yields);
        first.map(|(conn, _)| *conn)
    }

    /// The stream whose share holds this client for this target.
    pub(super) fn share(&self, target: SocketAddr, client: SocketAddr) -> Option<ConnId> {
        let conn = self.find(target, client, |_| true)?;
        self.get(conn).filter(|claim| !claim.yields).map(|_| conn)
    }

    /// Whether nobody claims anything.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The copiers that a stream's share waits for.
    pub(super) fn awaited(&self, conn: ConnId) -> Vec<&str> {
        let share = self.held.get(&conn);
        let waits = share.is_some_and(|it| !it.granted && !it.claim.yields);
        let holders = self.holders_of(conn).filter(|_| waits);
        holders.map(|(_, it)| it.copier_id.as_str()).collect()
    }

    /// The claim of a stream.
    pub(super) fn get(&self, conn: ConnId) -> Option<&ClaimSet> {
        self.held.get(&conn).map(|held| &held.claim)
    }

    /// Another copier whose claim keeps this one from being granted at all.
    fn in_the_way(&self, copier_id: &str, claim: &ClaimSet) -> Option<&str> {
        let others = self.held.values().filter(|it| it.copier_id != copier_id);
        let conflict = others.filter(|it| it.claim.yields == claim.yields);
        let mut conflict = conflict.filter(|it| it.claim.overlaps(claim));
        conflict.next().map(|it| it.copier_id.as_str())
    }

    /// The ranges within this stream's claim that others have or wait for, in order.
    fn others(&self, conn: ConnId) -> Vec<ClientRange> {
        let Some(mine) = self.held.get(&conn) else {
            return Vec::new();
        };
        let shares = self
            .held
            .values()
            .filter(|share| mine.is_shared_with(share));
        let ranges = shares.flat_map(|it| &it.claim.ranges);
        let within = |range: &&ClientRange| mine.claim.ranges.iter().any(|own| own.overlaps(range));
        let mut ranges: Vec<ClientRange> = ranges.filter(within).copied().collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// The streams whose yielding claims this share lies within.
    fn holders_of(&self, share: ConnId) -> impl Iterator<Item = (ConnId, &Held)> {
        let share = self.held.get(&share);
        let held = self.held.iter();
        held.filter(move |(_, it)| share.is_some_and(|share| it.is_shared_with(share)))
            .map(|(conn, it)| (*conn, it))
    }

    /// Grants the shares that have been yielded.
    fn settle(&mut self) -> Vec<Change> {
        let is_yielded = |conn: ConnId, share: &ClaimSet| {
            let mut holders = self.holders_of(conn);
            holders.all(|(_, it)| share.ranges.iter().all(|range| it.leaves_out(range)))
        };
        let waiting = self.held.iter();
        let waiting = waiting.filter(|(_, it)| !it.granted && !it.claim.yields);
        let ready: Vec<ConnId> = waiting
            .filter(|(conn, it)| is_yielded(**conn, &it.claim))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in &ready {
            if let Some(held) = self.held.get_mut(conn) {
                held.granted = true;
            }
        }
        ready.into_iter().map(Change::Granted).collect()
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;

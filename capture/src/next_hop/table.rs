//! The answers of the background thread, and how senders read them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::NextHops;
use crate::mac::MacAddress;
use crate::wait::Waker;
use parking_lot::{Condvar, Mutex};

/// Which destinations may be asked for in all; senders have a handful of targets.
const MAX_DESTINATIONS: usize = 4096;

/// How a frame reaches a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device, by its number.
    pub device_index: u32,
    /// The sender's MAC address; zero where there are none.
    pub source: MacAddress,
    /// The next hop's; `None` on devices without MAC addresses.
    pub destination: Option<MacAddress>,
    /// Packets no longer than this, in bytes from the IP header on, may leave the device as one, and are cut again; 0
    /// where none may.
    pub joins_up_to: u32,
}

/// One state of all answers: a hop, or why there is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) entries: HashMap<IpAddr, Result<Hop, String>>,
}

impl Table {
    pub(super) fn hop(&self, destination: IpAddr) -> Option<Hop> {
        self.entries.get(&destination)?.as_ref().ok().copied()
    }
}

/// What the thread and its users share.
#[derive(Debug)]
pub(super) struct Shared {
    wanted: Mutex<BTreeSet<IpAddr>>,
    table: Mutex<Arc<Table>>,
    /// Counts the tables, so that a reader sees without a lock whether there is a new one.
    generation: AtomicU64,
    changed: Condvar,
    stopped: AtomicBool,
    pub(super) waker: Waker,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wanted: Mutex::default(),
            table: Mutex::default(),
            generation: AtomicU64::new(0),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn want(&self, destination: IpAddr) {
        let mut wanted = self.wanted.lock();
        if wanted.len() < MAX_DESTINATIONS && wanted.insert(destination) {
            self.waker.wake();
        }
    }

    pub(super) fn wanted(&self) -> Vec<IpAddr> {
        self.wanted.lock().iter().copied().collect()
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.lock())
    }

    pub(super) fn publish(&self, new: Table) {
        let mut table = self.table.lock();
        if **table != new {
            *table = Arc::new(new);
            self.generation.fetch_add(1, Ordering::Release);
            self.changed.notify_all();
        }
    }

    pub(super) fn wait_for_change(&self, timeout: Duration) {
        let mut table = self.table.lock();
        // A change just before this is seen after at most this long.
        let timeout = timeout.min(Duration::from_millis(50));
        self.changed.wait_for(&mut table, timeout);
    }

    pub(super) fn unresolved(&self) -> Vec<(IpAddr, String)> {
        let table = self.table();
        self.wanted()
            .into_iter()
            .filter_map(|destination| match table.entries.get(&destination) {
                Some(Ok(_)) => None,
                Some(Err(reason)) => Some((destination, reason.clone())),
                None => Some((destination, "not looked up yet".to_owned())),
            })
            .collect()
    }
}

/// A sender's view: its own reference to the last table it saw.
#[derive(Debug)]
pub(crate) struct HopReader {
    hops: NextHops,
    generation: u64,
    table: Arc<Table>,
    asked: HashSet<IpAddr>,
    /// Packets come in runs to one destination.
    last: Option<(IpAddr, Hop)>,
}

impl HopReader {
    pub(super) fn new(hops: NextHops) -> Self {
        Self {
            hops,
            generation: 0,
            table: Arc::default(),
            asked: HashSet::new(),
            last: None,
        }
    }

    /// The next hop, if it is known. The first question for a destination starts the search.
    pub(crate) fn lookup(&mut self, destination: IpAddr) -> Option<Hop> {
        let shared = self.hops.shared();
        let generation = shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.table = shared.table();
            self.generation = generation;
            self.last = None;
        }
        if let Some((address, hop)) = self.last
            && address == destination
        {
            return Some(hop);
        }
        match self.table.hop(destination) {
            Some(hop) => {
                self.last = Some((destination, hop));
                Some(hop)
            }
            None => {
                if self.asked.len() < MAX_DESTINATIONS && self.asked.insert(destination) {
                    shared.want(destination);
                }
                None
            }
        }
    }
}

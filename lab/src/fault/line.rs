//! What becomes of each packet in one direction: pure decisions, driven by a seed and a clock from outside.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Fault;
use super::hop::DirectionCounts;

/// A full queue drops, as a real one does: a packet that waits in memory costs up to 64 KB.
const LARGEST_QUEUE: usize = 100_000;

/// One direction of a bad cable.
#[derive(Debug)]
pub(super) struct Line {
    fault: Fault,
    random: SplitMix64,
    waiting: BinaryHeap<Waiting>,
    /// Arrival order, so that packets due at the same time leave in it.
    next: u64,
    /// When the last packet that was not reordered leaves: none of those leaves before it.
    last_due: Option<Instant>,
    counts: DirectionCounts,
}

impl Line {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            fault: Fault::default(),
            random: SplitMix64(seed),
            waiting: BinaryHeap::new(),
            next: 0,
            last_due: None,
            counts: DirectionCounts::default(),
        }
    }

    /// From now on; packets that wait keep their time.
    pub(super) fn set(&mut self, fault: Fault) {
        self.fault = fault;
    }

    /// Packets that the kernel dropped because they were not read in time.
    pub(super) fn missed(&mut self, packets: u64) {
        self.counts.dropped_by_hop += packets;
    }

    pub(super) fn counts(&self) -> DirectionCounts {
        self.counts
    }

    pub(super) fn send_failed(&mut self) {
        self.counts.dropped_by_hop += 1;
    }

    /// A packet came in. Returns how often it is to be sent at once: 0 when it is lost or waits for its time.
    pub(super) fn arrive(&mut self, now: Instant, frame: &[u8]) -> u8 {
        self.counts.packets += 1;
        if self.random.happens(self.fault.loss) {
            self.counts.lost += 1;
            return 0;
        }
        let copies = if self.random.happens(self.fault.duplicate) {
            self.counts.duplicated += 1;
            2
        } else {
            1
        };
        let reordered = self.random.happens(self.fault.reorder);
        let due = self.due(now, reordered);
        if due <= now && self.waiting.is_empty() {
            return copies;
        }
        for _ in 0..copies {
            self.queue(due, frame);
        }
        0
    }

    fn due(&mut self, now: Instant, reordered: bool) -> Instant {
        let due = now + self.fault.delay + self.random.up_to(self.fault.jitter);
        if reordered {
            self.counts.reordered += 1;
            return due + self.fault.reorder_by;
        }
        let due = self.last_due.map_or(due, |last| due.max(last));
        self.last_due = Some(due);
        due
    }

    fn queue(&mut self, due: Instant, frame: &[u8]) {
        if self.waiting.len() >= LARGEST_QUEUE {
            self.counts.dropped_by_hop += 1;
            return;
        }
        self.waiting.push(Waiting {
            due,
            order: self.next,
            frame: frame.into(),
        });
        self.next += 1;
    }

    /// The next packet whose time has come.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Box<[u8]>> {
        if self.waiting.peek()?.due > now {
            return None;
        }
        self.waiting.pop().map(|waiting| waiting.frame)
    }

    /// When [`Line::poll`] will have something, if anything waits.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|waiting| waiting.due)
    }
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    order: u64,
    frame: Box<[u8]>,
}

impl Ord for Waiting {
    /// Reversed: the heap's greatest is the one that leaves first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

/// Sebastiano Vigna's SplitMix64: small, seeded, good enough to pick packets.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        const BITS: u32 = 53;
        (self.next() >> (64 - BITS)) as f64 / (1_u64 << BITS) as f64
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        if most.is_zero() {
            most
        } else {
            most.mul_f64(self.unit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fault: Fault) -> Line {
        let mut line = Line::new(7);
        line.set(fault);
        line
    }

    #[test]
    fn without_faults_every_packet_leaves_at_once_and_once() {
        let mut line = line(Fault::none());
        let now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(line.arrive(now, b"x"), 1);
        }
        assert_eq!(line.counts().lost, 0);
        assert_eq!(line.next_due(), None);
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_asked() {
        let mut line = line(Fault {
            loss: 0.1,
            duplicate: 0.2,
            ..Fault::none()
        });
        let now = Instant::now();
        let sent: u32 = (0..20_000).map(|_| u32::from(line.arrive(now, b"x"))).sum();
        let counts = line.counts();
        assert!((1_800..2_200).contains(&counts.lost), "{counts:?}");
        assert!((3_300..3_900).contains(&counts.duplicated), "{counts:?}");
        assert_eq!(
            u64::from(sent),
            counts.packets - counts.lost + counts.duplicated
        );
    }

    #[test]
    fn delayed_packets_leave_in_order_and_reordered_ones_later() {
        let delay = Duration::from_millis(10);
        let mut line = line(Fault {
            jitter: delay,
            ..Fault::delay(delay)
        });
        let start = Instant::now();
        for number in 0..100_u8 {
            assert_eq!(
                line.arrive(start + Duration::from_micros(number.into()), &[number]),
                0
            );
        }
        assert!(line.next_due().unwrap() >= start + delay);
        assert_eq!(line.poll(start), None);
        let later = start + 3 * delay;
        let order: Vec<u8> = std::iter::from_fn(|| line.poll(later))
            .map(|frame| frame[0])
            .collect();
        assert_eq!(order, (0..100).collect::<Vec<u8>>());

        line.set(Fault {
            reorder: 1.0,
            ..Fault::none()
        });
        assert_eq!(line.arrive(later, &[1]), 0);
        line.set(Fault::none());
        // One that waits for its own later time holds up nobody.
        line.arrive(later, &[2]);
        assert_eq!(line.poll(later).as_deref(), Some(&[2][..]));
        assert_eq!(line.poll(later), None);
        assert_eq!(
            line.poll(later + Duration::from_millis(2)).as_deref(),
            Some(&[1][..])
        );
    }

    #[test]
    fn the_same_seed_makes_the_same_decisions() {
        let decisions = |mut line: Line| {
            let now = Instant::now();
            (0..1000)
                .map(|_| line.arrive(now, b"x"))
                .collect::<Vec<_>>()
        };
        let fault = Fault::loss(0.5);
        assert_eq!(decisions(line(fault)), decisions(line(fault)));
    }
}

//! The claim of a client pool at one interceptor, and when it is made.
//!
//! Two copiers may want the same addresses from the same interceptors, and each may have been first
//! at one of them. So that one of them gets all, claims are made in an order that is the same for
//! every copier: one that is refused somewhere gives up what it holds later in the order, and
//! claims nothing there until it is granted. Then no two copiers refuse each other: the one that is
//! refused holds nothing past that interceptor, so what it refuses to the other comes before, and
//! that can be true of only one of them.

use std::time::Duration;

use millrace_proto::{ClaimSet, ClientRange};

/// An interceptor that was restarted has forgotten who held what. The one that was refused there
/// leaves the first word to the one that held it, for longer than a link takes to be back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Place of an interceptor in the order of claims: its name, and for those of one name its run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) name: String,
    pub(super) incarnation: u64,
}

/// Whether the claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not made, or given up: an interceptor before this one refuses.
    Withheld,
    /// Not answered in this epoch.
    Asked,
    Granted,
    /// Another copier holds a part of it: stays so until it is granted.
    Refused,
    /// Refused by an earlier run of the interceptor; made again at this time.
    Deferring(Duration),
}

/// The claim at one interceptor.
#[derive(Debug)]
pub(super) struct Claim {
    all: ClaimSet,
    nothing: ClaimSet,
    state: State,
    /// Whether the interceptor has ever granted it.
    was_granted: bool,
    /// Of the last stream.
    rank: Option<Rank>,
}

impl Claim {
    pub(super) fn new(all: ClaimSet) -> Self {
        Self {
            all,
            nothing: ClaimSet::default(),
            state: State::Asked,
            was_granted: false,
            rank: None,
        }
    }

    /// What is to be claimed now.
    pub(super) fn wanted(&self) -> &ClaimSet {
        match self.state {
            State::Withheld | State::Deferring(_) => &self.nothing,
            State::Asked | State::Granted | State::Refused => &self.all,
        }
    }

    /// What is to be claimed leaves these ranges to others.
    pub(super) fn yield_ranges(&mut self, ranges: &[ClientRange]) {
        self.all.without = ranges.to_vec();
    }

    pub(super) fn is_granted(&self) -> bool {
        self.state == State::Granted
    }

    pub(super) fn is_refused(&self) -> bool {
        match self.state {
            State::Refused | State::Deferring(_) => true,
            State::Withheld | State::Asked | State::Granted => false,
        }
    }

    /// The interceptor's place, if it refuses: later ones are left alone.
    pub(super) fn refused_at(&self) -> Option<&Rank> {
        self.rank.as_ref().filter(|_| self.is_refused())
    }

    /// When [`Claim::settle`] is to be called next.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.state {
            State::Deferring(at) => Some(at),
            State::Withheld | State::Asked | State::Granted | State::Refused => None,
        }
    }

    /// A stream begins: what is wanted is to be sent. `first_refused` is the first of the other
    /// interceptors that refuses.
    pub(super) fn on_up(&mut self, now: Duration, rank: Rank, first_refused: Option<&Rank>) {
        let same_run = self.rank.as_ref() == Some(&rank);
        self.state = match self.state {
            _ if first_refused.is_some_and(|first| *first < rank) => State::Withheld,
            State::Refused if !same_run => State::Deferring(now + PATIENCE),
            State::Refused => State::Refused,
            State::Deferring(at) => State::Deferring(at),
            State::Withheld | State::Asked | State::Granted => State::Asked,
        };
        self.rank = Some(rank);
    }

    /// Says whether it was not granted before.
    pub(super) fn on_granted(&mut self) -> bool {
        match self.state {
            State::Asked | State::Refused => {
                self.state = State::Granted;
                self.was_granted = true;
                true
            }
            // It was given up meanwhile.
            State::Withheld | State::Granted | State::Deferring(_) => false,
        }
    }

    /// Whether it is made, and has never been granted.
    pub(super) fn is_asked_first(&self) -> bool {
        self.state == State::Asked && !self.was_granted
    }

    /// Whether a part of this range is claimed.
    pub(super) fn overlaps(&self, range: &ClientRange) -> bool {
        self.all.ranges.iter().any(|mine| mine.overlaps(range))
    }

    pub(super) fn on_refused(&mut self) {
        self.state = State::Refused;
    }

    /// Takes account of what the other interceptors say. Says whether something else is wanted
    /// than before: it is to be sent.
    pub(super) fn settle(&mut self, now: Duration, first_refused: Option<&Rank>) -> bool {
        let later = first_refused
            .zip(self.rank.as_ref())
            .is_some_and(|(first, mine)| first < mine);
        let next = match self.state {
            State::Asked | State::Granted if later => State::Withheld,
            State::Withheld if !later => State::Asked,
            State::Deferring(at) if now >= at => State::Refused,
            State::Withheld
            | State::Asked
            | State::Granted
            | State::Refused
            | State::Deferring(_) => return false,
        };
        self.state = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    /// Interceptors that give all to the first who asks, and copiers that want it.
    struct World {
        now: Duration,
        /// Of each interceptor: its run, and who holds the claim.
        interceptors: Vec<(u64, Option<usize>)>,
        /// Of each copier and interceptor: the claim, and whether the stream is up.
        copiers: Vec<Vec<(Claim, bool)>>,
    }

    impl World {
        fn new(copiers: usize, interceptors: usize) -> Self {
            let claim = || {
                let range = millrace_proto::ClientRange::new(
                    "198.18.1.1".parse().unwrap(),
                    "198.18.1.9".parse().unwrap(),
                    1,
                    65_535,
                );
                let ranges = vec![range.unwrap()];
                let targets = Vec::new();
                (
                    Claim::new(ClaimSet {
                        ranges,
                        targets,
                        ..ClaimSet::default()
                    }),
                    false,
                )
            };
            let row = || (0..interceptors).map(|_| claim()).collect();
            Self {
                now: START,
                interceptors: vec![(0, None); interceptors],
                copiers: (0..copiers).map(|_| row()).collect(),
            }
        }

        fn first_refused(&self, copier: usize, except: Option<usize>) -> Option<Rank> {
            let claims = self.copiers[copier].iter().enumerate();
            let claims = claims.filter(|it| Some(it.0) != except);
            claims.filter_map(|it| it.1.0.refused_at()).min().cloned()
        }

        fn up(&mut self, copier: usize, at: usize) {
            if self.copiers[copier][at].1 {
                return;
            }
            let first = self.first_refused(copier, Some(at));
            let rank = Rank {
                name: format!("rs{at}"),
                incarnation: self.interceptors[at].0,
            };
            let (claim, up) = &mut self.copiers[copier][at];
            claim.on_up(self.now, rank, first.as_ref());
            *up = true;
            self.send(copier, at);
            self.settle(copier);
        }

        fn send(&mut self, copier: usize, at: usize) {
            let holder = &mut self.interceptors[at].1;
            let (claim, up) = &mut self.copiers[copier][at];
            if !*up {
                return;
            }
            match (claim.wanted().ranges.is_empty(), *holder) {
                (true, Some(it)) if it == copier => *holder = None,
                (true, _) => {}
                (false, Some(it)) if it != copier => {
                    claim.on_refused();
                    *up = false;
                }
                (false, _) => {
                    *holder = Some(copier);
                    claim.on_granted();
                }
            }
        }

        fn settle(&mut self, copier: usize) {
            loop {
                let (now, first) = (self.now, self.first_refused(copier, None));
                let claims = &mut self.copiers[copier];
                let changed = claims
                    .iter_mut()
                    .position(|it| it.0.settle(now, first.as_ref()));
                match changed {
                    Some(at) => self.send(copier, at),
                    None => return,
                }
            }
        }

        fn restart(&mut self, at: usize) {
            self.interceptors[at].0 += 1;
            self.interceptors[at].1 = None;
            for claims in &mut self.copiers {
                claims[at].1 = false;
            }
        }

        /// Every copier tries every link again and again.
        fn calm(&mut self) {
            for _ in 0..20 {
                for copier in 0..self.copiers.len() {
                    self.now += Duration::from_secs(2);
                    for at in 0..self.interceptors.len() {
                        self.up(copier, at);
                    }
                    self.settle(copier);
                }
            }
        }

        fn open(&self) -> Vec<usize> {
            let all = |claims: &Vec<(Claim, bool)>| claims.iter().all(|it| it.0.is_granted());
            let copiers = 0..self.copiers.len();
            copiers.filter(|it| all(&self.copiers[*it])).collect()
        }
    }

    #[test]
    fn of_two_copiers_that_were_each_first_somewhere_one_gets_all() {
        let mut world = World::new(2, 2);
        world.up(0, 0);
        world.up(1, 1);
        world.up(0, 1);
        world.up(1, 0);
        world.calm();
        assert_eq!(world.open(), [0]);
    }

    #[test]
    fn whoever_comes_and_goes_one_copier_gets_all_in_the_end() {
        let mut random: u64 = 1;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (random >> 33) as usize % below
        };
        for _ in 0..500 {
            let (copiers, interceptors) = (2 + next(3), 1 + next(4));
            let mut world = World::new(copiers, interceptors);
            for _ in 0..next(40) {
                world.now += Duration::from_millis(next(3000) as u64);
                match next(4) {
                    0 => world.restart(next(interceptors)),
                    _ => world.up(next(copiers), next(interceptors)),
                }
                let copier = next(copiers);
                world.settle(copier);
            }
            world.calm();
            assert_eq!(world.open().len(), 1);
        }
    }

    #[test]
    fn the_holder_has_the_first_word_at_an_interceptor_that_was_restarted() {
        let mut world = World::new(2, 2);
        world.up(0, 0);
        world.up(0, 1);
        world.calm();
        assert_eq!(world.open(), [0]);
        world.restart(0);
        world.up(1, 0);
        world.now += Duration::from_secs(2);
        world.up(0, 0);
        world.calm();
        assert_eq!(world.open(), [0]);
    }
}

//! Which reports of conflicts are news.
//!
//! Every interceptor that knows another copier's flow says so when the same one is announced, so a
//! replica may be reported many times, also when it has moved already. A report names the replica
//! and not the port, and an announcement is answered by one report or by none. So as long as an
//! interceptor may still answer an announcement of a flow that the replica has left, its report is
//! taken for that, and the present flow is announced there again: it is reported again if it is
//! another copier's.
//!
//! A replica that is connected cannot move: it had its flow first, and an interceptor that has forgotten that gave it
//! away. It is announced there again, ever more seldom, until the other copier has given the flow up.
//!
//! A replica moves a few times at most: ports are chosen at random, so more reports than that say
//! that an interceptor is at fault, and each move sends a SYN and uses up a port.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;
use millrace_proto::FlowId;

use super::InterceptorId;

/// Announcements at one interceptor that it may still answer.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    interceptor: InterceptorId,
    /// Of flows that the replica has left.
    old: u32,
    /// Of its present flow.
    present: u32,
}

/// How often a replica moves. After that it stays where it is; unanswered, it times out.
const MAX_MOVES: u32 = 8;

/// What is to be done about a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The present flow is another copier's: the replica is to be moved.
    Move,
    /// It may be about a flow that the replica has left: the present one is to be announced to that
    /// interceptor again.
    AnnounceAgain,
    /// It has moved often enough.
    Ignore,
}

/// A replica that has moved.
#[derive(Debug, Default)]
struct Moved {
    times: u32,
    unanswered: Vec<Unanswered>,
}

/// Announced for the first time again after this, and then after twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(64);

/// A flow at an interceptor.
type Place = (FlowId, InterceptorId);

/// When a connected replica is announced again at an interceptor that calls its flow another copier's.
#[derive(Clone, Copy, Debug)]
struct Contested {
    /// `None`: it has been announced, and not answered.
    at: Option<Duration>,
    wait: Duration,
}

/// Replicas that have moved, and what interceptors may still say of them.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    moved: HashMap<FlowId, Moved, RandomState>,
    contested: BTreeMap<Place, Contested>,
    due: BTreeSet<(Duration, Place)>,
}

impl Conflicts {
    /// Takes in a report.
    pub(super) fn report(&mut self, id: FlowId, interceptor: InterceptorId) -> Report {
        let Some(moved) = self.moved.get_mut(&id) else {
            return Report::Move;
        };
        if moved.times >= MAX_MOVES {
            return Report::Ignore;
        }
        let mut all = moved.unanswered.iter_mut();
        let Some(one) = all.find(|one| one.interceptor == interceptor) else {
            return Report::Move;
        };
        if one.old == 0 {
            one.present = one.present.saturating_sub(1);
            return Report::Move;
        }
        one.old -= 1;
        one.present = one.present.saturating_add(1);
        Report::AnnounceAgain
    }

    /// A replica moves because of what an interceptor said; all of `told` know its old flow, and
    /// will hear of the new one.
    pub(super) fn moved(
        &mut self,
        id: FlowId,
        by: InterceptorId,
        told: impl Iterator<Item = InterceptorId>,
    ) {
        let moved = self.moved.entry(id).or_default();
        moved.times += 1;
        let all = &mut moved.unanswered;
        for interceptor in told {
            match all.iter_mut().find(|one| one.interceptor == interceptor) {
                Some(one) => {
                    one.old = one.old.saturating_add(one.present);
                    one.present = 1;
                }
                None => all.push(Unanswered {
                    interceptor,
                    old: u32::from(interceptor != by),
                    present: 1,
                }),
            }
        }
    }

    /// A connected replica's flow is another copier's, says this interceptor.
    pub(super) fn contest(&mut self, now: Duration, id: FlowId, interceptor: InterceptorId) {
        let place = (id, interceptor);
        let before = self.contested.get(&place).copied();
        if let Some(at) = before.and_then(|it| it.at) {
            self.due.remove(&(at, place));
        }
        let wait = before.map_or(FIRST_WAIT, |it| (it.wait * 2).min(LONGEST_WAIT));
        let at = now + wait;
        self.due.insert((at, place));
        let at = Some(at);
        self.contested.insert(place, Contested { at, wait });
    }

    /// When [`Conflicts::next_contested`] is to be called next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A contested flow that is to be announced again now, and where. If it is still another's, it will be contested
    /// again.
    pub(super) fn next_contested(&mut self, now: Duration) -> Option<(FlowId, InterceptorId)> {
        let (_, place) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.pop_first();
        if let Some(it) = self.contested.get_mut(&place) {
            it.at = None;
        }
        Some(place)
    }

    /// An interceptor is told anew of these flows: it answers nothing that it was told before.
    pub(super) fn told_anew(&mut self, interceptor: InterceptorId, which: impl Fn(FlowId) -> bool) {
        let is_told = |id: FlowId, at: InterceptorId| at == interceptor && which(id);
        self.contested.retain(|(id, at), _| !is_told(*id, *at));
        self.due.retain(|(_, (id, at))| !is_told(*id, *at));
        for (id, moved) in &mut self.moved {
            moved
                .unanswered
                .retain(|one| !is_told(*id, one.interceptor));
        }
    }

    /// A replica is no more.
    pub(super) fn remove(&mut self, id: FlowId) {
        self.moved.remove(&id);
        let its = (id, InterceptorId::MIN)..=(id, InterceptorId::MAX);
        while let Some(place) = self.contested.range(its.clone()).next().map(|it| *it.0) {
            if let Some(at) = self.contested.remove(&place).and_then(|it| it.at) {
                self.due.remove(&(at, place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    /// An interceptor: announcements and reports are on their way in order; these ports are
    /// another copier's.
    struct Interceptor {
        announced: VecDeque<u32>,
        reports: VecDeque<()>,
        taken: HashSet<u32>,
    }

    #[test]
    fn a_replica_moves_once_for_each_flow_that_is_taken_whatever_order_reports_come_in() {
        let mut random: u64 = 7;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (random >> 33) as usize % below
        };
        for id in 0..500 {
            let mut conflicts = Conflicts::default();
            let count = 1 + next(5);
            let (mut port, mut moves) = (0, 0);
            let mut interceptors: Vec<_> = (0..count)
                .map(|_| Interceptor {
                    announced: VecDeque::from([0]),
                    reports: VecDeque::new(),
                    taken: (0..3).filter(|_| next(2) == 0).collect(),
                })
                .collect();
            let taken = |port: u32, all: &[Interceptor]| {
                all.iter()
                    .any(|interceptor| interceptor.taken.contains(&port))
            };
            let wanted = (0..3).take_while(|port| taken(*port, &interceptors));
            let wanted = wanted.count() as u32;
            let idle = |it: &Interceptor| it.announced.is_empty() && it.reports.is_empty();
            while !interceptors.iter().all(idle) {
                let number = next(count);
                if next(2) == 0 {
                    let it = &mut interceptors[number];
                    if let Some(port) = it.announced.pop_front()
                        && it.taken.contains(&port)
                    {
                        it.reports.push_back(());
                    }
                } else if interceptors[number].reports.pop_front().is_some() {
                    let by = number as InterceptorId;
                    if conflicts.report(id, by) == Report::Move {
                        (port, moves) = (port + 1, moves + 1);
                        conflicts.moved(id, by, 0..count as InterceptorId);
                        for interceptor in &mut interceptors {
                            interceptor.announced.push_back(port);
                        }
                    } else {
                        interceptors[number].announced.push_back(port);
                    }
                }
            }
            assert_eq!((port, moves), (wanted, wanted));
        }
    }

    #[test]
    fn an_interceptor_that_calls_every_flow_anothers_is_not_obeyed_for_ever() {
        let id = 1;
        let mut conflicts = Conflicts::default();
        let mut reports = 0;
        loop {
            match conflicts.report(id, 0) {
                Report::Move => conflicts.moved(id, 0, 0..3),
                Report::AnnounceAgain => {}
                Report::Ignore => break,
            }
            reports += 1;
            assert!(reports < 100);
        }
        conflicts.remove(id);
        assert_eq!(conflicts.report(2, 0), Report::Move);
    }

    #[test]
    fn a_contested_flow_is_announced_ever_more_seldom_until_it_is_over() {
        let second = Duration::from_secs;
        let mut conflicts = Conflicts::default();
        let mut now = second(100);
        let mut waits = Vec::new();
        for _ in 0..9 {
            conflicts.contest(now, 1, 0);
            let due = conflicts.due().unwrap();
            waits.push((due - now).as_secs());
            assert_eq!(conflicts.next_contested(due - second(1) / 2), None);
            assert_eq!(conflicts.next_contested(due), Some((1, 0)));
            assert_eq!(conflicts.due(), None, "until it is contested again");
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        conflicts.contest(now, 1, 0);
        conflicts.contest(now, 2, 0);
        conflicts.told_anew(0, |id| id == 2);
        conflicts.remove(1);
        assert_eq!(conflicts.due(), None);
    }

    #[test]
    fn what_an_interceptor_was_told_before_its_link_broke_is_not_answered_any_more() {
        let mut conflicts = Conflicts::default();
        assert_eq!(conflicts.report(1, 0), Report::Move);
        conflicts.moved(1, 0, 0..2);
        conflicts.told_anew(1, |_| true);
        assert_eq!(conflicts.report(1, 1), Report::Move);
    }
}

//! When a copier writes to its cluster's plan: that time has passed, and what its guards demand. Of many copiers one
//! does the first, whichever has done it last; the others step in where it has not for a while.

use std::time::Duration;

use crate::fleet_plan::FleetPlan;
use crate::follower::Note;
use crate::judge::Demand;
use crate::status::Mode;

/// Time is written down so often.
const BEAT: Duration = Duration::from_secs(1);
/// Another one steps in after so long, and by chance up to a beat later, so that not all try at once.
const STEP_IN: Duration = Duration::from_secs(2);
/// No more time than this is taken to have passed at once: nobody was there before.
const MOST: Duration = Duration::from_secs(4);

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// So much time has passed.
    Passed(Duration),
    /// A guard is broken while the plan is held by one.
    Broken,
    /// A guard demands something.
    Demand(Demand),
}

/// Knows when the plan was last written, as far as this copier has seen.
#[derive(Clone, Debug, Default)]
pub struct Driver {
    /// The version of the record that was seen last.
    version: u64,
    /// When it was asked for the first time.
    since: Duration,
    /// This copier has written it.
    mine: bool,
    /// When this copier has last asked to write.
    wrote: Option<Duration>,
}

impl Driver {
    /// The record was read, in this version. It was asked for at `asked`.
    pub fn read(&mut self, version: u64, asked: Duration) {
        let wrote = self.wrote.take();
        if version != self.version {
            self.version = version;
            self.mine = wrote.is_some();
            self.since = wrote.unwrap_or(asked);
        }
    }

    /// This copier's own word was taken; it was asked for at `asked`.
    pub fn wrote(&mut self, asked: Duration) {
        self.wrote = Some(asked);
    }

    /// How old the record is, as far as was seen.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// What to write at `now`. `chance` is from 0 to 1, another one each time.
    pub fn next(&self, now: Duration, plan: &FleetPlan, note: &Note, chance: f64) -> Option<Entry> {
        if note.edition != plan.edition() {
            return None;
        }
        if let Some(demand) = &note.demand {
            return Some(Entry::Demand(demand.clone()));
        }
        if plan.course().mode() == Mode::Held && note.broken {
            return Some(Entry::Broken);
        }
        let age = self.age(now);
        let due = match self.mine {
            true => BEAT,
            false => STEP_IN + BEAT.mul_f64(chance.clamp(0.0, 1.0)),
        };
        (note.free && plan.needs_time() && age >= due).then(|| Entry::Passed(age.min(MOST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::fleet_plan::Signed;

    const SIGNED: Signed<'_> = Signed { by: "x", at: 0 };
    const STEP: u64 = 100;

    /// One copier: it looks every half second, a little after the others.
    #[derive(Default)]
    struct Copier {
        driver: Driver,
        phase: u64,
        alive: bool,
        free: bool,
        broken: bool,
    }

    /// Consul's record, and its version.
    struct Store {
        plan: FleetPlan,
        version: u64,
    }

    impl Store {
        fn new(ramp: &str) -> Self {
            let plan = FleetPlan::begin(Command::Follow(ramp.parse().unwrap()), SIGNED).unwrap();
            Self { plan, version: 1 }
        }
    }

    fn step(now: u64, store: &mut Store, copiers: &mut [Copier]) {
        for (index, copier) in copiers.iter_mut().enumerate() {
            if !copier.alive || now % 500 != copier.phase {
                continue;
            }
            let time = Duration::from_millis(now);
            copier.driver.read(store.version, time);
            let note = Note {
                edition: store.plan.edition(),
                free: copier.free,
                broken: copier.broken,
                demand: None,
            };
            let chance = (now / STEP * 7 + index as u64 * 3) % 10;
            let next = copier
                .driver
                .next(time, &store.plan, &note, chance as f64 / 10.0);
            let written = match next {
                Some(Entry::Passed(passed)) => {
                    store.plan.pass(passed, SIGNED);
                    true
                }
                Some(Entry::Broken) => store.plan.doubt(),
                Some(Entry::Demand(_)) | None => false,
            };
            if written {
                store.version += 1;
                copier.driver.wrote(time);
            }
        }
    }

    fn copiers(count: u64) -> Vec<Copier> {
        let copier = |index| Copier {
            phase: index % 5 * STEP,
            alive: true,
            free: true,
            ..Copier::default()
        };
        (0..count).map(copier).collect()
    }

    fn position(store: &Store) -> f64 {
        store.plan.course().position.as_secs_f64()
    }

    #[test]
    fn a_ramp_takes_as_long_as_it_says_with_one_copier_or_many() {
        for count in [1, 2, 16] {
            let (mut store, mut all) = (Store::new("0..100%/200s"), copiers(count));
            for now in (0..100_000).step_by(STEP as usize) {
                step(now, &mut store, &mut all);
            }
            let at = position(&store);
            assert!((97.0..=101.0).contains(&at), "{count} copiers: {at}");
        }
    }

    #[test]
    fn the_ramp_goes_on_when_its_driver_dies_and_stands_still_without_any() {
        let (mut store, mut all) = (Store::new("0..100%/200s"), copiers(4));
        for now in (0..60_000).step_by(STEP as usize) {
            // One dies every ten seconds, beginning with whoever drives.
            if now % 10_000 == 0
                && now > 0
                && let Some(driver) = all.iter_mut().find(|it| it.alive && it.driver.mine)
            {
                driver.alive = false;
            }
            step(now, &mut store, &mut all);
        }
        let at = position(&store);
        assert!((35.0..=41.0).contains(&at), "all are dead after 40 s: {at}");
        let mut late = copiers(1);
        for now in (500_000..510_000).step_by(STEP as usize) {
            step(now, &mut store, &mut late);
        }
        let after = position(&store);
        assert!((at + 7.0..at + 12.0).contains(&after), "{at}, {after}");
    }

    #[test]
    fn who_has_nothing_to_send_does_not_move_the_ramp() {
        let (mut store, mut all) = (Store::new("0..100%/200s"), copiers(3));
        for copier in &mut all {
            copier.free = false;
        }
        for now in (0..20_000).step_by(STEP as usize) {
            step(now, &mut store, &mut all);
        }
        assert_eq!(position(&store), 0.0);
        all[2].free = true;
        for now in (20_000..30_000).step_by(STEP as usize) {
            step(now, &mut store, &mut all);
        }
        assert!(position(&store) > 7.0);
    }

    #[test]
    fn a_hold_lasts_while_any_copier_sees_a_broken_guard() {
        let (mut store, mut all) = (Store::new("0..100%/200s"), copiers(3));
        let demand = Demand {
            action: crate::guard::Action::Hold,
            why: "x".to_owned(),
        };
        let edition = store.plan.edition();
        assert!(store.plan.restrain(edition, &demand, SIGNED));
        all[1].broken = true;
        for now in (0..60_000).step_by(STEP as usize) {
            step(now, &mut store, &mut all);
        }
        assert_eq!(store.plan.course().mode(), Mode::Held);
        all[1].broken = false;
        for now in (60_000..75_000).step_by(STEP as usize) {
            step(now, &mut store, &mut all);
        }
        assert_eq!(store.plan.course().mode(), Mode::Running);
    }
}

//! Prepared statements: a number at the live server stands for another one at the target.
//!
//! Both sides answer prepares in their order, so that the nth answer of one belongs to the nth of the other. Where the live
//! server's was not captured, its number is inferred from what the client then uses: servers count statements up by one for
//! each prepare of a connection. That holds from a number that is known, as long as no SQL that prepares statements by itself
//! (`PREPARE`, `CALL`) may have counted, too, and no prepare failed. MariaDB does not begin to count with a connection but
//! with the thread that serves it: without a known number, only the one statement that has none can be meant. Anything else
//! is no statement: a wrong one is never executed.

use std::collections::BTreeMap;

use millrace_engine::protocol::{Failure, FailureKind};

use super::judge::Judged;
use super::wire::unsupported;

/// So many are kept at once: the most of all connections to a server, unless it is told otherwise
/// (`max_prepared_stmt_count`).
const MOST: usize = 16_382;
/// Stands for the statement that was prepared last (MariaDB).
const LAST: u32 = u32::MAX;

/// What a statement is at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtTarget {
    /// Its answer has not come yet.
    Awaited,
    /// This number.
    Is(u32),
    /// An error.
    Failed,
    /// It was not sent.
    LeftOut,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) at_target: AtTarget,
    /// Its number at the live server.
    live: Option<u32>,
    /// So many parameters it has, as either side says.
    pub(super) parameters: Option<u16>,
    pub(super) judged: Judged,
}

/// Those of a session, by the order in which they were prepared.
#[derive(Debug, Default)]
pub(super) struct Statements {
    all: BTreeMap<u64, Statement>,
    by_live: BTreeMap<u32, u64>,
    /// What the texts of all take.
    texts: usize,
    /// The next one has this place in the order.
    next: u64,
    /// The place and the number of one, from which others are counted.
    known: Option<(u64, u32)>,
    /// From this place on nothing but prepares has counted.
    counted_from: u64,
    /// The highest number of the live server that is known.
    highest: u32,
}

impl Statements {
    /// One is prepared. Gives its place.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn prepare(&mut self, judged: Judged, is_played: bool) -> Result<u64, Failure> {
        if self.all.len() >= MOST {
            let text = "a session has too many prepared statements";
            return Err(Failure::new(FailureKind::Limit, text));
        }
        let place = self.next;
        self.next += 1;
        let statement = Statement {
            at_target: if is_played {
                AtTarget::Awaited
            } else {
                AtTarget::LeftOut
            },
            live: None,
            parameters: None,
            judged,
        };
        self.texts += statement.judged.memory();
        self.all.insert(place, statement);
        Ok(place)
    }

    fn remove(&mut self, place: u64) -> Option<Statement> {
        let statement = self.all.remove(&place)?;
        self.texts = self.texts.saturating_sub(statement.judged.memory());
        Some(statement)
    }

    /// Memory that they take.
    pub(super) fn memory(&self) -> usize {
        let each = size_of::<(u64, Statement)>();
        self.texts + self.all.len() * each + self.by_live.len() * size_of::<(u32, u64)>()
    }

    pub(super) fn get(&self, place: u64) -> Option<&Statement> {
        self.all.get(&place)
    }

    /// Whether the target's answer to it is still to come.
    pub(super) fn is_awaited(&self, place: u64) -> bool {
        self.get(place)
            .is_some_and(|it| it.at_target == AtTarget::Awaited)
    }

    /// The place of the one that the client means.
    ///
    /// # Errors
    /// It is not known which.
    pub(super) fn find(&mut self, live: u32) -> Result<u64, Failure> {
        let found = match live {
            LAST => (self.next.checked_sub(1)).filter(|place| self.all.contains_key(place)),
            _ => self
                .by_live
                .get(&live)
                .copied()
                .or_else(|| self.infer(live)),
        };
        found.ok_or_else(|| {
            unsupported("the client executes a statement whose PREPARE is not known")
        })
    }

    fn infer(&mut self, live: u32) -> Option<u64> {
        let place = match self.known {
            Some((place, number)) => {
                let ahead = i64::from(live) - i64::from(number);
                let place = place.checked_add_signed(ahead)?;
                Some(place).filter(|place| *place >= self.counted_from)?
            }
            None if live <= self.highest => return None,
            None => {
                let mut unnumbered = self.all.iter().filter(|(_, it)| it.live.is_none());
                let (place, _) = unnumbered.next()?;
                unnumbered.next().is_none().then_some(*place)?
            }
        };
        self.get(place).filter(|it| it.live.is_none())?;
        self.number(place, live);
        Some(place)
    }

    fn number(&mut self, place: u64, live: u32) {
        if let Some(statement) = self.all.get_mut(&place) {
            statement.live = Some(live);
            self.by_live.insert(live, place);
        }
        if place >= self.counted_from {
            self.known = Some((place, live));
        }
        self.highest = self.highest.max(live);
    }

    /// The live server has prepared one.
    ///
    /// # Errors
    /// It is not the one that it was taken for.
    pub(super) fn live_prepared(
        &mut self,
        place: u64,
        live: u32,
        parameters: u16,
    ) -> Result<(), Failure> {
        let known = self.get(place).and_then(|it| it.live);
        if known.is_some_and(|known| known != live) {
            return Err(unsupported("the live server counts statements strangely"));
        }
        self.number(place, live);
        self.check(place, parameters)
    }

    /// The live server could not prepare one. It is not certain that it was counted.
    pub(super) fn live_failed(&mut self, place: u64) {
        self.remove(place);
        self.others_may_count();
    }

    /// The target has prepared one.
    ///
    /// # Errors
    /// It is another than that of the live server.
    pub(super) fn target_prepared(
        &mut self,
        place: u64,
        id: u32,
        parameters: u16,
    ) -> Result<(), Failure> {
        self.set(place, AtTarget::Is(id));
        self.check(place, parameters)
    }

    pub(super) fn target_failed(&mut self, place: u64) {
        self.set(place, AtTarget::Failed);
    }

    fn set(&mut self, place: u64, at_target: AtTarget) {
        if let Some(statement) = self.all.get_mut(&place) {
            statement.at_target = at_target;
        }
    }

    /// How many parameters a statement has is in its text alone: servers that differ speak of different ones.
    fn check(&mut self, place: u64, parameters: u16) -> Result<(), Failure> {
        let Some(statement) = self.all.get_mut(&place) else {
            return Ok(());
        };
        let known = statement.parameters.replace(parameters);
        match known.is_some_and(|known| known != parameters) {
            true => Err(unsupported(
                "a prepared statement is another one at the target",
            )),
            false => Ok(()),
        }
    }

    /// SQL may have prepared statements, or not: the order alone says no number any more.
    pub(super) const fn others_may_count(&mut self) {
        self.known = None;
        self.counted_from = self.next;
    }

    /// The client needs one no longer.
    pub(super) fn close(&mut self, place: u64) {
        let live = self.remove(place).and_then(|it| it.live);
        if let Some(live) = live {
            self.by_live.remove(&live);
        }
    }

    /// All are gone.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.by_live.clear();
        self.texts = 0;
        self.others_may_count();
        self.highest = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(number: usize) -> Statements {
        let mut it = Statements::default();
        for _ in 0..number {
            it.prepare(Judged::default(), true).unwrap();
        }
        it
    }

    #[test]
    fn captured_numbers_are_taken_and_checked() {
        let mut it = with(2);
        it.live_prepared(0, 70, 1).unwrap();
        it.live_prepared(1, 75, 2).unwrap();
        it.target_prepared(0, 3, 1).unwrap();
        assert_eq!(it.find(70), Ok(0));
        assert_eq!(it.get(0).unwrap().at_target, AtTarget::Is(3));
        assert_eq!(it.find(75), Ok(1));
        assert!(it.is_awaited(1));
        assert!(it.target_prepared(1, 4, 1).is_err());
        assert!(it.find(1).is_err());
        assert_eq!(it.find(LAST), Ok(1));
        it.close(1);
        assert!(it.find(75).is_err());
        // The last one is gone: it is not the one before.
        assert!(it.find(LAST).is_err());
    }

    #[test]
    fn missing_numbers_follow_the_order() {
        let mut it = with(4);
        // It may be any of them.
        assert!(it.find(2).is_err());
        it.live_prepared(1, 22, 0).unwrap();
        assert_eq!(it.find(23), Ok(2));
        assert_eq!(it.find(21), Ok(0));
        assert!(it.find(20).is_err());
        assert!(it.find(29).is_err());
        // What comes late must fit.
        assert!(it.live_prepared(2, 23, 0).is_ok());
        assert!(it.live_prepared(0, 9, 0).is_err());
    }

    #[test]
    fn without_an_order_only_the_one_statement_can_be_meant() {
        let mut it = with(1);
        it.others_may_count();
        assert_eq!(it.find(40), Ok(0));
        let mut two = with(2);
        two.others_may_count();
        assert!(two.find(40).is_err());
        assert_eq!(two.find(LAST), Ok(1));
        // A number that is captured again is one to count from, but not back.
        two.prepare(Judged::default(), true).unwrap();
        two.prepare(Judged::default(), true).unwrap();
        two.live_prepared(2, 50, 0).unwrap();
        assert_eq!(two.find(51), Ok(3));
        assert!(two.find(49).is_err());
    }

    #[test]
    fn there_are_no_more_than_a_server_has() {
        let mut it = with(MOST);
        let failure = it.prepare(Judged::default(), true).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(it.memory() > MOST * size_of::<Statement>());
        it.clear();
        assert_eq!(it.memory(), 0);
        assert!(it.prepare(Judged::default(), true).is_ok());
    }
}

//! A hold as an operator sees it, and whether it is in force.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millrace_proto::v1::{DivertMode, Holding, Standing};
use parking_lot::Mutex;

use crate::upkeep::printable;
use millrace_daemon::boottime::BootTime;
use millrace_notation::address::HostPort;

/// The state of the hold at one agent. Counts are since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct HoldStatus {
    /// Where the agent is.
    pub address: String,
    /// Whether what was asked for is in force: held, and confirmed by the agent within the last fifth
    /// of a second; or held by an agent that has said a moment ago that it will be back.
    pub held: bool,
    /// Whether the stream is open.
    pub connected: bool,
    /// The agent's name, once known.
    pub agent_id: String,
    /// How responses are diverted there: `sink`, `assistant` or `nfqueue`, once known.
    pub mode: &'static str,
    /// How long the agent keeps it after the stream has ended. Seconds.
    pub grace_seconds: u32,
    /// Route look-ups that confirmed it.
    pub verified: u32,
    /// What the agent says is to be mended on its host.
    pub warnings: Vec<String>,
    /// Why responses are not diverted there as they should be; empty: they are.
    pub trouble: String,
    /// Larger after each change of `trouble`; begins at random at each start of the agent.
    pub generation: u64,
    /// Of the agent's host: another one after each start of it.
    pub boot_id: String,
    /// Inode of the network namespace that the agent works in.
    pub namespace: u64,
    /// Attempts to connect.
    pub attempts: u64,
    /// Times that the agent refused.
    pub refused: u64,
    /// Why it is not held, or was last lost; empty if never.
    pub last_error: String,
}

/// For how long an agent's word is worth something: it is asked twice as often.
const FRESH: Duration = Duration::from_millis(200);
/// Answers that take longer are not waited for.
const LONGEST_WAY: Duration = Duration::from_secs(1);
/// An agent that says it ends leaves what is installed in place. Its successor is there long before
/// this; a machine that is shut down takes longer to come back.
const SUCCESSION: Duration = Duration::from_secs(10);
/// An agent that has not looked at its host for this long hangs.
const LOOKED: u32 = 1500;

#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Until when what was asked for is in force, unless the agent says more: milliseconds of
    /// [`BootTime`]. Read on the copier's hot path.
    until: AtomicU64,
    was_held: AtomicBool,
    attempts: AtomicU64,
    refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connected: bool,
    holding: Holding,
    standing: Standing,
    /// Why the agent's word is not taken for good, if it is not.
    trouble: Option<String>,
    last_error: String,
}

/// What the agent's last word changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Responses are not diverted as they should be any more: why.
    Troubled(String),
    /// They are again.
    Mended,
}

impl Tracker {
    pub(super) fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// It holds. That is a word on what was asked for; on its host as it is now the agent says the
    /// next moment, when it is asked.
    pub(super) fn holding(&self, holding: Holding) {
        let mut state = self.state.lock();
        state.connected = true;
        state.holding = holding;
        state.last_error.clear();
    }

    /// What an operator should know now. Gives what was told before.
    pub(super) fn warned(&self, lines: Vec<String>) -> Vec<String> {
        let mut state = self.state.lock();
        std::mem::replace(&mut state.holding.warnings, lines)
    }

    /// What the agent says of its host. Agents of earlier versions say nothing.
    pub(super) fn standing(&self, standing: Standing) -> Change {
        let mut state = self.state.lock();
        let trouble = if !standing.trouble.is_empty() {
            Some(printable(&standing.trouble))
        } else if standing.looked_ms_ago > LOOKED {
            Some("it has not looked at its host for more than a second: it hangs".to_owned())
        } else {
            None
        };
        state.standing = standing;
        state.standing.boot_id = printable(&state.standing.boot_id);
        let before = std::mem::replace(&mut state.trouble, trouble.clone());
        match trouble {
            Some(trouble) => {
                self.until.store(0, Ordering::Relaxed);
                if before.as_ref() == Some(&trouble) {
                    Change::None
                } else {
                    Change::Troubled(trouble)
                }
            }
            None if before.is_some() => Change::Mended,
            None => Change::None,
        }
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
        self.down(reason);
    }

    /// The agent answered what it was asked at this time. The answer may have lain here unread since:
    /// that the stream is open is no proof. A copier that stood still for a while (a stopped process, a
    /// suspended machine) finds it open though the agent has long ended it, and its lease with it.
    pub(super) fn heard(&self, asked_at: BootTime) {
        let state = self.state.lock();
        if state.connected && state.trouble.is_none() {
            let took = BootTime::now().since(asked_at);
            // So that the next answer is here before this one is old, however long the way.
            let until = asked_at.after(FRESH + 2 * took.min(LONGEST_WAY));
            self.until.store(until.ms(), Ordering::Relaxed);
            self.was_held.store(true, Ordering::Relaxed);
        }
    }

    /// The stream is gone, or could not be opened. Whoever cut it off, nobody vouches any more for
    /// what is installed.
    pub(super) fn lost(&self, reason: &str) {
        if self.state.lock().connected {
            self.until.store(0, Ordering::Relaxed);
        }
        self.down(reason);
    }

    /// The agent has said that it ends, and that what is installed stays.
    pub(super) fn succeeded(&self, reason: &str) {
        let state = self.state.lock();
        if state.connected && state.trouble.is_none() {
            let half = Duration::from_millis(500) * state.holding.grace_seconds;
            let waits = SUCCESSION.min(half);
            // This word may have lain here unread since soon after the last good one; and who never gave one leaves
            // nothing in place.
            let last = BootTime::from_ms(self.until.load(Ordering::Relaxed));
            let until = last
                .after(waits)
                .ms()
                .min(BootTime::now().after(waits).ms());
            self.until.store(until, Ordering::Relaxed);
        }
        drop(state);
        self.down(reason);
    }

    fn down(&self, reason: &str) {
        let mut state = self.state.lock();
        state.connected = false;
        reason.clone_into(&mut state.last_error);
    }

    pub(super) fn has_held(&self) -> bool {
        self.was_held.load(Ordering::Relaxed)
    }

    pub(super) fn has_lapsed(&self, now: BootTime) -> bool {
        self.has_held() && !self.is_held(now)
    }

    pub(super) fn is_held(&self, now: BootTime) -> bool {
        now.ms() < self.until.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self, address: &HostPort) -> HoldStatus {
        let held = self.is_held(BootTime::now());
        let state = self.state.lock();
        let holding = &state.holding;
        HoldStatus {
            address: address.to_string(),
            held,
            connected: state.connected,
            agent_id: holding.agent_id.clone(),
            mode: match holding.mode() {
                DivertMode::Unspecified => "",
                DivertMode::Sink => "sink",
                DivertMode::Assistant => "assistant",
                DivertMode::Nfqueue => "nfqueue",
            },
            grace_seconds: holding.grace_seconds,
            verified: holding.verified,
            warnings: holding.warnings.clone(),
            trouble: state.trouble.clone().unwrap_or_default(),
            generation: state.standing.generation,
            boot_id: state.standing.boot_id.clone(),
            namespace: state.standing.namespace,
            attempts: self.attempts.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_error: state.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tracker: &Tracker) -> bool {
        tracker.is_held(BootTime::now())
    }

    fn holding(grace_seconds: u32) -> Holding {
        Holding {
            grace_seconds,
            ..Holding::default()
        }
    }

    fn hold(tracker: &Tracker, grace_seconds: u32) {
        tracker.holding(holding(grace_seconds));
        tracker.heard(BootTime::now());
    }

    fn good() -> Standing {
        Standing::default()
    }

    fn bad(trouble: &str) -> Standing {
        Standing {
            trouble: trouble.to_owned(),
            ..Standing::default()
        }
    }

    #[test]
    fn an_end_that_nobody_announced_ends_it_at_once() {
        let tracker = Tracker::default();
        assert!(!held(&tracker));
        tracker.lost("cannot connect");
        let now = BootTime::now();
        assert!(!held(&tracker) && !tracker.has_lapsed(now), "it never held");
        tracker.holding(holding(60));
        assert!(!held(&tracker), "nobody has looked yet");
        tracker.heard(now);
        assert!(held(&tracker));
        tracker.lost("gone");
        assert!(!held(&tracker) && tracker.has_lapsed(now));
    }

    #[test]
    fn an_agent_that_will_be_back_is_waited_for() {
        let tracker = Tracker::default();
        hold(&tracker, 60);
        tracker.succeeded("it ends");
        let ends = BootTime::now().after(SUCCESSION);
        // Attempts that fail neither end nor prolong it.
        tracker.lost("cannot connect");
        assert!(held(&tracker) && !tracker.is_held(ends));
        // It cannot be longer than what is installed stays.
        hold(&tracker, 2);
        tracker.succeeded("it ends");
        let soon = BootTime::now().after(Duration::from_millis(1001));
        assert!(held(&tracker) && !tracker.is_held(soon));
    }

    #[test]
    fn an_agent_that_ends_before_it_has_vouched_is_not_waited_for() {
        let tracker = Tracker::default();
        tracker.holding(holding(60));
        tracker.succeeded("it ends");
        assert!(!held(&tracker) && !tracker.has_held());
        // What was in flight when this process stopped is old news, too.
        let now = BootTime::now();
        tracker.holding(holding(60));
        tracker.heard(BootTime::from_ms(now.ms().saturating_sub(20_000)));
        tracker.succeeded("it ends");
        assert!(!held(&tracker) && tracker.has_held());
    }

    #[test]
    fn an_old_answer_is_worth_nothing() {
        let tracker = Tracker::default();
        hold(&tracker, 60);
        let later = BootTime::now().after(2 * FRESH);
        assert!(tracker.has_lapsed(later), "its stream seems to be open");
        // What was in flight when this process stopped is old news.
        let now = BootTime::now();
        tracker.heard(BootTime::from_ms(now.ms().saturating_sub(10_000)));
        assert!(!held(&tracker));
        tracker.heard(now);
        assert!(held(&tracker));
    }

    #[test]
    fn trouble_ends_it_until_the_agent_says_that_it_is_over() {
        let tracker = Tracker::default();
        hold(&tracker, 60);
        let now = BootTime::now();
        assert_eq!(tracker.standing(good()), Change::None);
        let troubled = Change::Troubled("a rule is in the way".to_owned());
        assert_eq!(tracker.standing(bad("a rule\nis in the way")), troubled);
        assert_eq!(tracker.standing(bad("a rule\nis in the way")), Change::None);
        tracker.heard(now);
        assert!(!held(&tracker));
        tracker.succeeded("it ends");
        assert!(
            !held(&tracker),
            "what does not stand cannot be left in place"
        );
        // Another stream, which begins with the same word.
        hold(&tracker, 60);
        assert!(!held(&tracker));
        assert_eq!(tracker.standing(good()), Change::Mended);
        tracker.heard(now);
        assert!(held(&tracker));
        tracker.standing(bad("another"));
        assert_eq!(tracker.standing(good()), Change::Mended);
        tracker.heard(now);
        assert!(held(&tracker));
    }

    #[test]
    fn an_agent_that_does_not_look_is_not_believed() {
        let tracker = Tracker::default();
        hold(&tracker, 60);
        let hangs = Standing {
            looked_ms_ago: 60_000,
            ..good()
        };
        assert!(matches!(tracker.standing(hangs), Change::Troubled(_)));
        assert!(!held(&tracker));
    }

    #[test]
    fn a_refusal_ends_it_at_once() {
        let tracker = Tracker::default();
        hold(&tracker, 60);
        tracker.refused("dangerous");
        assert!(!held(&tracker) && tracker.has_lapsed(BootTime::now()));
    }
}

//! What the live server seems to have said, and may not have: segments that its client would drop.
//!
//! - A segment behind a hole counts when the next one continues it, or when the client acknowledges it.
//! - An acknowledgement of what the client is not known to have sent counts when the next segment, another one, says
//!   so too, since a receiver never takes one back; when the client goes on behind it; or when nothing follows.

use millrace_wire::Seq;

use super::Engine;
use crate::key::SessionKey;
use crate::live_view::Said;
use crate::time::Time;

impl Engine {
    /// Takes note of what the live server said. What lies behind a hole counts when the next segment continues it, or
    /// when the client acknowledges it. Says whether it counts.
    pub(super) fn hear(&mut self, key: SessionKey, said: &Said) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let is_plain = !said.is_unasked() && !session.live.is_behind_hole(said);
        if is_plain && self.evidence.doubts(key).is_none() {
            session.live.hear(said);
            return true;
        }
        let doubts = self.evidence.doubts(key).copied().unwrap_or_default();
        let unasked = Some(*said).filter(Said::is_unasked);
        let said = &match (unasked, doubts.unasked) {
            (None, _) => *said,
            (Some(one), Some(other)) if !one.repeats(&other) => {
                one.counting(one.acked().min(other.acked()))
            }
            (Some(one), _) => one.counting(session.live.acked),
        };
        if !session.live.is_behind_hole(said) {
            session.live.hear(said);
            let live = session.live;
            self.evidence.doubt(key, |doubts| {
                doubts.unasked = unasked;
                // What the gap held has come.
                doubts.behind_hole = doubts.behind_hole.filter(|said| live.is_behind_hole(said));
                doubts.unsent = doubts.unsent.filter(|ack| !live.has_sent(*ack));
            });
            return true;
        }
        let before = doubts.behind_hole;
        let continued = before.filter(|before| before.is_continued_by(said));
        let live = &mut session.live;
        let counts = continued.is_some()
            || doubts
                .unsent
                .is_some_and(|ack| live.is_borne_out(said, ack));
        if counts {
            if let Some(before) = continued {
                live.hear(&before);
            }
            live.hear(said);
        }
        let behind_hole = Some(*said).filter(|_| !counts);
        self.evidence.doubt(key, |doubts| {
            doubts.behind_hole = behind_hole;
            if counts {
                doubts.unasked = unasked;
            }
        });
        counts
    }

    /// Nothing follows the live server's last segment: what it acknowledged was sent, captured or not.
    pub(super) fn settle_ack(&mut self, key: SessionKey) {
        let unasked = self.evidence.doubts(key).and_then(|doubts| doubts.unasked);
        if let (Some(said), Some(session)) = (unasked, self.sessions.get_mut(key)) {
            session.live.hear_ack(&said);
            self.evidence.doubt(key, |doubts| doubts.unasked = None);
        }
    }

    /// A client's segment begins at this offset: what lies before it was sent.
    pub(super) fn bear_out_ack(&mut self, now: Time, key: SessionKey, offset: u64) {
        let unasked = self.evidence.doubts(key).and_then(|doubts| doubts.unasked);
        if unasked.is_some_and(|said| offset >= said.acked()) {
            self.settle_ack(key);
            self.check_gap(now, key);
        }
    }

    /// A client acknowledges what the live server is not known to have sent: what that said behind a hole counts if
    /// this is it.
    pub(super) fn bear_out(&mut self, key: SessionKey, ack: Seq) {
        let said = self
            .evidence
            .doubts(key)
            .and_then(|doubts| doubts.behind_hole);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match said.filter(|said| session.live.is_borne_out(said, ack)) {
            Some(said) => {
                session.live.hear(&said);
                self.evidence.doubt(key, |doubts| {
                    doubts.behind_hole = None;
                    doubts.unasked = Some(said).filter(Said::is_unasked);
                });
            }
            None => self.evidence.doubt(key, |doubts| doubts.unsent = Some(ack)),
        }
    }
}

//! Says so when nothing is sent, or no session begins, because nobody vouches for it that responses are
//! kept from the real clients.

use std::time::{Duration, Instant};

use millrace_daemon::boottime::BootTime;

use crate::consent::Consent;
use crate::may_send::MaySend;

/// On a crowded host an agent's word may come a moment late. A pause as short is bridged by TCP, and
/// is no news.
const NEWS_AFTER: Duration = Duration::from_secs(1);

/// For how long after the agents' last good word what comes in is acknowledged: what is older may
/// have come before this process stood still, or by another way.
const ACKNOWLEDGED: Duration = Duration::from_millis(500);

/// Since when sending stands still, and what was said of that.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    since: Option<Instant>,
    said: Option<MaySend>,
    /// When all agents that have held last vouched for their hosts.
    held_at: BootTime,
    /// Whether something was acknowledged since.
    acknowledged: bool,
}

impl Standstill {
    /// Takes the present state in. `consent`: Consul's, as far as that is needed.
    pub(super) fn tell(&mut self, now: Instant, at: BootTime, may_send: MaySend, consent: Consent) {
        if may_send != MaySend::Nothing {
            self.held_at = at;
            self.acknowledged = false;
        }
        if may_send == MaySend::Everything {
            if self.said.take().is_some()
                && let Some(since) = self.since
            {
                let lasted = now.saturating_duration_since(since).as_secs();
                tracing::info!("sending goes on after {lasted} s");
            }
            self.since = None;
            return;
        }
        if consent != Consent::Given {
            // Without the cluster's consent nothing at all is sent.
            self.held_at = BootTime::default();
        }
        let since = *self.since.get_or_insert(now);
        // That nothing at all is sent is news where it was said that no session begins, and not the other way round.
        let news = match self.said {
            None => true,
            Some(said) => said == MaySend::NothingNew && may_send == MaySend::Nothing,
        };
        if !news || now < since + NEWS_AFTER {
            return;
        }
        self.said = Some(may_send);
        match may_send {
            MaySend::Everything => {}
            MaySend::NothingNew => tracing::warn!(
                "no session begins: not all router-agents keep the targets' responses from the \
                 real clients yet (/status names them)"
            ),
            MaySend::Nothing => tracing::warn!(
                "nothing is sent: {}",
                match consent {
                    Consent::Given =>
                        "not all router-agents and interceptors vouch any more that the targets' responses are \
                         kept from the real clients (/status names them)",
                    Consent::NoShare =>
                        "this copier's share of the sources may be another one's (/status says why)",
                    Consent::NoPlan => "the cluster's plan is not known (/status says why)",
                }
            ),
        }
    }

    /// Whether what comes in may be acknowledged though nothing is sent, and whether it is for the
    /// first time.
    pub(super) fn may_acknowledge(&mut self, at: BootTime) -> Option<bool> {
        let may = at.since(self.held_at) < ACKNOWLEDGED;
        may.then(|| !std::mem::replace(&mut self.acknowledged, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_is_acknowledged_for_a_moment_after_the_last_good_word() {
        let mut standstill = Standstill::default();
        let (now, at) = (Instant::now(), BootTime::from_ms(60_000));
        assert_eq!(standstill.may_acknowledge(at), None, "nobody ever vouched");
        standstill.tell(now, at, MaySend::Everything, Consent::Given);
        standstill.tell(now, at, MaySend::Nothing, Consent::Given);
        assert_eq!(standstill.may_acknowledge(at), Some(true));
        assert_eq!(standstill.may_acknowledge(at), Some(false));
        assert_eq!(standstill.may_acknowledge(at.after(ACKNOWLEDGED)), None);
        standstill.tell(now, at, MaySend::Everything, Consent::Given);
        assert_eq!(standstill.may_acknowledge(at), Some(true));
    }

    #[test]
    fn what_is_worse_is_said_after_what_is_not() {
        let mut standstill = Standstill::default();
        let (now, at) = (Instant::now(), BootTime::from_ms(60_000));
        let mut tell = |seconds, may_send| {
            standstill.tell(
                now + Duration::from_secs(seconds),
                at,
                may_send,
                Consent::Given,
            );
            standstill.said
        };
        assert_eq!(tell(0, MaySend::NothingNew), None);
        assert_eq!(tell(2, MaySend::NothingNew), Some(MaySend::NothingNew));
        assert_eq!(tell(3, MaySend::Nothing), Some(MaySend::Nothing));
        assert_eq!(
            tell(4, MaySend::NothingNew),
            Some(MaySend::Nothing),
            "no news"
        );
        assert_eq!(tell(5, MaySend::Everything), None);
    }
}

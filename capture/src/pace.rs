//! How soon a reader looks for packets again.

use std::time::{Duration, Instant};

/// Lets the calling thread sleep as long as it asks for: threads sleep 50 µs longer otherwise (`prctl(2)`,
/// `PR_SET_TIMERSLACK`). Where the kernel does not do it, rests are longer, and nothing else.
pub fn sleep_precisely() {
    let slack = std::num::NonZeroU64::new(1_000);
    if let Err(error) = rustix::thread::set_current_timer_slack(slack) {
        tracing::debug!("rests are longer than they need be: {error}");
    }
}

/// So many looks may follow each other at once, whatever the rate.
const AT_ONCE: u32 = 8;

/// Lets a reader gather packets that come one by one: waking threads for each would cost the host
/// more than the packet does. One that comes after a pause is not waited with.
///
/// The reader asks after each look that found something and before it sleeps on its sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    looked_at: Option<Instant>,
    /// What each look takes of the time that looks may take, if it may look at once as long as there is some.
    each: Option<Duration>,
    /// Until when that time is used up.
    used_until: Option<Instant>,
}

impl Pace {
    /// A reader that looks at once whenever something has come, up to so many times in a second on average. Only what
    /// comes more often is gathered.
    pub fn prompt(per_second: u32) -> Self {
        Self {
            each: Duration::from_secs(1).checked_div(per_second),
            ..Self::default()
        }
    }

    /// The reader has looked at its sources, and found something.
    pub fn looked(&mut self, now: Instant) {
        self.looked_at = Some(now);
        if let Some(each) = self.each {
            let used = self.used_until.map_or(now, |until| until.max(now));
            // What was used long ago is no debt: after a load there is time at once.
            self.used_until = Some((used + each).min(now + each * (2 * AT_ONCE)));
        }
    }

    /// How long the reader is to rest before it looks again, so that a look is no sooner than `window`
    /// after the one before; `None` if it need not.
    pub fn rest(&self, now: Instant, window: Duration) -> Option<Duration> {
        if let (Some(each), Some(until)) = (self.each, self.used_until)
            && until <= now + each * AT_ONCE
        {
            return None;
        }
        let since = now.saturating_duration_since(self.looked_at?);
        window.checked_sub(since).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_a_look_soon_is_gathered() {
        let (start, window) = (Instant::now(), Duration::from_millis(1));
        let mut pace = Pace::default();
        assert_eq!(pace.rest(start, window), None);
        pace.looked(start);
        let later = start + Duration::from_micros(300);
        assert_eq!(pace.rest(later, window), Some(Duration::from_micros(700)));
        assert_eq!(pace.rest(start + window, window), None);
        assert_eq!(pace.rest(later, Duration::ZERO), None);
    }

    /// How many looks there are in a second if something comes every `every`.
    fn looks(mut pace: Pace, every: Duration) -> u32 {
        let start = Instant::now();
        let (window, end) = (Duration::from_micros(250), start + Duration::from_secs(1));
        let (mut now, mut count) = (start, 0);
        while now < end {
            pace.looked(now);
            count += 1;
            now += pace.rest(now, window).unwrap_or_default().max(every);
        }
        count
    }

    #[test]
    fn a_prompt_reader_gathers_only_what_comes_more_often_than_it_may_look() {
        let micros = Duration::from_micros;
        assert_eq!(looks(Pace::prompt(10_000), micros(125)), 8_000);
        assert_eq!(looks(Pace::prompt(10_000), micros(1000)), 1_000);
        let often = looks(Pace::prompt(10_000), micros(2));
        assert!((9_500..=10_100).contains(&often), "{often}");
        assert_eq!(looks(Pace::default(), micros(2)), 4_000);
    }

    #[test]
    fn a_load_is_forgotten_when_it_is_over() {
        let (mut pace, mut now) = (Pace::prompt(10_000), Instant::now());
        for _ in 0..1_000_000 {
            pace.looked(now);
            now += Duration::from_micros(20);
        }
        now += Duration::from_millis(2);
        pace.looked(now);
        assert_eq!(pace.rest(now, Duration::from_micros(250)), None);
    }
}

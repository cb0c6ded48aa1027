//! Whether the targets' answers are seen at all: an outage of the way back looks like one of the
//! target, and must not be held against it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Interceptors are pinged every two seconds: one that has said nothing for this long hangs, or is
/// cut off, though its link may still count as up.
const SILENCE: Duration = Duration::from_secs(3);

/// A link; `Id` tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSight<Id> {
    /// Which.
    pub id: Id,
    /// How often it has come up, if it is up.
    pub epoch: Option<u64>,
    /// Messages that came over it.
    pub messages: u64,
}

/// What guards can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Everything, as far as known.
    Clear {
        /// Every interceptor was heard at this time or later, since the start of the run.
        heard_at: Duration,
    },
    /// Answers may have gone unseen.
    Blind(Blindness),
}

/// Why answers may have gone unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blindness {
    /// Answers cannot come back.
    Closed,
    /// A link to an interceptor is down, or went down or up or was silent within the window.
    Changed,
}

impl Blindness {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => {
                "answers of the target cannot come back (/status names what is missing)"
            }
            Self::Changed => {
                "an interceptor is lost, or was lost, found or silent within the last window, so \
                 that answers may go unseen"
            }
        }
    }
}

/// Watches the links.
#[derive(Debug)]
pub struct Sight<Id> {
    /// After a change, guards are blind for this long.
    window: Duration,
    links: HashMap<Id, Heard<Id>>,
    changed_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Heard<Id> {
    link: LinkSight<Id>,
    /// When the last message came.
    at: Duration,
}

impl<Id: Copy + Eq + Hash> Sight<Id> {
    /// Before anything is known of the links.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            links: HashMap::new(),
            changed_at: None,
        }
    }

    /// Looks at the links at `now`, since the start of the run. One that was up and is not blinds until
    /// it is back, or not named any more; one that never was does not. `open`: answers can come
    /// back; `begun`: something was sent whose answers may be missed.
    pub fn look(
        &mut self,
        now: Duration,
        open: bool,
        begun: bool,
        links: impl Iterator<Item = LinkSight<Id>>,
    ) -> View {
        let before = std::mem::take(&mut self.links);
        let mut kept = 0;
        let mut changed = false;
        let mut heard_at = now;
        for link in links {
            let before = before.get(&link.id);
            if link.epoch.is_none() {
                if let Some(lost) = before {
                    kept += 1;
                    changed = true;
                    self.links.insert(link.id, *lost);
                }
                continue;
            }
            let known = before.filter(|known| known.link.epoch == link.epoch);
            kept += usize::from(known.is_some());
            changed |= known.is_none();
            let silent_since = known.filter(|known| known.link.messages == link.messages);
            let at = silent_since.map_or(now, |known| known.at);
            changed |= now.saturating_sub(at) > SILENCE;
            heard_at = heard_at.min(at);
            self.links.insert(link.id, Heard { link, at });
        }
        changed |= kept < before.len();
        if begun && (changed || !open) {
            self.changed_at = Some(now);
        }
        let recent = |at: Duration| now.saturating_sub(at) < self.window;
        match (open, self.changed_at) {
            (false, _) => View::Blind(Blindness::Closed),
            (true, Some(at)) if recent(at) => View::Blind(Blindness::Changed),
            (true, Some(_) | None) => View::Clear { heard_at },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn link(number: u32, epoch: u64, messages: u64) -> LinkSight<u32> {
        LinkSight {
            id: number,
            epoch: Some(epoch),
            messages,
        }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn links_that_are_heard_now_and_then_give_a_clear_view() {
        let mut sight = Sight::new(WINDOW);
        let closed = View::Blind(Blindness::Closed);
        assert_eq!(sight.look(millis(0), false, false, [].into_iter()), closed);
        for tick in 1..300u64 {
            // A pong every two seconds.
            let links = [link(1, 1, tick / 20), link(2, 1, tick / 20)];
            let view = sight.look(millis(tick * 100), true, tick > 5, links.into_iter());
            let heard_at = millis((tick / 20 * 2000).max(100));
            assert_eq!(view, View::Clear { heard_at }, "{tick}");
        }
    }

    #[test]
    fn without_links_everything_is_seen_where_it_is_caught() {
        let mut sight = Sight::<u32>::new(WINDOW);
        let heard_at = millis(700);
        let view = sight.look(heard_at, true, true, [].into_iter());
        assert_eq!(view, View::Clear { heard_at });
    }

    #[test]
    fn a_link_that_is_lost_found_or_silent_blinds_for_a_window() {
        let changed = View::Blind(Blindness::Changed);
        let others: [&[LinkSight<u32>]; 3] =
            [&[link(1, 1, 9)], &[link(1, 1, 9), link(2, 2, 1)], &[]];
        for after in others {
            let mut sight = Sight::new(WINDOW);
            let both = [link(1, 1, 8), link(2, 1, 8)];
            let view = sight.look(millis(100), true, false, both.into_iter());
            assert!(
                matches!(view, View::Clear { .. }),
                "nothing was sent before"
            );
            let mut look =
                |at| sight.look(millis(at), !after.is_empty(), true, after.iter().copied());
            let blind = look(200);
            assert!(matches!(blind, View::Blind(_)));
            if !after.is_empty() {
                assert_eq!(look(2000), changed);
            }
        }
        let mut sight = Sight::new(WINDOW);
        let mut look = |at, messages| {
            let links = [link(1, 1, at), link(2, 1, messages)];
            sight.look(millis(at), true, true, links.into_iter())
        };
        look(100, 1);
        // What was there before the first packet.
        assert!(matches!(look(10_200, 2), View::Clear { .. }));
        let heard_at = millis(10_200);
        assert_eq!(look(13_100, 2), View::Clear { heard_at });
        assert_eq!(look(13_300, 2), changed, "the second hangs");
        assert_eq!(look(14_000, 3), changed);
        assert_eq!(look(16_000, 4), changed);
        assert_eq!(look(18_900, 5), changed);
        assert_eq!(look(21_700, 6), changed);
        let heard_at = millis(23_400);
        assert_eq!(look(23_400, 7), View::Clear { heard_at });
    }

    #[test]
    fn a_link_that_is_lost_for_good_blinds_until_it_is_back_or_none_any_more() {
        let down = LinkSight {
            epoch: None,
            ..link(2, 1, 0)
        };
        let mut sight = Sight::new(WINDOW);
        let clear = |view| matches!(view, View::Clear { .. });
        let mut look = |at, second: Option<LinkSight<u32>>| {
            let links = [Some(link(1, 1, at)), second];
            clear(sight.look(millis(at), true, at > 200, links.into_iter().flatten()))
        };
        assert!(look(100, Some(down)), "it was never up");
        assert!(look(200, Some(link(2, 1, 1))));
        for at in (1..60).map(|seconds| 1000 * seconds) {
            assert!(!look(at, Some(down)), "{at}");
        }
        for at in (60..80).map(|seconds| 1000 * seconds) {
            assert_eq!(look(at, Some(link(2, 2, at))), at >= 70_000, "{at}");
        }
        assert!(!look(80_000, Some(down)));
        assert!(!look(81_000, None));
        for at in (82..90).map(|seconds| 1000 * seconds) {
            look(at, None);
        }
        assert!(look(91_000, None));
    }

    #[test]
    fn a_way_that_was_closed_blinds_for_a_window_when_it_is_open_again() {
        let mut sight = Sight::new(WINDOW);
        let mut look = |at, open| {
            let links = [link(1, 1, at)];
            sight.look(millis(at), open, true, links.into_iter())
        };
        look(0, true);
        for (at, open, blind) in [
            (2_000, true, Some(Blindness::Changed)),
            (4_000, true, Some(Blindness::Changed)),
            (6_000, true, Some(Blindness::Changed)),
            (8_000, true, Some(Blindness::Changed)),
            (10_000, true, None),
            (12_000, false, Some(Blindness::Closed)),
            (14_000, true, Some(Blindness::Changed)),
            (16_000, true, Some(Blindness::Changed)),
            (18_000, true, Some(Blindness::Changed)),
            (20_000, true, Some(Blindness::Changed)),
            (22_000, true, None),
        ] {
            let view = look(at, open);
            let expected = blind.map_or(
                View::Clear {
                    heard_at: millis(at),
                },
                View::Blind,
            );
            assert_eq!(view, expected, "{at}");
        }
    }
}

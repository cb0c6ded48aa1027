//! What operators should know of what is held, looked at anew while it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_daemon::quiet::{Quiet, times_before};

use crate::leases::{Lease, Leases};

/// How often all is looked at anew.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long it is said what happened when a need was met: connections that get no answers are given up by then
/// (`net.ipv4.tcp_retries2`: 924 s).
const ONCE: Duration = Duration::from_secs(15 * 60);

/// The warnings: of this host, and of what each holder needs.
#[derive(Debug)]
pub struct Warnings {
    host: Vec<String>,
    by_holder: BTreeMap<String, OfHolder>,
    review_at: Instant,
    said: Quiet<String>,
}

#[derive(Debug, Default)]
struct OfHolder {
    /// What happened when its need was met.
    once: Option<(String, Instant)>,
    /// What holds until somebody puts it right.
    lasting: Vec<String>,
}

impl OfHolder {
    fn lines(&self) -> impl Iterator<Item = &String> {
        let once = self.once.iter().map(|(line, _)| line);
        self.lasting.iter().chain(once)
    }
}

impl Warnings {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            host: Vec::new(),
            by_holder: BTreeMap::new(),
            review_at: now,
            said: Quiet::default(),
        }
    }

    /// A holder's need is met: what holds of it until somebody puts it right, and what happened just now.
    pub fn begin(
        &mut self,
        now: Instant,
        holder: &str,
        lasting: Vec<String>,
        once: Option<String>,
    ) {
        self.log(now, lasting.iter().chain(&once));
        let once = once.map(|line| (line, now + ONCE));
        let of_it = OfHolder { once, lasting };
        self.by_holder.insert(holder.to_owned(), of_it);
    }

    /// What is said of this host, whatever is asked for. It is logged where it begins.
    pub fn of_the_host(&mut self, lines: impl IntoIterator<Item = String>) {
        self.host = lines.into_iter().collect();
    }

    /// Whether all is to be looked at anew.
    pub fn is_due(&self, now: Instant) -> bool {
        self.review_at <= now
    }

    /// Looks at all leases anew.
    ///
    /// # Errors
    /// Those of `look`: then the rest stays as it was.
    pub fn review<E>(
        &mut self,
        now: Instant,
        leases: &Leases,
        mut look: impl FnMut(&Lease) -> Result<Vec<String>, E>,
    ) -> Result<(), E> {
        self.review_at = now + INTERVAL;
        // Many holders may need the same.
        let mut known: Vec<(&Lease, Vec<String>)> = Vec::new();
        for (holder, lease) in leases.iter() {
            let same = |it: &&(&Lease, _)| it.0.need == lease.need;
            let lasting = match known.iter().find(same) {
                Some((_, lines)) => lines.clone(),
                None => {
                    let lines = look(lease)?;
                    known.push((lease, lines.clone()));
                    lines
                }
            };
            self.log(now, &lasting);
            self.by_holder.entry(holder.clone()).or_default().lasting = lasting;
        }
        Ok(())
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Instant, leases: &Leases) {
        self.by_holder
            .retain(|holder, _| leases.get(holder).is_some());
        for one in self.by_holder.values_mut() {
            one.once.take_if(|(_, until)| *until <= now);
        }
    }

    /// Logs what nobody was told yet.
    fn log<'a>(&self, now: Instant, lines: impl IntoIterator<Item = &'a String>) {
        let known: BTreeSet<String> = self.all().into_iter().collect();
        for line in lines.into_iter().filter(|it| !known.contains(*it)) {
            if let Some(more) = self.said.say(line.clone(), now) {
                tracing::warn!("{line}{}", times_before(more));
            }
        }
    }

    /// Those that a holder is told, one line each.
    pub fn of(&self, holder: &str) -> Vec<String> {
        let one = self.by_holder.get(holder);
        let lines = one.into_iter().flat_map(OfHolder::lines);
        lines.chain(&self.host).cloned().collect()
    }

    /// Those that each holder is told.
    pub fn each(&self) -> BTreeMap<String, Vec<String>> {
        let holders = self.by_holder.keys();
        holders
            .map(|holder| (holder.clone(), self.of(holder)))
            .collect()
    }

    /// All, each once.
    pub fn all(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let lines = self.by_holder.values().flat_map(OfHolder::lines);
        let lines = lines.chain(&self.host);
        lines.filter(|line| seen.insert(*line)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need::{Need, Selectors};

    const SECOND: Duration = Duration::from_secs(1);

    fn need(port: u16) -> Need {
        Need {
            services: vec![([198, 18, 2, 20], port).into()],
            ..Need::default()
        }
    }

    fn lines(of: &[&str]) -> Vec<String> {
        of.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn what_was_put_right_is_said_no_more_and_what_happened_for_a_while() {
        let now = Instant::now();
        let (mut warnings, mut leases) = (Warnings::new(now), Leases::default());
        for (holder, port) in [("a", 80), ("b", 80), ("c", 81)] {
            leases.hold(holder, 1, need(port), Selectors::new());
        }
        warnings.begin(now, "a", lines(&["strict"]), Some("2 cut".to_owned()));
        warnings.begin(now, "b", lines(&["strict"]), None);
        warnings.begin(now, "c", lines(&["strict", "elsewhere"]), None);
        warnings.of_the_host(lines(&["no floor"]));
        assert_eq!(warnings.of("a"), ["strict", "2 cut", "no floor"]);
        assert_eq!(warnings.of("b"), ["strict", "no floor"]);
        assert_eq!(warnings.all(), ["strict", "2 cut", "elsewhere", "no floor"]);
        // The same need is looked at once.
        let mut looked = Vec::new();
        let later = now + SECOND;
        warnings
            .review(later, &leases, |lease| {
                looked.push(lease.need.clone());
                Ok::<_, ()>(lines(&["elsewhere"][..looked.len() - 1]))
            })
            .unwrap();
        assert_eq!(looked, [need(80), need(81)]);
        assert!(!warnings.is_due(later) && warnings.is_due(later + INTERVAL));
        assert_eq!(warnings.of("a"), ["2 cut", "no floor"]);
        assert_eq!(warnings.of("c"), ["elsewhere", "no floor"]);
        // Another hold of the same begins anew, and time passes.
        warnings.begin(later, "a", Vec::new(), None);
        warnings.begin(later, "b", Vec::new(), Some("1 cut".to_owned()));
        assert_eq!(warnings.of("a"), ["no floor"]);
        warnings.expire(later + ONCE - SECOND, &leases);
        assert_eq!(warnings.of("b"), ["1 cut", "no floor"]);
        warnings.expire(later + ONCE, &leases);
        warnings.of_the_host([]);
        assert_eq!(warnings.all(), ["elsewhere"]);
    }

    #[test]
    fn who_holds_nothing_is_told_nothing_and_a_look_that_fails_changes_nothing() {
        let now = Instant::now();
        let (mut warnings, mut leases) = (Warnings::new(now), Leases::default());
        leases.hold("a", 1, need(80), Selectors::new());
        warnings.begin(now, "a", lines(&["strict"]), None);
        warnings.begin(now, "gone", lines(&["elsewhere"]), None);
        warnings.expire(now, &leases);
        assert_eq!(warnings.each().keys().collect::<Vec<_>>(), ["a"]);
        warnings.review(now, &leases, |_| Err(())).unwrap_err();
        assert_eq!(warnings.all(), ["strict"]);
    }
}

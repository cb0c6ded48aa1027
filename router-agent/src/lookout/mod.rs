//! Looks, as long as something is diverted, whether it still is: after every change of which the kernel
//! tells, by a timer, and when the floor had to stop something. Puts right what can be put right, and
//! says what cannot.

mod floor_watch;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::install::{Installer, Verified};
use crate::kernel::model::Stopped;
use crate::need::Selectors;
use floor_watch::FloorWatch;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);
/// ... and how soon again at most, when the kernel tells of changes.
const NEWS_INTERVAL: Duration = Duration::from_millis(50);
/// ... and where looks go wrong one after the other.
const LONGEST_NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// How soon after a look that went wrong it is looked again, news or not.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said that copies are answered by errors.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// Looks after what is diverted. Time comes from outside.
#[derive(Debug)]
pub struct Lookout {
    look_at: Instant,
    looked_at: Instant,
    /// How soon after a look news are a reason for the next one.
    news_interval: Duration,
    floor: FloorWatch,
    errors_said_at: Option<Instant>,
    /// Whether anything is diverted.
    active: bool,
    /// Addresses of this host from which something is diverted.
    own: BTreeSet<IpAddr>,
    unsound: Option<String>,
}

impl Lookout {
    /// Begins. What the floor has stopped before is history.
    pub fn new(now: Instant, installer: &mut Installer) -> Self {
        let mut floor = FloorWatch::default();
        if let Some(stopped) = installer.stopped() {
            floor.begin_at(stopped);
        }
        Self {
            look_at: now + INTERVAL,
            looked_at: now,
            news_interval: NEWS_INTERVAL,
            floor,
            errors_said_at: None,
            active: false,
            own: BTreeSet::new(),
            unsound: None,
        }
    }

    /// Why answers do not go where they should, if they do not.
    pub fn unsound(&self) -> Option<&str> {
        self.unsound.as_deref()
    }

    /// From how many addresses of this host something is diverted.
    pub fn own_addresses(&self) -> usize {
        self.own.len()
    }

    /// What the floor has stopped since the start.
    pub fn stopped(&self) -> Stopped {
        self.floor.total()
    }

    /// What is diverted was changed: it is looked at now. What the floor stopped meanwhile is the work of
    /// the change itself.
    pub fn changed(&mut self, now: Instant, installer: &mut Installer) {
        if let Some(stopped) = installer.stopped() {
            self.floor.take(now, stopped, true);
        }
        self.look_at = now;
    }

    /// Whether it is to be looked now: by the timer, since somebody changed what diverting depends on, or
    /// since the floor had to stop something.
    pub fn is_due(&mut self, now: Instant, installer: &mut Installer) -> bool {
        let mut news = installer.has_news();
        if self.active && self.floor.is_due(now) {
            let stopped = installer.stopped();
            news |= stopped.is_some_and(|stopped| self.floor.is_news(stopped));
        }
        if news {
            self.look_at = self.look_at.min(self.looked_at + self.news_interval);
        }
        self.look_at <= now
    }

    /// Looks whether `all` is diverted, if it is time. What was put right, if something was.
    pub fn look(
        &mut self,
        now: Instant,
        installer: &mut Installer,
        all: &Selectors,
    ) -> Option<Verified> {
        if self.look_at > now {
            return None;
        }
        self.look_at = now + INTERVAL;
        self.looked_at = now;
        self.active = !all.is_empty();
        if !self.active {
            self.own.clear();
            self.unsound = None;
            return None;
        }
        let looked = installer.put_right(all);
        let stopped = installer.stopped();
        let (verified, unsound) = match looked {
            Ok(verified) => {
                self.news_interval = NEWS_INTERVAL;
                let explained = verified.steps > 0 && self.unsound.is_none();
                if self.take(now, stopped, explained).errors > 0 {
                    self.say_errors(now);
                }
                let gone = self.gone(installer, all);
                let unsound = gone.or_else(|| self.past_the_rules(now));
                (Some(verified).filter(|it| it.steps > 0), unsound)
            }
            Err(error) => {
                self.take(now, stopped, true);
                // What was tried in vain is news, too, and no reason to try again at once.
                self.news_interval = (2 * self.news_interval).min(LONGEST_NEWS_INTERVAL);
                self.look_at = now + RETRY_INTERVAL;
                (None, Some(error.to_string()))
            }
        };
        if let Some(verified) = &verified {
            tracing::warn!(
                "what diverts responses was not as it was left, and was put right in {} steps: \
                 something else on this host changes routes, rules, devices or the firewall",
                verified.steps
            );
        }
        self.note(unsound);
        verified
    }

    fn take(&mut self, now: Instant, stopped: Option<Stopped>, explained: bool) -> Stopped {
        let new = stopped.map(|stopped| self.floor.take(now, stopped, explained));
        new.unwrap_or_default()
    }

    /// Says what is wrong, or that it is not any more.
    fn note(&mut self, unsound: Option<String>) {
        if unsound == self.unsound {
            return;
        }
        match &unsound {
            Some(text) => tracing::error!(
                "responses are not diverted as they should be, so copiers send nothing: {text}; looked \
                 at again until it is put right"
            ),
            None => tracing::info!("responses are diverted again, as look-ups confirm"),
        }
        self.unsound = unsound;
    }

    /// Whether an address has left this host from which something was diverted: who has it now
    /// answers without us.
    fn gone(&mut self, installer: &mut Installer, all: &Selectors) -> Option<String> {
        let services = all.iter().filter_map(|selector| selector.service);
        let wanted: BTreeSet<IpAddr> = services.map(|service| service.ip()).collect();
        let here = match installer.own(&wanted) {
            Ok(here) => here,
            Err(error) => return Some(error.to_string()),
        };
        self.own.retain(|ip| wanted.contains(ip));
        let gone = self.own.difference(&here).next().copied();
        self.own.extend(here);
        gone.map(|ip| {
            format!(
                "{ip} is not an address of this host any more: another host may answer for it, to real \
                 clients (ip address; give it back, or take this host from the copiers' \
                 --router-agent)"
            )
        })
    }

    fn past_the_rules(&self, now: Instant) -> Option<String> {
        self.floor.is_trouble(now).then(|| {
            "the firewall's floor had to stop responses on their way to clients, past the diverting \
             rules: something on this host marks packets or routes them a second time (iptables -t \
             mangle -S; nft list ruleset; ip rule)"
                .to_owned()
        })
    }

    fn say_errors(&mut self, now: Instant) {
        let said_at = self.errors_said_at;
        if said_at.is_none_or(|at| at + SAY_INTERVAL <= now) {
            self.errors_said_at = Some(now);
            tracing::warn!(
                "this host answers copied packets by ICMP errors, which were kept from the clients: a \
                 firewall rule rejects the copies (iptables -S INPUT; nft list ruleset), so that they \
                 are not served"
            );
        }
    }
}

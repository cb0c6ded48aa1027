//! The shard: one thread that owns the engine and the sender. Packets reach it through the intake.
//!
//! It never waits for anything but packets, headers and its own timers. What it hands to others
//! goes into bounded queues; what it shows to others is a report that it replaces now and then.
//!
//! - `input` and `output`: what it takes in, and what it puts out.
//! - `losses`: says so when capture loses frames.
//! - `packets`: packets as the engine has them, and as the sender and the interceptors do.
//! - `standstill`: says so when nothing is sent because a router-agent or interceptor does not vouch for
//!   its host.
//! - `steer`: what the pilot sees, and what it decides.

mod input;
mod losses;
mod output;
mod packets;
mod standstill;
mod steer;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_capture::{Pace, Sender, Waker, sleep_precisely, wait};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::quiet::Quiet;
use millrace_daemon::readiness::Readiness;
use millrace_daemon::service_manager::Heart;
use millrace_engine::{Engine, Time};
use millrace_recordings::feed::{Feed, Step};
use millrace_wire::{NotTcp, PacketBuilder};

use self::losses::Losses;
use self::standstill::Standstill;
use crate::agents::Agents;
use crate::clock::Clock;
use crate::cluster::leases::{Consent, Leases};
use crate::control::Commands;
use crate::diversion::Diversion;
use crate::inbox::{Inbox, Input};
use crate::intake::{Batch, Intake};
use crate::local::Answers;
use crate::moderation::Moderation;
use crate::pressure::Governor;
use crate::probe::Prober;
use crate::report::{Report, Shared, Sources};
use crate::routes::{Routes, moment};
use millrace_pilot::{Pilot, PilotConfig, Sight};
use millrace_routes::copier::{InterceptorId, LinkId};

/// Longest sleep, so that signals and devices that come back are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Sleep while a link's queue is full or a ring is to be opened again.
const RETRY_SLEEP: Duration = Duration::from_millis(5);
/// Batches of packets and messages that come one by one are taken in at once, up to so many times in a second. More are
/// gathered for so long.
const LOOKS_A_SECOND: u32 = 12_500;
const GATHER: Duration = Duration::from_micros(100);
/// Before it drains, the shard takes in what was captured: until it has found nothing so many times,
/// this far apart, and for no longer than this.
const QUIET_LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LONGEST_CATCH_UP: Duration = Duration::from_secs(2);
/// How often the report is replaced.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Packets sent before what was captured is looked at again.
const PACKETS_IN_A_ROW: usize = 64;

/// The shard.
pub struct Shard {
    clock: Clock,
    engine: Engine,
    intake: Option<Intake>,
    batch: Batch,
    /// How long the last batch of captured packets had waited.
    lag: Duration,
    governor: Governor,
    feed: Option<Feed>,
    answers: Option<Answers>,
    /// When the feed's next packet is due.
    feed_at: Time,
    builder: PacketBuilder,
    sender: Sender,
    routes: Routes,
    /// Whether responses are kept from the real clients.
    diversion: Diversion,
    unreadable: Quiet<InterceptorId>,
    prober: Prober,
    pilot: Pilot,
    sight: Sight<LinkId>,
    commands: Commands,
    agents: Agents,
    leases: Leases,
    inbox: Arc<Inbox>,
    inputs: VecDeque<Input>,
    moderation: Moderation,
    looks: Pace,
    pace: Pace,
    waker: Waker,
    drain: DrainWatch,
    grace: Duration,
    shared: Shared,
    report_at: Instant,
    losses: Losses,
    standstill: Standstill,
    steer_at: Instant,
    too_long_said: bool,
    heart: Heart,
}

/// The parts of a shard, open and ready.
pub struct Parts {
    /// The engine.
    pub engine: Engine,
    /// What is captured on the devices that carry the live services.
    pub intake: Option<Intake>,
    /// Keeps order under pressure.
    pub governor: Governor,
    /// A recording in place of what rings capture.
    pub feed: Option<Feed>,
    /// Answers that this host catches itself.
    pub answers: Option<Answers>,
    /// The sender.
    pub sender: Sender,
    /// Whether targets are held back until a probe has come back.
    pub probe: bool,
    /// How much is copied, and when.
    pub pilot: PilotConfig,
    /// What operators ask for.
    pub commands: Commands,
    /// Who keeps responses from the real clients.
    pub agents: Agents,
    /// What it needs of Consul to send.
    pub leases: Leases,
    /// What the links hand over.
    pub inbox: Arc<Inbox>,
    /// Wakes the shard.
    pub waker: Waker,
    /// How often it looks for messages.
    pub moderation: Moderation,
    /// Tells it to end.
    pub drain: DrainWatch,
    /// Time for open sessions to finish.
    pub grace: Duration,
    /// Where it shows its report.
    pub shared: Shared,
    /// Where it says which targets can be copied to.
    pub readiness: Readiness,
    /// Shows that it lives.
    pub heart: Heart,
}

impl Shard {
    /// A shard that will begin with [`Shard::run`].
    pub fn new(mut parts: Parts) -> Self {
        let now = Instant::now();
        let clock = Clock::start();
        let prober = Prober::new(
            clock.now(),
            &mut parts.engine,
            parts.probe,
            &parts.readiness,
        );
        let window = parts.pilot.window;
        let pilot = Pilot::new(parts.pilot);
        // A ramp may begin with less than what the engine was told.
        parts.engine.set_intensity(pilot.intensity());
        Self {
            clock,
            engine: parts.engine,
            intake: parts.intake,
            batch: Batch::default(),
            lag: Duration::ZERO,
            governor: parts.governor,
            feed: parts.feed,
            answers: parts.answers,
            feed_at: Time::NEVER,
            builder: PacketBuilder::new(),
            sender: parts.sender,
            routes: Routes::default(),
            diversion: Diversion::default(),
            unreadable: Quiet::default(),
            prober,
            sight: Sight::new(window),
            pilot,
            commands: parts.commands,
            agents: parts.agents,
            leases: parts.leases,
            inbox: parts.inbox,
            inputs: VecDeque::new(),
            moderation: parts.moderation,
            looks: Pace::default(),
            pace: Pace::prompt(LOOKS_A_SECOND),
            waker: parts.waker,
            drain: parts.drain,
            grace: parts.grace,
            shared: parts.shared,
            report_at: now,
            losses: Losses::default(),
            standstill: Standstill::default(),
            steer_at: now,
            too_long_said: false,
            heart: parts.heart,
        }
    }

    /// Works until it is told to end; gives the final report.
    pub fn run(mut self) -> Report {
        sleep_precisely();
        let mut end_by = None;
        loop {
            match self.drain.stage() {
                Stage::Running => {}
                Stage::Draining => {
                    if end_by.is_none() {
                        self.catch_up();
                    }
                    let deadline = *end_by.get_or_insert_with(|| {
                        self.engine.drain();
                        if let Some(feed) = &mut self.feed {
                            feed.interrupt(self.clock.now(), &mut self.engine);
                        }
                        tracing::info!("draining: no new sessions, open ones finish");
                        Instant::now() + self.grace
                    });
                    if Instant::now() >= deadline || self.engine.gauges().replicas == 0 {
                        break;
                    }
                }
                Stage::Exit => break,
            }
            let captured = self.capture();
            self.take_inputs();
            let now = self.clock.now();
            let answered = self.take_answers(now);
            // Without answers, or sources of its own, nothing can be finished.
            if self.answers.as_ref().is_some_and(Answers::is_lost) || self.leases.share.is_lost() {
                break;
            }
            let fed = self.feed(now);
            self.engine.timeout(now);
            let guarded = self.agents.keep_all_clients();
            self.prober
                .advance(now, &mut self.engine, &mut self.routes, guarded);
            self.ask_agents(now);
            let unsent = self.put_out(now);
            self.flush();
            self.steer();
            self.publish(false);
            if self.is_finished(now) {
                break;
            }
            if !captured && !answered && !fed && !unsent {
                self.sleep();
            }
        }
        self.end()
    }

    /// Takes in what is due of a recording. Says whether there is more.
    fn feed(&mut self, now: Time) -> bool {
        let Some(feed) = &mut self.feed else {
            return false;
        };
        let mode = self.pilot.mode();
        let step = feed.step(now, &mut self.engine, mode);
        feed.show(&self.engine);
        self.feed_at = match step {
            Step::At(time) => time,
            Step::More | Step::Reading | Step::Waiting | Step::Over => Time::NEVER,
        };
        step == Step::More
    }

    /// Whether a recording is replayed to its end.
    fn is_finished(&mut self, now: Time) -> bool {
        self.feed
            .as_mut()
            .is_some_and(|feed| feed.is_finished(now, &self.engine))
    }

    /// Unless responses are kept from the real clients, nothing begins; once they are not any more,
    /// nothing is sent.
    fn ask_agents(&mut self, now: Time) {
        self.obey_plan_first();
        // Before it is asked whether anything may be sent: what is vouched for is not vouched for later.
        let (time, at) = (Instant::now(), BootTime::now());
        let consent = self.leases.consent();
        let diversion = if self.routes.is_unsafe() {
            Diversion::Lapsed
        } else {
            self.leave_to_send()
        };
        self.engine.listen(now, self.routes.are_all_up());
        if std::mem::replace(&mut self.diversion, diversion) != diversion {
            self.routes.set_diverted(diversion == Diversion::Held);
            self.engine.set_open(now, self.routes.is_open());
        }
        self.standstill.tell(time, at, diversion, consent);
    }

    /// Whether agents and Consul let this copier send at this moment.
    fn leave_to_send(&self) -> Diversion {
        match self.leases.consent() {
            Consent::Given => self.agents.diversion(),
            Consent::NoShare | Consent::NoPlan => Diversion::Lapsed,
        }
    }

    /// What the plan says now is obeyed before anything is sent by it.
    fn obey_plan_first(&mut self) {
        if !self.leases.plan.is_noted() {
            self.steer_at = Instant::now();
            self.steer();
        }
    }

    /// Takes in what was captured until now: connections that began before the copier was told to end
    /// are not new ones.
    fn catch_up(&mut self) {
        if self.intake.is_none() {
            return;
        }
        let deadline = Instant::now() + LONGEST_CATCH_UP;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && Instant::now() < deadline {
            if self.capture() {
                quiet = 0;
            } else {
                quiet += 1;
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    fn sleep(&mut self) {
        let now = self.clock.now();
        let timer = self
            .engine
            .poll_timeout()
            .map_or(LONGEST_SLEEP, |time| time.since(now))
            .min(self.feed_at.since(now));
        let due = self.routes.poll_timeout(moment(now));
        let others = [
            due.map(|due| due.saturating_sub(moment(now))),
            self.prober.poll_timeout().map(|time| time.since(now)),
        ];
        let next = others.into_iter().flatten().min();
        let longest = next.map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP));
        if let Some(rest) = self.pace.rest(Instant::now(), GATHER) {
            std::thread::sleep(rest.min(timer));
            return;
        }
        let captured = self.intake.as_ref().map(Intake::waker);
        let mut fds: Vec<_> = captured.map(AsFd::as_fd).into_iter().collect();
        fds.extend(self.answers.iter().flat_map(Answers::fds));
        let waker = fds.len();
        let rest = self.looks.rest(Instant::now(), self.moderation.window());
        if rest.is_none() {
            fds.push(self.waker.as_fd());
        }
        let longest = rest.map_or(longest, |rest| rest.min(longest));
        let pause = pause(timer.min(longest), self.diversion);
        match wait(&fds, Some(pause)) {
            Ok(readiness) => {
                if let Some(captured) = captured.filter(|_| readiness.is_ready(0)) {
                    captured.clear();
                }
                if readiness.is_ready(waker) {
                    self.waker.clear();
                }
            }
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                std::thread::sleep(RETRY_SLEEP);
            }
        }
    }

    fn publish(&mut self, now: bool) {
        let time = Instant::now();
        if now || time >= self.report_at {
            self.report_at = time + REPORT_INTERVAL;
            self.heart.beat();
            // A ring that fails while others keep this thread from sleeping is found here.
            if let Some(answers) = &mut self.answers {
                answers.suspect();
            }
            let report = self.report();
            self.losses.tell(time, report.capture.dropped);
            self.prober.show_readiness();
            self.shared.replace(report);
        }
    }

    fn report(&mut self) -> Report {
        let captured = self.intake.as_ref().map(Intake::counts);
        let captured = captured.unwrap_or_default();
        let mut decode = captured.decode;
        let answers = self.answers.as_mut().map(Answers::statistics);
        let none = BTreeMap::new();
        let mut others: &BTreeMap<NotTcp, u64> = &none;
        if let Some(feed) = &self.feed {
            decode = feed.decoder().counters();
            others = feed.decoder().others();
        }
        Report::new(&Sources {
            elapsed: self.clock.elapsed(),
            stats: self.engine.stats(),
            gauges: self.engine.gauges(),
            intensity: self.pilot.status(),
            ring: captured.ring,
            answers: answers.unwrap_or_default(),
            syns_lost: captured.syns_lost,
            decode,
            others,
            pressure: self.governor.status(),
            send: self.sender.counters(),
            dropped_batches: self.inbox.dropped_batches(),
            probes: self.prober.status(),
            recording: self.feed.as_ref().map(Feed::recording),
            held_back: match self.drain.stage() {
                Stage::Running => self.routes.held_back(),
                Stage::Draining | Stage::Exit => {
                    Some("it is ending: open sessions finish".to_owned())
                }
            },
        })
    }

    /// Resets what is still open, so that targets need not wait for time-outs.
    fn end(mut self) -> Report {
        // What waits was captured, and counts.
        while self.capture() {}
        let now = self.clock.now();
        if let Some(feed) = &mut self.feed {
            feed.end_show();
        }
        self.engine.shutdown(now);
        self.engine.timeout(now);
        while self.put_out(now) {
            self.flush();
        }
        self.flush();
        self.publish(true);
        self.report()
    }
}

/// What is due while nothing may be sent stays due: it is no reason to stay awake.
fn pause(timer: Duration, diversion: Diversion) -> Duration {
    match diversion {
        Diversion::Lapsed => timer.max(RETRY_SLEEP),
        Diversion::Asked | Diversion::Held => timer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_sent_keeps_nobody_awake() {
        assert_eq!(pause(Duration::ZERO, Diversion::Held), Duration::ZERO);
        assert_eq!(pause(Duration::ZERO, Diversion::Lapsed), RETRY_SLEEP);
        assert_eq!(pause(LONGEST_SLEEP, Diversion::Lapsed), LONGEST_SLEEP);
    }
}

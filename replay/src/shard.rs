//! The shard: one thread that owns the engine and the sender. Packets reach it through its input.
//!
//! It never waits for anything but packets, headers and its own timers. What it hands to others
//! goes into bounded queues; now and then it shows how it stands. The links to interceptors are tasks
//! of the same thread: they go on when it waits, and between two rounds of its work.
//!
//! - `messages`: what it takes in of links. `output`: what it puts out.
//! - `losses`: says so when capture loses frames.
//! - `packets`: packets as the engine has them, and as the sender and the interceptors do.
//! - `standstill`: says so when nothing is sent because a router-agent or interceptor does not vouch for
//!   its host.
//! - `steer`: what the pilot sees, and what it decides.

mod losses;
mod messages;
mod output;
mod packets;
mod standstill;
mod steer;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_capture::{Pace, Readiness as Ready, Rest, Sender, Waker, sleep_precisely, wait};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::quiet::Quiet;
use millrace_daemon::readiness::Readiness;
use millrace_daemon::service_manager::Heart;
use millrace_engine::protocol::FailureKind;
use millrace_engine::{Engine, Time, Told};
use millrace_pilot::{Pilot, PilotConfig, Sight};
use millrace_routes::copier::{InterceptorId, LinkId};
use millrace_wire::PacketBuilder;
use tokio::task::yield_now;

use self::losses::Losses;
use self::standstill::Standstill;
use crate::answers::AnswerSource;
use crate::clock::Clock;
use crate::commands::Commands;
use crate::consent::{ClusterConsent, Consent};
use crate::inbox::{Inbox, Message};
use crate::input::Input;
use crate::may_send::{Diverters, MaySend};
use crate::moderation::Moderation;
use crate::pressure::Governor;
use crate::probe::Prober;
use crate::routes::{Routes, moment};
use crate::snapshot::Snapshot;
use crate::transit::Transit;

/// Longest sleep: devices that come back, the cluster's plan and the share are noticed by then.
const LONGEST_SLEEP: Duration = SHOW_INTERVAL;
/// Sleep while a link's queue is full or a ring is to be opened again.
const RETRY_SLEEP: Duration = Duration::from_millis(5);
/// Batches of packets and messages that come one by one are taken in at once, up to so many times in a second. More are
/// gathered for so long.
const LOOKS_A_SECOND: u32 = 12_500;
const GATHER: Duration = Duration::from_micros(100);
/// How often it shows how it stands.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
/// Packets sent before what was captured is looked at again.
const PACKETS_IN_A_ROW: usize = 64;

/// The shard.
pub struct Shard {
    clock: Clock,
    engine: Engine,
    input: Input,
    governor: Governor,
    answers: AnswerSource,
    builder: PacketBuilder,
    sender: Sender,
    routes: Routes,
    /// Whether responses are kept from the real clients.
    may_send: MaySend,
    unreadable: Quiet<InterceptorId>,
    /// Conversations that could not go on.
    failures: Quiet<FailureKind>,
    prober: Prober,
    pilot: Pilot,
    sight: Sight<LinkId>,
    commands: Commands,
    diverters: Box<dyn Diverters>,
    cluster: Box<dyn ClusterConsent>,
    inbox: Arc<Inbox>,
    messages: VecDeque<Message>,
    moderation: Moderation,
    transit: Transit,
    /// Whether flows were opened of which interceptors are to hear soon.
    has_announced: bool,
    looks: Pace,
    pace: Pace,
    waker: Waker,
    drain: DrainWatch,
    grace: Duration,
    show: Show,
    tell: Tell,
    show_at: Instant,
    losses: Losses,
    standstill: Standstill,
    steer_at: Instant,
    too_long_said: bool,
    heart: Heart,
}

/// Takes what the shard shows of itself.
pub type Show = Box<dyn Fn(&Snapshot<'_>) + Send>;

/// Takes what is told of sampled sessions. It may not wait for anything.
pub type Tell = Box<dyn Fn(Told) + Send>;

/// The parts of a shard, open and ready.
pub struct Parts {
    /// The engine.
    pub engine: Engine,
    /// Where the sessions come from.
    pub input: Input,
    /// Keeps order under pressure.
    pub governor: Governor,
    /// Where the targets' answers come from.
    pub answers: AnswerSource,
    /// The sender.
    pub sender: Sender,
    /// Whether targets are held back until a probe has come back.
    pub probe: bool,
    /// How much is copied, and when.
    pub pilot: PilotConfig,
    /// What operators ask for.
    pub commands: Commands,
    /// Who keeps responses from the real clients.
    pub diverters: Box<dyn Diverters>,
    /// Who else lets it send, and how much.
    pub cluster: Box<dyn ClusterConsent>,
    /// What the links hand over.
    pub inbox: Arc<Inbox>,
    /// Wakes the shard.
    pub waker: Waker,
    /// Tells it to end.
    pub drain: DrainWatch,
    /// Time for open sessions to finish.
    pub grace: Duration,
    /// Is shown several times a second how it stands, and once more at its end.
    pub show: Show,
    /// Is told of sampled sessions.
    pub tell: Tell,
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
        let moderation = Moderation::new(now, parts.engine.config());
        Self {
            clock,
            engine: parts.engine,
            input: parts.input,
            governor: parts.governor,
            answers: parts.answers,
            builder: PacketBuilder::new(),
            sender: parts.sender,
            routes: Routes::default(),
            may_send: MaySend::default(),
            unreadable: Quiet::default(),
            failures: Quiet::default(),
            prober,
            sight: Sight::new(window),
            pilot,
            commands: parts.commands,
            diverters: parts.diverters,
            cluster: parts.cluster,
            inbox: parts.inbox,
            messages: VecDeque::new(),
            moderation,
            transit: Transit::new(now),
            has_announced: false,
            looks: Pace::default(),
            pace: Pace::prompt(LOOKS_A_SECOND),
            waker: parts.waker,
            drain: parts.drain,
            grace: parts.grace,
            show: parts.show,
            tell: parts.tell,
            show_at: now,
            losses: Losses::default(),
            standstill: Standstill::default(),
            steer_at: now,
            too_long_said: false,
            heart: parts.heart,
        }
    }

    /// Works until it is told to end.
    ///
    /// # Errors
    /// When the process has no descriptors left to wait with.
    pub async fn run(mut self) -> std::io::Result<()> {
        sleep_precisely();
        let mut rest = Rest::new()?;
        let mut end_by = None;
        tokio::spawn(wake_at_the_end(self.drain.clone(), self.waker.clone()));
        loop {
            match self.drain.stage() {
                Stage::Running => {}
                Stage::Draining => {
                    if end_by.is_none() {
                        self.input
                            .catch_up(&self.clock, &mut self.engine, &mut self.pace)
                            .await;
                    }
                    let deadline = *end_by.get_or_insert_with(|| {
                        self.engine.drain();
                        self.input.interrupt(self.clock.now(), &mut self.engine);
                        tracing::info!("draining: no new sessions, open ones finish");
                        Instant::now() + self.grace
                    });
                    if Instant::now() >= deadline || self.engine.gauges().replicas == 0 {
                        break;
                    }
                }
                Stage::Exit => break,
            }
            let more_captured = self.capture() && self.input.has_more();
            self.take_messages().await;
            let now = self.clock.now();
            let diverted = self.may_send == MaySend::Everything;
            let answered = self.answers.take(now, &mut self.engine, diverted);
            // Without answers, or sources of its own, nothing can be finished.
            if self.answers.is_lost() || self.cluster.has_lost_share() {
                break;
            }
            let mode = self.pilot.mode();
            let fed = self.input.feed(now, &mut self.engine, mode);
            self.engine.timeout(now);
            let guarded = self.diverters.keep_all_clients();
            self.prober
                .advance(now, &mut self.engine, &mut self.routes, guarded);
            self.ask_may_send(now);
            let unsent = self.put_out(now);
            self.flush();
            let commanded = self.steer();
            self.show_if_time();
            if self.input.is_finished(now, &self.engine) {
                break;
            }
            self.moderation.see(Instant::now(), self.engine.stats());
            let is_drained = end_by.is_some() && self.engine.gauges().replicas == 0;
            if more_captured || answered || fed || unsent || commanded || is_drained {
                if self.may_look() {
                    yield_now().await;
                }
            } else {
                self.sleep(&mut rest).await;
            }
        }
        self.end();
        // What it said last to interceptors leaves.
        yield_now().await;
        Ok(())
    }

    /// Takes in a batch of captured packets. Says whether there was one.
    fn capture(&mut self) -> bool {
        self.input
            .capture(&self.clock, &mut self.engine, &mut self.pace)
    }

    /// Unless responses are kept from the real clients, nothing begins; once they are not any more,
    /// nothing is sent.
    fn ask_may_send(&mut self, now: Time) {
        self.obey_plan_first();
        // Before it is asked whether anything may be sent: what is vouched for is not vouched for later.
        let (time, at) = (Instant::now(), BootTime::now());
        let consent = self.cluster.consent();
        let may_send = if self.routes.is_unsafe() {
            MaySend::Nothing
        } else {
            self.may_send_now()
        };
        self.engine.listen(now, self.routes.are_all_up());
        if std::mem::replace(&mut self.may_send, may_send) != may_send {
            self.routes.set_diverted(may_send == MaySend::Everything);
            self.engine.set_open(now, self.routes.is_open());
        }
        self.standstill.tell(time, at, may_send, consent);
    }

    /// Whether those who divert, and the cluster, let this copier send at this moment.
    fn may_send_now(&self) -> MaySend {
        match self.cluster.consent() {
            Consent::Given => self.diverters.may_send(),
            Consent::NoShare | Consent::NoPlan => MaySend::Nothing,
        }
    }

    /// What the plan says now is obeyed before anything is sent by it.
    fn obey_plan_first(&mut self) {
        if !self.cluster.is_noted() {
            self.steer_at = Instant::now();
            self.steer();
        }
    }

    /// Whether messages of interceptors are looked for by now: since this thread is awake, it need not be woken for them
    /// once half of their time has passed.
    fn may_look(&self) -> bool {
        let window = self.moderation.window();
        self.looks.rest(Instant::now(), window / 2).is_none()
    }

    async fn sleep(&mut self, rest: &mut Rest) {
        let now = self.clock.now();
        let timer = self
            .engine
            .poll_timeout()
            .map_or(LONGEST_SLEEP, |time| time.since(now))
            .min(self.input.due().since(now));
        let due = self.routes.poll_timeout(moment(now));
        let others = [
            due.map(|due| due.saturating_sub(moment(now))),
            self.prober.poll_timeout().map(|time| time.since(now)),
        ];
        let next = others.into_iter().flatten().min();
        let longest = next.map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP));
        let time = Instant::now();
        let looked = self.looks.rest(time, self.moderation.window());
        // While answers gather, so do captured packets and whatever is due, for one look at all. Else packets hold up no
        // answers: turns that are behind wait for nothing else.
        let together = looked.filter(|_| !self.input.is_bulk());
        let gathered = together.or_else(|| self.pace.rest(time, GATHER));
        let soonest = [gathered, looked].into_iter().flatten().min();
        let longest = soonest.map_or(longest, |rest| rest.min(longest));
        let timer = looked.map_or(timer, |rest| timer.max(rest));
        let until_show = self.show_at.saturating_duration_since(time);
        let pause = pause(timer.min(longest), self.may_send).min(until_show);
        let captured = self.input.waker();
        if let Some(looked) = looked {
            // The links rest, too, once they have sent what interceptors must know of flows that begin. Answers gather only
            // where links bring them, so there are no rings of answers to watch.
            if std::mem::take(&mut self.has_announced) {
                yield_now().await;
            }
            let heeded = captured.filter(|_| gathered.is_none()).map(AsFd::as_fd);
            if let Err(error) = wait(heeded.as_slice(), Some(pause.min(looked))) {
                cannot_wait(&error).await;
            }
            if let Some(captured) = captured {
                captured.clear();
            }
            return;
        }
        let of_input = captured.map(|waker| (waker.as_fd(), gathered.is_none()));
        let mut fds: Vec<(BorrowedFd<'_>, bool)> = of_input.into_iter().collect();
        fds.extend(self.answers.fds().map(|fd| (fd, true)));
        fds.push((self.waker.as_fd(), true));
        let ended = tokio::select! {
            biased;
            () = self.inbox.told() => Ok(Ready::default()),
            ended = rest.until(&fds, pause) => ended,
        };
        match ended {
            Ok(ready) => {
                let captured = captured.filter(|_| gathered.is_none() && ready.is_ready(0));
                if let Some(captured) = captured {
                    captured.clear();
                }
                if ready.is_ready(fds.len() - 1) {
                    self.waker.clear();
                }
            }
            Err(error) => cannot_wait(&error).await,
        }
    }

    fn show_if_time(&mut self) {
        if Instant::now() >= self.show_at {
            self.show();
        }
    }

    /// Shows how it stands.
    fn show(&mut self) {
        let time = Instant::now();
        self.show_at = time + SHOW_INTERVAL;
        self.heart.beat();
        // A ring that fails while others keep this thread from sleeping is found here.
        self.answers.suspect();
        let (captured, answers) = (self.input.counts(), self.answers.statistics());
        self.prober.show_readiness();
        let snapshot = Snapshot {
            elapsed: self.clock.elapsed(),
            stats: self.engine.stats(),
            gauges: self.engine.gauges(),
            intensity: self.pilot.status(),
            ring: captured.ring,
            answers,
            syns_lost: captured.syns_lost,
            decode: captured.decode,
            others: self.input.others(),
            pressure: self.governor.status(),
            send: self.sender.counters(),
            dropped_batches: self.inbox.dropped_batches(),
            probes: self.prober.status(),
            recording: self.input.figures(),
            held_back: match self.drain.stage() {
                Stage::Running => self.routes.held_back(),
                Stage::Draining | Stage::Exit => {
                    Some("it is ending: open sessions finish".to_owned())
                }
            },
        };
        self.losses.tell(time, snapshot.dropped());
        (self.show)(&snapshot);
    }

    /// Resets what is still open, so that targets need not wait for time-outs.
    fn end(&mut self) {
        // What waits was captured, and counts.
        while self.capture() {}
        let now = self.clock.now();
        self.input.end_show();
        self.engine.shutdown(now);
        self.engine.timeout(now);
        while self.put_out(now) {
            self.flush();
        }
        self.flush();
        self.show();
    }
}

async fn cannot_wait(error: &std::io::Error) {
    tracing::error!("cannot wait for packets: {error}");
    tokio::time::sleep(RETRY_SLEEP).await;
}

/// Ends the shard's sleep when it is to drain, and when it is to end.
async fn wake_at_the_end(drain: DrainWatch, shard: Waker) {
    drain.draining().await;
    shard.wake();
    drain.exit().await;
    shard.wake();
}

/// What is due while nothing may be sent stays due: it is no reason to stay awake.
fn pause(timer: Duration, may_send: MaySend) -> Duration {
    match may_send {
        MaySend::Nothing => timer.max(RETRY_SLEEP),
        MaySend::NothingNew | MaySend::Everything => timer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_sent_keeps_nobody_awake() {
        assert_eq!(pause(Duration::ZERO, MaySend::Everything), Duration::ZERO);
        assert_eq!(pause(Duration::ZERO, MaySend::Nothing), RETRY_SLEEP);
        assert_eq!(pause(LONGEST_SLEEP, MaySend::Nothing), LONGEST_SLEEP);
    }
}

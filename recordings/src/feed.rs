//! Hands the packets of a recording to the engine: when they are due, and no faster than the engine
//! can take them. Live capture must read on or lose packets; a file waits.

use std::path::PathBuf;
use std::time::Duration;

use millrace_capture::{Source, Waker};
use millrace_daemon::exit::ExitError;
use millrace_engine::{Engine, Time};
use millrace_wire::{Decoder, Tunnels, Verify};

use crate::progress::Progress;
use crate::reader::{Batch, Next, Packet, Reader};
use crate::recording::Recording;
use crate::timeline::{Position, Timeline};
use millrace_pilot::Mode;

/// While payload waits for the target, packets are held back above this share of the memory limit,
/// in percent: less than one session may hold, so that no session is given up for being fed faster
/// than its target reads.
const SOFT_LIMIT: u64 = 15;
/// Packets are held back above this share in any case, in percent: below where sessions are refused.
const HARD_LIMIT: u64 = 80;
/// Packets handed over before what the engine wants to send gets its turn.
const PACKETS_IN_A_ROW: usize = 64;
/// When open sessions make no progress for this long, one more is let in beyond the bound: those
/// that are open may wait for nothing but more of the recording.
const STUCK: Duration = Duration::from_secs(1);
/// After all is delivered, the target's last retransmissions are answered for so long.
const LAST_WORDS: Duration = Duration::from_millis(1200);
/// When nothing has happened for this long while memory is full, gaps of the recording are final.
const GAPS_FINAL: Duration = Duration::from_secs(5);

/// A packet that is due later than this is announced.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// The files.
    pub sources: Vec<Source>,
    /// How often they are replayed.
    pub rounds: u32,
    /// How much faster than recorded; infinite: without pauses.
    pub speed: f64,
    /// The longest pause that is kept.
    pub longest_pause: Option<Duration>,
    /// Sessions that may be open at once; `None`: as many as were when they were recorded.
    pub max_open: Option<u32>,
    /// Sessions that may begin within a second.
    pub max_new_sessions: Option<u32>,
    /// Tunnels that are looked into.
    pub tunnels: Tunnels,
    /// Show how far it is.
    pub progress: bool,
}

impl FeedConfig {
    /// Files that are read.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.sources.iter().filter_map(|source| match source {
            Source::Path(path) => Some(path.clone()),
            Source::StandardInput => None,
        })
    }
}

/// What the feed is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More can be handed over at once.
    More,
    /// The next packet is due then.
    At(Time),
    /// It waits for the files: the waker tells of them.
    Reading,
    /// It waits for the target or an interceptor.
    Waiting,
    /// All is handed over.
    Over,
}

/// A recording on its way to the engine.
pub struct Feed {
    reader: Reader,
    batch: Option<Batch>,
    /// Where the next packet lies, once that is known.
    next: Option<Position>,
    speed: f64,
    max_open: u64,
    begun: Begun,
    timeline: Timeline,
    /// When the first packet was handed over: the replay's time 0.
    origin: Option<Time>,
    /// Stands for the first packet's time in the engine.
    base: Time,
    /// Since when no interceptor is there, or the operator has paused.
    closed_since: Option<Time>,
    held_since: Option<Time>,
    /// Packets that only wait for memory are handed over all the same: more of the recording alone
    /// can free it.
    reads_on: bool,
    /// Looks at packets that may have to wait; what is handed over is decoded once, by the other.
    peeker: Decoder,
    decoder: Decoder,
    watch: Watch,
    over: bool,
    /// Since when all replicas have ended.
    done_since: Option<Time>,
    recording: Recording,
    progress: Option<Progress>,
    /// Which part of this round was handed over, as far as that is known.
    within: Option<f64>,
}

/// Counts sessions that begin within a second.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    limit: u64,
    since: Time,
    before: u64,
}

impl Begun {
    /// Whether this second has had its sessions.
    fn is_used_up(&mut self, now: Time, engine: &Engine) -> bool {
        let all = engine.stats().sessions_captured;
        if now.since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.before = all;
        }
        all - self.before >= self.limit
    }
}

/// Notices when nothing goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    done: u64,
    since: Option<Time>,
    /// Replicas that had been opened when one more was let in.
    let_in: Option<u64>,
}

impl Watch {
    /// How long nothing has come of what was handed over.
    fn idle(&mut self, now: Time, engine: &Engine) -> Duration {
        let stats = engine.stats();
        let done = stats.bytes_delivered
            + stats.bytes_answered
            + stats.replicas_established
            + stats.replicas_completed
            + stats.replicas_aborted.total();
        if done != self.done {
            self.done = done;
            self.since = None;
            self.let_in = None;
        }
        now.since(*self.since.get_or_insert(now))
    }
}

impl Feed {
    /// Opens the files.
    ///
    /// # Errors
    /// A file that cannot be read as often as wanted.
    pub fn open(config: FeedConfig, waker: Waker) -> Result<Self, ExitError> {
        let files = config.sources.len();
        let reader = Reader::start(config.sources, config.rounds, waker)?;
        let progress = config.progress.then(|| Progress::new(config.rounds));
        Ok(Self {
            reader,
            batch: None,
            next: None,
            speed: config.speed,
            max_open: config.max_open.map_or(u64::MAX, u64::from),
            begun: Begun {
                limit: config.max_new_sessions.map_or(u64::MAX, u64::from),
                ..Begun::default()
            },
            timeline: Timeline::new(config.longest_pause),
            origin: None,
            base: Time::default(),
            closed_since: None,
            held_since: None,
            reads_on: false,
            peeker: Decoder::with_tunnels(config.tunnels.clone()),
            decoder: Decoder::with_tunnels(config.tunnels),
            watch: Watch::default(),
            over: false,
            done_since: None,
            recording: Recording {
                files,
                rounds: config.rounds,
                ..Recording::default()
            },
            progress,
            within: None,
        })
    }

    /// What has decoded the packets that were handed over, and counted them.
    pub const fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Hands over what is due and can be taken. While the operator has paused, it stands still; a
    /// guard that stops everything ends it.
    pub fn step(&mut self, now: Time, engine: &mut Engine, mode: Mode) -> Step {
        let open = match mode {
            Mode::Running | Mode::Held => engine.is_open(),
            Mode::Paused => false,
            Mode::Stopped => {
                self.interrupt(now, engine);
                false
            }
        };
        if self.over {
            return Step::Over;
        }
        if !self.is_reachable(now, open) {
            return Step::Waiting;
        }
        for _ in 0..PACKETS_IN_A_ROW {
            match self.hand_over(now, engine) {
                Step::More => {}
                other => return other,
            }
        }
        Step::More
    }

    fn hand_over(&mut self, now: Time, engine: &mut Engine) -> Step {
        if let Some(step) = self.fetch(now, engine) {
            return step;
        }
        let Some(mut batch) = self.batch.take() else {
            return Step::More;
        };
        let step = match batch.peek() {
            Some(packet) => self.offer(now, engine, &packet),
            None => Step::More,
        };
        if step == Step::More {
            self.next = None;
            batch.advance();
        }
        self.batch = Some(batch);
        step
    }

    /// Hands this packet over, if it is due and can be taken.
    fn offer(&mut self, now: Time, engine: &mut Engine, packet: &Packet<'_>) -> Step {
        let (position, first) = match self.next {
            Some(position) => (position, false),
            None => (self.timeline.advance(packet.timestamp), true),
        };
        self.next = Some(position);
        if self.origin.is_none() {
            self.base = now;
        }
        let origin = *self.origin.get_or_insert(now);
        // A float beyond the range becomes the largest number: that packet is never due.
        let due = origin + Duration::from_nanos((position.replayed as f64 / self.speed) as u64);
        if due > now {
            let pause = due.since(now);
            if first && pause > LONG_PAUSE {
                tracing::warn!(
                    "the next packet of the recording is due in {} s; -I shortens pauses",
                    pause.as_secs()
                );
            }
            return Step::At(due);
        }
        if self.begun.is_used_up(now, engine) && self.may_begin(engine, position, packet) {
            return Step::At(self.begun.since + Duration::from_secs(1));
        }
        if self.is_held_back(now, engine, position, packet) {
            return Step::Waiting;
        }
        // Pauses that nobody replays are no silence of the sessions either.
        let at = self.base + Duration::from_nanos(position.replayed);
        let decoded = self.decoder.decode(
            position.recorded,
            packet.link,
            packet.data,
            packet.original_len as usize,
            Verify::AmongRight,
        );
        if let Ok(segment) = decoded {
            // Without pauses nothing is ever late.
            let late = if self.speed.is_finite() {
                now.since(due)
            } else {
                Duration::ZERO
            };
            engine.set_waited(late);
            engine.segment(now, at, &segment);
        }
        self.recording.packets += 1;
        Step::More
    }

    /// Whether packets may be handed over at all. While they may not, the replay stands still, and
    /// so does its time.
    fn is_reachable(&mut self, now: Time, open: bool) -> bool {
        if !open {
            self.closed_since.get_or_insert(now);
            return false;
        }
        if let Some(since) = self.closed_since.take() {
            // Nor is anybody to blame for what did not happen meanwhile.
            let times = [
                self.origin.as_mut(),
                self.held_since.as_mut(),
                self.watch.since.as_mut(),
            ];
            for time in times.into_iter().flatten() {
                *time = *time + now.since(since);
            }
        }
        true
    }

    /// Makes sure that a packet is at hand; otherwise says what to do.
    fn fetch(&mut self, now: Time, engine: &mut Engine) -> Option<Step> {
        if self
            .batch
            .as_ref()
            .is_some_and(|batch| batch.peek().is_some())
        {
            return None;
        }
        if let Some(used) = self.batch.take() {
            if used.ends_round {
                engine.end_of_recording(now);
                self.timeline.begin_anew();
                self.recording.rounds_done += 1;
                self.within = self.within.map(|_| 0.0);
            }
            self.reader.give_back(used);
        }
        match self.reader.next() {
            Next::Batch(batch) => {
                self.recording.packets += batch.foreign;
                self.recording.foreign += batch.foreign;
                self.recording.note_dropped(batch.dropped);
                for problem in &batch.problems {
                    self.recording.note_problem(problem);
                }
                self.batch = Some(batch);
                Some(Step::More)
            }
            Next::NotYet => Some(Step::Reading),
            Next::End => {
                self.over = true;
                // Should the reader have ended without a word.
                engine.end_of_recording(now);
                Some(Step::Over)
            }
        }
    }

    /// Whether the next packet has to wait until the target has taken more of what came before.
    fn is_held_back(
        &mut self,
        now: Time,
        engine: &mut Engine,
        position: Position,
        packet: &Packet<'_>,
    ) -> bool {
        let gauges = engine.gauges();
        let limit = engine.config().memory_limit;
        // What takes memory now will be free without more of the recording.
        let under_way = gauges.backlog > 0 || gauges.replicas_connecting > 0;
        let settling = under_way || gauges.replicas_lingering > 0;
        let full = gauges.memory > limit / 100 * HARD_LIMIT;
        let scarce = under_way && gauges.memory > limit / 100 * SOFT_LIMIT;
        // Sessions that wait for more of the recording are none of the target's work.
        let many = gauges.sessions_busy as u64 >= self.max_open;
        // The engine refuses a session that begins then.
        let bandwidth = engine.config().caps.bandwidth;
        let behind = bandwidth.is_some_and(|rate| gauges.backlog > rate);
        let barred = (many || behind) && self.may_begin(engine, position, packet);
        if !(barred || scarce || full && (settling || !self.reads_on)) {
            if let Some(since) = self.held_since.take() {
                self.recording.held_back_seconds += now.since(since).as_secs_f64();
            }
            return false;
        }
        self.held_since.get_or_insert(now);
        let idle = self.watch.idle(now, engine);
        if full && idle > GAPS_FINAL {
            engine.end_gaps(now);
            self.read_on(engine);
        } else if barred && !behind && !full && idle > STUCK {
            let opened = engine.stats().replicas_opened;
            return *self.watch.let_in.get_or_insert(opened) != opened;
        }
        true
    }

    /// Whether a copy would begin with this packet.
    fn may_begin(&mut self, engine: &Engine, position: Position, packet: &Packet<'_>) -> bool {
        let decoded = self.peeker.decode(
            position.recorded,
            packet.link,
            packet.data,
            packet.original_len as usize,
            Verify::AmongRight,
        );
        decoded.is_ok_and(|segment| engine.may_begin(&segment))
    }

    /// Memory is full of sessions that wait for more of the recording.
    fn read_on(&mut self, engine: &Engine) {
        let gauges = engine.gauges();
        if !std::mem::replace(&mut self.reads_on, true) {
            tracing::warn!(
                "{} open sessions fill the memory limit of {} MB and wait for more of the recording: \
                 reading on; what finds no room is left out and counted as refused: raise -m",
                gauges.sessions,
                engine.config().memory_limit >> 20
            );
        }
    }

    /// Stops: what was not handed over is left out.
    pub fn interrupt(&mut self, now: Time, engine: &mut Engine) {
        if !std::mem::replace(&mut self.over, true) {
            self.recording.interrupted = true;
            engine.end_of_recording(now);
        }
    }

    /// Whether nothing is left to wait for: all sessions have ended, or what is left is stuck.
    pub fn is_finished(&mut self, now: Time, engine: &Engine) -> bool {
        let gauges = engine.gauges();
        if !self.over {
            return false;
        }
        if gauges.replicas == gauges.replicas_lingering {
            // They answer the target's last retransmissions for a moment.
            let since = *self.done_since.get_or_insert(now);
            return gauges.replicas == 0 || now.since(since) > LAST_WORDS;
        }
        self.done_since = None;
        let stuck = self.watch.idle(now, engine) > engine.config().answer_timeout * 2;
        if stuck {
            tracing::warn!(
                "{} copied connections are stuck: nothing has come of them for {} s; ending them",
                gauges.replicas - gauges.replicas_lingering,
                engine.config().answer_timeout.as_secs() * 2
            );
        }
        stuck
    }

    /// What to say of it in the report; the share that was delivered is filled in there.
    pub fn recording(&self) -> Recording {
        Recording {
            recorded_seconds: self.next.unwrap_or(self.timeline.position()).recorded as f64 / 1e9,
            longest_pause_seconds: self.timeline.longest_seen().as_secs_f64(),
            ..self.recording.clone()
        }
    }

    /// Shows how far it is, if that is wanted and time.
    pub fn show(&mut self, engine: &Engine) {
        let rounds_done = self.recording.rounds_done;
        if let Some(progress) = &mut self.progress {
            if let Some(batch) = &self.batch {
                self.within = batch.part();
            }
            progress.show(rounds_done, self.within, self.over, engine);
        }
    }

    /// Leaves the terminal as it was.
    pub fn end_show(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_engine::{Caps, Config, LiveAddress, Recorded, Service};
    use millrace_wire::{Endpoint, Flags};

    use super::*;
    use crate::made_recording::{Line, write};

    const SYN_ACK: Flags = Flags(0x12);

    fn time(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// A recording of these, all of one moment, and an engine for it.
    fn scene(name: &str, caps: Caps, lines: &[Line]) -> (Feed, Engine) {
        let name = format!("millrace-feed-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        write(&path, 0, lines.iter().copied());
        let config = FeedConfig {
            sources: vec![Source::Path(path.clone())],
            rounds: 1,
            speed: 1.0,
            longest_pause: None,
            max_open: None,
            max_new_sessions: caps.new_sessions,
            tunnels: Tunnels::none(),
            progress: false,
        };
        let feed = Feed::open(config, Waker::new().unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut engine = Engine::new(Config {
            services: vec![Service {
                live: LiveAddress::Host,
                live_port: 80,
                target: Endpoint::new([198, 18, 2, 20].into(), 80),
            }],
            recorded: Some(Recorded::default()),
            caps: Caps {
                new_sessions: None,
                ..caps
            },
            ..Config::default()
        });
        engine.set_open(time(1), true);
        (feed, engine)
    }

    /// Steps until all is read, or so many sessions have begun and nothing more is to be done now.
    fn step(feed: &mut Feed, now: Time, engine: &mut Engine, sessions: u64) -> Step {
        loop {
            let step = feed.step(now, engine, Mode::Running);
            let held = step == Step::Waiting && feed.held_since.is_some();
            match step {
                Step::At(_) | Step::Over => return step,
                Step::Waiting if held && engine.stats().sessions_captured == sessions => {
                    return step;
                }
                // The reader's thread has its own time.
                Step::More | Step::Reading | Step::Waiting => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn when_a_second_has_had_its_sessions_those_that_are_open_go_on() {
        let lines = [
            (4001, true, Flags::SYN, 100, 0, 0),
            (4001, false, SYN_ACK, 500, 101, 0),
            (4002, true, Flags::SYN, 100, 0, 0),
            (4002, false, SYN_ACK, 500, 101, 0),
            (4001, true, Flags::ACK, 101, 501, 0),
            (4001, true, Flags::ACK, 101, 501, 300),
            (4002, true, Flags::ACK, 101, 501, 0),
        ];
        let caps = Caps {
            new_sessions: Some(1),
            ..Caps::default()
        };
        let (mut feed, mut engine) = scene("second", caps, &lines);
        for (at, until, sessions) in [(5, Step::At(time(6)), 1), (6, Step::Over, 2)] {
            assert_eq!(step(&mut feed, time(at), &mut engine, sessions), until);
            let stats = engine.stats();
            assert_eq!(stats.sessions_captured, sessions);
            assert_eq!(stats.bytes_captured, 300);
        }
    }

    #[test]
    fn while_the_bandwidth_is_used_up_sessions_wait_and_none_is_refused() {
        let lines = [
            (4001, true, Flags::SYN, 100, 0, 0),
            (4001, false, SYN_ACK, 500, 101, 0),
            (4001, true, Flags::ACK, 101, 501, 1400),
            (4002, true, Flags::SYN, 100, 0, 0),
            (4002, false, SYN_ACK, 500, 101, 0),
            (4002, true, Flags::ACK, 101, 501, 0),
        ];
        let caps = Caps {
            bandwidth: Some(1000),
            ..Caps::default()
        };
        let (mut feed, mut engine) = scene("bandwidth", caps, &lines);
        for at in [5, 60] {
            let held = step(&mut feed, time(at), &mut engine, 1);
            assert_eq!(held, Step::Waiting);
        }
        engine.stop_replicas(time(61));
        assert_eq!(step(&mut feed, time(61), &mut engine, 2), Step::Over);
        assert_eq!(engine.stats().sessions_captured, 2);
        assert_eq!(engine.stats().sessions_refused.total(), 0);
    }

    #[test]
    fn a_pause_is_nobodys_fault_and_costs_no_time() {
        let (mut feed, mut engine) = scene("pause", Caps::default(), &[]);
        (feed.origin, feed.held_since) = (Some(time(1)), Some(time(2)));
        assert_eq!(feed.watch.idle(time(3), &engine), Duration::ZERO);
        assert_eq!(feed.watch.idle(time(4), &engine), Duration::from_secs(1));
        for at in [5, 60] {
            let step = feed.step(time(at), &mut engine, Mode::Paused);
            assert_eq!(step, Step::Waiting);
        }
        feed.step(time(65), &mut engine, Mode::Running);
        assert_eq!(
            (feed.origin, feed.held_since),
            (Some(time(61)), Some(time(62)))
        );
        assert_eq!(feed.watch.idle(time(65), &engine), Duration::from_secs(2));
    }
}

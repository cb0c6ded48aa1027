//! Foretells a replay by making one, without a network: the packets go through the same feed to the same engine, and
//! the outcome is judged by the same rules. The target is an ideal one, and the clock jumps from one event to the next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use millrace_capture::{Source, Waker, wait};
use millrace_engine::{Engine, Event, Time};
use millrace_fleet::config;
use millrace_fleet::exit::ExitError;
use millrace_wire::{Decoder, Tunnels};

use super::findings::{Findings, Foretold};
use super::ideal::IdealTarget;
use crate::control::Mode;
use crate::offline::feed::{Feed, FeedConfig, Step};
use crate::offline::outcome;
use crate::options::Options;
use crate::plan;
use crate::report::{Report, Sources};

/// Where the ideal target is (RFC 5737 and 3849), and who stands for clients on the live host's loopback address.
const TARGET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The clock's beginning.
const BEGIN: Time = Time::from_micros(1_000_000);
/// The longest jump while the feed waits for what has no timer.
const LONGEST_JUMP: Duration = Duration::from_millis(100);
/// The shortest.
const SHORTEST_JUMP: Duration = Duration::from_micros(1);
/// The files' reader is looked for so often, should it end without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is to be replayed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsal<'a> {
    /// The recordings.
    pub files: &'a [String],
    /// Tunnels that are looked into.
    pub tunnels: &'a Tunnels,
    /// Options of the copier, besides `-i` and `-x`.
    pub options: &'a [String],
}

impl Rehearsal<'_> {
    /// Foretells what replays of the first services will come to, at most so many: the files are read once more for
    /// each. What can be read only once was read.
    ///
    /// # Errors
    /// Options that the copier does not take, files that cannot be opened again, and a host that cannot start threads.
    pub fn foretell(&self, findings: &mut Findings, most: usize) -> Result<(), ExitError> {
        let is_repeatable = |name: &String| Source::new(name).is_repeatable();
        if !self.files.iter().all(is_repeatable) {
            return Ok(());
        }
        for service in findings.services.iter_mut().take(most) {
            if let Some(address) = service.endpoint() {
                service.replay = Some(self.of_service(address)?);
            }
        }
        Ok(())
    }

    fn of_service(&self, service: SocketAddr) -> Result<Foretold, ExitError> {
        let target = match service.ip() {
            IpAddr::V4(_) => SocketAddr::new(TARGET_V4.into(), service.port()),
            IpAddr::V6(_) => SocketAddr::new(TARGET_V6.into(), service.port()),
        };
        let mapping = format!("{service}-{target}");
        let words = ["millrace-copier", "-x", &mapping, "--local"];
        let words = words
            .into_iter()
            .chain(self.options.iter().map(String::as_str));
        let mut options: Options = config::parse_from(words, |_| None)?;
        options.capture.devices = Vec::from(self.files);
        let (feed, mut engine) = plan::replay(&options)?;
        engine.loopback_clients = vec![CLIENT_V4.into(), CLIENT_V6.into()];
        // The same recording always comes to the same.
        engine.seed = 0;
        let services = engine.services.clone();
        let feed = FeedConfig {
            tunnels: self.tunnels.clone(),
            progress: false,
            ..feed
        };
        let report = rehearse(feed, Engine::new(engine))?;
        let least = options.offline.min_fidelity.unwrap_or(1.0);
        let judgement = outcome::judge(&report, least, &services).err();
        Ok(Foretold::new(
            report,
            judgement.map(|error| error.to_string()),
        ))
    }
}

/// Replays at an ideal target.
fn rehearse(config: FeedConfig, mut engine: Engine) -> Result<Report, ExitError> {
    let cannot = |error: &dyn std::error::Error| ExitError::caused("cannot read the files", error);
    let waker = Waker::new().map_err(|error| cannot(&error))?;
    let mut feed = Feed::open(config, waker.clone())?;
    let mut decoder = feed.decoder();
    let mut target = IdealTarget::default();
    let mut now = BEGIN;
    engine.set_open(now, true);
    loop {
        let step = feed.step(now, &mut engine, &mut decoder, Mode::Running);
        exchange(now, &mut engine, &mut target);
        let due = match step {
            Step::More => continue,
            Step::Reading => {
                wait(&[waker.as_fd()], Some(LOOK_AGAIN)).map_err(|error| cannot(&error))?;
                waker.clear();
                continue;
            }
            Step::At(due) => due,
            Step::Waiting | Step::Over => now + LONGEST_JUMP,
        };
        if feed.is_finished(now, &engine) {
            break;
        }
        let timers = [target.poll_timeout(), engine.poll_timeout()];
        let next = timers.into_iter().flatten().fold(due, Time::min);
        now = next.max(now + SHORTEST_JUMP);
    }
    engine.shutdown(now);
    Ok(report(&engine, &feed, &decoder))
}

/// Lets engine and target say to each other what is due.
fn exchange(now: Time, engine: &mut Engine, target: &mut IdealTarget) {
    target.deliver(now, engine);
    engine.timeout(now);
    while let Some(packet) = engine.poll_transmit(now) {
        target.take(now, &packet);
    }
    while let Some(event) = engine.poll_event() {
        match event {
            Event::FlowClosed { key } => target.forget(key),
            Event::FlowOpened { .. } | Event::TargetSilent(_) | Event::Misdirected { .. } => {}
        }
    }
}

fn report(engine: &Engine, feed: &Feed, decoder: &Decoder) -> Report {
    Report::new(&Sources {
        elapsed: Duration::ZERO,
        stats: engine.stats(),
        gauges: engine.gauges(),
        intensity: Default::default(),
        ring: Default::default(),
        answers: Default::default(),
        syns_lost: 0,
        decode: decoder.counters(),
        others: decoder.others(),
        pressure: Default::default(),
        send: &Default::default(),
        dropped_batches: 0,
        probes: Vec::new(),
        recording: Some(feed.recording()),
    })
}

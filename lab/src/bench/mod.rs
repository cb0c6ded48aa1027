//! The benchmark from end to end, on a stage of its own: one copier shard against a bare loop from capture to
//! sending, and what copier and interceptor use for sessions of one request.

mod channel;
mod clients;
mod contest;
mod fanout;
mod load;
mod programs;
mod sessions;
mod table;
mod turns;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_lab::apps::{Nginx, Redis};
use millrace_lab::recorder::{Recorder, RecorderConfig};
use millrace_lab::{DEVICE, Host, Process, Result, Stage, StageOptions};

use crate::demo::{end, say};
use channel::{Channel, ChannelOptions};
use contest::{Contest, Traffic};
use programs::{Copier, PATIENCE};
use sessions::Sessions;

const NGINX: u16 = 80;
const REDIS: u16 = 6379;
/// The key that clients of Redis ask for, and the bytes of its value.
const KEY: &str = "bench";
const VALUE: usize = 200;
const RECORDER: u16 = 8080;
/// How long an idle copier is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// Where reflected packets go: the target drops them unseen.
const NOTHING: u16 = 9;

/// Another benchmark in place of that of one copier.
#[derive(Debug, Subcommand)]
enum Part {
    /// The fan-out to 1, 10 and 50 interceptors that all have answers, behind a director
    FanOut(fanout::Options),
    /// What clients of the live server feel without a copier, with one, and with one bounded in processor time
    Clients(clients::Options),
    /// What each turn costs beyond the target's own time
    Turns(turns::Options),
    /// The same under more and more load, until clients come to no more
    Load(load::Options),
}

/// How the benchmark runs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often copier and reflector take turns, for each kind of traffic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Seconds of traffic for each of them in a round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Sessions of one request
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    sessions: u64,
    /// How many of them begin in a second: two processors serve, copy and answer all of them
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    #[command(flatten)]
    channel: ChannelOptions,
}

/// Where a service is, where its copy goes, and how its copier reaches interceptors.
#[derive(Clone, Debug)]
struct Service {
    live: SocketAddr,
    target: SocketAddr,
    /// On the target, where the reflector sends.
    nothing: SocketAddr,
    channel: Channel,
}

impl Service {
    fn new(stage: &Stage, port: u16, channel: &Channel) -> Result<Self> {
        let target = stage.target.address.v4;
        Ok(Self {
            live: (stage.live()?.address.v4, port).into(),
            target: (target, port).into(),
            nothing: (target, NOTHING).into(),
            channel: channel.clone(),
        })
    }
}

/// A stage with a server of one kind on the live server and on the target, and an interceptor. Ends in this order.
struct Served<S> {
    service: Service,
    interceptor: Process,
    _servers: [S; 2],
    stage: Stage,
}

impl Served<Nginx> {
    fn pages(channel: ChannelOptions) -> Result<Self> {
        Self::new("nginx", NGINX, channel, |host| Nginx::start(host, NGINX))
    }
}

impl Served<Redis> {
    fn keys(channel: ChannelOptions) -> Result<Self> {
        Self::new("redis", REDIS, channel, |host| {
            let redis = Redis::start(host, REDIS)?;
            redis.ask(&["set", KEY, &"v".repeat(VALUE)])?;
            Ok(redis)
        })
    }
}

impl<S> Served<S> {
    fn new(
        name: &str,
        port: u16,
        channel: ChannelOptions,
        start: impl Fn(&Host) -> Result<S>,
    ) -> Result<Self> {
        millrace_lab::enter()?;
        programs::check_built()?;
        say(&format!(
            "building the lab, with {name} on the live server and on the target"
        ));
        let stage = Stage::new(StageOptions::default())?;
        let channel = Channel::new(&stage, channel)?;
        Ok(Self {
            service: Service::new(&stage, port, &channel)?,
            _servers: [start(&stage.live()?.host)?, start(&stage.target.host)?],
            interceptor: programs::interceptor(&stage, &channel)?,
            stage,
        })
    }

    /// Ends the interceptor as an operator would, and all else after it.
    fn end(mut self) -> Result<()> {
        end(&mut self.interceptor, PATIENCE)
    }
}

/// Runs it and prints its table.
pub(crate) fn run(options: &Options) -> Result<bool> {
    match &options.part {
        Some(Part::FanOut(options)) => return fanout::run(options),
        Some(Part::Clients(options)) => return clients::run(options),
        Some(Part::Turns(options)) => return turns::run(options),
        Some(Part::Load(options)) => return load::run(options),
        None => {}
    }
    millrace_lab::enter()?;
    programs::check_built()?;
    programs::check_reflector_built()?;
    say("building the lab, with nginx and a recording server on the live server and on the target");
    let stage = Stage::new(StageOptions::default())?;
    prepare(&stage)?;
    let live = &stage.live()?.host;
    let recorder = RecorderConfig {
        http: vec![RECORDER],
        ..RecorderConfig::default()
    };
    let _servers = [
        (
            Nginx::start(live, NGINX)?,
            Recorder::start(live, &recorder)?,
        ),
        (
            Nginx::start(&stage.target.host, NGINX)?,
            Recorder::start(&stage.target.host, &recorder)?,
        ),
    ];
    let channel = Channel::new(&stage, options.channel)?;
    let mut interceptor = programs::interceptor(&stage, &channel)?;
    let lasting = Duration::from_secs(options.seconds);
    let mut contests = Vec::new();
    for (traffic, port) in [(Traffic::KeepAlive, NGINX), (Traffic::Uploads, RECORDER)] {
        say(&format!(
            "copier and reflector in turn, {} rounds: {}",
            options.rounds,
            traffic.name()
        ));
        let service = Service::new(&stage, port, &channel)?;
        let contest = Contest::run(&stage, &service, traffic, options.rounds, lasting)?;
        contests.push(contest);
    }
    say(&format!("{} sessions of one request", options.sessions));
    let service = Service::new(&stage, NGINX, &channel)?;
    let load = (options.sessions, options.rate);
    let sessions = Sessions::run(&stage, &service, &interceptor, load)?;
    say(&format!("a copier without traffic, {} s", IDLE.as_secs()));
    let idle = Copier::start(&stage, &service, &[])?.idle(IDLE)?;
    say(&table::table(&contests, &sessions, idle));
    end(&mut interceptor, PATIENCE)?;
    Ok(true)
}

/// The middle one of some values; nothing's is 0.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Makes both contestants' work the same.
fn prepare(stage: &Stage) -> Result<()> {
    // The reflector cannot cut the 64 KB segments that come from a sender with TSO: clients send what fits the MTU.
    let segments = format!("link set dev {DEVICE} gso_max_segs 1");
    stage.client()?.host.ip(&[segments])?;
    // What happens to a sent packet beyond the device is not in the sender's time.
    stage.live()?.link.receive_in_thread()?;
    // Reflected packets belong to no connection: resets for them would only take processor time from all others.
    let rules = format!("add rule ip bench in tcp dport {NOTHING} drop");
    for command in [
        "add table ip bench",
        "add chain ip bench in { type filter hook prerouting priority -300; }",
        &rules,
    ] {
        stage.target.host.check("nft", &[command])?;
    }
    Ok(())
}

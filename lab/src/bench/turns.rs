//! What each turn of a copied connection costs beyond the target's own time: clients that ask one request after the other,
//! as databases and caches on a local network are asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use millrace_lab::apps::Nginx;
use millrace_lab::fault::Fault;
use millrace_lab::{Error, Result, Stage, StageOptions};

use super::programs::{self, Copier, Work};
use super::{NGINX, Service};
use crate::demo::report::Report;
use crate::demo::say;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: live\r\n\r\n";
/// What a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the target may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Connections, and microseconds that a client thinks between two turns.
const CASES: [(usize, u64); 5] = [(1, 1000), (1, 100), (1, 0), (4, 100), (64, 2000)];

/// How it runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of load for each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Percent of the packets to the target that are lost
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// Percent of the target's responses that are lost on their way to the interceptor
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    response_loss: f64,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=50.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err("a number from 0 to 50 is wanted".to_owned()),
    }
}

/// One case.
#[derive(Debug)]
struct Run {
    connections: usize,
    pause: u64,
    turns: u64,
    seconds: f64,
    /// Share of the bytes that the target had when the clients ended.
    kept: f64,
    /// Seconds from the end of the clients to the end of their copies.
    behind: f64,
    work: Work,
    report: Report,
}

/// Runs it and prints its table.
pub(super) fn run(options: &Options) -> Result<bool> {
    millrace_lab::enter()?;
    programs::check_built()?;
    say("building the lab, with nginx on the live server and on the target");
    let mut stage = Stage::new(StageOptions::default())?;
    if options.loss > 0.0 || options.response_loss > 0.0 {
        let [to, from] = [options.loss, options.response_loss].map(|loss| Fault {
            loss: loss / 100.0,
            ..Fault::none()
        });
        stage.target.link.set_faults(to, from, 1)?;
    }
    let _live = Nginx::start(&stage.live()?.host, NGINX)?;
    let _target = Nginx::start(&stage.target.host, NGINX)?;
    let _interceptor = programs::interceptor(&stage)?;
    let service = Service::new(&stage, NGINX)?;
    let lasting = Duration::from_secs(options.seconds);
    let mut runs = Vec::new();
    for (connections, pause) in CASES {
        say(&format!(
            "{connections} connections, {pause} us between turns"
        ));
        runs.push(one(&stage, &service, connections, pause, lasting)?);
    }
    say(&table(&runs));
    Ok(true)
}

fn one(
    stage: &Stage,
    service: &Service,
    connections: usize,
    pause: u64,
    lasting: Duration,
) -> Result<Run> {
    let copier = Copier::start(stage, service, &[])?;
    let to = service.live;
    let think = Duration::from_micros(pause);
    let started = Instant::now();
    let clients = (0..connections).map(|_| {
        let host = &stage.client()?.host;
        let host = host.clone();
        Ok(std::thread::spawn(move || {
            host.enter(move || turns(to, think, lasting))
        }))
    });
    let clients: Vec<_> = clients.collect::<Result<_>>()?;
    let mut turns = 0;
    for client in clients {
        let done = client
            .join()
            .map_err(|_| Error::Unsupported("a client's thread has panicked".to_owned()))?;
        turns += done?.map_err(|source| Error::Io {
            what: "asking the live server".to_owned(),
            source,
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let ended = Instant::now();
    let kept = copier.status()?;
    let kept = kept.delivered() as f64 / kept.captured().max(1) as f64;
    let (work, report) = copier.finish_within(CATCH_UP)?;
    Ok(Run {
        connections,
        pause,
        turns,
        seconds,
        kept,
        behind: ended.elapsed().as_secs_f64(),
        work,
        report,
    })
}

/// Asks one request after the other on one connection; gives their number.
fn turns(to: SocketAddr, think: Duration, lasting: Duration) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 64 << 10];
    let length = first(&mut stream, &mut buffer)?;
    let ends = Instant::now() + lasting;
    let mut count = 1;
    while Instant::now() < ends {
        if !think.is_zero() {
            std::thread::sleep(think);
        }
        stream.write_all(REQUEST)?;
        let answer = buffer.get_mut(..length).unwrap_or_default();
        stream.read_exact(answer)?;
        count += 1;
    }
    Ok(count)
}

/// Asks once; gives the length of the answer.
fn first(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    let malformed = || std::io::Error::other("the answer has no length");
    stream.write_all(REQUEST)?;
    let mut filled = 0;
    loop {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        let so_far = buffer.get(..filled).unwrap_or_default();
        let text = String::from_utf8_lossy(so_far);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|(_, value)| value.parse::<usize>().ok());
            let whole = head.len() + 4 + length.ok_or_else(malformed)?;
            if head.len() + 4 + body.len() >= whole {
                return Ok(whole);
            }
        }
        if filled == buffer.len() {
            return Err(malformed());
        }
    }
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "\n{:>5} {:>9} {:>9} {:>15} {:>15} {:>8} {:>9} {:>13}\n{:>5} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>9} {:>13}\n{}\n",
        "conns",
        "pause us",
        "turns/s",
        "live us",
        "target us",
        "kept",
        "behind s",
        "CPU us/turn",
        "",
        "",
        "",
        "p50",
        "p99",
        "p50",
        "p99",
        "",
        "",
        "copier",
        "-".repeat(84)
    );
    for run in runs {
        let latency = |side, percentile| {
            run.report
                .latency("first_byte", side, percentile)
                .unwrap_or_default()
        };
        text += &format!(
            "{:>5} {:>9} {:>9.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>8.3} {:>9.2} {:>13.1}\n",
            run.connections,
            run.pause,
            run.turns as f64 / run.seconds,
            latency("live", "p50"),
            latency("live", "p99"),
            latency("target", "p50"),
            latency("target", "p99"),
            run.kept,
            run.behind,
            run.work.process * 1e6 / run.turns.max(1) as f64,
        );
    }
    text
}

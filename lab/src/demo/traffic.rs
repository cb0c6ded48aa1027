//! The live traffic: real clients against nginx and redis, the lab's own against the recording server.

use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::{Error, Host, Place, Result, Stage, find_program};

use super::{GREETING, HTTP, HTTP_TOO, NGINX, REDIS, RESP};

/// Requests per round of redis-benchmark, which knows no rate: a round each second.
const REDIS_ROUND: u64 = 4_000;
/// What a keep-alive client waits before its next request: wrk is the one that does not wait.
const THINK: Duration = Duration::from_millis(2);

/// Traffic that flows.
pub(super) struct Traffic {
    loads: Vec<(&'static str, JoinHandle<Result<Summary>>)>,
    tools: Vec<(&'static str, JoinHandle<Result<u64>>)>,
}

/// What the clients saw.
pub(super) struct Seen {
    /// Each kind with its name.
    pub(super) loads: Vec<(&'static str, Summary)>,
    /// Requests of the real client programs; nothing where one is not installed.
    pub(super) tools: Vec<(&'static str, u64)>,
}

impl Traffic {
    pub(super) fn start(stage: &Stage, lasting: Duration) -> Result<Self> {
        let [first, second] = stage.clients.as_slice() else {
            return Err(Error::Unsupported(
                "the demo needs two client hosts".to_owned(),
            ));
        };
        let live = stage.live()?.address;
        let mut loads = Vec::new();
        for (client, address) in [(first, IpAddr::from(live.v4)), (second, live.v6.into())] {
            for (name, load) in kinds(client, address, lasting) {
                loads.push((name, client.host.start(move || load.run())));
            }
        }
        let mut tools = Vec::new();
        if find_program("wrk").is_some() {
            let (host, url) = (
                first.host.clone(),
                format!("http://{}/", SocketAddr::new(live.v4.into(), NGINX)),
            );
            tools.push(("wrk", std::thread::spawn(move || wrk(&host, &url, lasting))));
        }
        if find_program("redis-benchmark").is_some() {
            let (host, address) = (second.host.clone(), live.v4.to_string());
            let end = Instant::now() + lasting;
            tools.push((
                "redis-benchmark",
                std::thread::spawn(move || redis(&host, &address, end)),
            ));
        }
        Ok(Self { loads, tools })
    }

    pub(super) fn is_done(&self) -> bool {
        self.loads.iter().all(|(_, thread)| thread.is_finished())
            && self.tools.iter().all(|(_, thread)| thread.is_finished())
    }

    /// Waits for all of it.
    pub(super) fn finish(self) -> Result<Seen> {
        let loads = self
            .loads
            .into_iter()
            .map(|(name, thread)| Ok((name, joined(name, thread)?)));
        let tools = self
            .tools
            .into_iter()
            .map(|(name, thread)| Ok((name, joined(name, thread)?)));
        Ok(Seen {
            loads: loads.collect::<Result<_>>()?,
            tools: tools.collect::<Result<_>>()?,
        })
    }
}

fn joined<T>(name: &str, thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::Unsupported(format!("the thread of {name} panicked"))))
}

/// What one client host does, sized so that all of it together leaves a small machine room to copy it.
#[expect(clippy::too_many_lines, reason = "one table of loads")]
fn kinds(client: &Place, address: IpAddr, lasting: Duration) -> Vec<(&'static str, Load)> {
    let from: Vec<IpAddr> = client
        .addresses
        .iter()
        .flat_map(|pair| pair.both())
        .collect();
    let at = |port| SocketAddr::new(address, port);
    let seconds = lasting.as_secs();
    let rate = 100;
    let small = "/bytes/2000".to_owned();
    let kinds = [
        (
            "one request per connection",
            Kind::OneRequest {
                count: rate * seconds,
                rate: Some(rate as f64),
                path: small.clone(),
            },
            HTTP,
            16,
        ),
        (
            "keep-alive",
            Kind::KeepAlive {
                lasting,
                pause: THINK,
                path: small,
            },
            HTTP,
            8,
        ),
        (
            "uploads of 100 KB",
            Kind::Upload {
                size: 100_000,
                count: 5 * seconds,
            },
            HTTP,
            1,
        ),
        (
            "uploads of 10 MB",
            Kind::Upload {
                size: 10_000_000,
                count: seconds.div_ceil(10),
            },
            HTTP,
            1,
        ),
        (
            "downloads of 1 MB",
            Kind::Download {
                size: 1_000_000,
                count: 2 * seconds,
            },
            HTTP,
            1,
        ),
        (
            "pipelined redis commands",
            Kind::Resp {
                count: seconds,
                batches: 50,
                pipeline: 32,
            },
            RESP,
            1,
        ),
        (
            "server speaks first",
            Kind::Greeting {
                count: 5 * seconds,
                lines: 5,
            },
            GREETING,
            1,
        ),
        (
            "idle, then a request",
            Kind::Idle {
                count: 5,
                lasting: lasting.mul_f64(0.7),
            },
            HTTP,
            1,
        ),
        (
            "two services, one port",
            Kind::SamePort {
                count: 2 * seconds,
                other: at(HTTP_TOO),
                first_port: 20_000,
            },
            HTTP,
            1,
        ),
    ];
    kinds
        .into_iter()
        .map(|(name, kind, port, concurrency)| {
            (
                name,
                Load::new(kind, at(port))
                    .from(&from)
                    .concurrency(concurrency),
            )
        })
        .collect()
}

/// For a third of the time at its full speed. Returns its requests.
fn wrk(host: &Host, url: &str, lasting: Duration) -> Result<u64> {
    let duration = format!("-d{}s", (lasting.as_secs() / 3).max(1));
    let text = host.check("wrk", &["-t1", "-c8", &duration, url])?;
    wrk_requests(&text)
}

/// The number of requests in what wrk prints.
///
/// # Errors
/// When it says that some failed.
pub(crate) fn wrk_requests(text: &str) -> Result<u64> {
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(Error::Unsupported(format!(
            "wrk saw errors of the live server:\n{text}"
        )));
    }
    let requests = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .and_then(|line| line.split_whitespace().next()?.parse().ok());
    requests.ok_or_else(|| Error::Malformed {
        what: "the output of wrk".to_owned(),
        detail: text.to_owned(),
    })
}

/// A round each second until the end. Returns its requests.
fn redis(host: &Host, address: &str, end: Instant) -> Result<u64> {
    let (port, round) = (REDIS.to_string(), REDIS_ROUND.to_string());
    let arguments = [
        "-h", address, "-p", &port, "-n", &round, "-c", "10", "-P", "8", "-q", "-r", "1000", "-t",
        "set,get",
    ];
    let mut requests = 0;
    while Instant::now() < end {
        let next = Instant::now() + Duration::from_secs(1);
        host.check("redis-benchmark", &arguments)?;
        // One round for each of the two commands.
        requests += 2 * REDIS_ROUND;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(requests)
}

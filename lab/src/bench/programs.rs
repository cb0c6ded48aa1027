//! The programs that are measured, on their hosts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_lab::{CpuTime, DEVICE, Error, Process, Result, Stage, binary, wait_for};

use super::Service;
use super::channel::{Channel, Side};
use crate::demo::report::Report;
use crate::demo::traffic::wrk_requests;
use crate::demo::{admin, end, ended, ready};

pub(super) const COPIER: &str = "millrace-copier";
const INTERCEPTOR: &str = "millrace-interceptor";
const REFLECTOR: &str = "examples/reflector";
/// Where the interceptor listens for copiers.
const PORT: u16 = 36_524;
/// The copier's capture buffer in MB: as much as the reflector's.
const BUFFER: &str = "64";
/// Connections of wrk, which asks for the next page as soon as it has one.
const WRK_CONNECTIONS: &str = "-c32";
/// Silence after which a measurement is over.
const QUIET: Duration = Duration::from_millis(500);
/// How long a copier may have to do with its start.
const SETTLED: Duration = Duration::from_secs(2);
/// How long what was captured may take to be delivered, and a daemon to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What one program did with one run of traffic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Requests of the clients, where they are counted.
    pub(super) requests: u64,
    /// Frames that the kernel put into its ring: of clients and of the live server.
    pub(super) captured: u64,
    /// Frames that found the ring full.
    pub(super) dropped: u64,
    /// Headers of the target's packets that it took in.
    pub(super) headers: u64,
    /// Packets that the kernel took for the target.
    pub(super) sent: u64,
    /// Packets for it that found a queue full: at the end of their way they had cost as much as the others.
    pub(super) refused: u64,
    /// Seconds from the first packet to the last.
    pub(super) seconds: f64,
    /// Processor seconds of the thread that captures and sends.
    pub(super) shard: f64,
    /// Processor seconds of the whole process.
    pub(super) process: f64,
    /// The same of the copier, by what it was used for.
    pub(super) split: CpuTime,
}

impl Work {
    /// All that it had to do with: packets captured, headers of the target's packets, and packets sent or refused.
    pub(super) fn packets(&self) -> f64 {
        (self.captured + self.headers + self.sent + self.refused) as f64
    }
}

/// Fails early, with the right advice, when something has not been built.
pub(super) fn check_built() -> Result<()> {
    binary(COPIER)?;
    binary(INTERCEPTOR).map(drop)
}

/// The same of the reflector, which one benchmark alone needs.
pub(super) fn check_reflector_built() -> Result<()> {
    binary(REFLECTOR).map(drop).map_err(|_| {
        Error::Unsupported(
            "the reflector is not built: cargo build --release -p millrace-capture --example reflector"
                .to_owned(),
        )
    })
}

/// Has a client ask the live server at full speed, on connections that stay; what wrk prints, and the number of requests.
pub(super) fn wrk(stage: &Stage, service: &Service, lasting: Duration) -> Result<(String, u64)> {
    let duration = format!("-d{}s", lasting.as_secs().max(1));
    let url = format!("http://{}/", service.live);
    let arguments = ["-t1", WRK_CONNECTIONS, "--latency", &duration, &url];
    let text = stage.client()?.host.check("wrk", &arguments)?;
    let requests = wrk_requests(&text)?;
    Ok((text, requests))
}

/// The interceptor, on the assistant.
pub(super) fn interceptor(stage: &Stage, channel: &Channel) -> Result<Process> {
    let place = &stage.assistant;
    let (listen, port) = (place.address.v4.to_string(), PORT.to_string());
    let admin = admin().to_string();
    let arguments = ["-i", DEVICE, "-b", &listen, "-p", &port, "--admin", &admin];
    let security = channel.arguments(Side::Interceptor);
    let security: Vec<_> = security.iter().map(String::as_str).collect();
    let arguments = [&arguments[..], &security].concat();
    let log = place.host.file("interceptor.log");
    let mut process = place
        .host
        .spawn(binary(INTERCEPTOR)?, &arguments, &[], &log)?;
    ready(&place.host, &mut process)?;
    Ok(process)
}

/// The copier, on the live server.
pub(super) struct Copier<'a> {
    stage: &'a Stage,
    process: Process,
    report: PathBuf,
    started: Instant,
    /// Shard and process at the start of the measurement: getting ready does not count.
    used: (Duration, CpuTime),
}

impl<'a> Copier<'a> {
    /// One that copies what is captured.
    pub(super) fn start(stage: &'a Stage, service: &Service, more: &[&str]) -> Result<Self> {
        let capture = ["-i", DEVICE, "-B", BUFFER];
        Self::spawn(stage, service, &[&capture[..], more].concat())
    }

    /// One that replays a recording at its own pace, and ends with it.
    pub(super) fn replay(
        stage: &'a Stage,
        service: &Service,
        file: &str,
        more: &[&str],
    ) -> Result<Self> {
        Self::spawn(stage, service, &[&["-i", file], more].concat())
    }

    fn spawn(stage: &'a Stage, service: &Service, more: &[&str]) -> Result<Self> {
        let live = stage.live()?;
        let report = live.host.file("report.json");
        let services = format!("{}-{}", service.live, service.target);
        let interceptor = format!("{}:{PORT}", stage.assistant.address.v4);
        let (report_file, admin) = (report.display().to_string(), admin().to_string());
        let arguments = [
            "-x",
            &services,
            "-s",
            &interceptor,
            "--admin",
            &admin,
            "--report",
            &report_file,
        ];
        let security = service.channel.arguments(Side::Copier);
        let security: Vec<_> = security.iter().map(String::as_str).collect();
        let arguments = [&arguments[..], &security, more].concat();
        let log = live.host.file("copier.log");
        let mut process = live.host.spawn(binary(COPIER)?, &arguments, &[], &log)?;
        ready(&live.host, &mut process)?;
        let used = (process.thread_cpu_time("shard")?, process.cpu_time()?);
        Ok(Self {
            stage,
            process,
            report,
            started: Instant::now(),
            used,
        })
    }

    /// Waits until it has ended by itself, everything delivered.
    pub(super) fn end_by_itself(mut self, patience: Duration) -> Result<(Work, Report)> {
        // Asked as long as there is somebody to ask.
        let mut used = self.used;
        wait_for("the replay to end", patience, || {
            let cpu = (
                self.process.thread_cpu_time("shard"),
                self.process.cpu_time(),
            );
            if let (Ok(shard), Ok(process)) = cpu {
                used = (shard, process);
            }
            !self.process.is_running()
        })?;
        let seconds = self.started.elapsed().as_secs_f64();
        if !self.process.wait(PATIENCE)?.success() {
            return Err(ended(self.process.label(), &self.process.log()));
        }
        let report = Report::load(&self.report)?;
        Ok((self.work(&report, seconds, used), report))
    }

    fn work(&self, report: &Report, seconds: f64, used: (Duration, CpuTime)) -> Work {
        let number = |pointer| report.number(pointer).unwrap_or_default();
        let split = used.1.since(self.used.1);
        Work {
            requests: 0,
            captured: number("/capture/received"),
            dropped: number("/capture/dropped"),
            headers: number("/packets/response_headers"),
            sent: number("/send/packets"),
            refused: number("/send/errors/no_buffers"),
            seconds,
            shard: used.0.saturating_sub(self.used.0).as_secs_f64(),
            process: split.total().as_secs_f64(),
            split,
        }
    }

    /// Ends it; what it has left out is in its report.
    pub(super) fn end(mut self) -> Result<Report> {
        end(&mut self.process, PATIENCE)?;
        Report::load(&self.report)
    }

    /// The share of a processor that it takes without any traffic, once it has had a moment after its start, in so much time.
    pub(super) fn idle(self, lasting: Duration) -> Result<f64> {
        std::thread::sleep(SETTLED);
        let before = self.process.cpu_time()?;
        std::thread::sleep(lasting);
        let used = self.process.cpu_time()?.since(before).total();
        self.end()?;
        Ok(used.as_secs_f64() / lasting.as_secs_f64())
    }

    /// What it reports now, or did a quarter of a second ago.
    pub(super) fn status(&self) -> Result<Report> {
        let status = self.stage.live()?.host.get_json(admin(), "/status")?;
        Ok(Report::in_status(&status))
    }

    /// Waits until all that was captured is delivered, and ends it. What was not delivered is an error: a copier
    /// that sends less is not faster.
    pub(super) fn finish(self) -> Result<(Work, Report)> {
        self.finish_within(PATIENCE)
    }

    /// The same, and it may take so long.
    pub(super) fn finish_within(mut self, patience: Duration) -> Result<(Work, Report)> {
        let host = &self.stage.live()?.host;
        let mut last = Report::default();
        let delivered = wait_for("all bytes to be delivered", patience, || {
            let Ok(status) = host.get_json(admin(), "/status") else {
                return !self.process.is_running();
            };
            last = Report::in_status(&status);
            last.captured() > 0
                && last.captured() == last.delivered()
                && last.number("/replicas/open") == Some(0)
        });
        if !self.process.is_running() {
            return Err(ended(self.process.label(), &self.process.log()));
        }
        delivered.map_err(|_| {
            Error::Unsupported(format!(
                "the copier captured {} bytes and delivered {}, {} replicas are still open after {patience:?}; capture \
                 dropped {} packets (is this machine busy with something else?)",
                last.captured(),
                last.delivered(),
                last.number("/replicas/open").unwrap_or_default(),
                last.number("/capture/dropped").unwrap_or_default(),
            ))
        })?;
        let seconds = self.started.elapsed().as_secs_f64();
        let used = (
            self.process.thread_cpu_time("shard")?,
            self.process.cpu_time()?,
        );
        end(&mut self.process, PATIENCE)?;
        let report = Report::load(&self.report)?;
        Ok((self.work(&report, seconds, used), report))
    }
}

/// The bare loop from capture to sending, on the live server.
pub(super) struct Reflector(Process);

impl Reflector {
    pub(super) fn start(stage: &Stage, service: &Service) -> Result<Self> {
        let host = &stage.live()?.host;
        let (from, to) = (service.live.to_string(), service.nothing.to_string());
        let quiet = QUIET.as_millis().to_string();
        let arguments = [
            "--device",
            DEVICE,
            "--from",
            &from,
            "--to",
            &to,
            "--seconds",
            "60",
            "--quiet",
            &quiet,
        ];
        let log = host.file("reflector.log");
        let mut process = host.spawn(binary(REFLECTOR)?, &arguments, &[], &log)?;
        // It captures as soon as the namespace has a packet socket, below the heading of that list.
        let sockets = format!("/proc/{}/net/packet", process.pid());
        wait_for("the reflector to capture", PATIENCE, || {
            !process.is_running()
                || std::fs::read_to_string(&sockets).is_ok_and(|list| list.lines().count() > 1)
        })?;
        if !process.is_running() {
            return Err(ended(process.label(), &process.log()));
        }
        Ok(Self(process))
    }

    pub(super) fn finish(mut self) -> Result<Work> {
        let status = self.0.wait(Duration::from_secs(90))?;
        let log = self.0.log();
        if !status.success() {
            return Err(ended(self.0.label(), &log));
        }
        reflected(&log).ok_or_else(|| Error::Malformed {
            what: "the output of the reflector".to_owned(),
            detail: log,
        })
    }
}

/// Its line: `captured=N dropped=N packets=N ... full=N failed=N seconds=S cpu=S ...`.
fn reflected(line: &str) -> Option<Work> {
    let value = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| -> Option<u64> { value(name)?.parse().ok() };
    let cpu = value("cpu")?.parse().ok()?;
    // A packet that could not be sent was not reflected: with any of those, the comparison would be of different work.
    value("failed").filter(|failed| *failed == "0")?;
    Some(Work {
        requests: 0,
        captured: number("captured")?,
        dropped: number("dropped")?,
        headers: 0,
        sent: number("packets")?,
        refused: number("full")?,
        seconds: value("seconds")?.parse().ok()?,
        shard: cpu,
        process: cpu,
        split: CpuTime::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::reflected;

    #[test]
    fn the_reflectors_line_is_read_unless_a_packet_was_refused() {
        let line = "captured=10 dropped=1 packets=4 bytes=99 full=2 failed=0 seconds=1.500 cpu=0.250 packets_per_second=3";
        let work = reflected(line).unwrap();
        assert_eq!((work.captured, work.dropped), (10, 1));
        assert_eq!((work.sent, work.refused), (4, 2));
        assert_eq!((work.seconds, work.shard), (1.5, 0.25));
        assert!((work.packets() - 16.0).abs() < 1e-9);
        assert!(reflected(&line.replace("failed=0", "failed=3")).is_none());
        assert!(reflected("reflector: no such device").is_none());
    }
}

//! Copier and interceptor on their hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_lab::{Host, Process, Result, Stage, binary, wait_for};

use super::report::Report;
use super::{GREETING, HTTP, HTTP_TOO, NGINX, REDIS, RESP, ended};

const COPIER: &str = "millrace-copier";
const INTERCEPTOR: &str = "millrace-interceptor";
/// Where interceptors listen for copiers.
const PORT: u16 = 36_524;
/// Admin port of each, on the loopback of its own host.
const ADMIN: u16 = 9_100;
/// How long a daemon may take until it says that it is ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long open sessions may take to finish.
const GRACE: Duration = Duration::from_secs(20);

/// Both daemons.
pub(super) struct Daemons {
    live: Host,
    report: PathBuf,
    copier: Process,
    interceptor: Process,
}

/// Fails early, with the right advice, when the daemons have not been built.
pub(super) fn check_built() -> Result<()> {
    binary(COPIER)?;
    binary(INTERCEPTOR).map(drop)
}

impl Daemons {
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let assistant = &stage.assistant;
        let listen = assistant.address.v4.to_string();
        let (port, admin) = (PORT.to_string(), admin().to_string());
        let log = assistant.host.file("interceptor.log");
        let arguments = [
            "-i",
            "eth0",
            "-b",
            &listen,
            "-p",
            &port,
            "--insecure",
            "--admin",
            &admin,
        ];
        let mut interceptor = assistant
            .host
            .spawn(binary(INTERCEPTOR)?, &arguments, &[], &log)?;
        ready(&assistant.host, &mut interceptor)?;

        let live = stage.live()?;
        let report = live.host.file("report.json");
        let (services, interceptor_at) = (services(stage)?, format!("{listen}:{PORT}"));
        let (report_file, grace) = (report.display().to_string(), GRACE.as_secs().to_string());
        let arguments = [
            "-x",
            &services,
            "-s",
            &interceptor_at,
            "-i",
            "eth0",
            "--insecure",
            "--admin",
            &admin,
            "--report",
            &report_file,
            "--grace",
            &grace,
        ];
        let log = live.host.file("copier.log");
        let mut copier = live.host.spawn(binary(COPIER)?, &arguments, &[], &log)?;
        ready(&live.host, &mut copier)?;
        Ok(Self {
            live: live.host.clone(),
            report,
            copier,
            interceptor,
        })
    }

    /// What the copier reports at this moment.
    pub(super) fn status(&mut self) -> Result<Report> {
        for daemon in [&mut self.copier, &mut self.interceptor] {
            if !daemon.is_running() {
                return Err(ended(daemon.label(), &daemon.log()));
            }
        }
        self.live
            .get_json(admin(), "/status")
            .map(|status| Report::in_status(&status))
    }

    /// Asks the copier to finish, and the interceptor after it; reads the report that the copier leaves.
    pub(super) fn drain(&mut self) -> Result<Report> {
        end(&mut self.copier, GRACE + PATIENCE)?;
        end(&mut self.interceptor, PATIENCE)?;
        Report::load(&self.report)
    }

    /// Waits until as many bytes are delivered as were captured, or nothing more can be expected.
    pub(super) fn settle(&mut self) -> Result<Report> {
        let settled = wait_for("all bytes to be delivered", GRACE, || {
            self.status()
                .is_ok_and(|report| report.captured() == report.delivered())
        });
        // In vain is an answer as well: the table will show it.
        drop(settled);
        self.status()
    }
}

/// Waits until a daemon says that it is ready.
pub(crate) fn ready(host: &Host, process: &mut Process) -> Result<()> {
    ready_at(host, process, admin())
}

/// As [`ready`], with an admin port of its own.
pub(crate) fn ready_at(host: &Host, process: &mut Process, admin: SocketAddr) -> Result<()> {
    let what = format!("{} to be ready", process.label());
    let outcome = wait_for(&what, PATIENCE, || {
        !process.is_running()
            || host
                .get(admin, "/readyz")
                .is_ok_and(|(status, _)| status == 200)
    });
    if process.is_running() {
        outcome
    } else {
        Err(ended(process.label(), &process.log()))
    }
}

/// Ends a daemon as an operator would: what it has to say or to write at its end is part of it.
pub(crate) fn end(process: &mut Process, patience: Duration) -> Result<()> {
    let status = process.terminate(patience)?;
    if !status.success() {
        let who = format!("{} ({status})", process.label());
        return Err(ended(&who, &process.log()));
    }
    Ok(())
}

/// Where daemons say how they are, on the loopback of their own hosts.
pub(crate) fn admin() -> SocketAddr {
    ([127, 0, 0, 1], ADMIN).into()
}

/// The `-x` list: every service, over IPv4 and IPv6.
fn services(stage: &Stage) -> Result<String> {
    let (live, target) = (stage.live()?.address, stage.target.address);
    let ports = [NGINX, REDIS, HTTP, HTTP_TOO, RESP, GREETING];
    let pairs = ports.iter().flat_map(|port| {
        live.both()
            .into_iter()
            .zip(target.both())
            .map(move |(live, target)| {
                format!(
                    "{}-{}",
                    SocketAddr::new(live, *port),
                    SocketAddr::new(target, *port)
                )
            })
    });
    Ok(pairs.collect::<Vec<_>>().join(","))
}

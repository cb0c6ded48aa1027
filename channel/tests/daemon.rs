//! A daemon as a process: exit codes, one line of error, the background, the PID file, signals.
//!
//! This test has a `main` of its own: started with `TEST_DAEMON` set it is the daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unused_crate_dependencies
)]

use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_daemon::daemonize::{self, Launch};
use millrace_daemon::exit::{ExitError, main_with};
use millrace_daemon::options::CommonOptions;
use millrace_daemon::{config, drain, logging, pidfile, signals};
use rustix::process::{Pid, Signal, getsid, kill_process, test_kill_process};

#[derive(Debug, Parser)]
#[command(name = "millrace-test", version)]
struct Options {
    /// Fail before being ready.
    #[arg(long)]
    fail: bool,
    /// Die before being ready.
    #[arg(long)]
    die: bool,
    /// Stay in the drain until the second signal.
    #[arg(long)]
    linger: bool,
    #[command(flatten)]
    common: CommonOptions,
}

fn run() -> Result<(), ExitError> {
    let options: Options = config::parse()?;
    Security::from_options(&options.common, Role::Copier)?;
    let startup = match daemonize::launch(options.common.daemon)? {
        Launch::Parent => return Ok(()),
        Launch::Run(startup) => startup,
    };
    let log = logging::init(&options.common.logging())?;
    let pid_file = options.common.pid_file.as_deref();
    let _pid_file = pid_file.map(pidfile::PidFile::create).transpose()?;
    if options.fail {
        return Err(ExitError::start("cannot open eth7: no such device"));
    }
    if options.die {
        let own = rustix::process::getpid();
        kill_process(own, Signal::KILL).map_err(|it| ExitError::caused("kill", &it))?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|it| ExitError::caused("tokio", &it))?;
    let (trigger, watch) = drain::channel();
    signals::install(runtime.handle(), trigger, log, startup.manager())?;
    startup.ready();
    tracing::info!("up");
    runtime.block_on(async {
        watch.draining().await;
        if options.linger {
            watch.exit().await;
        }
    });
    Ok(())
}

fn main() -> ExitCode {
    if std::env::var_os("TEST_DAEMON").is_some() {
        return main_with("millrace-test", run);
    }
    // Listing is what test runners ask for.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    usage_errors_are_one_line_and_code_64();
    start_errors_are_one_line_and_code_1();
    foreground_ends_in_order_at_the_first_signal();
    lingering_drain_ends_at_the_second_signal();
    background_is_up_when_the_parent_returns();
    background_errors_reach_the_parent();
    println!("daemon: all passed");
    ExitCode::SUCCESS
}

fn daemon(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("TEST_DAEMON", "1").args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    daemon(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

struct Dir(PathBuf);

fn dir(name: &str) -> Dir {
    let path = std::env::temp_dir().join(format!("millrace-daemon-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    Dir(path)
}

impl Dir {
    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn usage_errors_are_one_line_and_code_64() {
    for (arguments, said) in [
        (
            &["--insecur"][..],
            "millrace-test: unexpected argument '--insecur'",
        ),
        (&[], "millrace-test: who may connect?"),
        (
            &["--insecure", "--log-level", "=x"],
            "millrace-test: invalid value '=x' for '--log-level",
        ),
        (&["-d"], "millrace-test: who may connect?"),
    ] {
        let output = output(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {text}");
        assert!(
            text.starts_with(said) && text.lines().count() == 1,
            "{arguments:?}: {text}"
        );
    }
    let version = output(&["-v"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(version.stdout.starts_with(b"millrace-test ") && version.stderr.is_empty());
}

fn start_errors_are_one_line_and_code_1() {
    let output = output(&["--insecure", "--fail"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "millrace-test: cannot open eth7: no such device\n"
    );
}

fn foreground_ends_in_order_at_the_first_signal() {
    let dir = dir("foreground");
    let (pid_file, log) = (dir.file("pid"), dir.file("log"));
    let mut child = daemon(&["--insecure", "-P", &pid_file, "-l", &log])
        .spawn()
        .unwrap();
    eventually("up", || {
        std::fs::read_to_string(&log).is_ok_and(|it| it.contains("up"))
    });
    let second = output(&["--insecure", "-P", &pid_file]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains(&format!("living process {}", child.id())));

    let pid = Pid::from_child(&child);
    std::fs::rename(&log, format!("{log}.1")).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    eventually("a new log", || {
        std::fs::read_to_string(&log).is_ok_and(|it| it.contains("reopened"))
    });
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(&pid_file).exists());
}

fn lingering_drain_ends_at_the_second_signal() {
    let dir = dir("linger");
    let log = dir.file("log");
    let mut child = daemon(&["--insecure", "--linger", "-l", &log])
        .spawn()
        .unwrap();
    let logged = |word: &str| std::fs::read_to_string(&log).is_ok_and(|it| it.contains(word));
    eventually("up", || logged("up"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    eventually("draining", || logged("SIGINT: draining"));
    assert!(child.try_wait().unwrap().is_none());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn background_is_up_when_the_parent_returns() {
    let dir = dir("background");
    let (pid_file, log) = (dir.file("pid"), dir.file("log"));
    let parent = daemon(&["--insecure", "-d", "-P", &pid_file, "-l", &log])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // output() returned, so nothing holds the parent's stdout and stderr open any more.
    assert_eq!(parent.status.code(), Some(0), "{}", stderr(&parent));
    assert_eq!(stderr(&parent), "");
    let pid: i32 = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    assert_eq!(
        getsid(Some(pid)).unwrap(),
        pid,
        "it has a session of its own"
    );
    kill_process(pid, Signal::TERM).unwrap();
    eventually("gone", || test_kill_process(pid).is_err() || zombie(pid));
    eventually("PID file removed", || {
        !std::path::Path::new(&pid_file).exists()
    });
}

/// Without an init that reaps, the orphan may stay as a zombie.
fn zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat.contains(") Z "))
}

fn background_errors_reach_the_parent() {
    let failed = output(&["--insecure", "-d", "--fail"]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(
        stderr(&failed),
        "millrace-test: cannot open eth7: no such device\n"
    );
    let died = output(&["--insecure", "-d", "--die"]);
    assert_eq!(died.status.code(), Some(1));
    assert!(
        stderr(&died).contains("was killed while it started"),
        "{}",
        stderr(&died)
    );
}

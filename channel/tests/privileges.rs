//! A daemon that gives up its privileges, as a process: what each of its threads may still do.
//!
//! This test has a `main` of its own: started with `TEST_DAEMON` set it is the daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unused_crate_dependencies
)]

mod pki;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use clap::Parser;
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_daemon::daemonize::{self, Launch};
use millrace_daemon::exit::{ExitError, main_with};
use millrace_daemon::options::CommonOptions;
use millrace_daemon::pidfile::PidFile;
use millrace_daemon::privileges::{self, Capability, Needs};
use millrace_daemon::{config, drain, logging, signals};
use pki::{Files, ca, good};
use rustix::process::{Signal, getpid, kill_process};

/// User and group that Debian, Fedora and Alpine all have.
const NOBODY: &str = "nobody";

#[derive(Debug, Parser)]
#[command(name = "millrace-test", version)]
struct Options {
    /// A file written at the end.
    #[arg(long)]
    report: Option<PathBuf>,
    /// A file that is none of the daemon's business.
    #[arg(long)]
    foreign: Option<PathBuf>,
    /// Give the capabilities to programs that are started.
    #[arg(long)]
    for_children: bool,
    /// Start a thread too early.
    #[arg(long)]
    early_thread: bool,
    #[command(flatten)]
    common: CommonOptions,
}

/// The daemon: prints what it can do, one `key value` a line.
fn run() -> Result<(), ExitError> {
    let options: Options = config::parse()?;
    let security = Security::from_options(&options.common, Role::Copier)?;
    let Launch::Run(startup) = daemonize::launch(false)? else {
        return Ok(());
    };
    let log = logging::init(&options.common.logging())?;
    if let Some(report) = &options.report {
        fs::write(report, "").unwrap();
    }
    let pid_file = options.common.pid_file.as_deref();
    let _pid_file = pid_file.map(PidFile::create).transpose()?;
    if options.early_thread {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    let needs = Needs {
        keep: vec![Capability::NetRaw],
        for_children: options.for_children,
        own: options.report.iter().cloned().collect(),
        ..Needs::default()
    };
    let status = privileges::reduce(&options.common, &needs)?;
    println!("landlock {:?}", status.landlock);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (trigger, _watch) = drain::channel();
    let _hang_ups = signals::install(runtime.handle(), trigger, log, startup.manager())?;
    security.keep_fresh(runtime.handle())?;
    std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find(|it| it.starts_with(&format!("{name}:")));
            let value = line.unwrap().split_once(':').unwrap().1;
            value.split_whitespace().collect::<Vec<_>>().join(",")
        };
        let fields = [
            "Uid",
            "Gid",
            "Groups",
            "CapEff",
            "CapPrm",
            "CapInh",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
        ];
        let all: Vec<_> = fields
            .iter()
            .map(|it| format!("{it}={}", field(it)))
            .collect();
        println!("thread {}", all.join(" "));
    }
    if let Some(foreign) = &options.foreign {
        println!(
            "foreign {:?}",
            fs::read(foreign).map_err(|it| it.kind()).err()
        );
        println!(
            "hosts {:?}",
            fs::read("/etc/hosts").map_err(|it| it.kind()).err()
        );
        let beside = foreign.with_file_name("made");
        println!(
            "made {:?}",
            fs::write(beside, "x").map_err(|it| it.kind()).err()
        );
    }
    let raw = std::process::Command::new("/bin/sh")
        .args(["-c", "grep CapEff /proc/self/status"])
        .output()
        .unwrap();
    let child = String::from_utf8_lossy(&raw.stdout)
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    println!("child {child}");

    // Log rotation, as logrotate does it with `create`.
    if let Some(path) = &options.common.log_file {
        tracing::info!("before the rotation");
        fs::rename(path, path.with_extension("1")).unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        for _ in 0..500 {
            if path.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        tracing::info!("after the rotation");
    }
    // Certificates are read again, as the new user.
    if let Some(cert) = &options.common.cert {
        let renewed = cert.with_file_name("renewed");
        fs::rename(renewed.join("cert.pem"), cert).unwrap();
        fs::rename(
            renewed.join("key.pem"),
            options.common.key.as_deref().unwrap(),
        )
        .unwrap();
        for _ in 0..1000 {
            if security.certificate().unwrap().reloads == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("reloads {}", security.certificate().unwrap().reloads);
    }
    if let Some(report) = &options.report {
        fs::write(report, "the report").unwrap();
    }
    Ok(())
}

fn main() -> ExitCode {
    if std::env::var_os("TEST_DAEMON").is_some() {
        return main_with("millrace-test", run);
    }
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("SKIPPED: needs root");
        return ExitCode::SUCCESS;
    }
    let dir = Dir::new();
    root_keeps_only_what_is_needed(&dir);
    another_user_goes_on_writing_its_files(&dir);
    ambient_capabilities_reach_children(&dir);
    what_cannot_work_is_said_at_the_start(&dir);
    println!("privileges: all passed");
    ExitCode::SUCCESS
}

/// A directory that everybody may enter, in which root made a secret.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("millrace-privileges-{}", std::process::id()));
        fs::create_dir_all(dir.join("secrets")).unwrap();
        fs::write(dir.join("secrets/secret"), "s").unwrap();
        // Whatever the umask is.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Dir(dir)
    }

    /// A fresh directory inside, of `nobody`.
    fn sub(&self, name: &str) -> PathBuf {
        let sub = self.0.join(name);
        fs::create_dir_all(&sub).unwrap();
        let (uid, gid) = nobody();
        chown(&sub, Some(uid), Some(gid)).unwrap();
        sub
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nobody() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|it| it.starts_with("nobody:")).unwrap();
    let fields: Vec<_> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn daemon(arguments: &[&str]) -> Output {
    Command::new("/proc/self/exe")
        .args(arguments)
        .env("TEST_DAEMON", "1")
        .env_remove("MILLRACE_BACKGROUND")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// CAP_NET_RAW is number 13.
const NET_RAW: &str = "0000000000002000";
const NONE: &str = "0000000000000000";

fn every_thread(said: &str, expected: &[&str]) {
    let threads: Vec<_> = said
        .lines()
        .filter(|it| it.starts_with("thread "))
        .collect();
    assert!(threads.len() > 2, "{said}");
    for thread in threads {
        for field in expected {
            assert!(
                thread.split_whitespace().any(|it| it == *field),
                "{field}: {thread}"
            );
        }
    }
}

fn has_landlock(said: &str) -> bool {
    let there = !said.contains("landlock Unavailable");
    if !there {
        eprintln!("SKIPPED in part: this kernel has no landlock");
    }
    there
}

fn root_keeps_only_what_is_needed(dir: &Dir) {
    let secret = dir.0.join("secrets/secret");
    let foreign = secret.to_str().unwrap();
    let said = succeeded(&daemon(&["--insecure", "--foreign", foreign]));
    every_thread(
        &said,
        &[
            "Uid=0,0,0,0",
            &format!("CapEff={NET_RAW}"),
            &format!("CapPrm={NET_RAW}"),
            &format!("CapInh={NONE}"),
            &format!("CapBnd={NET_RAW}"),
            &format!("CapAmb={NONE}"),
            "NoNewPrivs=1",
        ],
    );
    if has_landlock(&said) {
        assert!(said.contains("foreign Some(PermissionDenied)"), "{said}");
        assert!(said.contains("made Some(PermissionDenied)"), "{said}");
    }
    assert!(said.contains("hosts None"), "{said}");
    // Root's own file, and no landlock: so the refusal above was landlock's.
    let without = succeeded(&daemon(&[
        "--insecure",
        "--no-landlock",
        "--foreign",
        foreign,
    ]));
    assert!(
        without.contains("foreign None") && without.contains("landlock Off"),
        "{without}"
    );
}

fn another_user_goes_on_writing_its_files(dir: &Dir) {
    let (uid, gid) = nobody();
    let sub = dir.sub("nobody");
    let path = |name: &str| sub.join(name).to_str().unwrap().to_owned();
    let (log, pid, report) = (path("d.log"), path("d.pid"), path("report.json"));
    let ours = ca("ours");
    let files = Files::new("privileges-pki", &[&ours], &good(&ours, "copier/a"));
    let renewed = files.dir().join("renewed");
    fs::create_dir(&renewed).unwrap();
    let pair = good(&ours, "copier/a");
    fs::write(renewed.join("cert.pem"), &pair.cert).unwrap();
    fs::write(renewed.join("key.pem"), &pair.key).unwrap();
    for path in [files.dir(), &renewed, &files.key(), &files.cert()] {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    let arg = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (ca_file, cert, key) = (arg(files.ca()), arg(files.cert()), arg(files.key()));
    let arguments = [
        "--user",
        NOBODY,
        "-l",
        &log,
        "-P",
        &pid,
        "--report",
        &report,
        "--ca",
        &ca_file,
        "--cert",
        &cert,
        "--key",
        &key,
        "--foreign",
        "/etc/shadow",
    ];
    // Rename needs to be allowed in the certificates' directory: here the daemon plays the
    // program that renews them, so its own landlock would be in the way.
    let said = succeeded(&daemon(&[&arguments[..], &["--no-landlock"]].concat()));
    every_thread(
        &said,
        &[
            &format!("Uid={uid},{uid},{uid},{uid}"),
            &format!("Gid={gid},{gid},{gid},{gid}"),
            &format!("Groups={gid}"),
            &format!("CapEff={NET_RAW}"),
            &format!("CapPrm={NET_RAW}"),
            &format!("CapBnd={NET_RAW}"),
            "NoNewPrivs=1",
        ],
    );
    assert!(said.contains(&format!("child {NONE}")), "{said}");
    assert!(said.contains("foreign Some(PermissionDenied)"), "{said}");
    assert!(said.contains("reloads 1"), "{said}");
    assert_eq!(fs::read_to_string(&report).unwrap(), "the report");
    assert!(!Path::new(&pid).exists());
    let old = fs::read_to_string(sub.join("d.1")).unwrap();
    let new = fs::read_to_string(&log).unwrap();
    assert!(
        old.contains("before the rotation") && old.contains("privileges given up"),
        "{old}"
    );
    assert!(new.contains("after the rotation"), "{new}");
    assert_eq!(fs::metadata(&log).unwrap().uid(), uid);

    // The same files with landlock on.
    fs::remove_file(&log).unwrap();
    let said = succeeded(&daemon(&[
        "--user",
        "nobody:root",
        "-l",
        &log,
        "-P",
        &pid,
        "--report",
        &report,
        "--insecure",
    ]));
    every_thread(&said, &["Gid=0,0,0,0", "Groups=0"]);
    assert_eq!(fs::read_to_string(&report).unwrap(), "the report");
    assert!(!Path::new(&pid).exists());
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .contains("after the rotation")
    );

    // A PID file where only root may remove it: emptied, and taken over next time.
    let pid = dir.0.join("rooted.pid");
    let pid = pid.to_str().unwrap();
    for _ in 0..2 {
        succeeded(&daemon(&["--user", NOBODY, "--insecure", "-P", pid]));
        assert_eq!(fs::read_to_string(pid).unwrap(), "");
    }
}

fn ambient_capabilities_reach_children(_: &Dir) {
    let said = succeeded(&daemon(&["--user", NOBODY, "--insecure", "--for-children"]));
    every_thread(
        &said,
        &[&format!("CapAmb={NET_RAW}"), &format!("CapInh={NET_RAW}")],
    );
    assert!(said.contains(&format!("child {NET_RAW}")), "{said}");
}

fn what_cannot_work_is_said_at_the_start(dir: &Dir) {
    let ours = ca("ours");
    let files = Files::new("privileges-key", &[&ours], &good(&ours, "copier/a"));
    fs::set_permissions(files.key(), fs::Permissions::from_mode(0o600)).unwrap();
    let arg = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (ca_file, cert, key) = (arg(files.ca()), arg(files.cert()), arg(files.key()));
    let closed = dir.0.join("closed");
    fs::create_dir_all(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let report = arg(closed.join("report.json"));
    for (arguments, code, said) in [
        (
            vec![
                "--user", NOBODY, "--ca", &ca_file, "--cert", &cert, "--key", &key,
            ],
            1,
            "which is opened again later",
        ),
        (
            vec!["--insecure", "--user", NOBODY, "--report", &report],
            1,
            "put it into a directory that this user may enter",
        ),
        (
            vec!["--insecure", "--user", "no-such-user"],
            64,
            "this host has no user",
        ),
        (
            vec!["--insecure", "--early-thread"],
            1,
            "2 threads run before",
        ),
    ] {
        let output = daemon(&arguments);
        let error = text(&output.stderr);
        let last = error.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(last.contains(said), "{arguments:?}: {error}");
    }
}

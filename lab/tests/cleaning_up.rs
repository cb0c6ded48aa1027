//! What is left of a lab when its process is ended from outside: nothing, at the latest when the next lab is made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_lab::{Lab, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// Set for the process whose lab is to be cleaned up: this file's own program, started again.
const HOLD: &str = "MILLRACE_TEST_HOLD_A_LAB";
const MARK: &str = "namespace:";

fn namespaces() -> String {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn can_run() -> bool {
    let Some(why) = millrace_lab::missing() else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "a lab is needed: {why}");
    eprintln!("SKIPPED: {why}");
    false
}

/// Only does something in the process that [`holder`] starts.
#[test]
fn hold_a_lab_until_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.host("held").unwrap();
    let process = host
        .spawn("sleep", &["120"], &[], &host.file("sleep.log"))
        .unwrap();
    println!("{MARK}{} {}", host.namespace(), process.pid());
    std::thread::sleep(Duration::from_secs(60));
}

/// A process with a lab, the name of a namespace in it and the id of a process in that.
fn holder() -> (Child, String, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_a_lab_until_killed", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once(MARK)?.1.to_owned()));
    let line = line.expect("the holder has made its lab");
    let (namespace, pid) = line.split_once(' ').unwrap();
    assert!(namespaces().contains(namespace));
    (child, namespace.to_owned(), pid.to_owned())
}

/// A process that has ended may still be listed, as a zombie, until whoever inherited it looks.
fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_signal_to_the_process_takes_its_lab_away() {
    if !can_run() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let (mut child, namespace, pid) = holder();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(!namespaces().contains(&namespace));
        assert!(is_gone(&pid));
    }
}

#[test]
fn what_a_killed_process_leaves_is_taken_away_by_the_next_lab() {
    if !can_run() {
        return;
    }
    let (mut child, namespace, pid) = holder();
    child.kill().unwrap();
    child.wait().unwrap();
    let _next = Lab::new().unwrap();
    assert!(!namespaces().contains(&namespace));
    // Another test's lab may have been the next.
    wait_for("the process to be gone", Duration::from_secs(5), || {
        is_gone(&pid)
    })
    .unwrap();
}

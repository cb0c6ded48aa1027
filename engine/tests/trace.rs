//! What a session does, step by step, for whoever follows it. Alone in its program: whether a line is wanted is known to
//! all threads of a program together.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_crate_dependencies,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod sim;
#[path = "scenarios/talk.rs"]
mod talk;

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use Action::*;
use sim::Action;
use talk::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn each_step_of_a_session_is_told_at_the_trace_level_with_its_client_and_no_byte_of_payload() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let talk = [
        says(40),
        Server(10),
        says(50),
        Server(10),
        ClientFin,
        ServerFin,
    ];
    tracing::subscriber::with_default(subscriber, || {
        let mut world = replay(answers_like(&talk), &talk);
        assert_complete(&mut world, &talk);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mut lines = log.lines();
    for step in [
        "a client's SYN",
        "its handshake is complete: Copied(1)",
        "copied from 198.18.0",
        "the target has accepted 198.18.0",
        "the turn at byte 0 goes",
        "the turn at byte 40 goes: Answered",
        "the copy is complete: 90 bytes",
    ] {
        let line = lines.find(|line| line.contains(step));
        let line = line.unwrap_or_else(|| panic!("{step} is not told in its place:\n{log}"));
        assert!(line.contains("client=198.18.0"), "{line}");
    }
    assert!(log.lines().count() < 20, "{log}");
}

//! Memory for each idle session: opens sessions with one established replica each, plays one turn on each, and
//! compares what the kernel says of this process with what the engine says of itself.
//!
//! `millrace-idle-memory [SESSIONS]` (default 200,000) prints one line.

use std::io::Write;
use std::process::ExitCode;

use millrace_bench::{Conversation, engine};

type Failure = Box<dyn std::error::Error>;

const SESSIONS: u32 = 200_000;
/// More than they need, so that none is refused. Bytes.
const MEMORY_LIMIT: u64 = 8 << 30;

fn main() -> ExitCode {
    match measure().and_then(|line| Ok(writeln!(std::io::stdout(), "{line}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when stderr is closed.
            let _ = writeln!(std::io::stderr(), "millrace-idle-memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<String, Failure> {
    let sessions = match std::env::args().nth(1) {
        Some(text) => text.parse::<u32>()?.max(1),
        None => SESSIONS,
    };
    let before = resident_bytes()?;
    let mut engine = engine(MEMORY_LIMIT);
    for number in 0..sessions {
        let mut conversation = Conversation::new(number);
        conversation.open(&mut engine);
        conversation.turn(&mut engine, &[7; 120], 500);
    }
    let resident = resident_bytes()?.saturating_sub(before);
    let gauges = engine.gauges();
    let established = engine.stats().replicas_established;
    if (gauges.sessions as u64, established) != (u64::from(sessions), u64::from(sessions)) {
        return Err(format!(
            "{} sessions and {established} established replicas instead of {sessions}",
            gauges.sessions
        )
        .into());
    }
    let each = |bytes: u64| bytes as f64 / f64::from(sessions);
    Ok(format!(
        "sessions={sessions} resident_bytes_per_session={:.0} accounted_bytes_per_session={:.0} backlog={}",
        each(resident),
        each(gauges.memory),
        gauges.backlog
    ))
}

/// What this process occupies in memory, in bytes (`VmRSS` of proc(5)).
fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or("no VmRSS in /proc/self/status")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

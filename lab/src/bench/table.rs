//! The benchmark as a person reads it.

use std::fmt::Write;
use std::time::Duration;

use millrace_lab::CpuTime;

use super::contest::{Contest, Round};
use super::programs::Work;
use super::sessions::Sessions;
use crate::demo::table::number;

/// What the copier is to reach of the reflector's packets per second of its thread.
const AIM: f64 = 0.6;

/// All figures; `idle` is the share of a processor that a copier without traffic takes.
pub(super) fn table(contests: &[Contest], sessions: &Sessions, idle: f64) -> String {
    let mut text = String::new();
    for contest in contests {
        versus(&mut text, contest);
    }
    line(
        &mut text,
        "\nPackets: captured (of clients and the live server), taken in as the target's response headers (the reflector\n\
         has none), and sent to the target. Medians of the rounds. CPU is user and system time up to the device that\n\
         sends; the rest of a packet's way is another thread's.",
    );
    let name = format!(
        "One-request sessions ({} at {:.0}/s)",
        number(sessions.completed),
        sessions.per_second
    );
    heading(&mut text, &name, ["", "", ""]);
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let (shard, process) = sessions.copier_seconds();
    let mut row = |name, value| row(&mut text, name, [&seconds(value), "", ""]);
    row("copier, CPU per 100,000 sessions", process);
    row("  of these, its shard", shard);
    row(
        "interceptor, CPU per 100,000 sessions",
        sessions.interceptor_seconds(),
    );
    for (name, micros) in ["user", "system"].iter().zip(sessions.copier_micros()) {
        let name = format!("copier, {name} CPU per session, us");
        self::row(&mut text, &name, [&format!("{micros:.1}"), "", ""]);
    }
    heading(&mut text, "Without traffic", ["", "", ""]);
    let percent = format!("{:.2} %", idle * 100.0);
    self::row(&mut text, "copier, of a processor", [&percent, "", ""]);
    text
}

fn versus(text: &mut String, contest: &Contest) {
    let name = capital(contest.traffic.name());
    heading(text, &name, ["reflector", "copier", "ratio"]);
    let per =
        |seconds: fn(&Work) -> f64| move |work: &Work| work.packets() / seconds(work).max(0.001);
    let mut rates = |name: &str, rate: &dyn Fn(&Work) -> f64| {
        let (reflector, copier) = (
            contest.median(|round| rate(&round.reflector)),
            contest.median(|round| rate(&round.copier)),
        );
        let ratio = contest.median(|round| ratio(round, rate));
        let [reflector, copier] = [reflector, copier].map(|rate| number(rate.round() as u64));
        row(text, name, [&reflector, &copier, &format!("{ratio:.2}")]);
    };
    rates(
        "packets/s of a shard (CPU of its thread)",
        &per(|work| work.shard),
    );
    rates("packets/s of CPU, whole process", &per(|work| work.process));
    rates("packets/s of the wall clock", &per(|work| work.seconds));
    let mut micros = |name: &str, time: fn(CpuTime) -> Duration| {
        let each = |work: &Work| time(work.split).as_secs_f64() * 1e6 / work.requests.max(1) as f64;
        let each = contest.median(|round| each(&round.copier));
        row(text, name, ["", &format!("{each:.2}"), ""]);
    };
    micros("user CPU per request, us", |time| time.user);
    micros("system CPU per request, us", |time| time.system);
    let mut counts = |name: &str, count: fn(&Work) -> u64| {
        let sum =
            |of: fn(&Round) -> &Work| number(contest.rounds.iter().map(|r| count(of(r))).sum());
        let (reflector, copier) = (sum(|round| &round.reflector), sum(|round| &round.copier));
        row(text, name, [&reflector, &copier, ""]);
    };
    counts("captured, all rounds", |work| work.captured);
    counts("response headers, all rounds", |work| work.headers);
    counts("sent, all rounds", |work| work.sent);
    counts("refused by full queues, all rounds", |work| work.refused);
    counts("dropped by capture, all rounds", |work| work.dropped);
    let shard = per(|work| work.shard);
    let reached = contest.median(|round| ratio(round, &shard));
    let verdict = if reached >= AIM { "reached" } else { "missed" };
    line(text, &format!("  aim: {AIM} of the reflector, {verdict}"));
}

/// The copier's rate as a share of the reflector's in the same round.
fn ratio(round: &Round, rate: &dyn Fn(&Work) -> f64) -> f64 {
    rate(&round.copier) / rate(&round.reflector).max(0.001)
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

fn heading(text: &mut String, name: &str, columns: [&str; 3]) {
    let [first, second, third] = columns;
    line(text, "");
    line(
        text,
        &format!("{name:<44} {first:>12} {second:>12} {third:>7}"),
    );
    line(text, &"-".repeat(78));
}

fn row(text: &mut String, name: &str, columns: [&str; 3]) {
    let [first, second, third] = columns;
    line(
        text,
        &format!("  {name:<42} {first:>12} {second:>12} {third:>7}"),
    );
}

fn line(text: &mut String, content: &str) {
    // Writing to memory cannot fail.
    let _ = writeln!(text, "{}", content.trim_end());
}

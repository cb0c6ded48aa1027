//! The fan-out as a person reads it.

use std::fmt::Write as _;

use super::{Form, Run, SIZES};
use crate::demo::table::number;

/// What flows of ten interceptors may cost a copier, of what those of one do.
const AIM: f64 = 1.5;

/// All figures: medians of the rounds.
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::new();
    for form in Form::BOTH {
        let (name, aim) = match form {
            Form::Flows => ("Flows, announced to every interceptor", Some(AIM)),
            Form::Claims => ("Claims of a client pool", None),
        };
        // Writing to memory cannot fail, here and below.
        let _ = writeln!(
            text,
            "\n{name:<38} {:>12} {:>12} {:>8} {:>14} {:>14}\n{}",
            "CPU/session",
            "its shard",
            "of 1's",
            "messages out",
            "messages in",
            "-".repeat(107)
        );
        for size in SIZES {
            let of = |value: &dyn Fn(&Run) -> f64| median(runs, form, size, value);
            let cpu = of(&|run| 1e6 * run.process / run.sessions.max(1) as f64);
            let shard = of(&|run| 1e6 * run.shard / run.sessions.max(1) as f64);
            let _ = writeln!(
                text,
                "  {size:>3} interceptors, {:>7}/s            {cpu:>9.1} µs {shard:>9.1} µs {:>8.2} {:>14.2} {:>14.2}",
                number(of(&|run| run.per_second).round() as u64),
                ratio(runs, form, size),
                of(&|run| run.messages_out as f64 / run.sessions.max(1) as f64),
                of(&|run| run.messages_in as f64 / run.sessions.max(1) as f64),
            );
        }
        if let Some(aim) = aim {
            let reached = ratio(runs, form, 10) < aim;
            let verdict = if reached { "reached" } else { "missed" };
            let _ = writeln!(text, "  aim: 10 interceptors below {aim} of 1, {verdict}");
        }
    }
    text += "\nCPU of the copier's process, user and system. Messages to and from all interceptors together, for one \
             session.\nMedians of the rounds; each ratio is of two runs of the same round.";
    text
}

/// The copier's processor time with this many interceptors, of that with one in the same round.
fn ratio(runs: &[Run], form: Form, size: usize) -> f64 {
    let of = |size| {
        runs.iter()
            .filter(move |run| run.form == form && run.interceptors == size)
            .map(|run| run.process)
    };
    let ratios = of(size).zip(of(1)).map(|(many, one)| many / one.max(0.001));
    middle(ratios.collect())
}

fn median(runs: &[Run], form: Form, size: usize, value: impl Fn(&Run) -> f64) -> f64 {
    let wanted = runs
        .iter()
        .filter(|run| run.form == form && run.interceptors == size);
    middle(wanted.map(value).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let run = |interceptors, process| Run {
            form: Form::Flows,
            interceptors,
            sessions: 100,
            per_second: 10.0,
            process,
            shard: 0.0,
            messages_out: 200,
            messages_in: 100,
        };
        // The second round was slower throughout.
        let runs = [
            run(1, 1.0),
            run(10, 1.2),
            run(1, 2.0),
            run(10, 2.4),
            run(1, 1.0),
            run(10, 1.2),
        ];
        assert!((ratio(&runs, Form::Flows, 10) - 1.2).abs() < 1e-9);
        assert!(table(&runs).contains("below 1.5 of 1, reached"));
    }
}

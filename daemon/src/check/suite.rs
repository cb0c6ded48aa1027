//! All checks of a daemon, run at once.

use serde::Serialize;

use super::{Check, Level, Verdict, When};
use crate::exit::ExitError;

/// The option that leaves checks out.
pub(super) const SKIP: &str = "--skip-checks";
/// The name that stands for all checks there.
const ALL: &str = "all";

fn is_skipped(name: &str, skip: &[String]) -> bool {
    skip.iter().any(|it| it == name || it == ALL)
}

/// All checks of a daemon, in the order in which they are shown.
#[derive(Debug)]
pub struct Suite<T: 'static> {
    /// The daemon's program.
    pub program: &'static str,
    /// Its checks.
    pub checks: &'static [Check<T>],
}

/// A check, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: &'static str,
    /// What it found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl<T: Sync> Suite<T> {
    /// Makes those checks that `wanted` wants, all at once, since some wait for others' answers. Those of `skip` are
    /// shown as skipped.
    pub(super) fn run_at_once(
        &self,
        subject: &T,
        skip: &[String],
        wanted: impl Fn(&Check<T>) -> bool,
    ) -> Vec<Checked> {
        std::thread::scope(|scope| {
            let wanted: Vec<&Check<T>> = self.checks.iter().filter(|it| wanted(it)).collect();
            let looks: Vec<_> = wanted
                .iter()
                .map(|check| {
                    let look = check.look;
                    (!is_skipped(check.name, skip)).then(|| scope.spawn(move || look(subject)))
                })
                .collect();
            let verdict = |look: Option<std::thread::ScopedJoinHandle<'_, Verdict>>| {
                let Some(look) = look else {
                    return Verdict::skipped("not looked at");
                };
                look.join().unwrap_or_else(|_| {
                    Verdict::warning(
                        "the check ended by a fault of its own",
                        "please report it with these options",
                    )
                })
            };
            let named = wanted.iter().zip(looks);
            named
                .map(|(check, look)| Checked {
                    name: check.name,
                    verdict: verdict(look),
                })
                .collect()
        })
    }

    /// Makes the checks of the daemon's start, one after the other: a thread that has just ended may still be there when
    /// the process gives up its privileges. Warnings go to the log.
    ///
    /// # Errors
    /// What failed, all of it, with exit code 1; code 64 for a name that is no check's.
    pub fn at_start(&self, subject: &T, skip: &[String]) -> Result<(), ExitError> {
        self.know(skip, SKIP)?;
        let wanted = self.checks.iter().filter(|it| it.when == When::Start);
        let mut failures = Vec::new();
        for Check { name, look, .. } in wanted.filter(|it| !is_skipped(it.name, skip)) {
            let verdict = look(subject);
            let next = verdict.next.map(|next| format!("; next: {next}"));
            let said = format!(
                "{} (check {name}){}",
                verdict.found,
                next.unwrap_or_default()
            );
            match verdict.level {
                Level::Ok | Level::Skipped => tracing::debug!("{said}"),
                Level::Warning => tracing::warn!("{said}"),
                Level::Failure => failures.push((*name, said)),
            }
        }
        let Some(names) = joined(failures.iter().map(|(name, _)| *name), ",") else {
            return Ok(());
        };
        let said = joined(failures.iter().map(|(_, said)| said.as_str()), "; ");
        Err(ExitError::start(format!(
            "{}. To start all the same: --skip-checks {names}",
            said.unwrap_or_default()
        )))
    }

    /// Names that the operator gave must be those of checks; `all` stands for all in `--skip-checks` alone.
    pub(super) fn know(&self, names: &[String], option: &str) -> Result<(), ExitError> {
        let all = option == SKIP;
        let known = |name: &str| all && name == ALL || self.checks.iter().any(|it| it.name == name);
        let Some(stranger) = names.iter().find(|name| !known(name)) else {
            return Ok(());
        };
        let names = joined(self.checks.iter().map(|it| it.name), ", ");
        Err(ExitError::usage(format!(
            "{option} {stranger}: {} has no such check; there are {}",
            self.program,
            names.unwrap_or_default()
        )))
    }
}

/// The words with something between them; `None` without words.
fn joined<'a>(words: impl Iterator<Item = &'a str>, between: &str) -> Option<String> {
    let words: Vec<&str> = words.collect();
    (!words.is_empty()).then(|| words.join(between))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Suite<u32> {
        fn check(name: &'static str, when: When, look: fn(&u32) -> Verdict) -> Check<u32> {
            Check {
                name,
                about: "",
                when,
                look,
            }
        }
        let checks = vec![
            check("even", When::Start, |it| match it % 2 {
                0 => Verdict::ok("even"),
                _ => Verdict::failure("odd", "add 1"),
            }),
            check("small", When::Start, |it| match it {
                0..10 => Verdict::ok("small"),
                _ => Verdict::failure("large", "divide"),
            }),
            check("slow", When::Command, |_| panic!("a fault")),
        ];
        Suite {
            program: "millrace-example",
            checks: checks.leak(),
        }
    }

    #[test]
    fn failures_keep_a_daemon_from_starting_unless_they_are_skipped_by_name() {
        let suite = suite();
        let skip = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(suite.at_start(&2, &[]), Ok(()));
        let error = suite.at_start(&11, &[]).unwrap_err();
        assert_eq!(error.code(), 1);
        assert_eq!(
            error.to_string(),
            "odd (check even); next: add 1; large (check small); next: divide. To start all the same: --skip-checks \
             even,small"
        );
        let error = suite.at_start(&11, &skip(&["even"])).unwrap_err();
        assert!(
            error.to_string().ends_with("--skip-checks small"),
            "{error}"
        );
        for names in [&["even", "small"][..], &["all"]] {
            assert_eq!(suite.at_start(&11, &skip(names)), Ok(()));
        }
        let error = suite.at_start(&2, &skip(&["evne"])).unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(error.to_string().ends_with("there are even, small, slow"));
        let error = suite.know(&skip(&["all"]), "--only").unwrap_err();
        assert!(error.to_string().starts_with("--only all"), "{error}");
    }

    #[test]
    fn a_check_that_panics_is_a_warning_and_the_others_are_made() {
        let checked = suite().run_at_once(&3, &["small".to_owned()], |_| true);
        let levels: Vec<Level> = checked.iter().map(|it| it.verdict.level).collect();
        assert_eq!(levels, [Level::Failure, Level::Skipped, Level::Warning]);
    }
}

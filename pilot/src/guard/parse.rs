//! How guards are written: `METRIC>LIMIT:ACTION`, several separated by commas.
//!
//! | METRIC | LIMIT |
//! |---|---|
//! | `connect-failures`, `resets`, `unanswered` | a percentage: `5%` |
//! | `latency-p50`, `-p90`, `-p99`, `-p99.9`, ... | times the live server's: `3x`; or a time: `250ms` |
//!
//! ACTION is `hold`, `step-back` or `stop`.

use std::str::FromStr;

use super::{Action, Guard, Guards, Limit, Metric};
use millrace_notation::units;

/// What is wrong with a list of rules, and in which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardError(String);

impl std::fmt::Display for GuardError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GuardError {}

impl FromStr for Guards {
    type Err = GuardError;

    fn from_str(text: &str) -> Result<Self, GuardError> {
        text.split(',')
            .map(|rule| rule.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Guard {
    type Err = GuardError;

    fn from_str(text: &str) -> Result<Self, GuardError> {
        let parts = text
            .split_once('>')
            .and_then(|(metric, rest)| Some((metric, rest.split_once(':')?)));
        let Some((metric, (limit, action))) = parts else {
            return Err(GuardError(format!(
                "'{text}' is not a rule: write METRIC>LIMIT:ACTION, such as latency-p99>3x:hold"
            )));
        };
        let metric = metric_of(metric)?;
        Ok(Self {
            metric,
            limit: limit_of(metric, limit)?,
            action: action_of(action)?,
        })
    }
}

fn metric_of(text: &str) -> Result<Metric, GuardError> {
    let quantile = text.strip_prefix("latency-p").and_then(units::plain_number);
    match (text, quantile) {
        ("connect-failures", _) => Ok(Metric::ConnectFailures),
        ("resets", _) => Ok(Metric::Resets),
        ("unanswered", _) => Ok(Metric::Unanswered),
        (_, Some(percent)) if percent > 0.0 && percent < 100.0 => {
            Ok(Metric::Latency(percent / 100.0))
        }
        (_, Some(_) | None) => Err(GuardError(format!(
            "'{text}' is nothing that guards look at: write connect-failures, resets, unanswered or \
             latency-pN with N between 0 and 100, such as latency-p99"
        ))),
    }
}

fn limit_of(metric: Metric, text: &str) -> Result<Limit, GuardError> {
    match metric {
        Metric::ConnectFailures | Metric::Resets | Metric::Unanswered => {
            let percent = text.strip_suffix('%').and_then(units::plain_number);
            percent
                .filter(|percent| *percent < 100.0)
                .map(|percent| Limit::Share(percent / 100.0))
                .ok_or_else(|| {
                    GuardError(format!(
                        "'{metric}>{text}': write a percentage below 100%, such as {metric}>5%"
                    ))
                })
        }
        Metric::Latency(_) => {
            let times = text.strip_suffix('x').and_then(units::plain_number);
            let times = times.filter(|times| *times > 0.0).map(Limit::Times);
            let time = units::duration(text).ok().filter(|time| !time.is_zero());
            times.or(time.map(Limit::Time)).ok_or_else(|| {
                GuardError(format!(
                    "'{metric}>{text}': write how many times the live server's, such as \
                     {metric}>3x, or a time, such as {metric}>250ms"
                ))
            })
        }
    }
}

fn action_of(text: &str) -> Result<Action, GuardError> {
    [Action::Hold, Action::StepBack, Action::Stop]
        .into_iter()
        .find(|action| action.name() == text)
        .ok_or_else(|| {
            GuardError(format!(
                "'{text}' is nothing that guards do: write hold, step-back or stop"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_read_and_shown_as_written() {
        for text in [
            "connect-failures>5%:stop",
            "resets>0.5%:step-back",
            "unanswered>10%:hold",
            "latency-p99>3x:hold",
            "latency-p99.9>250ms:stop",
            "latency-p99>0.4ms:stop",
            "connect-failures>5%:stop,latency-p50>1.5x:step-back",
        ] {
            assert_eq!(text.parse::<Guards>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_name_the_part_that_is_wrong() {
        for (text, message) in [
            ("", "METRIC>LIMIT:ACTION"),
            ("latency-p99", "METRIC>LIMIT:ACTION"),
            ("latency-p99>3x", "METRIC>LIMIT:ACTION"),
            ("cpu>5%:stop", "'cpu' is nothing"),
            ("latency-p100>3x:stop", "'latency-p100' is nothing"),
            ("latency-pxx>3x:stop", "'latency-pxx' is nothing"),
            ("resets>5:stop", "write a percentage"),
            ("resets>100%:stop", "below 100%"),
            ("latency-p99>5%:stop", "how many times"),
            ("latency-p99>0x:stop", "how many times"),
            ("resets>5%:panic", "'panic' is nothing"),
            ("resets>5%:stop,", "METRIC>LIMIT:ACTION"),
        ] {
            let error = text.parse::<Guards>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_of_rules_or_not(text in "(connect-failures|resets|latency-p[0-9.]{1,4})?>?[0-9.]{0,4}[%xms]{0,2}:?(hold|stop)?") {
            if let Ok(guards) = text.parse::<Guards>() {
                prop_assert_eq!(guards.to_string().parse::<Guards>().unwrap().to_string(), guards.to_string());
            }
        }
    }
}

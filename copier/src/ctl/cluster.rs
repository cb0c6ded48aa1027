//! A cluster's plan in Consul: shown, and written for all its copiers that follow it.

use std::fmt::Write;
use std::time::Duration;

use millrace_daemon::blocking::block_on;
use millrace_daemon::exit::ExitError;
use millrace_daemon::listen::host_name;
use millrace_daemon::status::printable;
use millrace_fleet::consul::{Client, Enrolled, Failure, Record, Standing, roll};
use millrace_fleet::peers::Cluster;
use millrace_notation::units::show;
use millrace_pilot::{Command, FleetGuards, FleetPlan, Signed};

use super::{Action, intensity, no_value, ramp};
use crate::cluster::plan::{self, seconds_since_1970};
use crate::headline::percent;
use crate::options::guard_window;

/// An answer of Consul that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Copiers write to the plan, too: a wish is tried so often.
const TRIES: u32 = 10;
/// Changes that are shown.
const LATELY: usize = 10;

/// How guards of a plan judge; by default they look back on 10 s, and judge 50 events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(super) struct GuardOptions {
    /// With guards: they look back on this much time (10s).
    #[arg(long = "guard-window", value_name = "TIME", value_parser = guard_window, requires = "cluster",
          help_heading = "Consul")]
    window: Option<Duration>,

    /// With guards: they judge only what has happened so many times within the window (50).
    #[arg(long = "guard-sample", value_name = "N", requires = "cluster", help_heading = "Consul",
          value_parser = clap::builder::RangedU64ValueParser::<u32>::new().range(1..))]
    sample: Option<u32>,
}

/// What is to become of the plan.
enum Wish {
    Command(Command),
    Guards(FleetGuards),
}

/// Does what is wished with a cluster's plan, and shows it.
pub(super) fn run(
    client: &Client,
    cluster: &Cluster,
    action: Action,
    value: Option<&str>,
    given: GuardOptions,
) -> Result<(), ExitError> {
    let wish = wish(action, value, given)?;
    let record = plan::record(client.clone(), cluster);
    let done = block_on(async {
        let plan = match wish {
            Some(wish) => Some(write(&record, &wish).await?),
            None => read(&record).await?.map(|(_, plan)| plan),
        };
        let copiers = roll(client, cluster, PATIENCE).await;
        Ok(shown(cluster, plan.as_ref(), &copiers))
    });
    let done: Result<String, ExitError> =
        done.map_err(|error| ExitError::caused("cannot ask Consul", &error))?;
    Err(ExitError::text(done?))
}

fn wish(
    action: Action,
    value: Option<&str>,
    given: GuardOptions,
) -> Result<Option<Wish>, ExitError> {
    if action != Action::Guards && given != GuardOptions::default() {
        return Err(ExitError::usage(
            "--guard-window and --guard-sample go with `ctl guards`",
        ));
    }
    let command = match (action, value) {
        (Action::Status, None) | (Action::Intensity, None) => return Ok(None),
        (Action::Intensity, Some(value)) => Command::Set(intensity(value)?),
        (Action::Ramp, stages) => Command::Follow(ramp(stages)?),
        (Action::Pause, None) => Command::Pause,
        (Action::Resume, None) => Command::Resume,
        (Action::Stop, None) => Command::Stop,
        (Action::Guards, Some("none")) => return Ok(Some(Wish::Guards(FleetGuards::default()))),
        (Action::Guards, Some(rules)) => {
            let mut rules = FleetGuards::parse(rules)
                .map_err(|error| ExitError::usage(format!("guards: {error}")))?;
            rules.window = given.window.unwrap_or(rules.window);
            rules.sample = given.sample.map_or(rules.sample, u64::from);
            return Ok(Some(Wish::Guards(rules)));
        }
        (Action::Guards, None) => {
            return Err(ExitError::usage(
                "ctl guards: the rules are missing: write `ctl guards resets>2%:stop`, or none",
            ));
        }
        (Action::LogLevel, _) => {
            return Err(ExitError::usage(
                "ctl log-level is of one copier: give it on its host, without --cluster",
            ));
        }
        (Action::Pause | Action::Resume | Action::Stop | Action::Status, Some(value)) => {
            return Err(no_value(value));
        }
    };
    Ok(Some(Wish::Command(command)))
}

fn failed(failure: &Failure) -> ExitError {
    ExitError::start(failure.to_string())
}

/// The plan, and its version in Consul; none if there is none.
async fn read(record: &Record) -> Result<Option<(u64, FleetPlan)>, ExitError> {
    let content = record.read(PATIENCE).await;
    let Some(content) = content.map_err(|failure| failed(&failure))? else {
        return Ok(None);
    };
    let plan = FleetPlan::parse(&content.bytes).map_err(|error| {
        ExitError::start(format!(
            "{} in Consul: {error}; copiers that follow it send nothing; `ctl stop` puts a stop in its place",
            record.key(),
        ))
    })?;
    Ok(Some((content.version, plan)))
}

/// Puts a stop in place of what is no plan.
async fn stop_anyway(record: &Record, signed: Signed<'_>) -> Result<FleetPlan, ExitError> {
    let content = record.read(PATIENCE).await;
    let version = content
        .map_err(|failure| failed(&failure))?
        .map(|it| it.version);
    let plan = FleetPlan::stopped(signed);
    replace(record, version, &plan).await?;
    Ok(plan)
}

/// Says whether nobody else was first.
async fn replace(
    record: &Record,
    version: Option<u64>,
    plan: &FleetPlan,
) -> Result<bool, ExitError> {
    let bytes = plan
        .record()
        .map_err(|error| ExitError::usage(error.to_string()))?;
    let replaced = record.replace(version, bytes, PATIENCE).await;
    replaced.map_err(|failure| match failure {
        Failure::Denied(_) | Failure::Status(..) => failed(&failure),
        Failure::Unreachable(_) | Failure::Unreadable(_) => ExitError::start(format!(
            "{failure}: it is not known whether the plan was changed: see `ctl --cluster NAME status`"
        )),
    })
}

async fn write(record: &Record, wish: &Wish) -> Result<FleetPlan, ExitError> {
    let by = name();
    for _ in 0..TRIES {
        let signed = Signed {
            by: &by,
            at: seconds_since_1970(),
        };
        let known = match (read(record).await, wish) {
            (Err(_), Wish::Command(Command::Stop)) => {
                return stop_anyway(record, signed).await;
            }
            (known, _) => known?,
        };
        let version = known.as_ref().map(|(version, _)| *version);
        let (plan, changed) = apply(known.map(|(_, plan)| plan), wish, signed)?;
        if !changed {
            return Ok(plan);
        }
        if replace(record, version, &plan).await? {
            return Ok(plan);
        }
    }
    Err(ExitError::start(
        "the plan is written all the time by somebody else: nothing was changed; try again",
    ))
}

/// The plan with the wish done, and whether that has changed it.
fn apply(
    plan: Option<FleetPlan>,
    wish: &Wish,
    signed: Signed<'_>,
) -> Result<(FleetPlan, bool), ExitError> {
    match (plan, wish) {
        (Some(mut plan), Wish::Command(command)) => {
            let changed = plan.command(command.clone(), signed);
            Ok((plan, changed))
        }
        (Some(mut plan), Wish::Guards(guards)) => {
            plan.guard(guards.clone(), signed);
            Ok((plan, true))
        }
        (None, Wish::Command(command)) => {
            let plan = FleetPlan::begin(command.clone(), signed);
            let plan = plan.map_err(|error| ExitError::start(error.to_string()))?;
            Ok((plan, true))
        }
        (None, Wish::Guards(_)) => Err(ExitError::start(FleetPlan::none_yet().to_string())),
    }
}

/// Who gives the command. It is a note for people, not a proof: Consul's token decides who may write.
fn name() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"];
    let user = user.iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|name| !name.is_empty());
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", host_name())
}

/// A cluster for people.
fn shown(
    cluster: &Cluster,
    plan: Option<&FleetPlan>,
    copiers: &Result<Vec<Enrolled>, Failure>,
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match plan {
        None => writeln!(
            text,
            "cluster {cluster}: no plan; copiers with --follow-plan copy nothing new until `ctl intensity` or `ctl ramp`"
        ),
        Some(plan) => writeln!(
            text,
            "cluster {cluster}: {} ({}), edition {} of the plan",
            percent(plan.course().intensity().as_ratio()),
            plan.course().mode(),
            plan.edition()
        ),
    };
    if let Some(plan) = plan {
        if let Some(ramp) = plan.course().ramp_status(false) {
            let _ = writeln!(text, "  ramp    {ramp}");
        }
        if let Some(scale) = plan.course().scale() {
            let _ = writeln!(
                text,
                "  scale   {}: guards have stepped back; `ctl resume` takes it back",
                percent(scale)
            );
        }
        for guard in plan.guards().rules() {
            let _ = writeln!(text, "  guard   {guard}");
        }
    }
    match copiers {
        Err(failure) => {
            let _ = writeln!(text, "  copiers are not known: {failure}");
        }
        Ok(copiers) if copiers.is_empty() => {
            let _ = writeln!(
                text,
                "  no copier is registered, or none is seen with this token"
            );
        }
        Ok(copiers) => {
            for copier in copiers {
                let _ = writeln!(text, "  {}", line(copier));
            }
        }
    }
    if let Some(plan) = plan {
        let now = seconds_since_1970();
        let changes = plan.changes();
        let lately = changes.len().saturating_sub(LATELY);
        for change in changes.iter().skip(lately) {
            let ago = Duration::from_secs(now.saturating_sub(change.at));
            let _ = writeln!(
                text,
                "  {:>8} ago  {}: {}",
                show(ago),
                printable(&change.by),
                printable(&change.what)
            );
        }
    }
    text
}

/// A copier for people.
pub(super) fn line(copier: &Enrolled) -> String {
    let Enrolled {
        id,
        node,
        standing,
        said,
        share,
        ..
    } = copier;
    let standing = match standing {
        Standing::Silent => "no word for 15 s: ",
        Standing::NotWorking | Standing::Well => "",
    };
    let node = match node.as_str() {
        "" => String::new(),
        node => format!(" on {node}"),
    };
    let share = match share.as_str() {
        "" => "not known",
        share => share,
    };
    format!("copier  {id}{node}, share {share}: {standing}{said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_word_asks_of_a_cluster() {
        let refused = |action, value| {
            wish(action, value, GuardOptions::default())
                .err()
                .map(|error| error.to_string())
        };
        for (action, value) in [
            (Action::Status, None),
            (Action::Intensity, None),
            (Action::Intensity, Some("200%")),
            (Action::Ramp, Some("0..100%/10s")),
            (Action::Guards, Some("none")),
            (Action::Guards, Some("resets>2%:stop")),
            (Action::Stop, None),
        ] {
            assert_eq!(refused(action, value), None, "{action:?}");
        }
        for (action, value, why) in [
            (Action::Stop, Some("now"), "take a value"),
            (Action::Status, Some("x"), "take a value"),
            (Action::Ramp, None, "stages are missing"),
            (Action::Ramp, Some("x"), "ramp"),
            (Action::Intensity, Some("-1"), "'-1'"),
            (Action::Guards, None, "rules are missing"),
            (Action::Guards, Some("x"), "guards"),
            (Action::LogLevel, Some("debug"), "of one copier"),
        ] {
            let said = refused(action, value).unwrap();
            assert!(said.contains(why), "{action:?}: {said}");
        }
    }

    #[test]
    fn a_plan_is_shown_with_its_copiers_and_who_changed_it() {
        let cluster: Cluster = "web".parse().unwrap();
        let signed = Signed {
            by: "me@here\u{1b}",
            at: seconds_since_1970() - 90,
        };
        let ramp = Command::Follow("0..100%/10m".parse().unwrap());
        let (plan, _) = apply(None, &Wish::Command(ramp), signed).unwrap();
        let rules = Wish::Guards(FleetGuards::parse("resets>2%:stop").unwrap());
        let (plan, _) = apply(Some(plan), &rules, signed).unwrap();
        let copier = Enrolled {
            id: "live1".to_owned(),
            node: "n1".to_owned(),
            standing: Standing::Silent,
            said: "TTL expired".to_owned(),
            share: "3 of 64".to_owned(),
            version: String::new(),
        };
        let text = shown(&cluster, Some(&plan), &Ok(vec![copier]));
        for part in [
            "cluster web: 0% (running), edition 2 of the plan\n",
            "  ramp    0..1/10m: 0 of 600 s\n",
            "  guard   resets>2%:stop\n",
            "  copier  live1 on n1, share 3 of 64: no word for 15 s: TTL expired\n",
            " ago  me@here: the operator has set the guards resets>2%:stop\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        let text = shown(&cluster, None, &Ok(Vec::new()));
        assert!(text.contains("no plan") && text.contains("no copier is registered"));
    }
}

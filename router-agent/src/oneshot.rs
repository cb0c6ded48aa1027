//! apply, remove, show, plan, check and status: the same code as the daemon's, without a daemon and a lease.

use std::io::Write;
use std::time::{Duration, Instant};

use millrace_daemon::exit::ExitError;
use millrace_daemon::status;
use serde::Serialize;

use crate::check;
use crate::headline;
use crate::host::HostConfig;
use crate::install::{InstallError, Installer, Judged};
use crate::kernel::Kernel;
use crate::need::{Need, Selectors};
use crate::options::{ADMIN, Command, Options};
use crate::plan::{floor, ours};
use crate::state::{Opened, StateFile};

/// Pause between looks at connections that hold up a removal.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Does what was asked for, once.
///
/// # Errors
/// One line that says what is wrong.
pub fn run(options: &Options, command: &Command) -> Result<(), ExitError> {
    let host = options.host_config()?;
    match command {
        Command::Status(options) => {
            let admin = options.admin.unwrap_or(ADMIN);
            let ask = || vec![(admin, status::ask(admin, "router-agent"))];
            status::show(options, ask, |status, _| headline::screen(status))
        }
        Command::Apply(wanted) => apply(&mut installer(host, "apply")?, &wanted.need()),
        Command::Remove => remove(&mut installer(host, "remove")?),
        Command::Show(shown) => show(host, shown.json),
        Command::Plan(wanted) => plan(host, &wanted.need()),
        Command::Check(checked) => {
            let subject = check::Subject::new(options, host, checked.wanted.need());
            check::SUITE.command(&subject, &checked.check, &options.common.skip_checks)
        }
    }
}

fn failed(error: impl std::error::Error) -> ExitError {
    ExitError::start(error.to_string())
}

/// An installer that may change things.
fn installer(host: HostConfig, command: &str) -> Result<Installer, ExitError> {
    let kernel = Kernel::open().map_err(failed)?;
    match StateFile::open(&host.state_dir).map_err(failed)? {
        Opened::Ours(state) => Ok(Installer::new(host, kernel, state)),
        Opened::Taken(pid) => Err(ExitError::start(format!(
            "a router-agent{} works with {}: while it runs it alone changes routes here; `show` \
             and `plan` work beside it; stop it before `{command}` (what is installed stays), or \
             use another --state-dir, --table, --priority, --protocol and --sink-device",
            pid.map(|pid| format!(" (process {pid})"))
                .unwrap_or_default(),
            host.state_dir.display()
        ))),
    }
}

/// Diverts what is needed, until [`remove`].
///
/// # Errors
/// One line that says what is wrong; then all is as it was before.
pub fn apply(installer: &mut Installer, need: &Need) -> Result<(), ExitError> {
    let manage = installer.host().manage_sysctl;
    let judged = installer.judge(need, None).map_err(failed)?;
    let warnings = judged.warnings(manage);
    let Judged {
        selectors,
        findings,
        ..
    } = judged;
    // What another apply, or a daemon that was stopped, diverts is left to `remove`, which takes
    // care of its connections.
    let there = installer.diverted().map_err(failed)?;
    if let Some(other) = there.difference(&selectors).next() {
        return Err(ExitError::start(format!(
            "{other} are diverted here already, by an earlier apply or daemon: run remove first, or \
             ask for both together"
        )));
    }
    if manage {
        installer.set(&findings).map_err(failed)?;
    }
    installer
        .remember_by_hand(Some(need.clone()))
        .map_err(failed)?;
    let verified = match installer.bring_about(&selectors, &there) {
        Ok(verified) => verified,
        Err(error) => {
            let undo = installer
                .remember_by_hand(None)
                .and_then(|()| installer.restore_settings());
            if let Err(error) = undo {
                tracing::warn!("{error}");
            }
            return Err(failed(error));
        }
    };
    for warning in warnings {
        say(format_args!("warning: {warning}"));
    }
    if let Some(warning) = installer.no_floor() {
        say(format_args!("warning: {warning}"));
    }
    for selector in &selectors {
        say(format_args!("diverted: {selector}"));
    }
    say(format_args!(
        "{} steps, confirmed by {} look-ups; it stays until: millrace-router-agent remove",
        verified.steps, verified.lookups
    ));
    Ok(())
}

/// Removes all that is installed, once no copied connection can speak any more.
///
/// # Errors
/// One line that says what is wrong.
pub fn remove(installer: &mut Installer) -> Result<(), ExitError> {
    let grace = installer.host().grace;
    let there = installer.diverted().map_err(failed)?;
    let deadline = Instant::now() + grace;
    let nothing = Selectors::new();
    loop {
        let speaking = installer.speaking(&there, &nothing).map_err(failed)?;
        if speaking.is_empty() {
            break;
        }
        let (_, why) = installer.end_connections(&speaking);
        let left = installer.speaking(&there, &nothing).map_err(failed)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            // Not whose connection it was: clients are named at debug level only.
            let why = why.map_or_else(String::new, |it| format!(" ({})", it.why));
            return Err(ExitError::start(format!(
                "{} copied connections are still open{why}, and would answer to real clients: nothing \
                 was removed; stop the copiers, restart the tested application, and run remove \
                 again (ss -tn shows them)",
                left.len()
            )));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let done = (|| -> Result<u32, InstallError> {
        let verified = installer.bring_about(&nothing, &there)?;
        installer.remember_only(&nothing);
        installer.remember_by_hand(None)?;
        installer.restore_settings()?;
        Ok(verified.steps)
    })();
    match done.map_err(failed)? {
        0 => say(format_args!("there was nothing to remove")),
        steps => say(format_args!("removed in {steps} steps")),
    }
    Ok(())
}

fn plan(host: HostConfig, need: &Need) -> Result<(), ExitError> {
    let manage = host.manage_sysctl;
    let mut installer = Installer::looking(host).map_err(failed)?;
    let judged = installer
        .judge(need, None)
        .map_err(|error| ExitError::start(format!("refused: {error}")))?;
    for warning in judged.warnings(false) {
        say(format_args!("# {warning}"));
    }
    if manage {
        for finding in &judged.findings {
            say(format_args!("sysctl -w {}={}", finding.key, finding.wanted));
        }
    }
    let mut all = installer.diverted().map_err(failed)?;
    all.extend(&judged.selectors);
    let steps = installer.steps(&all).map_err(failed)?;
    if steps.is_empty() {
        say(format_args!("# all of it is in place already"));
    }
    for step in steps {
        say(format_args!("{step}"));
    }
    Ok(())
}

/// What is installed, as the kernel has it.
#[derive(Debug, Serialize)]
struct Installed {
    diverted: Vec<String>,
    applied_by_hand: Option<Need>,
    rules: Vec<String>,
    routes: Vec<String>,
    devices: Vec<String>,
    firewall: Vec<String>,
    floor: Vec<String>,
    settings: Vec<String>,
}

fn show(host: HostConfig, json: bool) -> Result<(), ExitError> {
    let mut installer = Installer::looking(host).map_err(failed)?;
    let snapshot = installer.snapshot().map_err(failed)?;
    let stopped = installer.stopped().unwrap_or_default();
    let host = installer.host();
    let text = |step: crate::kernel::step::Step| {
        let text = step.to_string();
        text.replacen(" rule add ", " rule ", 1)
            .replacen(" route add ", " route ", 1)
    };
    let own = snapshot.rules.iter().filter(|it| ours::rule(host, it));
    let rules = own.map(|rule| text(crate::kernel::step::Step::AddRule(rule.clone())));
    let own = snapshot.routes.iter().filter(|it| ours::route(host, it));
    let routes = own.map(|route| {
        let device = route.link.and_then(|index| snapshot.link_at(index));
        text(crate::kernel::step::Step::AddRoute {
            route: route.clone(),
            device: device.map(|link| link.name.clone()),
        })
    });
    let own = snapshot.links.iter().filter(|it| ours::link(host, it));
    let devices = own.map(|link| {
        let up = if link.up { "up" } else { "down" };
        format!("{} ({}, {up})", link.name, link.kind)
    });
    let chains = [
        ("iptables", &snapshot.chain_v4),
        ("ip6tables", &snapshot.chain_v6),
    ];
    let firewall = chains.iter().flat_map(|(program, chain)| {
        let rules = chain.rules.iter();
        rules.map(move |rule| format!("{program} -t mangle -A MILLRACE {rule}"))
    });
    let floor = snapshot.floor.exists.then(|| {
        format!(
            "table inet {} ({} rules; {} packets and {} ICMP errors stopped)",
            floor::table(host),
            snapshot.floor.rules,
            stopped.packets,
            stopped.errors
        )
    });
    let floor = floor.into_iter().collect();
    let settings = installer.state().settings.iter();
    let installed = Installed {
        diverted: ours::diverted(host, &snapshot)
            .iter()
            .map(ToString::to_string)
            .collect(),
        applied_by_hand: installer.state().by_hand.clone(),
        rules: rules.collect(),
        routes: routes.collect(),
        devices: devices.collect(),
        firewall: firewall.collect(),
        floor,
        settings: settings
            .map(|(key, it)| format!("{key}={} (before: {})", it.set, it.before))
            .collect(),
    };
    if json {
        let text = serde_json::to_string_pretty(&installed)
            .map_err(|error| ExitError::caused("cannot show it", &error))?;
        say(format_args!("{text}"));
        return Ok(());
    }
    let lists = [
        ("diverted", &installed.diverted),
        ("rules", &installed.rules),
        ("routes", &installed.routes),
        ("devices", &installed.devices),
        ("firewall", &installed.firewall),
        ("floor", &installed.floor),
        ("settings", &installed.settings),
    ];
    for (name, list) in lists {
        say(format_args!(
            "{name}:{}",
            if list.is_empty() { " none" } else { "" }
        ));
        for line in list {
            say(format_args!("  {line}"));
        }
    }
    if installed.applied_by_hand.is_some() {
        say(format_args!("applied by hand: stays until remove"));
    }
    Ok(())
}

/// To standard output; whoever reads it may be gone, which is no reason to fail.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

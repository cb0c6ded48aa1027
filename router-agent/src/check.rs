//! What keeps this host's responses from being diverted, or would hurt others, found out before: all checks. They judge a
//! plan as the agent does when a copier asks for it ([`crate::plan`], [`crate::settings`]), and change nothing.

use std::net::SocketAddr;
use std::sync::OnceLock;

use millrace_channel::check::certificate;
use millrace_channel::tls::Role;
use millrace_daemon::check::{Check, Level, Suite, Verdict, When, host};
use millrace_daemon::exit::ExitError;
use rustix::thread::CapabilitySet;

use crate::host::{HostConfig, Mode};
use crate::install::{InstallError, Installer, Judged};
use crate::kernel::Kernel;
use crate::kernel::model::LISTEN;
use crate::need::Need;
use crate::options::Options;
use crate::plan::{Danger, Refusal};
use crate::settings::Finding;

/// All of them.
pub const SUITE: Suite<Subject> = Suite {
    program: "millrace-router-agent",
    checks: &[
        Check {
            name: "privileges",
            about: "This user may change routes and rules (CAP_NET_ADMIN)",
            when: When::Command,
            look: privileges,
        },
        Check {
            name: "kernel",
            about: "The kernel is one on which Millrace is tried",
            when: When::Start,
            look: |_| host::kernel(),
        },
        Check {
            name: "tools",
            about: "`nft` is there for the floor under what is diverted, and with `--mode nfqueue` `iptables`",
            when: When::Start,
            look: tools,
        },
        Check {
            name: "state-dir",
            about: "What must outlive the agent can be written (`--state-dir`)",
            when: When::Command,
            look: |subject| host::directory(&subject.host.state_dir, "--state-dir"),
        },
        Check {
            name: "listening",
            about: "The port for copiers (`-b`, `-p`) is free, and copiers on other hosts reach it",
            when: When::Command,
            look: |subject| {
                let Options {
                    bind, port, common, ..
                } = &subject.options;
                host::listening(*bind, *port, common.insecure)
            },
        },
        Check {
            name: "certificate",
            about: "This agent's certificate can be used, and does not end soon",
            when: When::Command,
            look: |subject| certificate(&subject.options.common, Role::RouterAgent),
        },
        Check {
            name: "service-address",
            about: "This host has the addresses of the tested services: a VIP that is missing on `lo`",
            when: When::Command,
            look: service_address,
        },
        Check {
            name: "application",
            about: "Something listens on the tested services",
            when: When::Command,
            look: application,
        },
        Check {
            name: "rp-filter",
            about: "The reverse-path filter lets copied packets in, whose sources are answered over another device",
            when: When::Command,
            look: |subject| setting(subject, &["rp_filter"]),
        },
        Check {
            name: "arp",
            about: "A real server that holds the VIP on `lo` does not answer ARP for it in place of the director",
            when: When::Command,
            look: |subject| setting(subject, &["arp_ignore", "arp_announce"]),
        },
        Check {
            name: "policy-rules",
            about: "No policy rule of others takes responses before those of the agent, and preference and table are free",
            when: When::Command,
            look: |subject| {
                refused(
                    subject,
                    &[Danger::RuleBefore, Danger::Preference, Danger::Table],
                )
            },
        },
        Check {
            name: "sink-device",
            about: "The name of the sink is not that of a device of others",
            when: When::Command,
            look: |subject| refused(subject, &[Danger::Device]),
        },
        Check {
            name: "assistant",
            about: "The assistant is another host in a network of this one, and no gateway, director or client",
            when: When::Command,
            look: |subject| refused(subject, &[Danger::Assistant]),
        },
        Check {
            name: "real-users",
            about: "No real user, and no ssh session, is connected to what is to be diverted",
            when: When::Command,
            look: |subject| refused(subject, &[Danger::Connection, Danger::Ssh]),
        },
        Check {
            name: "plan",
            about: "What is to be diverted is allowed (`--allow`), and hurts nothing else of this host",
            when: When::Command,
            look: plan,
        },
    ],
};

/// Dangers that have checks of their own; `plan` is for all others.
const NAMED: [Danger; 8] = [
    Danger::NotLocal,
    Danger::RuleBefore,
    Danger::Preference,
    Danger::Table,
    Danger::Device,
    Danger::Assistant,
    Danger::Connection,
    Danger::Ssh,
];

/// What they look at. The kernel is asked once, when the first check needs it.
#[derive(Debug)]
pub struct Subject {
    options: Options,
    host: HostConfig,
    need: Need,
    found: OnceLock<Result<Found, String>>,
}

/// What the kernel says.
#[derive(Debug)]
struct Found {
    /// The judgement of the plan.
    judged: Result<Judged, Refusal>,
    /// Where this host listens.
    listening: Vec<SocketAddr>,
}

impl Subject {
    /// An agent with these options, of which `need` is to be asked; if that is nothing, all that it allows.
    pub fn new(options: &Options, host: HostConfig, need: Need) -> Self {
        let need = match &host.allow {
            Some(allow) if need.services.is_empty() && need.pool.is_empty() => Need {
                services: allow.services.clone(),
                pool: match allow.services.as_slice() {
                    [] => allow.pool.clone(),
                    _ => Vec::new(),
                },
                mode: None,
            },
            Some(_) | None => need,
        };
        Self {
            options: options.clone(),
            host,
            need,
            found: OnceLock::new(),
        }
    }

    /// What the kernel says.
    fn found(&self) -> Result<&Found, Verdict> {
        let ask = || {
            let installer = Installer::looking(self.host.clone());
            let mut installer = installer.map_err(|error| error.to_string())?;
            Found::of(&mut installer, &self.need)
        };
        let found = self.found.get_or_init(ask).as_ref();
        found.map_err(|error| match self.lacks_iptables() {
            true => Verdict::skipped("not known as long as iptables is not installed"),
            false => Verdict::failure(
                format!("the kernel cannot be asked: {error}"),
                "run it as root",
            ),
        })
    }

    /// Whether it diverts by a tool that is not there.
    fn lacks_iptables(&self) -> bool {
        self.host.mode == Mode::Nfqueue && !Kernel::has_tool("iptables")
    }

    fn is_asked(&self) -> bool {
        !(self.need.services.is_empty() && self.need.pool.is_empty())
    }
}

impl Found {
    fn of(installer: &mut Installer, need: &Need) -> Result<Self, String> {
        let sockets = installer.sockets().map_err(|error| error.to_string())?;
        let listening = sockets.iter().filter(|socket| socket.state == LISTEN);
        let listening = listening.map(|socket| socket.local).collect();
        let judged = match need.services.is_empty() && need.pool.is_empty() {
            true => Ok(Judged::default()),
            false => match installer.judge(need, None) {
                Ok(judged) => Ok(judged),
                Err(InstallError::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error.to_string()),
            },
        };
        Ok(Self { judged, listening })
    }
}

/// Makes the checks of the daemon's start.
///
/// # Errors
/// What failed, with exit code 1.
pub fn at_start(options: &Options, host: &HostConfig) -> Result<(), ExitError> {
    // What is to be diverted is judged when a copier asks for it.
    let subject = Subject::new(options, host.clone(), Need::default());
    SUITE.at_start(&subject, &options.common.skip_checks)
}

fn privileges(_: &Subject) -> Verdict {
    match rustix::thread::capabilities(None) {
        Ok(sets) if sets.effective.contains(CapabilitySet::NET_ADMIN) => {
            Verdict::ok("routes and rules may be changed")
        }
        Ok(_) => Verdict::failure(
            "this user may not change routes and rules",
            "run it as root, or with CAP_NET_ADMIN (and CAP_NET_RAW with --mode nfqueue)",
        ),
        Err(error) => Verdict::error(&error),
    }
}

fn tools(subject: &Subject) -> Verdict {
    if subject.lacks_iptables() {
        return Verdict::failure(
            "iptables is not installed, and --mode nfqueue diverts by it",
            "apt-get install iptables",
        );
    }
    match Kernel::has_tool("nft") {
        true => Verdict::ok("nft is installed"),
        false => Verdict::warning(
            "nft is not installed: there would be no floor under what is diverted",
            "apt-get install nftables",
        ),
    }
}

/// The plan's judgement, or why there is none.
fn judged(subject: &Subject) -> Result<Result<&Judged, &Refusal>, Verdict> {
    if !subject.is_asked() {
        return Err(Verdict::skipped(
            "nothing is named to be diverted (-s, -c or --allow)",
        ));
    }
    Ok(subject.found()?.judged.as_ref())
}

/// What the plan's judgement allows, or why that is not known.
fn allowed(subject: &Subject) -> Result<&Judged, Verdict> {
    judged(subject)?.map_err(|_| {
        Verdict::skipped("not known as long as the plan is refused for another reason")
    })
}

/// Fails if the plan is refused for a reason of which `is_ours` holds.
fn refused_if(subject: &Subject, is_ours: impl Fn(Danger) -> bool) -> Result<&Judged, Verdict> {
    match judged(subject)? {
        Err(refusal) if is_ours(refusal.danger) => Err(Verdict::error(refusal)),
        Ok(_) | Err(_) => allowed(subject),
    }
}

fn refused(subject: &Subject, dangers: &[Danger]) -> Verdict {
    match refused_if(subject, |danger| dangers.contains(&danger)) {
        Ok(_) => Verdict::ok("nothing stands in the way"),
        Err(verdict) => verdict,
    }
}

fn plan(subject: &Subject) -> Verdict {
    match refused_if(subject, |danger| !NAMED.contains(&danger)) {
        Ok(judged) => {
            let all: Vec<String> = judged.selectors.iter().map(ToString::to_string).collect();
            Verdict::ok(all.join(", "))
        }
        Err(verdict) => verdict,
    }
}

fn service_address(subject: &Subject) -> Verdict {
    match refused_if(subject, |danger| danger == Danger::NotLocal) {
        Ok(judged) => match judged.elsewhere.first() {
            Some(missing) => Verdict {
                level: Level::Warning,
                ..Verdict::ok(missing)
            },
            None => Verdict::ok("this host has the addresses of the services"),
        },
        Err(verdict) => verdict,
    }
}

fn application(subject: &Subject) -> Verdict {
    if subject.need.services.is_empty() {
        return Verdict::skipped("no service is named (-s or --allow)");
    }
    let found = match subject.found() {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    let listens = |service: &SocketAddr| {
        found.listening.iter().any(|at| {
            at.port() == service.port()
                && (at.ip().is_unspecified() || at.ip().to_canonical() == service.ip())
        })
    };
    match subject.need.services.iter().find(|it| !listens(it)) {
        Some(service) => Verdict::warning(
            format!("nothing listens on {service}"),
            format!(
                "start the tested application, or `ss -ltn 'sport = :{}'`",
                service.port()
            ),
        ),
        None => Verdict::ok("the tested application listens"),
    }
}

/// Settings of these names that are not as they should be, of all devices: on which of them copies come in is not known.
fn setting(subject: &Subject, names: &[&str]) -> Verdict {
    let judged = match allowed(subject) {
        Ok(judged) => judged,
        Err(unknown) => return unknown,
    };
    let named = |key: &str| names.iter().any(|name| key.ends_with(name));
    let findings: Vec<&Finding> = judged.findings.iter().filter(|it| named(&it.key)).collect();
    let each = |show: fn(&Finding) -> String, between: &str| {
        let all: Vec<String> = findings.iter().map(|it| show(it)).collect();
        all.join(between)
    };
    if findings.is_empty() {
        return Verdict::ok(format!("{} as it should be", names.join(" and ")));
    }
    let found = each(|it| format!("{} is {}: {}", it.key, it.found, it.why), "; ");
    match subject.host.manage_sysctl {
        true => Verdict::ok(format!("{found}; the agent sets it (--manage-sysctl)")),
        false => Verdict::warning(
            found,
            format!(
                "sysctl -w {}",
                each(|it| format!("{}={}", it.key, it.wanted), " ")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use millrace_daemon::check::document;

    use super::*;

    #[test]
    fn the_documents_list_of_checks_is_the_suite() {
        let document = include_str!("../../docs/checks.md");
        let table = document::table(&SUITE);
        assert!(document.contains(&table), "docs/checks.md lacks:\n{table}");
    }
}

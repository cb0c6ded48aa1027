//! What keeps a copier from its work, or would hurt others, found out before it runs: all checks, and the command that
//! makes them.
//!
//! - `host`: the live host; `clients`: who is connected to the live services.
//! - `pods`: those of this node that the live services are in.
//! - `target`: the way to the targets; `peers`: interceptors and router-agents.

mod clients;
mod host;
mod peers;
mod pods;
mod target;

use std::sync::{Arc, OnceLock};

use millrace_daemon::check::{Check, CheckOptions, Suite, When};
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;

use crate::command::Arguments;
use crate::options::Options;
use crate::plan::Plan;
use crate::sockets::Clients;

/// All of them.
pub const SUITE: Suite<Subject> = Suite {
    program: "millrace-copier",
    checks: &[
        Check {
            name: "privileges",
            about: "Packets can be captured and sent by this user",
            when: When::Command,
            look: host::privileges,
        },
        Check {
            name: "kernel",
            about: "The kernel is one on which Millrace is tried",
            when: When::Start,
            look: |_| millrace_daemon::check::host::kernel(),
        },
        Check {
            name: "memory",
            about: "The memory limit (`-m`), of which the capture buffer is a part, fits into what is available here",
            when: When::Start,
            look: host::memory,
        },
        Check {
            name: "report",
            about: "The report (`--report`) can be written, and there is room for it",
            when: When::Start,
            look: host::report,
        },
        Check {
            name: "devices",
            about: "The devices to capture on are up",
            when: When::Start,
            look: host::devices,
        },
        Check {
            name: "listener",
            about: "Something on this host listens where `-x` says that the live service is: a swapped port, another \
                    address, a service bound to loopback",
            when: When::Start,
            look: host::listener,
        },
        Check {
            name: "pods",
            about: "The Kubernetes API says which pods of this node the live services are in (`-x service/...`), and \
                    this host knows the way to them",
            when: When::Command,
            look: pods::known,
        },
        Check {
            name: "tls",
            about: "The live ports are not those of protocols that begin with TLS, which no target can read",
            when: When::Start,
            look: host::tls,
        },
        Check {
            name: "conntrack",
            about: "This host does not track what the copier sends through its routing: copies would fill its table, at \
                    the cost of real clients",
            when: When::Command,
            look: host::conntrack,
        },
        Check {
            name: "loopback-clients",
            about: "Clients on the live host's loopback address have one that stands for it (`-H`, `-c`)",
            when: When::Start,
            look: clients::loopback,
        },
        Check {
            name: "same-network",
            about: "No client is in the target's own network, which answers it directly, past any route to an assistant",
            when: When::Start,
            look: clients::same_network,
        },
        Check {
            name: "client-ports",
            about: "Clients behind one address leave ports free for their copies (`-n`)",
            when: When::Start,
            look: clients::ports,
        },
        Check {
            name: "target-elsewhere",
            about: "The target is another host than the live one: routes could not tell their answers apart",
            when: When::Start,
            look: target::elsewhere,
        },
        Check {
            name: "route",
            about: "There is a way to each target, and its next hop answers",
            when: When::Command,
            look: target::route,
        },
        Check {
            name: "mtu",
            about: "The largest packet that is sent (`-M`) fits the device that leads to the target",
            when: When::Start,
            look: target::mtu,
        },
        Check {
            name: "target-port",
            about: "The target does not refuse connections from this host. Each one is reset at once; silence is no \
                    failure, since answers may be diverted already",
            when: When::Command,
            look: target::port,
        },
        Check {
            name: "certificate",
            about: "This copier's certificate can be used, and does not end soon",
            when: When::Command,
            look: peers::certificate,
        },
        Check {
            name: "interceptors",
            about: "Each interceptor answers, and takes this copier's certificate",
            when: When::Command,
            look: peers::interceptors,
        },
        Check {
            name: "router-agents",
            about: "Each router-agent answers, and takes this copier's certificate",
            when: When::Command,
            look: peers::router_agents,
        },
        Check {
            name: "guard",
            about: "A router-agent or a client pool keeps the target's answers from real clients, not a route alone",
            when: When::Command,
            look: peers::guard,
        },
    ],
};

/// What they look at.
#[derive(Debug)]
pub struct Subject {
    options: Options,
    plan: Arc<Plan>,
    clients: OnceLock<Clients>,
}

impl Subject {
    /// The copier of these options.
    pub fn new(options: &Options, plan: &Arc<Plan>) -> Self {
        Self {
            options: options.clone(),
            plan: plan.clone(),
            clients: OnceLock::new(),
        }
    }

    /// Whether live traffic is copied, not a recording.
    fn is_live(&self) -> bool {
        self.plan.ring().is_some()
    }

    /// Whoever is connected to the live services now.
    fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(|| Clients::read(&self.plan.services))
    }
}

/// Says what would keep a copier with these options from its work, or hurt others, without copying.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier",
    bin_name = "millrace-copier check",
    version,
    max_term_width = 100
)]
struct Command {
    #[command(flatten)]
    check: CheckOptions,

    #[command(flatten)]
    options: Options,
}

/// Its command line, for the manual and for shells.
pub(crate) fn command_line() -> clap::Command {
    <Command as clap::CommandFactory>::command()
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the options, as the daemon would say it; exit code 1 when a check failed.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let environment = |name: &str| std::env::var_os(name);
    let Command { check, options } = config::parse_from(arguments, environment)?;
    let plan = Arc::new(Plan::new(&options)?);
    let subject = Subject::new(&options, &plan);
    SUITE.command(&subject, &check, &options.common.skip_checks)
}

#[cfg(test)]
mod tests {
    use millrace_daemon::check::document;

    use super::*;

    #[test]
    fn the_documents_list_of_checks_is_the_suite() {
        let document = include_str!("../../../docs/checks.md");
        let table = document::table(&SUITE);
        assert!(document.contains(&table), "docs/checks.md lacks:\n{table}");
    }
}

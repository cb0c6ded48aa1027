//! What keeps an interceptor from its work, or would hurt others, found out before it runs: all checks, and the command
//! that makes them.

use std::ffi::OsString;

use millrace_capture::{Device, check_privilege};
use millrace_channel::check::certificate;
use millrace_channel::tls::Role;
use millrace_daemon::check::{Check, CheckOptions, Suite, Verdict, When, host};
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;

use crate::forwarding;
use crate::options::{Mode, Options, SINK};
use crate::rings;

/// All of them.
pub const SUITE: Suite<Options> = Suite {
    program: "millrace-interceptor",
    checks: &[
        Check {
            name: "privileges",
            about: "Packets can be captured by this user",
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
            name: "memory",
            about: "The capture buffers (`-B`, for each device) fit into what is available here",
            when: When::Start,
            look: memory,
        },
        Check {
            name: "devices",
            about: "The devices on which responses arrive (`-i`) are there and up; the sink may be missing, a router-agent \
                    makes it",
            when: When::Start,
            look: devices,
        },
        Check {
            name: "forwarding",
            about: "An assistant (`--mode link`) does not forward packets: what is diverted to it would go on to real clients",
            when: When::Command,
            look: forwarding,
        },
        Check {
            name: "listening",
            about: "The port for copiers (`-b`, `-p`) is free, and copiers on other hosts reach it",
            when: When::Command,
            look: listening,
        },
        Check {
            name: "certificate",
            about: "This interceptor's certificate can be used, and does not end soon",
            when: When::Command,
            look: |options| certificate(&options.common, Role::Interceptor),
        },
    ],
};

/// Says what would keep an interceptor with these options from its work, or hurt others, without running it.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-interceptor",
    bin_name = "millrace-interceptor check",
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

/// Runs the command; the arguments are the program's name and the options.
///
/// # Errors
/// What is wrong with the options, as the daemon would say it; exit code 1 when a check failed.
pub fn run(arguments: Vec<OsString>) -> Result<(), ExitError> {
    let environment = |name: &str| std::env::var_os(name);
    let Command { check, options } = config::parse_from(arguments, environment)?;
    options.check()?;
    options.register.membership()?;
    rings::configs(&options)?;
    SUITE.command(&options, &check, &options.common.skip_checks)
}

fn privileges(_: &Options) -> Verdict {
    match check_privilege() {
        Ok(()) => Verdict::ok("a packet socket can be opened"),
        Err(error) => Verdict::error(&error),
    }
}

fn memory(options: &Options) -> Verdict {
    let devices = options.devices.len().max(1) as u64;
    // All that may be taken: see `rings`.
    let buffers = (u64::from(options.buffer_mb) << 22) * devices;
    host::memory(buffers, "the capture buffers (-B)")
}

fn devices(options: &Options) -> Verdict {
    let names = match (options.mode(), options.devices.as_slice()) {
        (Mode::Nfqueue, _) => return Verdict::ok("packets come from a queue"),
        (Mode::Sink, []) => vec![SINK.to_owned()],
        (Mode::Sink | Mode::Link, named) => named.to_vec(),
    };
    let known = Device::list();
    let find = |name: &String| known.iter().find(|device| device.name == *name);
    if let Some(missing) = names.iter().find(|name| find(name).is_none()) {
        return match options.mode() {
            Mode::Sink => Verdict::ok(format!(
                "{missing} is not there yet: a router-agent makes it when a copier asks"
            )),
            Mode::Link | Mode::Nfqueue => Verdict::failure(
                format!("there is no device {missing}"),
                "`ip -br link`; name the device on which responses arrive with -i",
            ),
        };
    }
    let mut down = names.iter().filter_map(find).filter(|device| !device.up);
    match down.next() {
        Some(device) => Verdict::warning(
            format!("{} is down", device.name),
            format!("ip link set {} up", device.name),
        ),
        None => Verdict::ok(format!("{} up", names.join(", "))),
    }
}

fn forwarding(options: &Options) -> Verdict {
    if options.mode() != Mode::Link {
        return Verdict::ok("responses end on this host");
    }
    match forwarding::forwards(&options.devices) {
        Some(why) if !options.allow_forwarding => Verdict::error(&why),
        Some(_) => {
            Verdict::ok("this host forwards, and its firewall drops it (--allow-forwarding)")
        }
        None => Verdict::ok("this host forwards nothing"),
    }
}

fn listening(options: &Options) -> Verdict {
    host::listening(options.bind, options.port, options.common.insecure)
}

#[cfg(test)]
mod tests {
    use millrace_daemon::check::document;

    use super::*;

    #[test]
    fn what_the_start_refuses_is_refused() {
        let refused = |line: &str, why: &str| {
            let line = format!("millrace-interceptor --insecure {line}");
            let error = run(line.split(' ').map(OsString::from).collect()).unwrap_err();
            assert_eq!(error.code(), 64, "{line}: {error}");
            assert!(error.to_string().contains(why), "{line}: {error}");
        };
        refused("-F tcp&&&80", "syntax error");
        refused("--mode link", "with -i");
        refused("--consul http://198.18.0.1:8500", "--cluster");
    }

    #[test]
    fn the_documents_list_of_checks_is_the_suite() {
        let document = include_str!("../../docs/checks.md");
        let table = document::table(&SUITE);
        assert!(document.contains(&table), "docs/checks.md lacks:\n{table}");
    }
}

//! The router-agent.

use std::process::ExitCode;

use millrace_daemon::exit::main_with;
use millrace_router_agent::daemon;

fn main() -> ExitCode {
    main_with("millrace-router-agent", daemon::run)
}

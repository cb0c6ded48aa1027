//! The interceptor daemon.

use std::process::ExitCode;

use millrace_daemon::exit::main_with;
use millrace_interceptor::daemon;

fn main() -> ExitCode {
    main_with("millrace-interceptor", daemon::run)
}

//! The interceptor daemon.

use std::process::ExitCode;

use millrace_daemon::exit::main_with;
use millrace_interceptor::cli;

fn main() -> ExitCode {
    main_with("millrace-interceptor", cli::run)
}

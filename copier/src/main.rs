//! The copier: a daemon, and commands beside it.

use std::process::ExitCode;

use millrace_copier::cli;
use millrace_daemon::exit::main_with;

fn main() -> ExitCode {
    main_with("millrace-copier", cli::run)
}

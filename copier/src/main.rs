//! The copier daemon.

use std::process::ExitCode;

use millrace_copier::daemon;
use millrace_fleet::exit::main_with;

fn main() -> ExitCode {
    main_with("millrace-copier", daemon::run)
}

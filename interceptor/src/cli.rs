//! The first word of a command line: `check`, or none for the daemon itself.

use millrace_daemon::exit::ExitError;

use crate::{check, daemon};

/// Runs what the process's own command line asks for.
///
/// # Errors
/// One line that says what is wrong; its exit code is that of the command.
pub fn run() -> Result<(), ExitError> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_none_or(|word| word != check::NAME) {
        return daemon::run();
    }
    arguments.remove(1);
    check::run(arguments)
}

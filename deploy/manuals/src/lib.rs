//! Manual pages, shell completions and sample configuration of the daemons, from their command lines. Packages hold what
//! this makes; no daemon carries it.
//!
//! - [`program`]: the three programs.
//! - [`manual`]: pages for man(1); [`sample`]: configuration files in which every option stands.

pub mod manual;
pub mod program;
pub mod sample;

use std::io;
use std::path::Path;

use clap_complete::Shell;

use crate::program::Program;

/// Writes the completions of all programs into a directory for each shell.
///
/// # Errors
/// What cannot be written.
pub fn write_completions(directory: &Path) -> io::Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let directory = directory.join(shell.to_string());
        std::fs::create_dir_all(&directory)?;
        for program in Program::ALL {
            clap_complete::generate_to(shell, &mut program.command(), program.name(), &directory)?;
        }
    }
    Ok(())
}

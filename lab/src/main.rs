//! The lab's program: the demo, the benchmark, and the parts of the lab that run as programs of their own.

mod bench;
mod cli;
mod demo;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}

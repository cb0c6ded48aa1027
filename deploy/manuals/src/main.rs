//! Writes manual pages, completions or sample configuration into a directory.

use std::path::Path;
use std::process::ExitCode;

use millrace_manuals::{manual, sample, write_completions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["man", directory] => manual::write(Path::new(directory)),
        ["completions", directory] => write_completions(Path::new(directory)),
        ["samples", directory] => sample::write(Path::new(directory)),
        _ => Err(std::io::Error::other(
            "usage: millrace-manuals man|completions|samples DIRECTORY",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

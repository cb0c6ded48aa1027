//! The report at the end: printed, and written to where it is wanted, or else to where it can be.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use millrace_daemon::exit::ExitError;

use crate::plan::Plan;
use crate::report::Report;

/// A report that cannot be written at the end of a long run would be lost: better to say so now.
pub(super) fn check_report_file(plan: &Plan) -> Result<(), ExitError> {
    let Some(path) = &plan.report else {
        return Ok(());
    };
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    opened.map(drop).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> ExitError {
    let what = format!("cannot write the report to {} (--report)", path.display());
    ExitError::caused(what, error)
}

/// Prints the report, and writes it where the operator wants it, or else into the `spare` directory, or the log.
pub(super) fn finish(plan: &Plan, report: &Report, spare: Option<&Path>) -> Result<(), ExitError> {
    tracing::info!(
        "{} sessions captured, {}",
        report.sessions.captured,
        report.fidelity()
    );
    // Whoever reads stdout may be gone by now; that is no reason to fail.
    let _ = write!(std::io::stdout(), "{report}");
    let Some(path) = &plan.report else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| ExitError::caused("cannot write the report", &error))?
        + "\n";
    let Err(error) = std::fs::write(path, &text) else {
        return Ok(());
    };
    // A long run must not end without its report: the directory of the command socket is another place, the log the last.
    let name = format!("copier-{}.report.json", std::process::id());
    match spare.and_then(|directory| write_anew(&directory.join(name), &text)) {
        Some(other) => tracing::error!(
            "cannot write the report to {} (--report): {error}; the report is in {} instead",
            path.display(),
            other.display()
        ),
        None => tracing::error!(
            "cannot write the report to {} (--report): {error}; it is: {}",
            path.display(),
            text.replace('\n', " ")
        ),
    }
    Err(cannot_write(path, &error))
}

/// Writes a file that was not there, for this user alone: others may write in that directory, too. Gives its path.
fn write_anew(path: &Path, text: &str) -> Option<PathBuf> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).ok()?;
    if file.write_all(text.as_bytes()).is_ok() {
        return Some(path.to_owned());
    }
    // Half of it is of no use.
    drop(std::fs::remove_file(path));
    None
}

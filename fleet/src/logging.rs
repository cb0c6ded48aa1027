//! The log: text on stderr or in a file, filtered by level and module.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::exit::ExitError;
use crate::sync::lock;

/// Where the log goes, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// A file to append to; none is stderr.
    pub file: Option<PathBuf>,
    /// A filter as of `RUST_LOG`: `info`, or `warn,millrace_fleet=debug`.
    pub level: String,
}

/// The running log.
#[derive(Debug, Clone)]
pub struct Log {
    file: Option<LogFile>,
}

impl Log {
    /// A log that is not a file, for tests and tools.
    pub fn stderr() -> Self {
        Log { file: None }
    }

    /// Opens the log file again, under the name it was given: for log rotation.
    pub fn reopen(&self) {
        let Some(file) = &self.file else { return };
        match open(&file.path) {
            Ok(fresh) => {
                *lock(&file.file) = fresh;
                tracing::info!("log file {} reopened", file.path.display());
            }
            Err(error) => tracing::error!(
                "cannot reopen the log file {}: {error}; the old one stays in use",
                file.path.display()
            ),
        }
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// Exit code 64 when the filter makes no sense, 1 when the file cannot be opened.
pub fn init(options: &LogOptions) -> Result<Log, ExitError> {
    let filter = EnvFilter::try_new(&options.level).map_err(|error| {
        ExitError::usage(format!(
            "--log-level '{}': {error}; give error, warn, info, debug or trace, or a list such \
             as info,millrace_fleet=debug",
            options.level
        ))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let (log, result) = match &options.file {
        None => {
            let terminal = io::stderr().is_terminal();
            let builder = builder.with_ansi(terminal).with_writer(io::stderr);
            (Log { file: None }, builder.try_init())
        }
        Some(path) => {
            let file = open(path).map_err(|error| {
                ExitError::start(format!(
                    "cannot open the log file {}: {error}; give another -l FILE",
                    path.display()
                ))
            })?;
            let file = LogFile {
                path: path.clone(),
                file: Arc::new(Mutex::new(file)),
            };
            let builder = builder.with_ansi(false).with_writer(file.clone());
            (Log { file: Some(file) }, builder.try_init())
        }
    };
    result.map_err(|error| ExitError::start(format!("cannot start logging: {error}")))?;
    Ok(log)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Debug, Clone)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a LogFile;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.file).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_log_goes_on_in_a_new_file() {
        let dir = std::env::temp_dir().join(format!("millrace-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("copier.log");
        let file = LogFile {
            path: path.clone(),
            file: Arc::new(Mutex::new(open(&path).unwrap())),
        };
        (&file).write_all(b"one\n").unwrap();
        std::fs::rename(&path, dir.join("copier.log.1")).unwrap();
        Log {
            file: Some(file.clone()),
        }
        .reopen();
        (&file).write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_a_usage_error() {
        let options = LogOptions {
            file: None,
            level: "info,=loud".to_owned(),
        };
        let error = init(&options).unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(
            error.to_string().starts_with("--log-level 'info,=loud'"),
            "{error}"
        );
    }
}

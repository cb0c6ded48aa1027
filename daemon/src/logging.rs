//! The log: text or JSON, on stderr or in a file, filtered by level and module.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use crate::exit::ExitError;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object in each line: `timestamp`, `level`, `target`, `message`.
    Json,
}

/// Where the log goes, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// A file to append to; none is stderr.
    pub file: Option<PathBuf>,
    /// A filter as of `RUST_LOG`: `info`, or `warn,millrace_channel=debug`.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

/// Puts another filter in place of the present one.
type Reload = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// The running log.
#[derive(Clone)]
pub struct Log {
    file: Option<LogFile>,
    reload: Arc<Reload>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    /// A log that is not a file, for tests and tools.
    pub fn stderr() -> Self {
        Log {
            file: None,
            reload: Arc::new(|_| Ok(())),
        }
    }

    /// Opens the log file again, under the name it was given: for log rotation.
    pub fn reopen(&self) {
        let Some(file) = &self.file else { return };
        match open(&file.path) {
            Ok(fresh) => {
                *file.file.lock() = fresh;
                tracing::info!("log file {} reopened", file.path.display());
            }
            Err(error) => tracing::error!(
                "cannot reopen the log file {}: {error}; the old one stays in use",
                file.path.display()
            ),
        }
    }

    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let level = level.trim();
        let filter = filter(level).map_err(|error| format!("'{level}': {error}"))?;
        // Either filter may leave the line out.
        tracing::info!("log level from now on: {level}");
        (self.reload)(filter).map_err(|error| error.to_string())?;
        tracing::info!("log level: {level}");
        Ok(())
    }
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let level = level.trim();
    let wrong = |why: &dyn fmt::Display| {
        format!(
            "{why}; give error, warn, info, debug or trace, or a list such as info,millrace_channel=debug"
        )
    };
    // The crate takes any other word for the name of a module, and then logs of that module alone.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_known = |word: &&str| word.contains(['=', '[']) || is_level(word);
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_known(word)) {
        return Err(wrong(&format!("'{word}' is no level")));
    }
    EnvFilter::try_new(level).map_err(|error| wrong(&error))
}

/// A filter as the command line takes it: whatever reads options, be it to check them, refuses what [`init`] would.
///
/// # Errors
/// What is wrong with it.
pub fn level(text: &str) -> Result<String, String> {
    filter(text).map(|_| text.to_owned())
}

/// Starts logging for the whole process.
///
/// # Errors
/// Exit code 64 when the filter makes no sense, 1 when the file cannot be opened.
pub fn init(options: &LogOptions) -> Result<Log, ExitError> {
    let level = &options.level;
    let filter = filter(level)
        .map_err(|error| ExitError::usage(format!("--log-level '{level}': {error}")))?;
    let file = options.file.as_deref().map(LogFile::open).transpose()?;
    let terminal = file.is_none() && io::stderr().is_terminal();
    let writer = match &file {
        Some(file) => BoxMakeWriter::new(file.clone()),
        None => BoxMakeWriter::new(io::stderr),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal)
        .with_writer(writer);
    let (reload, result): (Arc<Reload>, _) = match options.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = move |filter| handle.reload(filter);
            (Arc::new(reload), builder.try_init())
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = move |filter| handle.reload(filter);
            (Arc::new(reload), builder.try_init())
        }
    };
    result.map_err(|error| ExitError::start(format!("cannot start logging: {error}")))?;
    Ok(Log { file, reload })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Debug, Clone)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, ExitError> {
        let file = open(path).map_err(|error| {
            ExitError::start(format!(
                "cannot open the log file {}: {error}; give another -l FILE",
                path.display()
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(file)),
        })
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a LogFile;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().flush()
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
        let file = LogFile::open(&path).unwrap();
        (&file).write_all(b"one\n").unwrap();
        std::fs::rename(&path, dir.join("copier.log.1")).unwrap();
        Log {
            file: Some(file.clone()),
            ..Log::stderr()
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
            format: LogFormat::Text,
        };
        let error = init(&options).unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(
            error.to_string().starts_with("--log-level 'info,=loud'"),
            "{error}"
        );
    }

    #[test]
    fn a_word_that_is_no_level_does_not_turn_the_log_off() {
        for level in [
            "debug\n",
            " info ",
            "warn,millrace_channel=debug",
            "off",
            "a[b]=info",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in [
            "verbose",
            "",
            "debgu",
            "info,millrace_channel",
            "info,,warn",
        ] {
            assert!(filter(level).is_err(), "{level}");
        }
    }
}

//! Options from three places: flags win over environment variables, which win over the file given
//! with `--config`.
//!
//! The environment variable of an option is the program's name and the option's long name:
//! `--log-level` of `millrace-copier` is `MILLRACE_COPIER_LOG_LEVEL`. In the file (TOML) a key is
//! a long option name; a list stands for values joined by commas, and `true` for a flag without a
//! value.

mod effective;
mod error;
mod file;
pub mod secret;

pub use self::effective::started_with;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

use crate::exit::ExitError;

/// Long name of the option that names the file.
const CONFIG: &str = "config";

/// Options that make no sense in a file.
pub const NOT_IN_FILE: [&str; 3] = [CONFIG, "help", "version"];

/// Parses the process's own arguments and environment, and the file that they name.
///
/// # Errors
/// What is wrong, in one line that says what to change, with exit code 64; or the text that
/// `--help` or `--version` asked for, with exit code 0.
pub fn parse<T: Parser>() -> Result<T, ExitError> {
    let command = prepare(T::command());
    let environment = |name: &str| std::env::var_os(name);
    let (matches, layers) = resolve(&command, std::env::args_os(), environment)?;
    effective::remember(&command, &matches, &layers);
    typed(&command, &matches, &layers)
}

/// As [`parse`], with the arguments (the program's name first) and environment given.
///
/// # Errors
/// As [`parse`].
pub fn parse_from<T: Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<T, ExitError> {
    let command = prepare(T::command());
    let (matches, layers) = resolve(&command, arguments, environment)?;
    typed(&command, &matches, &layers)
}

fn typed<T: Parser>(
    command: &Command,
    matches: &ArgMatches,
    layers: &Layers,
) -> Result<T, ExitError> {
    T::from_arg_matches(matches)
        .map_err(|error| error::explain(&error, command, |long| layers.place(long)))
}

/// What the three places say together, and what of it does not come from the command line.
fn resolve(
    command: &Command,
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<(ArgMatches, Layers), ExitError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    if arguments.is_empty() {
        arguments.push(command.get_name().to_owned().into());
    }
    let given = glance(command, &arguments);
    let on_command_line = |id: &str| {
        let known = given.as_ref().and_then(|it| it.try_contains_id(id).ok()) == Some(true);
        known && given.as_ref().and_then(|it| it.value_source(id)) == Some(ValueSource::CommandLine)
    };

    let mut layers = Layers::default();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else {
            continue;
        };
        let name = environment_name(command, long);
        if on_command_line(argument.get_id().as_str()) || NOT_IN_FILE[1..].contains(&long) {
            continue;
        }
        if let Some(value) = environment(&name).filter(|value| !value.is_empty()) {
            layers.add(argument, long, &value, name)?;
        }
    }
    if let Some(path) = config_path(given.as_ref(), &layers) {
        for entry in file::read(&path, command)? {
            if secret::SECRETS.contains(&entry.key.as_str()) {
                return Err(ExitError::usage(format!(
                    "{}: {} does not belong into a file that others may read: {}-file names one of its own",
                    entry.place, entry.key, entry.key
                )));
            }
            let argument = command
                .get_arguments()
                .find(|it| it.get_long() == Some(&entry.key));
            let Some(argument) = argument else { continue };
            if on_command_line(argument.get_id().as_str()) || layers.has(&entry.key) {
                continue;
            }
            layers.add(argument, &entry.key, OsStr::new(&entry.value), entry.place)?;
        }
    }

    let mut all: Vec<OsString> = Vec::with_capacity(arguments.len() + layers.list.len());
    let mut arguments = arguments.into_iter();
    all.extend(arguments.next());
    all.extend(layers.list.iter().map(|layer| layer.argument.clone()));
    all.extend(arguments);
    let matches = command.clone().try_get_matches_from(all);
    let matches =
        matches.map_err(|error| error::explain(&error, command, |long| layers.place(long)))?;
    Ok((matches, layers))
}

/// What does not come from the command line, as arguments to be put before it.
#[derive(Debug, Default)]
struct Layers {
    list: Vec<Layer>,
    /// Flags that a higher layer has switched off: lower layers do not count.
    off: Vec<String>,
}

#[derive(Debug)]
struct Layer {
    long: String,
    argument: OsString,
    /// Where it comes from, for error messages.
    place: String,
}

impl Layers {
    fn has(&self, long: &str) -> bool {
        self.list.iter().any(|layer| layer.long == long) || self.off.iter().any(|it| it == long)
    }

    fn place(&self, long: &str) -> Option<&str> {
        let layer = self.list.iter().find(|layer| layer.long == long);
        layer.map(|layer| layer.place.as_str())
    }

    fn add(
        &mut self,
        argument: &Arg,
        long: &str,
        value: &OsStr,
        place: String,
    ) -> Result<(), ExitError> {
        let mut text = OsString::from(format!("--{long}"));
        if takes_value(argument) {
            text.push("=");
            text.push(value);
        } else {
            match value.to_str().map(str::to_ascii_lowercase).as_deref() {
                Some("true" | "yes" | "on" | "1") => {}
                Some("false" | "no" | "off" | "0") => {
                    self.off.push(long.to_owned());
                    return Ok(());
                }
                Some(_) | None => {
                    return Err(ExitError::usage(format!(
                        "{place}: '{}' is neither true nor false, as --{long} needs",
                        value.to_string_lossy()
                    )));
                }
            }
        }
        self.list.push(Layer {
            long: long.to_owned(),
            argument: text,
            place,
        });
        Ok(())
    }
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

/// Adds what every daemon's command line has: TCPCopy's `-v` besides clap's `-V`.
pub fn prepare(command: Command) -> Command {
    let free = !command.get_arguments().any(|argument| {
        argument.get_short() == Some('v') || argument.get_long() == Some("version")
    });
    if command.get_version().is_none() || !free {
        return command;
    }
    command.disable_version_flag(true).arg(
        Arg::new("version")
            .short('v')
            .visible_short_alias('V')
            .long("version")
            .action(ArgAction::Version)
            .help("Print version"),
    )
}

/// A first look at the command line, to see which options are on it. What is missing or wrong is
/// found by the real parse.
fn glance(command: &Command, arguments: &[OsString]) -> Option<ArgMatches> {
    command
        .clone()
        .mut_args(|argument| argument.required(false))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .ok()
}

fn config_path(given: Option<&ArgMatches>, layers: &Layers) -> Option<PathBuf> {
    let flag = given
        .and_then(|it| it.try_get_raw(CONFIG).ok().flatten())
        .and_then(|mut values| values.next_back())
        .map(PathBuf::from);
    flag.or_else(|| {
        let layer = layers.list.iter().find(|layer| layer.long == CONFIG)?;
        let text = layer.argument.to_str()?;
        text.strip_prefix("--config=").map(PathBuf::from)
    })
}

/// `MILLRACE_COPIER_LOG_LEVEL`
fn environment_name(command: &Command, long: &str) -> String {
    format!("{}_{long}", command.get_name())
        .replace(['-', '.'], "_")
        .to_ascii_uppercase()
}

/// Letters by which a variable may differ from that of an option and still be meant for it.
const MISSPELT: usize = 2;

/// Says in the log which environment variables look like those of options and are none. To be called once it is open.
pub fn warn_of_misspelt_variables<T: Parser>() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for line in misspelt(&prepare(T::command()), names) {
        tracing::warn!("{line}");
    }
}

/// What is said of these variables. Those that are far from any option are others' business, such as the ones that
/// Kubernetes makes of a service's name.
fn misspelt(command: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let prefix = environment_name(command, "");
    let known = || command.get_arguments().filter_map(Arg::get_long);
    let line = |name: String| {
        let word = name.strip_prefix(&prefix)?.to_ascii_lowercase();
        let word = word.replace('_', "-");
        let near = known()
            .map(|long| (file::distance(&word, long), long))
            .min()?;
        let meant = matches!(near, (1..=MISSPELT, long) if long.len() > 2 * MISSPELT);
        meant.then(|| {
            let right = environment_name(command, near.1);
            format!("there is no option for the environment variable {name}: {right} may be meant")
        })
    };
    names.filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    #[command(name = "millrace-copier")]
    struct Line {
        #[arg(long)]
        services: Option<String>,
        #[arg(long)]
        log_level: Option<String>,
        #[arg(long)]
        port: Option<u16>,
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_one_that_may_be_meant() {
        let said = |name: &str| misspelt(&Line::command(), std::iter::once(name.to_owned())).pop();
        let line = said("MILLRACE_COPIER_SERVCIES").unwrap();
        assert!(
            line.ends_with("MILLRACE_COPIER_SERVICES may be meant"),
            "{line}"
        );
        assert!(said("MILLRACE_COPIER_LOGLEVEL").is_some());
        for name in [
            "MILLRACE_COPIER_SERVICES",
            "MILLRACE_COPIER_SERVICE_HOST",
            "MILLRACE_COPIER_PORT_80_TCP",
            "MILLRACE_COPIER_PROT",
            "MILLRACE_COPIER_RECORD_SNAP_LENGTH",
            "PATH",
        ] {
            assert_eq!(said(name), None, "{name}");
        }
    }
}

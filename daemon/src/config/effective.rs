//! What a daemon was started with: each option, its value, and where that comes from.

use std::ffi::OsStr;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::secret::{HIDDEN, SECRETS};
use super::{Layers, NOT_IN_FILE, takes_value};

/// Of the first parse of this process's own arguments: a later one, at a reload, changes what it says only in part.
static STARTED_WITH: OnceLock<Value> = OnceLock::new();

/// The options of this process, as `GET /config` shows them: `{"program": ..., "version": ..., "options": {"log-level":
/// {"value": "info", "from": "default"}, ...}}`. `from` is `default`, `command line`, the name of an environment variable,
/// or the place in the file; `value` is null where there is none, and hidden where it is a secret. Null before [`super::parse`].
pub fn started_with() -> Value {
    STARTED_WITH.get().cloned().unwrap_or_default()
}

pub(super) fn remember(command: &Command, matches: &ArgMatches, layers: &Layers) {
    STARTED_WITH.get_or_init(|| describe(command, matches, layers));
}

fn describe(command: &Command, matches: &ArgMatches, layers: &Layers) -> Value {
    let mut options = Map::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else {
            continue;
        };
        if NOT_IN_FILE[1..].contains(&long) {
            continue;
        }
        let option = json!({
            "value": value(matches, argument),
            "from": origin(matches, argument, layers, long),
        });
        options.insert(long.to_owned(), option);
    }
    json!({
        "program": command.get_name(),
        "version": env!("CARGO_PKG_VERSION"),
        "options": options,
    })
}

fn value(matches: &ArgMatches, argument: &Arg) -> Value {
    let id = argument.get_id().as_str();
    if !takes_value(argument) {
        return matches
            .try_get_one::<bool>(id)
            .ok()
            .flatten()
            .map_or(Value::Null, |is_on| json!(is_on));
    }
    let values = matches.try_get_raw(id).ok().flatten();
    if values.is_some() && argument.get_long().is_some_and(|it| SECRETS.contains(&it)) {
        return json!(HIDDEN);
    }
    values.map_or(Value::Null, |values| {
        let texts: Vec<_> = values.map(OsStr::to_string_lossy).collect();
        json!(texts.join(","))
    })
}

fn origin<'a>(
    matches: &ArgMatches,
    argument: &Arg,
    layers: &'a Layers,
    long: &str,
) -> Option<&'a str> {
    match matches.value_source(argument.get_id().as_str())? {
        ValueSource::CommandLine => Some(layers.place(long).unwrap_or("command line")),
        _ => Some("default"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::super::{prepare, resolve};
    use super::*;

    #[derive(Parser)]
    #[command(name = "millrace-copier", version)]
    struct Line {
        #[arg(long)]
        services: Vec<String>,
        #[arg(long, default_value = "info")]
        log_level: String,
        #[arg(long)]
        port: Option<u16>,
        #[arg(long)]
        daemon: bool,
        #[arg(long)]
        config: Option<std::path::PathBuf>,
    }

    fn shown(line: &[&str], environment: impl Fn(&str) -> Option<OsString>) -> Value {
        use clap::CommandFactory;

        let command = prepare(Line::command());
        let (matches, layers) = resolve(&command, line, environment).unwrap();
        describe(&command, &matches, &layers)
    }

    #[test]
    fn each_option_is_shown_with_the_place_that_it_comes_from() {
        let name = format!("millrace-effective-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let text = "daemon = true\nservices = [\"80-a:80\", \"81-a:81\"]\n";
        std::fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let line = ["millrace-copier", "--port", "7", "--config", file];
        let environment =
            |name: &str| (name == "MILLRACE_COPIER_LOG_LEVEL").then(|| OsString::from("debug"));
        let all = shown(&line, environment);
        let _ = std::fs::remove_file(&path);
        let options = &all["options"];
        let is = |name: &str, value: Value, from: &str| {
            assert_eq!(options[name]["value"], value, "{name}");
            let told = options[name]["from"].as_str().unwrap();
            assert!(told.contains(from), "{name}: {told}");
        };
        is("port", json!("7"), "command line");
        is("log-level", json!("debug"), "MILLRACE_COPIER_LOG_LEVEL");
        is("services", json!("80-a:80,81-a:81"), &name);
        is("daemon", json!(true), &name);
        let nothing = shown(&["millrace-copier"], |_| None);
        assert_eq!(
            nothing["options"]["port"],
            json!({"value": null, "from": null})
        );
        assert_eq!(
            nothing["options"]["log-level"],
            json!({"value": "info", "from": "default"})
        );
        assert_eq!(nothing["program"], "millrace-copier");
    }
}

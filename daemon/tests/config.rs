//! Flags over environment over file, and what is said when one of them is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unused_crate_dependencies
)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use millrace_daemon::config::parse_from;
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;
use millrace_notation::address::{ClientPool, Mappings};

/// Copies.
#[derive(Debug, Parser)]
#[command(name = "millrace-copier", version = "1.2.3")]
struct Options {
    /// What goes where.
    #[arg(short = 'x', long, value_name = "MAPPING,...")]
    map: Mappings,
    /// Pool.
    #[arg(short = 'c', long)]
    client_pool: Option<ClientPool>,
    /// Devices.
    #[arg(short = 'i', long, value_delimiter = ',')]
    device: Vec<String>,
    /// Memory.
    #[arg(short = 'm', long, default_value_t = 512)]
    memory: u32,
    /// No waiting.
    #[arg(short = 'W', long)]
    no_wait: bool,
    #[command(flatten)]
    common: CommonOptions,
}

struct TempFile(PathBuf);

fn file(text: &str) -> TempFile {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!(
        "millrace-config-{}-{number}.toml",
        std::process::id()
    ));
    std::fs::write(&path, text).unwrap();
    TempFile(path)
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl TempFile {
    fn flag(&self) -> String {
        format!("--config={}", self.0.display())
    }
}

fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Options, ExitError> {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    let arguments = std::iter::once("millrace-copier").chain(arguments.iter().copied());
    parse_from(arguments, |name| environment.get(name).map(OsString::from))
}

fn error(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let error = parse(arguments, environment).unwrap_err();
    assert_eq!(error.code(), 64, "{error}");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

const MAP: &str = "80-198.18.0.9:8080";

#[test]
fn flags_win_over_environment_which_wins_over_the_file() {
    let config = file("map = '80-198.18.0.1:1'\nmemory = 100\n");
    let env = [("MILLRACE_COPIER_MEMORY", "200")];
    let memory = |arguments: &[&str], env| parse(arguments, env).unwrap().memory;
    let flag = config.flag();
    assert_eq!(memory(&["-x", MAP], &[]), 512);
    assert_eq!(memory(&[&flag], &[]), 100);
    assert_eq!(memory(&[&flag], &env), 200);
    assert_eq!(memory(&[&flag, "-m", "300"], &env), 300);
    assert_eq!(memory(&[&flag, "-m300"], &env), 300);
    assert_eq!(memory(&[&flag, "--memory=300"], &[]), 300);
    let options = parse(&[&flag, "-x", MAP], &[]).unwrap();
    assert_eq!(options.map.to_string(), MAP);
}

#[test]
fn every_kind_of_value_can_stand_in_the_file() {
    let config = file(
        "map = ['80-198.18.0.9:8080', '81-198.18.0.9:8081']\ndevice = ['eth0', 'eth1']\n\
         memory = 0x1_00\nno-wait = true\nclient-pool = '198.18.1.x'\ninsecure = false\n",
    );
    let options = parse(&[&config.flag()], &[]).unwrap();
    assert_eq!(options.map.as_slice().len(), 2);
    assert_eq!(options.device, ["eth0", "eth1"]);
    assert_eq!(options.memory, 256);
    assert!(options.no_wait && !options.common.insecure);
    assert_eq!(options.client_pool.unwrap().ranges().len(), 1);
    // A list on the command line replaces the file's, it does not add to it.
    let options = parse(&[&config.flag(), "-i", "eth2"], &[]).unwrap();
    assert_eq!(options.device, ["eth2"]);
}

#[test]
fn the_environment_names_flags_lists_and_the_file_itself() {
    let config = file("map = '80-198.18.0.9:8080'");
    let path = config.0.to_str().unwrap();
    let options = parse(
        &[],
        &[
            ("MILLRACE_COPIER_CONFIG", path),
            ("MILLRACE_COPIER_NO_WAIT", "yes"),
            ("MILLRACE_COPIER_INSECURE", "0"),
            ("MILLRACE_COPIER_DEVICE", "eth0,eth1"),
            ("MILLRACE_COPIER_LOG_LEVEL", ""),
        ],
    )
    .unwrap();
    assert!(options.no_wait && !options.common.insecure);
    assert_eq!(options.device.len(), 2);
    assert_eq!(options.common.log_level, "info");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_option() {
    let config = file("map = '80-198.18.0.9:8080'\n\nlog-levle = 'debug'\n");
    let text = error(&[&config.flag()], &[]);
    let expected = format!(
        "{}:3: there is no option 'log-levle'; did you mean 'log-level'?",
        config.0.display()
    );
    assert_eq!(text, expected);
    let config = file("zzzzzzzzzzzz = 1");
    assert!(error(&[&config.flag()], &[]).ends_with("--help lists them"));
}

#[test]
fn a_wrong_file_is_one_line() {
    for (text, message) in [
        ("map = ", ":1: "),
        ("memory = 1\nmemory = 2\n", "duplicate key"),
        ("[map]\na = 1\n", "'map' must be a text"),
        ("memory = 1979-05-27\n", "'memory' must be a text"),
        ("device = [['a']]\n", "'device' must be a text"),
        (
            "config = 'x'\n",
            "'config' cannot stand in a configuration file",
        ),
        (
            "no-wait = 'maybe'\n",
            "'maybe' is neither true nor false, as --no-wait needs",
        ),
        (
            "memory = 'much'\n",
            ":1: invalid value 'much' for '--memory <MEMORY>'",
        ),
        ("map = '80-rs1:80'\n", "host names are not accepted here"),
    ] {
        let config = file(text);
        let said = error(&[&config.flag()], &[]);
        assert!(said.contains(message), "{text:?}: {said}");
        assert!(said.contains(".toml"), "{text:?}: {said}");
    }
    assert!(error(&["--config=/no/such/file"], &[]).contains("/no/such/file"));
}

#[test]
fn a_wrong_variable_is_named() {
    let said = error(&["-x", MAP], &[("MILLRACE_COPIER_MEMORY", "much")]);
    assert!(
        said.starts_with("MILLRACE_COPIER_MEMORY: invalid value 'much'"),
        "{said}"
    );
    let said = error(&["-x", MAP], &[("MILLRACE_COPIER_DAEMON", "much")]);
    assert!(
        said.starts_with("MILLRACE_COPIER_DAEMON: 'much' is neither"),
        "{said}"
    );
}

#[test]
fn a_wrong_command_line_is_one_line() {
    for (arguments, message) in [
        (
            &["-x", MAP, "--memry=1"][..],
            "unexpected argument '--memry' found; a similar",
        ),
        (
            &["-x", MAP, "-m", "much"],
            "invalid value 'much' for '--memory <MEMORY>'",
        ),
        (&["-m", "1"], "missing: -x, --map <MAPPING,...>"),
        (&["-x", "80"], "'80' is not a mapping"),
        (&["-x", MAP, "extra"], "unexpected argument 'extra'"),
        (&["-x"], "a value is required for '--map <MAPPING,...>'"),
    ] {
        let said = error(arguments, &[]);
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_are_answers_not_errors() {
    for arguments in [&["--help"][..], &["-h"], &["-x", MAP, "--help"]] {
        let answer = parse(arguments, &[]).unwrap_err();
        assert_eq!(answer.code(), 0);
        assert!(answer.to_string().contains("--map"), "{answer}");
    }
    for flag in ["--version", "-v", "-V"] {
        let answer = parse(&[flag], &[]).unwrap_err();
        assert_eq!(
            (answer.code(), answer.to_string()),
            (0, "millrace-copier 1.2.3\n".to_owned())
        );
    }
}

#[test]
fn the_command_is_consistent() {
    use clap::CommandFactory;
    Options::command().debug_assert();
}

#[test]
fn a_log_level_that_a_daemon_could_not_use_is_refused_wherever_it_is_written() {
    let config = file("log-level = 'a=b=c'\n");
    let said = error(&["-x", MAP, &config.flag()], &[]);
    assert!(said.contains(":1: invalid value 'a=b=c'"), "{said}");
    let said = error(&["-x", MAP], &[("MILLRACE_COPIER_LOG_LEVEL", "verbose")]);
    let begin = "MILLRACE_COPIER_LOG_LEVEL: ";
    assert!(
        said.starts_with(begin) && said.contains("'verbose' is no level"),
        "{said}"
    );
    let said = error(&["-x", MAP, "--log-level", "info,,warn"], &[]);
    assert!(said.contains("'' is no level; give error, warn"), "{said}");
}

//! What is made from the command lines is complete, and the sample configuration that is kept is that of today.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use std::path::{Path, PathBuf};

use millrace_daemon::config;
use millrace_daemon::exit::ExitError;
use millrace_manuals::program::Program;
use millrace_manuals::{manual, sample, write_completions};

fn scratch(name: &str) -> PathBuf {
    let directory =
        std::env::temp_dir().join(format!("millrace-manuals-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Reads a file as the daemon does.
fn read(program: Program, file: &Path) -> Result<(), ExitError> {
    let arguments = [program.name(), "--config", file.to_str().unwrap()];
    let nothing = |_: &str| None;
    match program {
        Program::Copier => {
            config::parse_from::<millrace_copier::options::Options>(arguments, nothing).map(drop)
        }
        Program::Interceptor => {
            config::parse_from::<millrace_interceptor::options::Options>(arguments, nothing)
                .map(drop)
        }
        Program::RouterAgent => {
            config::parse_from::<millrace_router_agent::options::Options>(arguments, nothing)
                .map(drop)
        }
    }
}

/// What must stand beside an option.
fn beside(program: Program, key: &str) -> &'static str {
    let copier = program == Program::Copier;
    match key {
        "services" if copier => "interceptors = \"198.18.2.20\"\n",
        "interceptors" if copier => "services = \"80-198.18.2.20:8080\"\n",
        "local" if copier => "services = \"80-198.18.2.20:8080\"\n",
        "local-net" if copier => "services = \"80-198.18.2.20:8080\"\nlocal = true\n",
        "advertise" => "cluster = \"one\"\n",
        _ if copier => "services = \"80-198.18.2.20:8080\"\ninterceptors = \"198.18.2.20\"\n",
        _ => "",
    }
}

#[test]
fn the_samples_are_those_of_the_command_lines() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for program in Program::ALL {
        let file = kept.join(format!("{}.toml", program.role()));
        let text = std::fs::read_to_string(&file).unwrap();
        let made = sample::text(program).unwrap();
        assert!(
            text == made,
            "{} is not that of today: make samples",
            file.display()
        );
    }
}

#[test]
fn every_option_stands_in_its_sample_and_every_value_is_read() {
    let directory = scratch("values");
    for program in Program::ALL {
        let text = sample::text(program).unwrap();
        let entries: Vec<(&str, &str)> = text
            .lines()
            .filter(|line| line.starts_with('#') && !line.starts_with("# ") && *line != "#")
            .filter_map(|line| line.trim_start_matches('#').split_once(" = "))
            .collect();
        let command = program.command();
        let options: Vec<&str> = sample::options(&command)
            .filter_map(|it| it.get_long())
            .collect();
        assert!(options.len() > 20);
        for option in &options {
            assert!(
                entries.iter().any(|(key, _)| key == option),
                "{program:?}: {option}"
            );
        }
        assert_eq!(entries.len(), options.len(), "{program:?}");
        for (key, value) in entries {
            let value = if value == "false" { "true" } else { value };
            let file = directory.join(format!("{}-{key}.toml", program.role()));
            std::fs::write(&file, format!("{}{key} = {value}\n", beside(program, key))).unwrap();
            if let Err(error) = read(program, &file) {
                panic!("{program:?}: {error}");
            }
        }
        // As it stands, it changes nothing.
        let file = directory.join("whole.toml");
        std::fs::write(&file, format!("{}{text}", beside(program, ""))).unwrap();
        read(program, &file).unwrap();
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn each_program_and_command_has_a_page_that_names_all_its_options() {
    let directory = scratch("pages");
    manual::write(&directory).unwrap();
    for program in Program::ALL {
        let command = program.command();
        let page =
            std::fs::read_to_string(directory.join(format!("{}.8", program.name()))).unwrap();
        for option in command.get_arguments().filter_map(|it| it.get_long()) {
            let escaped = option.replace('-', "\\-");
            assert!(
                page.contains(&format!("\\-\\-{escaped}")),
                "{program:?}: {option}"
            );
        }
        for title in [
            ".SH NAME",
            ".SH SYNOPSIS",
            ".SH FILES",
            ".SH SIGNALS",
            ".SH \"EXIT STATUS\"",
        ] {
            let plain = title.replace('"', "");
            assert!(
                page.contains(title) || page.contains(&plain),
                "{program:?}: {title}"
            );
        }
        for command in command.get_subcommands() {
            let name = format!("{}-{}.8", program.name(), command.get_name());
            let page = std::fs::read_to_string(directory.join(&name)).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn each_shell_completes_programs_commands_and_options() {
    let directory = scratch("completions");
    write_completions(&directory).unwrap();
    for (shell, file) in [
        ("bash", "millrace-copier.bash"),
        ("zsh", "_millrace-copier"),
        ("fish", "millrace-copier.fish"),
    ] {
        let text = std::fs::read_to_string(directory.join(shell).join(file)).unwrap();
        for word in ["check-config", "router-agent", "max-bandwidth"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

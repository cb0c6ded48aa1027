//! Sample configuration: a file for each program in which every option stands, commented out, with its meaning, and its
//! default or an example.
//!
//! The files are kept in deploy/config; a test makes them again, compares, and reads each value as the daemon does.

use std::io;
use std::path::Path;

use clap::{Arg, Command};
use millrace_daemon::config::NOT_IN_FILE;
use millrace_daemon::config::secret::SECRETS;

use crate::program::Program;

/// Width of a line of prose, with what begins it.
const WIDTH: usize = 100;

/// Values for options that have no default on the command line: what the daemon takes without one, or an example.
const VALUES: &[(&str, &str)] = &[
    // Of all daemons.
    ("log-file", "/var/log/millrace/ROLE.log"),
    ("pid-file", "/run/millrace/ROLE.pid"),
    ("ca", "/etc/millrace/tls/ca.pem"),
    ("cert", "/etc/millrace/tls/ROLE.pem"),
    ("key", "/etc/millrace/tls/ROLE-key.pem"),
    ("skip-checks", "kernel,memory"),
    ("user", "millrace"),
    ("id", "NAME"),
    ("consul", "http://127.0.0.1:8500"),
    ("cluster", "shop"),
    ("advertise", "198.18.2.20"),
    // Of the copier.
    ("services", "198.18.2.10:80-198.18.2.20:8080"),
    ("interceptors", "198.18.2.20,198.18.2.21:36524"),
    ("router-agent", "198.18.2.20,198.18.2.21:36526"),
    ("client-pool", "198.18.8.0/24"),
    ("loopback-client", "198.18.2.10"),
    ("protocol", "6379=redis"),
    ("accounts-file", "/etc/millrace/accounts"),
    ("http-rules", "/etc/millrace/http.toml"),
    ("midway-user", "app"),
    ("midway-database", "shop"),
    ("allow-writes", "redis:INCR"),
    ("deny-requests", "redis:FLUSH*"),
    ("control", "/run/millrace/copier.sock"),
    ("report", "/var/lib/millrace/report.json"),
    ("kubeconfig", "/etc/millrace/kubeconfig"),
    ("node", "live1"),
    ("otlp-endpoint", "http://127.0.0.1:4317"),
    ("otlp-sample", "0.1"),
    ("otlp-clients", "hashed"),
    ("otlp-ca", "/etc/ssl/certs/ca-certificates.crt"),
    ("replicas", "3"),
    ("percent", "20"),
    ("intensity", "0.2"),
    ("intensity-key", "a text of your own"),
    ("ramp", "10%..100%/5m,hold:10m,300%"),
    ("guard", "connect-failures>5%:stop,latency-p99>3x:hold"),
    ("share", "0/4"),
    ("snap-length", "65599"),
    ("tunnels", "vxlan,gre"),
    ("vxlan-ports", "4789,8472"),
    ("speed", "2"),
    ("longest-pause", "1000"),
    ("repeat", "3"),
    ("local-net", "198.19.240.0/20,2001:db8:6d72::/112"),
    ("min-fidelity", "0.999"),
    ("mss", "1460"),
    ("memory", "512"),
    ("max-cpu", "50"),
    ("max-new-sessions", "1000"),
    ("max-open", "10000"),
    ("max-bandwidth", "100M"),
    ("default-rtt", "100"),
    ("accounts", "USER@PASSWORD"),
    // Of the interceptor.
    ("mode", "sink"),
    ("filter", "tcp src port 8080"),
    ("table-size", "65536"),
    ("container", "198.18.2.20-198.18.2.30"),
    // Of the router-agent.
    ("assistant", "198.18.2.30"),
    ("allow", "198.18.2.20:8080"),
    ("force", "198.18.2.20:8080"),
    // Of several.
    ("bind", "198.18.2.20"),
    ("devices", "eth0"),
    ("buffer", "64"),
    ("pass-list", "198.18.2.1,198.18.2.2"),
];

/// Where each daemon shows itself, if nothing else is said.
const fn admin(program: Program) -> &'static str {
    match program {
        Program::Copier => "127.0.0.1:36530",
        Program::Interceptor => "127.0.0.1:36531",
        Program::RouterAgent => "127.0.0.1:36532",
    }
}

/// Writes all files.
///
/// # Errors
/// What cannot be written, or has neither a default nor an example.
pub fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for program in Program::ALL {
        let text = text(program).map_err(io::Error::other)?;
        std::fs::write(directory.join(format!("{}.toml", program.role())), text)?;
    }
    Ok(())
}

/// The file of one program.
///
/// # Errors
/// An option that has neither a default nor an example.
pub fn text(program: Program) -> Result<String, String> {
    let command = program.command();
    let mut text = head(program);
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in options(&command) {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            text += &format!("\n#### {heading}\n");
        }
        for argument in options(&command).filter(|it| it.get_help_heading() == heading) {
            text += &entry(program, argument)?;
        }
    }
    Ok(text)
}

fn head(program: Program) -> String {
    let (name, role) = (program.name(), program.role());
    let file = match program {
        Program::Copier => "copier-NAME.toml",
        Program::Interceptor => "interceptor.toml",
        Program::RouterAgent => "router-agent.toml",
    };
    format!(
        "# Options of {name}, as /etc/millrace/{file}.\n\
         #\n\
         # Every option stands here, commented out, with its default, or with an example where it has none. Copy those\n\
         # that you want into a file of your own. Flags of the command line and environment variables win over the file.\n\
         # Under systemd leave out daemon, pid-file, user and log-file: the unit and the journal take their place.\n\
         # `{check}` reads the file, and says what would keep the {role} from its work.\n",
        check = match program {
            Program::RouterAgent => format!("{name} --config FILE check"),
            Program::Copier | Program::Interceptor => format!("{name} check --config FILE"),
        }
    )
}

/// Those that may stand in a file.
pub fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|it| {
        it.get_long()
            .is_some_and(|long| !(NOT_IN_FILE.contains(&long) || SECRETS.contains(&long)))
    })
}

fn entry(program: Program, argument: &Arg) -> Result<String, String> {
    let long = argument.get_long().unwrap_or_default();
    let meaning = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| value.get_name().to_owned())
        .collect();
    let choices = match choices.is_empty() {
        true => String::new(),
        false => format!(" One of: {}.", choices.join(", ")),
    };
    let (kind, value) = value(program, argument).ok_or_else(|| {
        format!(
            "{}: --{long} has neither a default nor an example",
            program.name()
        )
    })?;
    let meaning = meaning.trim_end_matches('.');
    Ok(format!(
        "\n{}#{long} = {value}\n",
        prose(&format!("{meaning}.{choices}{kind}"))
    ))
}

/// The value, with what is to be said of it.
fn value(program: Program, argument: &Arg) -> Option<(&'static str, String)> {
    if !argument.get_action().takes_values() {
        return Some(("", "false".to_owned()));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| toml(&value.to_string_lossy()))
        .collect();
    match defaults.as_slice() {
        [] => {}
        [one] => return Some(("", one.clone())),
        several => return Some(("", format!("[{}]", several.join(", ")))),
    }
    let long = argument.get_long()?;
    if long == "admin" {
        return Some(("", toml(admin(program))));
    }
    let (_, value) = VALUES.iter().find(|(name, _)| *name == long)?;
    Some((
        " For example:",
        toml(&value.replace("ROLE", program.role())),
    ))
}

/// As TOML has it: numbers without quotes.
fn toml(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => value.to_owned(),
        Ok(_) | Err(_) => format!("\"{value}\""),
    }
}

/// Lines of a comment.
fn prose(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.len() + 1 + word.len() <= WIDTH {
                *line += &format!(" {word}");
            } else {
                lines.push(format!("# {word}"));
            }
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

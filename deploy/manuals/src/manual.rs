//! Pages for man(1): one for each program, and one for each of its commands.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::program::Program;

/// Administrators' programs (man(1)).
const SECTION: &str = "8";

/// Writes all pages.
///
/// # Errors
/// What cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for program in Program::ALL {
        let mut all = program.command();
        // Options that stand before and after a command are handed to each.
        all.build();
        let commands: Vec<Command> = all
            .get_subcommands()
            .filter(|command| command.get_name() != "help")
            .cloned()
            .collect();
        let names: Vec<String> = commands.iter().map(|it| page_name(program, it)).collect();
        let mut list = String::new();
        for (command, name) in commands.iter().zip(&names) {
            let about = command.get_about().map(ToString::to_string);
            list += &format!(
                ".TP\n.BR {name} ({SECTION})\n{}\n",
                about.unwrap_or_default()
            );
        }
        for (command, name) in commands.into_iter().zip(&names) {
            let places = command
                .get_positionals()
                .map(|it| format!(" [{}]", it.get_id().as_str().to_uppercase()));
            let places: String = places.collect();
            let synopsis = format!(
                "\\fB{} {}\\fR [OPTIONS]{places}\n",
                program.name(),
                command.get_name()
            );
            let page = Man::new(command.name(name.clone()).display_name(name.clone()));
            let also = [program.name().to_owned()];
            let file = directory.join(format!("{name}.{SECTION}"));
            page_of(page, &synopsis, &[], &also, &file)?;
        }
        let (name, file) = (
            program.name(),
            directory.join(format!("{}.{SECTION}", program.name())),
        );
        let synopsis = format!("\\fB{name}\\fR [OPTIONS]\n.br\n\\fB{name}\\fR COMMAND [OPTIONS]\n");
        let mut sections = vec![("COMMANDS", list.as_str())];
        sections.extend(tail(program));
        page_of(Man::new(all), &synopsis, &sections, &names, &file)?;
    }
    Ok(())
}

fn page_name(program: Program, command: &Command) -> String {
    format!("{}-{}", program.name(), command.get_name())
}

fn page_of(
    page: Man,
    synopsis: &str,
    tail: &[(&str, &str)],
    also: &[String],
    file: &Path,
) -> io::Result<()> {
    let page = page
        .section(SECTION)
        .manual("Millrace")
        .source(concat!("Millrace ", env!("CARGO_PKG_VERSION")))
        // The same page whenever it is made.
        .date("");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    write!(text, ".SH SYNOPSIS\n{synopsis}")?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for (title, body) in tail {
        write!(text, ".SH {title}\n{body}")?;
    }
    let also: Vec<String> = also
        .iter()
        .map(|name| format!(".BR {name} ({SECTION})"))
        .collect();
    writeln!(text, ".SH SEE ALSO\n{}", also.join(",\n"))?;
    writeln!(text, ".PP\nThe documents in /usr/share/doc/millrace.")?;
    std::fs::write(file, text)
}

/// What the command line does not tell.
const fn tail(program: Program) -> &'static [(&'static str, &'static str)] {
    match program {
        Program::Copier => &[
            ("CONFIGURATION", CONFIGURATION),
            (
                "FILES",
                ".TP\n/etc/millrace/copier-NAME.toml\nOptions of the unit millrace-copier@NAME.\n\
                 .TP\n/usr/share/doc/millrace/examples/copier.toml\nEvery option, with its meaning.\n\
                 .TP\n/run/millrace/copier-PORT@NETNS.sock\nWhere it takes commands.\n",
            ),
            (
                "SIGNALS",
                ".TP\nSIGTERM, SIGINT\nNo new sessions; open ones finish within --grace. A second one ends it at \
                 once.\n.TP\nSIGHUP\nOpens the log file again, and takes over which interceptors and router-agents the \
                 options name.\n",
            ),
            (
                "EXIT STATUS",
                ".TP\n0\nEnded in order.\n.TP\n1\nCannot start or go on: device, port, privilege, file.\n\
                 .TP\n2\nA recording was not replayed whole.\n.TP\n64\nA wrong option, environment variable or \
                 configuration file.\n",
            ),
        ],
        Program::Interceptor => &[
            ("CONFIGURATION", CONFIGURATION),
            (
                "FILES",
                ".TP\n/etc/millrace/interceptor.toml\nOptions of the unit millrace-interceptor.\n\
                 .TP\n/usr/share/doc/millrace/examples/interceptor.toml\nEvery option, with its meaning.\n",
            ),
            ("SIGNALS", SIGNALS),
            ("EXIT STATUS", EXIT_STATUS),
        ],
        Program::RouterAgent => &[
            ("CONFIGURATION", CONFIGURATION),
            (
                "FILES",
                ".TP\n/etc/millrace/router-agent.toml\nOptions of the unit millrace-router-agent.\n\
                 .TP\n/usr/share/doc/millrace/examples/router-agent.toml\nEvery option, with its meaning.\n\
                 .TP\n/run/millrace/state.json\nWhat must outlive the process: settings before they were changed, what \
                 was applied by hand, what was diverted last.\n",
            ),
            ("SIGNALS", SIGNALS),
            ("EXIT STATUS", EXIT_STATUS),
        ],
    }
}

const CONFIGURATION: &str = "Options are given as flags, as environment variables (the program's name and the option's, in capitals with \
     underscores), or in the file of --config: TOML whose keys are long option names. Flags win over the environment, which \
     wins over the file.\n";

const SIGNALS: &str = ".TP\nSIGTERM, SIGINT\nEnds it.\n.TP\nSIGHUP\nOpens the log file again, and looks at the certificates.\n";

const EXIT_STATUS: &str = ".TP\n0\nEnded in order.\n.TP\n1\nCannot start or go on: device, port, privilege, file.\n\
     .TP\n64\nA wrong option, environment variable or configuration file.\n";

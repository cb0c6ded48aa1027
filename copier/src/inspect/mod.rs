//! `millrace-copier inspect`: what recordings hold, and whether replaying them will be complete.
//!
//! - [`rehearsal`]: what a replay of a service will come to.
//! - [`foretold`]: what is told of that, as JSON.
//! - [`text`]: all that is told, for people.

pub mod foretold;
pub mod rehearsal;
pub mod text;

#[cfg(test)]
#[path = "../../../recordings/src/made_recording.rs"]
mod made_recording;

use std::io::Write;
use std::path::PathBuf;

use millrace_daemon::exit::ExitError;
use millrace_recordings::inspect::inspect;

use self::rehearsal::Rehearsal;
use crate::command::{self, Arguments};
use crate::tunnels::TunnelOptions;

/// Says what recordings hold: services, sessions, bytes, gaps, and whether a replay will be complete.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-inspect",
    bin_name = "millrace-copier inspect",
    version,
    max_term_width = 100
)]
pub struct InspectOptions {
    /// Recordings: pcap and pcapng files, gzip, zstd and xz too, and - for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,

    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,

    /// List every service, not only those with the most traffic.
    #[arg(long)]
    pub all: bool,

    /// Tunnels.
    #[command(flatten)]
    pub tunnels: TunnelOptions,

    /// Read options from FILE (TOML; keys are the long option names).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Options of the replay that is foretold, as `millrace-copier` takes them, such as -- --asap -k 60.
    #[arg(last = true, value_name = "REPLAY OPTIONS")]
    pub replay: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Exit code 64 for the command line, 1 for files of which nothing can be read.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: InspectOptions = command::parse(arguments)?;
    let tunnels = options.tunnels.of_recording();
    let rehearsal = Rehearsal::new(&options.files, tunnels.clone(), &options.replay)?;
    let mut findings = rehearsal.foretell(inspect(&options.files, tunnels)?);
    findings.replay_options.clone_from(&options.replay);
    let output = if options.json {
        serde_json::to_string_pretty(&findings)
            .map_err(|error| ExitError::caused("cannot write the findings", &error))?
            + "\n"
    } else {
        text::Shown {
            findings: &findings,
            all: options.all,
        }
        .to_string()
    };
    // Whoever reads stdout may have seen enough.
    let _ = std::io::stdout().write_all(output.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_recordings::inspect::findings::Findings;
    use millrace_wire::{Flags, Tunnels};

    use super::foretold::Service;
    use super::*;

    /// A segment of the one connection: from the client, flags, sequence number, acknowledgement, payload bytes.
    type Line = (bool, Flags, u32, u32, usize);

    const WHOLE: [Line; 8] = [
        (true, Flags::SYN, 100, 0, 0),
        (false, Flags(0x12), 500, 101, 0),
        (true, Flags::ACK, 101, 501, 0),
        (true, Flags(0x18), 101, 501, 300),
        (false, Flags(0x18), 501, 401, 1000),
        (true, Flags(0x18), 401, 1501, 50),
        (true, Flags(0x11), 451, 1501, 0),
        (false, Flags(0x11), 1501, 452, 0),
    ];

    fn told(name: &str, lines: &[Line]) -> Findings<Service> {
        let name = format!("millrace-told-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let line = |&(from_client, flags, seq, ack, len): &Line| {
            (40_000, from_client, flags, seq, ack, len)
        };
        made_recording::write(&path, 1_000_000_000, lines.iter().map(line));
        let files = [path.display().to_string()];
        let found = inspect(&files, Tunnels::none()).unwrap();
        let rehearsal = Rehearsal::new(&files, Tunnels::none(), &[]).unwrap();
        let findings = rehearsal.foretell(found);
        std::fs::remove_file(path).unwrap();
        findings
    }

    #[test]
    fn a_whole_connection_will_be_complete() {
        let findings = told("whole", &WHOLE);
        let [service] = findings.services.as_slice() else {
            panic!("{findings:?}");
        };
        assert!(service.obstacles().is_empty(), "{service:?}");
        let text = text::Shown {
            findings: &findings,
            all: false,
        }
        .to_string();
        assert!(text.contains("a replay will be complete"), "{text}");
        assert!(text.contains("-x 198.18.2.10:80-TARGET:80"), "{text}");
        // What is found of a service and what is foretold stand side by side.
        let json = serde_json::to_value(&findings).unwrap();
        let service = &json["services"][0];
        assert_eq!(service["client"]["bytes"], 350);
        assert_eq!(service["replay"]["bytes"]["delivered"], 350);
    }

    #[test]
    fn lost_packets_are_an_obstacle() {
        let mut lines = WHOLE.to_vec();
        lines.remove(3);
        let lost = &told("lost", &lines).services[0];
        assert!(lost.obstacles()[0].contains("300 bytes of clients are missing"));
    }
}

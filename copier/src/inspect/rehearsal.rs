//! Foretells a replay by rehearsing it ([`millrace_recordings::rehearsal`]) with the same options, and judging the outcome by
//! the same rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use millrace_capture::Source;
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;
use millrace_engine::Engine;
use millrace_recordings::feed::FeedConfig;
use millrace_recordings::inspect::findings::{Findings, ServiceFindings};
use millrace_recordings::rehearsal::{Rehearsed, rehearse};
use millrace_replay::snapshot::Snapshot;
use millrace_wire::Tunnels;

use super::foretold::{Foretold, Service};
use crate::options::Options;
use crate::outcome;
use crate::plan::{InputPlan, Plan};
use crate::report::Report;

/// Where the ideal target is (RFC 5737 and 3849), unless the service itself is there, and who stands for clients on the
/// live host's loopback address.
const TARGETS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 3)];
const TARGETS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3),
];
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The interceptor of a rehearsal, which nobody asks.
const INTERCEPTOR: [&str; 3] = ["-s", "192.0.2.4", "--insecure"];
/// Services whose replay is foretold: for each, all files are read once more.
const MOST: usize = 20;

/// What is to be replayed, and how.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    files: Vec<Source>,
    tunnels: Tunnels,
    options: Options,
}

impl Rehearsal {
    /// A rehearsal of replays of these files, with these options of the copier.
    ///
    /// # Errors
    /// Options that the copier does not take, and those that are not rehearsed (exit code 64).
    pub fn new(files: &[String], tunnels: Tunnels, words: &[String]) -> Result<Self, ExitError> {
        refuse(words)?;
        let is_named = |short: &str, long: &str| {
            let named = |word: &String| word.starts_with(short) || word.starts_with(long);
            words.iter().any(named)
        };
        let local = is_named("--local", "--local");
        let mut line = vec!["millrace-copier", "-x", "1-192.0.2.1:1"];
        if !local && !is_named("-s", "--interceptors") {
            line.extend(INTERCEPTOR);
        }
        line.extend(words.iter().map(String::as_str));
        let options: Options = config::parse_from(line, |name| std::env::var_os(name))?;
        let moves = &options.intensity;
        if moves.gradual || moves.ramp.is_some() || moves.guards.is_some() {
            return Err(ExitError::usage(
                "behind --: how a ramp and guards change the intensity is not foretold: leave -g, --ramp and --guard out",
            ));
        }
        Ok(Self {
            files: files.iter().map(|name| Source::new(name)).collect(),
            tunnels,
            options,
        })
    }

    /// Foretells what replays of the services will come to, those with the most traffic first.
    pub fn foretell(&self, findings: Findings) -> Findings<Service> {
        let once = self.files.iter().any(|file| !file.is_repeatable());
        let mut left = MOST;
        findings.with_services(|found| {
            let foretold = if once {
                Err("the recording can be read only once: save it to a file".to_owned())
            } else if found.client.bytes == 0 {
                Err("its clients sent nothing".to_owned())
            } else if left == 0 {
                Err("it is done for the 20 services with the most traffic".to_owned())
            } else {
                left -= 1;
                self.of_service(&found).map_err(|error| error.to_string())
            };
            let (replay, replay_unknown) = match foretold {
                Ok(foretold) => (Some(foretold), None),
                Err(why) => (None, Some(why)),
            };
            Service {
                found,
                replay,
                replay_unknown,
            }
        })
    }

    fn of_service(&self, service: &ServiceFindings) -> Result<Foretold, ExitError> {
        let cannot = || ExitError::usage("-x cannot name such an address and port");
        let ip: IpAddr = service.address.parse().map_err(|_| cannot())?;
        let live = SocketAddr::new(ip, service.port);
        let target = SocketAddr::new(self.target(ip), service.port);
        let mut options = self.options.clone();
        options.services = format!("{live}-{target}").parse().map_err(|_| cannot())?;
        let mut plan = Plan::of_recording(&options, self.files.clone())?;
        plan.engine.loopback_clients = vec![CLIENT_V4.into(), CLIENT_V6.into()];
        // The same recording always comes to the same.
        plan.engine.seed = 0;
        let services = plan.engine.services.clone();
        let InputPlan::Recording(feed) = plan.input else {
            return Err(cannot());
        };
        let feed = FeedConfig {
            tunnels: self.tunnels.clone(),
            // Each round comes to the same.
            rounds: 1,
            progress: false,
            ..feed
        };
        let replay = rehearse(feed, Engine::new(plan.engine))?;
        let report = report(&replay);
        let complete = outcome::judge(&report, plan.min_fidelity, &services).is_ok();
        Ok(Foretold::new(report, complete))
    }

    /// Where copies of a service at this address would go to.
    fn target(&self, live: IpAddr) -> IpAddr {
        let elsewhere: [IpAddr; 2] = match (live, self.options.offline.local) {
            (IpAddr::V4(_), true) => return Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(_), true) => return Ipv6Addr::LOCALHOST.into(),
            (IpAddr::V4(_), false) => TARGETS_V4.map(IpAddr::from),
            (IpAddr::V6(_), false) => TARGETS_V6.map(IpAddr::from),
        };
        let [first, second] = elsewhere;
        if live == first { second } else { first }
    }
}

/// Options that stand before the --, or that `inspect` chooses by itself.
fn refuse(words: &[String]) -> Result<(), ExitError> {
    let is = |word: &str, short: &str, long: &str| {
        word.starts_with(short) && !word.starts_with("--") || word.split('=').next() == Some(long)
    };
    for word in words {
        if is(word, "-i", "--devices") || is(word, "-x", "--services") {
            return Err(ExitError::usage(format!(
                "{word} behind --: the files stand before it, and each of their services is foretold"
            )));
        }
        let of_modules = [
            "--protocol",
            "--accounts",
            "-u",
            "--http-rules",
            "--midway",
            "--read-only",
            "--allow-writes",
            "--deny-requests",
        ];
        if of_modules.iter().any(|it| word.starts_with(it)) {
            return Err(ExitError::usage(format!(
                "{word} behind --: what a protocol module makes of a recording cannot be foretold"
            )));
        }
        if ["--tunnels", "--vxlan-ports"]
            .iter()
            .any(|it| word.starts_with(it))
        {
            return Err(ExitError::usage(format!(
                "{word} behind --: write it before the --"
            )));
        }
    }
    Ok(())
}

fn report(replay: &Rehearsed) -> Report {
    let Rehearsed { engine, feed } = replay;
    let decoder = feed.decoder();
    Report::new(&Snapshot {
        elapsed: Duration::ZERO,
        stats: engine.stats(),
        gauges: engine.gauges(),
        intensity: Default::default(),
        ring: Default::default(),
        answers: Default::default(),
        syns_lost: 0,
        decode: decoder.counters(),
        others: decoder.others(),
        pressure: Default::default(),
        send: &Default::default(),
        dropped_batches: 0,
        probes: Vec::new(),
        recording: Some(feed.recording()),
        held_back: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(words: &[&str]) -> Result<Rehearsal, ExitError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Rehearsal::new(&["-".to_owned()], Tunnels::none(), &words)
    }

    #[test]
    fn the_options_of_the_replay_are_taken_and_the_others_are_not() {
        for words in [
            &[][..],
            &["--asap", "-k", "60"],
            &["-s", "198.18.2.30", "--insecure"],
            &["--local"],
            &["-T", "5", "-n", "2"],
        ] {
            assert!(with(words).is_ok(), "{words:?}");
        }
        for words in [
            &["-i", "eth0"][..],
            &["-x80-198.18.2.20:80"],
            &["--services=80-198.18.2.20:80"],
            &["--tunnels", "vxlan"],
            &["--ramp", "10%..100%/5m"],
            &["-g"],
            &["--wat"],
        ] {
            assert_eq!(with(words).unwrap_err().code(), 64, "{words:?}");
        }
    }

    #[test]
    fn a_service_that_cannot_be_foretold_costs_no_other_one_its_word() {
        let service = |address: &str, port, bytes| {
            let mut service = ServiceFindings {
                address: address.to_owned(),
                port,
                ..ServiceFindings::default()
            };
            service.client.bytes = bytes;
            service
        };
        let file = std::env::temp_dir().join(format!("millrace-rehearsal-{}", std::process::id()));
        super::super::made_recording::write(&file, 0, []);
        let files = [file.display().to_string()];
        let rehearsal = Rehearsal::new(&files, Tunnels::none(), &[]).unwrap();
        let findings = Findings {
            services: vec![
                service("192.0.2.1", 443, 5),
                service("224.0.0.5", 80, 5),
                service("2001:db8::1", 80, 5),
                service("198.18.2.10", 0, 5),
                service("198.18.2.10", 80, 0),
            ],
            ..Findings::default()
        };
        let findings = rehearsal.foretell(findings);
        std::fs::remove_file(file).unwrap();
        let known: Vec<bool> = findings
            .services
            .iter()
            .map(|it| it.replay.is_some())
            .collect();
        assert_eq!(known, [true, false, true, false, false]);
        for service in &findings.services {
            assert_ne!(service.replay.is_some(), service.replay_unknown.is_some());
        }
    }
}

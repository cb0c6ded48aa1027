//! What a replay amounts to, and whether that is enough.

use std::net::SocketAddr;

use millrace_daemon::exit::ExitError;
use millrace_engine::{AbortReason, LiveAddress, Service};
use millrace_notation::units::shown;
use millrace_pilot::Mode;
use millrace_recordings::recording::Recording;

use crate::report::Report;
use millrace_replay::probe::ProbeState;

/// Whether a replay delivered as much as was asked for (`--min-fidelity`) of the live services.
///
/// # Errors
/// Exit code 2 when it did not, with where to look.
pub(crate) fn judge(report: &Report, wanted: f64, services: &[Service]) -> Result<(), ExitError> {
    let Some(recording) = &report.recording else {
        return Ok(());
    };
    let delivered = shown(recording.delivered);
    if report.intensity.mode == Mode::Stopped {
        let decision = report.intensity.decisions.last();
        let decision = decision.map_or("it is named above", |decision| &decision.what);
        return Err(ExitError::incomplete(format!(
            "a guard has ended the replay: {decision}; {delivered} of the bytes replayed until then \
             were delivered"
        )));
    }
    if recording.interrupted {
        return Err(ExitError::incomplete(format!(
            "interrupted: {delivered} of the bytes replayed until then were delivered"
        )));
    }
    let problems = match recording.problems.first() {
        Some(problem) => format!(": {problem}"),
        None => String::new(),
    };
    if recording.rounds_done < recording.rounds {
        return Err(ExitError::incomplete(format!(
            "the recording was replayed {} of {} times{problems}",
            recording.rounds_done, recording.rounds
        )));
    }
    let met = report.sessions.captured + refused(report) + report.sessions.unpicked;
    if met == 0 && wanted > 0.0 {
        return Err(ExitError::incomplete(format!(
            "nothing was replayed: {}{problems}",
            nothing(report, recording, services)
        )));
    }
    if recording.delivered < wanted {
        return Err(ExitError::incomplete(less(report, &delivered, wanted)));
    }
    // Less than everything was asked for: what is missing is known to be little enough.
    if wanted < 1.0 {
        return Ok(());
    }
    whole(report, recording)
}

/// Why no session was replayed.
fn nothing(report: &Report, recording: &Recording, services: &[Service]) -> String {
    let (sessions, packets) = (&report.sessions, recording.packets);
    let of_services = report.packets.client_segments + report.packets.live_segments;
    if packets == 0 {
        "the files hold no packets".to_owned()
    } else if packets == recording.foreign {
        format!("the link type of all {packets} packets is not understood")
    } else if of_services == 0 && report.capture.malformed > 0 {
        format!(
            "the headers of {} of the {packets} packets are cut or broken, and none of the others \
             belongs to -x; `millrace-copier inspect` says more",
            report.capture.malformed
        )
    } else if of_services == 0 && !report.capture.others.is_empty() {
        let others = report.capture.others.iter();
        let others: Vec<String> = others
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        format!(
            "none of the {packets} packets belongs to -x; those that are not TCP, or are in a tunnel that is not \
             looked into (--tunnels): {}",
            others.join(", ")
        )
    } else if of_services == 0 {
        let services: Vec<String> = services.iter().map(live).collect();
        format!(
            "none of the {packets} packets belongs to -x {}; `millrace-copier inspect` lists the \
             services of a file",
            services.join(",")
        )
    } else {
        format!(
            "{} sessions were left out by the intensity, and {} connections never opened",
            sessions.unchosen, sessions.unopened
        )
    }
}

/// A live service as -x names it.
fn live(service: &Service) -> String {
    match service.live {
        LiveAddress::At(ip) => SocketAddr::new(ip, service.live_port).to_string(),
        LiveAddress::Host | LiveAddress::Followed => service.live_port.to_string(),
    }
}

/// Where to look when less was delivered than was wanted.
fn less(report: &Report, delivered: &str, wanted: f64) -> String {
    let failed = report.targets.iter();
    let failed: Vec<&str> = failed
        .filter(|target| target.state == ProbeState::Failed)
        .map(|target| target.target.as_str())
        .collect();
    let mut more = String::new();
    if report.bytes.missing > 0 {
        more += &format!(
            "; {} bytes are missing from the recording (`millrace-copier inspect` says more)",
            report.bytes.missing
        );
    }
    if report.bytes.left_out > 0 {
        more += &format!(
            "; {} bytes were left out by an intensity that was lowered or rose later",
            report.bytes.left_out
        );
    }
    if !failed.is_empty() {
        more += &format!(
            "; nothing was sent to {}, since no probe came back: the log says which hop is missing",
            failed.join(", ")
        );
    }
    let aborted: u64 = report.replicas.aborted.values().sum();
    format!(
        "{delivered} of the recorded bytes were delivered, {wanted} were wanted (--min-fidelity): \
         {aborted} copied connections aborted, {} sessions refused, {} connections begun before the \
         recording; the report above names the reasons{more}",
        refused(report),
        report.sessions.unpicked
    )
}

/// Whether all of a replay is as recorded whose bytes were all delivered.
///
/// # Errors
/// Exit code 2 with what is not.
fn whole(report: &Report, recording: &Recording) -> Result<(), ExitError> {
    if let Some(problem) = recording.problems.first() {
        return Err(ExitError::incomplete(format!(
            "all that could be read was delivered, but not all could be read: {problem}"
        )));
    }
    let aborted = report.replicas.aborted.iter();
    // A connection of which nothing was heard for -k has got all that there was.
    let aborted = aborted.filter(|(reason, _)| **reason != AbortReason::Idle.name());
    let aborted: u64 = aborted.map(|(_, count)| count).sum();
    let unopened: u64 = report.replicas.refused.values().sum();
    match aborted + unopened + refused(report) {
        0 => Ok(()),
        _ => Err(ExitError::incomplete(format!(
            "every byte was delivered, but {aborted} copied connections did not end as recorded, {} \
             sessions and {unopened} copied connections were refused; the report above names the \
             reasons, and --min-fidelity below 1 allows them",
            refused(report)
        ))),
    }
}

fn refused(report: &Report) -> u64 {
    report.sessions.refused.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Counts;
    use millrace_pilot::Decision;

    /// One session that was replayed, as well as this.
    fn report(delivered: f64) -> Report {
        let mut report = Report {
            recording: Some(Recording {
                delivered,
                packets: 180,
                rounds: 1,
                rounds_done: 1,
                ..Recording::default()
            }),
            ..Report::default()
        };
        report.sessions.captured = 1;
        report.packets.client_segments = 100;
        report
    }

    fn with(change: impl FnOnce(&mut Report, &mut Recording)) -> Report {
        let mut report = report(1.0);
        let mut recording = report.recording.take().unwrap();
        change(&mut report, &mut recording);
        report.recording = Some(recording);
        report
    }

    /// What is said, with exit code 2.
    fn fails(report: &Report, wanted: f64) -> String {
        let service = Service {
            live: LiveAddress::Host,
            live_port: 8081,
            target: "198.18.2.20:80".parse::<SocketAddr>().unwrap().into(),
        };
        let error = judge(report, wanted, &[service]).unwrap_err();
        assert_eq!(error.code(), 2);
        error.to_string()
    }

    #[test]
    fn a_target_that_was_never_opened_is_named() {
        let target = |target: &str, state| millrace_replay::probe::ProbeStatus {
            target: target.to_owned(),
            state,
            clients: None,
            volleys: 2,
            finding: None,
        };
        let mut report = report(0.5);
        report.targets = vec![
            target("198.18.2.20:80", ProbeState::Open),
            target("198.18.2.20:81", ProbeState::Failed),
        ];
        let line = fails(&report, 1.0);
        assert!(
            line.contains("nothing was sent to 198.18.2.20:81,"),
            "{line}"
        );
    }

    #[test]
    fn what_the_recorder_lost_is_said_once_however_many_rounds_there_are() {
        let mut recording = Recording::default();
        for dropped in [0, 3, 7, 0, 3, 7] {
            recording.note_dropped(dropped);
        }
        assert!(
            recording
                .to_string()
                .contains("7 packets lost by the recorder")
        );
    }

    #[test]
    fn less_than_was_wanted_is_exit_code_2() {
        assert!(judge(&Report::default(), 1.0, &[]).is_ok());
        assert!(judge(&report(1.0), 1.0, &[]).is_ok());
        assert!(judge(&report(0.5), 0.5, &[]).is_ok());
        let line = fails(&report(0.999_999_999), 1.0);
        assert!(line.starts_with("0.999999 of the recorded"), "{line}");
        fails(&with(|_, recording| recording.interrupted = true), 0.0);
    }

    #[test]
    fn replaying_nothing_is_no_success_and_says_why() {
        let nothing = |change: fn(&mut Report, &mut Recording)| {
            with(|report, recording| {
                report.sessions.captured = 0;
                report.packets.client_segments = 0;
                recording.delivered = 0.0;
                change(report, recording);
            })
        };
        let line = fails(&nothing(|_, _| {}), 0.5);
        assert!(
            line.contains("none of the 180 packets belongs to -x 8081;"),
            "{line}"
        );
        let line = fails(&nothing(|_, recording| recording.packets = 0), 1.0);
        assert!(line.contains("no packets"), "{line}");
        let line = fails(&nothing(|_, recording| recording.foreign = 180), 1.0);
        assert!(line.contains("link type"), "{line}");
        let cut = nothing(|report, _| report.capture.malformed = 170);
        assert!(fails(&cut, 1.0).contains("170 of the 180 packets are cut"));
        let unopened = nothing(|report, _| {
            report.packets.client_segments = 9;
            report.sessions.unopened = 9;
        });
        assert!(fails(&unopened, 1.0).contains("9 connections never opened"));
    }

    #[test]
    fn fewer_rounds_than_wanted_and_files_that_are_cut_are_no_success() {
        let cut = |report: &mut Report, recording: &mut Recording| {
            report.sessions.captured = 20;
            recording.problems = vec!["web.pcap ends within a packet".to_owned()];
        };
        let line = fails(&with(cut), 1.0);
        assert!(line.contains("web.pcap ends within"), "{line}");
        assert!(judge(&with(cut), 0.9, &[]).is_ok(), "what there is of it");
        let rounds = with(|report, recording| {
            cut(report, recording);
            (recording.rounds, recording.rounds_done) = (5, 2);
        });
        let line = fails(&rounds, 0.0);
        assert!(line.contains("replayed 2 of 5 times: web.pcap"), "{line}");
    }

    #[test]
    fn connections_that_did_not_end_as_recorded_are_no_success_unless_less_is_asked_for() {
        let aborted = |reason| {
            with(|report, _| {
                report.replicas.aborted = Counts::from([(AbortReason::name(reason), 3)]);
            })
        };
        for reason in AbortReason::ALL {
            let report = aborted(reason);
            match reason {
                AbortReason::Idle => assert!(judge(&report, 1.0, &[]).is_ok()),
                AbortReason::Refused
                | AbortReason::TargetReset
                | AbortReason::TargetClosed
                | AbortReason::Timeout
                | AbortReason::CaptureGap
                | AbortReason::Urgent
                | AbortReason::Memory
                | AbortReason::SetAside
                | AbortReason::Shutdown
                | AbortReason::Stopped
                | AbortReason::Unproven
                | AbortReason::Misdirected
                | AbortReason::Mptcp
                | AbortReason::Protocol => {
                    assert!(fails(&report, 1.0).contains("3 copied connections did not end"));
                }
            }
            assert!(judge(&report, 0.9, &[]).is_ok());
        }
        let refused = with(|report, _| report.sessions.refused = Counts::from([("memory", 1)]));
        fails(&refused, 1.0);
    }

    #[test]
    fn a_guard_that_stops_is_named() {
        let stopped = with(|report, recording| {
            recording.interrupted = true;
            report.intensity.mode = Mode::Stopped;
            report.intensity.decisions = vec![Decision {
                at_seconds: 3.0,
                what: "guard resets>2%:stop: half of them; stopped".to_owned(),
                intensity: 0.0,
            }];
        });
        let line = fails(&stopped, 0.0);
        assert!(line.contains("guard resets>2%:stop"), "{line}");
    }
}

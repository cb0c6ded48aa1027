//! The same from a recording: nothing but the copies needs the machine while they run.

use std::time::{Duration, Instant};

use millrace_lab::{DEVICE, Result, Stage, binary, wait_for};

use super::clients::Clients;
use super::{CATCH_UP, Run};
use crate::bench::Service;
use crate::bench::programs::{COPIER, Copier};
use crate::demo::end;

/// How long the recorder may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// The last packets are on their way through the kernel.
const LAST_PACKETS: Duration = Duration::from_millis(500);

/// Records while the clients ask, and replays that at its own pace; the copier has these options, too.
pub(super) fn run(
    stage: &Stage,
    service: &Service,
    clients: Clients,
    more: &[&str],
) -> Result<Run> {
    let host = &stage.live()?.host;
    let file = host.file("turns.pcapng");
    let (services, name) = (service.live.to_string(), file.display().to_string());
    let arguments = ["record", "-x", &services, "-w", &name, "-i", DEVICE];
    let log = host.file("recorder.log");
    let mut recorder = host.spawn(binary(COPIER)?, &arguments, &[], &log)?;
    wait_for("the recording to begin", PATIENCE, || {
        !recorder.is_running() || recorder.log().contains("recording ")
    })?;
    let started = Instant::now();
    let turns = clients.run(stage, service)?;
    let seconds = started.elapsed().as_secs_f64();
    std::thread::sleep(LAST_PACKETS);
    end(&mut recorder, PATIENCE)?;

    let copier = Copier::replay(stage, service, &name, more)?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    // It may have ended: then all of it was delivered.
    let delivered = copier.status().map(|status| status.delivered());
    let (work, report) = copier.end_by_itself(CATCH_UP)?;
    let wanted = report.number("/bytes/wanted").unwrap_or_default();
    let kept = delivered.map_or(1.0, |delivered| delivered as f64 / wanted.max(1) as f64);
    Ok(Run {
        clients,
        turns,
        seconds,
        kept,
        behind: (work.seconds - seconds).max(0.0),
        work,
        report,
        device: None,
    })
}

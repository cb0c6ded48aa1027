//! A cluster behind the kernel's own IPVS with keepalived. Needs a kernel that has IPVS: `make test-vm` runs this file
//! in a virtual machine, where everything is slow, so that each cluster is used for more than one question.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, POOLS, join};
use millrace_integration::{HTTP, can_run, number};
use millrace_lab::cluster::{Balancer, ClusterOptions, Scheduler};
use millrace_lab::wait_for;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn has_ipvs() -> bool {
    // Said by the virtual machine's own script: there, a kernel without IPVS is a failure.
    let here = Path::new("/proc/net/ip_vs").exists();
    assert!(here || std::env::var_os("MILLRACE_VM").is_none(), "no IPVS");
    if !here {
        eprintln!("SKIPPED: this kernel has no IPVS; make test-vm runs it in a virtual machine");
    }
    here && can_run()
}

fn scene(mode: Mode) -> ClusterScene {
    let mut options = ClusterOptions::new(&[HTTP]);
    options.balancer = Balancer::Ipvs;
    let mut scene = ClusterScene::new(options, mode);
    scene.start_tester();
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-c", POOLS[1]]);
    scene
}

/// Each scheduler in turn, under load without a break; then each interceptor and each
/// router-agent is killed and comes back.
fn copied_exactly(mode: Mode) {
    if !has_ipvs() {
        return;
    }
    let mut scene = scene(mode);
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::LeastConnections,
        Scheduler::SourceHash,
    ] {
        scene.set_scheduler(scheduler);
        let before: Vec<usize> = scene.real.iter().map(|real| real.recorded()).collect();
        let loads = (0..2).flat_map(|live| scene.light_load(live, 4 * SECOND));
        join(loads.collect());
        scene.settle(SETTLE);
        for (real, before) in scene.real.iter().zip(before) {
            let share = real.recorded() - before;
            assert!(
                share > 15,
                "{scheduler:?}: {share} connections of about 400"
            );
        }
    }
    let loads = (0..2).flat_map(|live| scene.light_load(live, 12 * SECOND));
    let loads = loads.collect();
    match mode {
        Mode::Sink | Mode::Nfqueue => {
            for real in &mut scene.real {
                sleep(SECOND);
                real.kill_interceptor();
                sleep(SECOND);
                real.kill_agent();
                sleep(SECOND);
                real.start_interceptor();
                real.start_agent();
            }
        }
        Mode::Link => {
            sleep(SECOND);
            scene.kill_assistant(4 * SECOND);
            for real in &mut scene.real {
                real.kill_agent();
                sleep(SECOND);
                real.start_agent();
            }
        }
    }
    join(loads);
    let outcome = scene.finish_exact(SETTLE);
    assert!(number(&outcome.reports[0], "/sessions/captured") > 300);
}

#[test]
fn responses_end_in_a_sink() {
    copied_exactly(Mode::Sink);
}

#[test]
fn responses_end_at_an_assistant() {
    copied_exactly(Mode::Link);
}

#[test]
fn responses_end_in_a_queue() {
    copied_exactly(Mode::Nfqueue);
}

#[test]
fn keepalived_takes_out_a_real_server_whose_application_died_and_no_other() {
    if !has_ipvs() {
        return;
    }
    let mut scene = scene(Mode::Sink);
    let loads = (0..2).flat_map(|live| scene.light_load(live, 14 * SECOND));
    let loads = loads.collect();
    sleep(3 * SECOND);
    scene.real[1].kill_application();
    let two_services = || scene.cluster.director.taken_out().len() == 2;
    wait_for("keepalived to notice", 15 * SECOND, two_services).unwrap();
    scene.real[1].start_application();
    join(loads);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_no_leak();
    assert_eq!(outcome.taken_out.len(), 2, "{:?}", outcome.taken_out);
    assert!(
        outcome
            .taken_out
            .iter()
            .all(|line| line.contains("102]") || line.contains("::102"))
    );
}

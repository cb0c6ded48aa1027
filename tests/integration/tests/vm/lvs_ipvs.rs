//! A cluster behind the kernel's own IPVS with keepalived. Needs a kernel that has IPVS: `make test-vm` runs this file
//! in a virtual machine, where everything is slow, so that one cluster answers all questions about a mode: under load,
//! each interceptor, router-agent and copier and one real server's application are killed, one after the other.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use millrace_integration::cluster::{
    ClusterScene, Mode, POOLS, Running, assert_ended_by_target, assert_faithful, join,
};
use millrace_integration::{HTTP, can_run, number};
use millrace_lab::cluster::{Balancer, ClusterOptions, Scheduler};
use millrace_lab::wait_for;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// What the copiers are told, each in both of its lives. A capture ring bridges as many timer ticks as it has blocks, two
/// seconds with the usual 64 MB; an emulated processor stands still for longer when others use the host's.
const COPIERS: [&[&str]; 2] = [&["-B", "256"], &["-B", "256", "-c", POOLS[1]]];
/// From one kill to the next.
const EVERY: Duration = Duration::from_secs(5);
/// How long what was killed stays away.
const GONE: Duration = Duration::from_secs(2);

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
    for (live, more) in COPIERS.into_iter().enumerate() {
        scene.start_copier(live, more);
    }
    // This kernel's own limit is far below what a copier asks for.
    for live in 0..2 {
        let log = scene.copier_log(live);
        assert!(!log.contains("to send from"), "{log}");
    }
    scene
}

/// The cluster in one mode, from its start to its end; nothing may get out at any time.
fn copied_exactly(mode: Mode) {
    if !has_ipvs() {
        return;
    }
    let mut scene = scene(mode);
    with_each_scheduler(&mut scene);
    parts_killed(&mut scene, mode);
    copiers_killed(&mut scene);
    application_killed(&mut scene);
    let outcome = scene.finish();
    outcome.assert_no_leak();
    outcome.assert_checks();
    assert_eq!(outcome.still_diverted, [] as [String; 0]);
    assert!(number(&outcome.reports[0], "/sessions/captured") > 300);
}

fn load(scene: &ClusterScene, lasting: Duration) -> Vec<Running> {
    (0..2)
        .flat_map(|live| scene.light_load(live, lasting))
        .collect()
}

/// Each real server gets its share, whoever picks it.
fn with_each_scheduler(scene: &mut ClusterScene) {
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::LeastConnections,
        Scheduler::SourceHash,
    ] {
        scene.set_scheduler(scheduler);
        let before: Vec<usize> = scene.real.iter().map(|real| real.recorded()).collect();
        join(load(scene, 4 * SECOND));
        scene.settle(SETTLE);
        for (real, before) in scene.real.iter().zip(before) {
            let share = real.recorded() - before;
            assert!(
                share > 15,
                "{scheduler:?}: {share} connections of about 400"
            );
        }
    }
}

/// Every interceptor and every router-agent, one after the other: no session is lost.
fn parts_killed(scene: &mut ClusterScene, mode: Mode) {
    let interceptors = match mode {
        Mode::Sink | Mode::Nfqueue => scene.real.len(),
        Mode::Link => 1,
    };
    let kills = u32::try_from(interceptors + scene.real.len()).unwrap();
    let loads = load(scene, kills * EVERY + 2 * SECOND);
    sleep(SECOND);
    for number in 0..interceptors {
        one_of_many(|| match mode {
            Mode::Sink | Mode::Nfqueue => {
                scene.real[number].kill_interceptor();
                sleep(GONE);
                scene.real[number].start_interceptor();
            }
            Mode::Link => scene.kill_assistant(GONE),
        });
    }
    for real in &mut scene.real {
        one_of_many(|| {
            real.kill_agent();
            sleep(GONE);
            real.start_agent();
        });
    }
    join(loads);
    let so_far = scene.so_far(SETTLE, |outcome| outcome.difference().is_none());
    so_far.assert_exact();
    so_far.assert_safe();
}

/// Each copier, one after the other: it takes only its own sessions with it.
fn copiers_killed(scene: &mut ClusterScene) {
    // Streams that a live server has and no real server: those of copiers that were killed.
    let mut lost = [0; 2];
    for (killed, more) in COPIERS.into_iter().enumerate() {
        let lived = 1 - killed;
        let loads = load(scene, 2 * EVERY);
        sleep(2 * SECOND);
        scene.kill_copier_for(killed, GONE, more);
        join(loads);
        let so_far = scene.so_far(SETTLE, |outcome| {
            outcome.missing_of(lived).missing <= lost[lived]
        });
        so_far.assert_safe();
        // In the order of their starts: the one that lived, and the other's second life.
        for report in &so_far.reports {
            assert_faithful(report);
        }
        let missing = so_far.missing_of(lived);
        assert!(
            missing.missing <= lost[lived],
            "of live server {lived}, where {} were missing before: {missing}",
            lost[lived]
        );
        lost[killed] = so_far.missing_of(killed).missing;
        assert!(lost[killed] > 0, "nobody misses copier {killed}");
    }
}

/// One real server's application, until keepalived has noticed: that real server is taken out, no other, and only
/// what it had is lost.
fn application_killed(scene: &mut ClusterScene) {
    // A tester would see that the service answers every third time.
    scene.stop_checks();
    let loads = load(scene, 14 * SECOND);
    sleep(3 * SECOND);
    scene.real[1].kill_application();
    let both_families = || scene.cluster.director.taken_out().len() == 2;
    wait_for("keepalived to notice", SETTLE, both_families).unwrap();
    scene.real[1].start_application();
    scene.start_tester();
    join(loads);
    let so_far = scene.so_far(SETTLE, |_| true);
    let taken_out = &so_far.taken_out;
    assert_eq!(taken_out.len(), 2, "{taken_out:?}");
    let its = |line: &String| line.contains("102]") || line.contains("::102");
    assert!(taken_out.iter().all(its), "{taken_out:?}");
    for report in &so_far.reports {
        assert_ended_by_target(report);
        assert!(number(report, "/replicas/completed") > 100, "{report:#}");
    }
}

/// Kills one part and brings it back, in the time that each has.
fn one_of_many(kill: impl FnOnce()) {
    let start = Instant::now();
    kill();
    sleep(EVERY.saturating_sub(start.elapsed()));
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

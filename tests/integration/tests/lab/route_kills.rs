//! A router-agent that is killed after any change that it makes: nothing leaks, and the next one
//! completes the plan, or removes all of it.

use std::time::Duration;

use millrace_integration::target_host::{
    MODES, PASS_LIST, SERVICES, TargetHost, client, difference, tester, with,
};
use millrace_integration::{Family, can_run};
use millrace_router_agent::install::Installer;
use millrace_router_agent::kernel::Kernel;
use millrace_router_agent::need::Need;
use millrace_router_agent::oneshot;
use millrace_router_agent::options::Options;
use millrace_router_agent::state::{Opened, StateFile};

/// Which change a killed agent dies after, and what it does.
const DIE_AFTER: &str = "MILLRACE_TEST_DIE_AFTER";
const DO: &str = "MILLRACE_TEST_DO";

/// The body of the agents that are killed below; started on the target with its arguments in the
/// environment.
#[test]
#[ignore = "it is started by the test that kills it"]
fn an_agent_that_kills_itself() {
    let Ok(words) = std::env::var(DO) else { return };
    let die_after: u64 = std::env::var(DIE_AFTER).unwrap().parse().unwrap();
    let words = std::iter::once("millrace-router-agent").chain(words.split_whitespace());
    let options = <Options as clap::Parser>::try_parse_from(words.map(str::to_owned)).unwrap();
    let host = options.host_config().unwrap();
    let mut changes = 0;
    let die =
        || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    if die_after == 0 {
        die().unwrap();
    }
    let kernel = Kernel::open().unwrap().observed_by(Box::new(move |_| {
        changes += 1;
        if changes == die_after {
            die().unwrap();
        }
    }));
    let Opened::Ours(state) = StateFile::open(&host.state_dir).unwrap() else {
        panic!("another agent runs");
    };
    let mut installer = Installer::new(host, kernel, state);
    match options.command.unwrap() {
        millrace_router_agent::options::Command::Apply(wanted) => {
            let need: Need = wanted.need();
            oneshot::apply(&mut installer, &need).unwrap();
        }
        _ => oneshot::remove(&mut installer).unwrap(),
    }
}

/// Runs an agent on the target that kills itself after its change number `n`. Whether it did.
fn killed_after(scene: &TargetHost, n: u64, command: &str) -> bool {
    let state = scene.state_dir();
    let all = format!("--state-dir {} {command} -x {PASS_LIST}", state.display());
    let program = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "route_kills::an_agent_that_kills_itself",
        "--ignored",
        "--nocapture",
    ];
    let environment = [(DIE_AFTER, n.to_string()), (DO, all)];
    let environment: Vec<_> = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let log = scene.target.file(&format!("killed-{n}.log"));
    let mut process = scene
        .target
        .spawn(program, &arguments, &environment, &log)
        .unwrap();
    let status = process.wait(Duration::from_secs(30)).unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    assert!(killed || status.success(), "{status}: {}", process.log());
    killed
}

/// Lets an agent remove everything: the host is as it was before.
fn removed(scene: &TargetHost, mode: &[&str], before: &str, what: &str) {
    scene.agent(&with(&["remove"], mode)).unwrap();
    let after = scene.picture();
    assert!(after == before, "{what}: {}", difference(before, &after));
}

#[test]
fn killed_after_any_change_of_apply_the_next_agent_brings_about_the_plan_or_nothing() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        let before = scene.picture();
        let apply = format!("apply -s {SERVICES} --manage-sysctl {}", mode.join(" "));
        let mut n = 0;
        while killed_after(&scene, n, &apply) {
            // To nothing, ...
            removed(&scene, mode, &before, &format!("{name} {n}"));
            // ... and to the plan.
            assert!(killed_after(&scene, n, &apply));
            let words: Vec<&str> = apply.split_whitespace().collect();
            scene.agent(&with(&words, &[])).unwrap();
            for family in Family::BOTH {
                assert!(
                    scene
                        .connect(client(family), Duration::from_millis(100))
                        .is_err(),
                    "{name} {n}"
                );
                assert!(scene.answers(tester(family)), "{name} {n}");
            }
            assert_eq!(scene.leaked(), 0, "{name} {n}");
            scene.agent(&with(&["remove"], mode)).unwrap();
            n += 1;
            assert!(n < 60, "it ends some time");
        }
        assert!(n >= 5, "{name}: it was killed {n} times");
    }
}

#[test]
fn killed_after_any_change_of_remove_nothing_leaks_and_the_next_agent_finishes_it() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        let before = scene.picture();
        let apply = with(&["apply", "-s", SERVICES, "--manage-sysctl"], mode);
        let remove = format!("remove {}", mode.join(" "));
        let mut n = 0;
        loop {
            scene.agent(&apply).unwrap();
            // Copies, half-open ones among them, whose copier is gone before the removal.
            drop(scene.copied_traffic());
            if !killed_after(&scene, n, &remove) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1200));
            removed(&scene, mode, &before, &format!("{name} {n}"));
            assert_eq!(scene.leaked(), 0, "{name} {n}");
            n += 1;
            assert!(n < 60, "it ends some time");
        }
        assert!(n >= 5, "{name}: it was killed {n} times");
    }
}

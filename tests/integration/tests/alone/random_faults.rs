//! Seeded sequences of what may happen to real servers under load, in every mode and over both families: others'
//! rules, flushed tables and firewalls, agents and interceptors that are killed, stopped or restarted. Whatever
//! happens, next to nothing reaches a client, and in the end copying goes on.
//!
//! `MILLRACE_SEEDS=1..100` plays other sequences than the few that every run plays.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_integration::{HTTP, can_run};
use millrace_lab::wait_for;
use rustix::process::Signal;

/// What may be under way when somebody takes everything away that kept it.
const IN_FLIGHT: u64 = 10;
const STEPS: usize = 6;
const MODES: [Mode; 3] = [Mode::Sink, Mode::Nfqueue, Mode::Link];

/// Sebastiano Vigna's SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }
}

/// How an agent is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Running,
    Hanging,
    Gone,
}

/// One sequence.
struct Sequence {
    scene: ClusterScene,
    random: Random,
    agents: [Agent; 3],
    /// What somebody did to a real server that stays until it is undone.
    undo: Vec<(usize, String)>,
    /// How often something was done after which packets may slip through.
    slips: u64,
    said: Vec<String>,
}

impl Sequence {
    fn shell(&self, real: usize, command: &str) {
        let host = &self.scene.cluster.real_servers[real].host;
        // What is not there cannot be taken away.
        let _ = host.run("sh", &["-c", command]).unwrap();
    }

    fn step(&mut self, mode: Mode) {
        let real = self.random.below(3);
        let [v4, v6] = self.scene.cluster.vip().both();
        let what = match self.random.below(9) {
            0 => {
                self.shell(
                    real,
                    &format!(
                        "ip rule add from {v4} lookup main; ip -6 rule add from {v6} lookup main"
                    ),
                );
                self.undo.push((
                    real,
                    format!(
                        "ip rule del from {v4} lookup main; ip -6 rule del from {v6} lookup main"
                    ),
                ));
                "a rule before ours"
            }
            1 => {
                self.shell(
                    real,
                    "iptables -t mangle -A OUTPUT -p tcp -j DSCP --set-dscp 10; ip6tables -t mangle -A OUTPUT -p tcp \
                     -j DSCP --set-dscp 10",
                );
                self.undo.push((
                    real,
                    "iptables -t mangle -F OUTPUT; ip6tables -t mangle -F OUTPUT".to_owned(),
                ));
                "a DSCP rule"
            }
            2 => {
                self.shell(
                    real,
                    "ip route flush table 36524; ip -6 route flush table 36524",
                );
                "our table flushed"
            }
            3 if mode != Mode::Nfqueue => {
                // With others' rules in place, or no agent, nothing may be left that holds.
                self.slips += 1;
                self.shell(real, "nft flush ruleset");
                "the firewall flushed"
            }
            4 => {
                self.shell(real, "ip link del millrace0");
                "the sink deleted"
            }
            5 if self.agents[real] == Agent::Running => {
                self.scene.real[real].kill_agent();
                self.agents[real] = Agent::Gone;
                "the agent killed"
            }
            6 if self.agents[real] == Agent::Running => {
                self.scene.real[real].signal_agent(Signal::STOP);
                self.agents[real] = Agent::Hanging;
                "the agent hangs"
            }
            7 if mode != Mode::Link => {
                self.scene.real[real].kill_interceptor();
                sleep(Duration::from_millis(300));
                self.scene.real[real].start_interceptor();
                "the interceptor restarted"
            }
            _ => {
                self.heal_agent(real);
                "the agent is well"
            }
        };
        self.said.push(format!("{what} ({real})"));
    }

    fn heal_agent(&mut self, real: usize) {
        match self.agents[real] {
            Agent::Running => {}
            Agent::Hanging => self.scene.real[real].signal_agent(Signal::CONT),
            Agent::Gone => self.scene.real[real].start_agent(),
        }
        self.agents[real] = Agent::Running;
    }

    fn heal(&mut self) {
        for (real, command) in std::mem::take(&mut self.undo) {
            self.shell(real, &command);
        }
        for real in 0..self.agents.len() {
            self.heal_agent(real);
        }
    }
}

fn play(seed: u64) {
    let mode = MODES[usize::try_from(seed).unwrap() % MODES.len()];
    let mut sequence = Sequence {
        scene: ClusterScene::new(ClusterScene::options(), mode),
        random: Random(seed),
        agents: [Agent::Running; 3],
        undo: Vec::new(),
        slips: 0,
        said: Vec::new(),
    };
    sequence.scene.start_copier(0, &[]);
    let load = sequence.scene.mixed_load(0, Duration::from_secs(8));
    sleep(Duration::from_secs(1));
    for _ in 0..STEPS {
        sequence.step(mode);
        let pause = 200 + sequence.random.below(800) as u64;
        sleep(Duration::from_millis(pause));
    }
    sequence.heal();
    join(load);
    let what = format!("seed {seed}, {mode:?}: {}", sequence.said.join(", "));
    let open = || {
        let status = sequence.scene.status(0);
        let held = status["router_agents"].as_array().unwrap().iter();
        let targets = status["report"]["targets"].as_array().unwrap().iter();
        held.clone().all(|agent| agent["held"] == true)
            && targets.clone().all(|target| {
                // The others have no client.
                let loaded = target["target"]
                    .as_str()
                    .unwrap()
                    .ends_with(&format!(":{HTTP}"));
                !loaded || target["state"] == "open"
            })
    };
    wait_for("copying to go on", Duration::from_secs(60), open)
        .unwrap_or_else(|error| panic!("{error}; {what}: {:#}", sequence.scene.status(0)));
    sequence.scene.settle(Duration::from_secs(60));
    let slips = sequence.slips;
    let outcome = sequence.scene.finish();
    let clients = outcome
        .leaks
        .iter()
        .filter(|(host, _)| host.starts_with("client"));
    let leaked: u64 = clients.map(|(_, packets)| packets).sum();
    eprintln!(
        "{leaked} at clients, fidelity {}; {what}",
        outcome.reports[0]["fidelity"]
    );
    assert!(leaked <= IN_FLIGHT * slips.max(1), "{leaked}; {what}");
}

/// The sequences to play.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("MILLRACE_SEEDS") else {
        return 0..3;
    };
    let (first, last) = text.split_once("..").unwrap();
    first.parse().unwrap()..last.parse().unwrap()
}

#[test]
fn whatever_happens_to_real_servers_next_to_nothing_reaches_a_client() {
    if !can_run() {
        return;
    }
    for seed in seeds() {
        play(seed);
    }
}

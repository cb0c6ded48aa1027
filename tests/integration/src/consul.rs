//! A Consul server in the lab, with access control: each of our daemons gets a token that may do what docs/consul.md
//! says, and no more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use millrace_lab::{Host, Place, Process, wait_for};

use crate::{binary, new_log};

/// The cluster that the daemons register in.
pub const CLUSTER: &str = "web";
/// The token that may do anything.
const ROOT: &str = "00000000-0000-4000-8000-000000000001";
const DOC: &str = include_str!("../../../docs/consul.md");

/// How a daemon uses Consul.
#[derive(Clone, Debug, Default)]
pub struct Use {
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Use {
    /// The environment, as a program is started with it.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        let all = self.environment.iter();
        all.map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// One or three servers, whether they run or not.
pub struct Consul {
    servers: Vec<Server>,
    /// The one that everybody asks.
    asked: usize,
    /// The tokens that were made, by whose they are.
    tokens: Mutex<BTreeMap<String, String>>,
}

struct Server {
    host: Host,
    address: String,
    directory: PathBuf,
    process: Option<Process>,
}

/// The program; None where it cannot be had, which fails with CI set.
fn program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/consul/consul");
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no Consul server: sh tests/consul/fetch.sh target/consul"
    );
    eprintln!("SKIPPED: no Consul server: sh tests/consul/fetch.sh target/consul");
    None
}

impl Consul {
    /// Starts a server on each of these hosts, which make one cluster; None where there is no program. Everybody asks one that
    /// does not lead, where there are several.
    pub fn start(places: &[&Place]) -> Option<Self> {
        program()?;
        let mut consul = Self {
            servers: places.iter().map(|place| Server::new(place)).collect(),
            asked: 0,
            tokens: Mutex::default(),
        };
        let others: Vec<String> = consul.servers.iter().map(|it| it.address.clone()).collect();
        for server in &mut consul.servers {
            server.configure(&others);
            server.run();
        }
        consul.wait_for_leader();
        let leader = consul.leader();
        consul.asked = (0..places.len()).find(|it| *it != leader).unwrap_or(0);
        Some(consul)
    }

    /// Its URL, as `--consul` names it.
    pub fn url(&self) -> String {
        format!("http://{}:8500", self.servers[self.asked].address)
    }

    /// Starts what does not run, and waits until there is a leader.
    pub fn run(&mut self) {
        for server in self.servers.iter_mut().filter(|it| it.process.is_none()) {
            server.run();
        }
        self.wait_for_leader();
    }

    fn wait_for_leader(&self) {
        let leader = wait_for("a Consul leader", Duration::from_secs(30), || {
            self.command(&["acl", "token", "list"]).is_some()
        });
        let process = self.servers[self.asked].process.as_ref();
        leader.unwrap_or_else(|error| panic!("{error}: {}", process.unwrap().log()));
    }

    /// Ends all servers by SIGKILL.
    pub fn kill(&mut self) {
        for server in &mut self.servers {
            server.process.take().unwrap().kill().unwrap();
        }
    }

    /// Ends the server that leads by SIGKILL.
    pub fn kill_leader(&mut self) {
        let leader = self.leader();
        assert_ne!(leader, self.asked, "there is another one to ask");
        self.servers[leader].process.take().unwrap().kill().unwrap();
    }

    /// The server that leads.
    fn leader(&self) -> usize {
        let peers = self.command(&["operator", "raft", "list-peers"]).unwrap();
        let leads = |line: &&str| line.split_whitespace().any(|word| word == "leader");
        let line = peers.lines().find(leads).unwrap();
        let is_named = |server: &Server| line.contains(&format!(" {}:", server.address));
        self.servers.iter().position(is_named).unwrap()
    }

    /// What one of Consul's own commands prints; None if it fails.
    fn command(&self, words: &[&str]) -> Option<String> {
        let address = format!("CONSUL_HTTP_ADDR={}", self.url());
        let token = format!("CONSUL_HTTP_TOKEN={ROOT}");
        let program = program()?.display().to_string();
        let mut all = vec![address.as_str(), token.as_str(), program.as_str()];
        all.extend(words);
        let output = self.servers[self.asked].host.run("env", &all).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// What `millrace-copier ctl` prints on a host, of the cluster in Consul, with what docs/consul.md lets an operator do.
    pub fn ctl(&self, host: &Host, words: &[&str]) -> String {
        let token = format!("CONSUL_HTTP_TOKEN={}", self.token("operator", host));
        let program = binary("millrace-copier").display().to_string();
        let url = self.url();
        let mut all = vec![
            token.as_str(),
            "USER=somebody",
            program.as_str(),
            "ctl",
            "--consul",
            &url,
            "--cluster",
            CLUSTER,
        ];
        all.extend(words);
        host.check("env", &all).unwrap()
    }

    /// Cuts a host off from the server that everybody asks, or lets it through again.
    pub fn cut(&self, host: &Host, is_cut: bool) {
        let word = if is_cut { "add" } else { "del" };
        let server = &self.servers[self.asked].address;
        host.check("ip", &["route", word, "blackhole", server])
            .unwrap();
    }

    /// The token of a daemon with a role on a host, with the policy that docs/consul.md gives for it. Made once.
    pub fn token(&self, role: &str, host: &Host) -> String {
        let whose = format!("{role} {}", host.name());
        let mut tokens = self.tokens.lock().unwrap();
        let made = || self.make_token(role);
        tokens.entry(whose).or_insert_with(made).clone()
    }

    fn make_token(&self, role: &str) -> String {
        let rules = policy(role).replace("CLUSTER", CLUSTER);
        let file = self.servers[0].directory.join(format!("{role}.hcl"));
        std::fs::write(&file, &rules).unwrap();
        let rules = format!("@{}", file.display());
        let create = || {
            // There is one already where a token is made a second time.
            self.command(&["acl", "policy", "create", "-name", role, "-rules", &rules]);
            self.command(&[
                "acl",
                "token",
                "create",
                "-policy-name",
                role,
                "-format=json",
            ])
        };
        // While the servers choose a leader nobody can.
        let tries = std::iter::repeat_with(|| {
            let made = create();
            if made.is_none() {
                std::thread::sleep(Duration::from_millis(500));
            }
            made
        });
        let made = tries.take(60).flatten().next().unwrap();
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        made["SecretID"].as_str().unwrap().to_owned()
    }

    /// Takes a token away.
    pub fn revoke(&self, token: &str) {
        let list = self
            .command(&["acl", "token", "list", "-format=json"])
            .unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        // The list has accessors alone.
        let of = |accessor: &str| {
            let shown = self.command(&["acl", "token", "read", "-id", accessor, "-format=json"])?;
            let shown: serde_json::Value = serde_json::from_str(&shown).ok()?;
            Some(shown["SecretID"].as_str()?.to_owned())
        };
        let accessors = list.iter().filter_map(|it| it["AccessorID"].as_str());
        let mut found = accessors.filter(|it| of(it).as_deref() == Some(token));
        let accessor = found.next().unwrap();
        self.command(&["acl", "token", "delete", "-id", accessor])
            .unwrap();
    }

    /// How a daemon of a role lets itself be found.
    pub fn registered(&self, role: &str, host: &Host) -> Use {
        let words = ["--consul", &self.url(), "--cluster", CLUSTER];
        self.used(role, host, &words)
    }

    /// How a copier finds the others. What it keeps is on `host`.
    pub fn searched(&self, host: &Host) -> Use {
        let peers = format!("consul:{CLUSTER}");
        let kept = host.file("kept").display().to_string();
        let words = [
            "--consul",
            &self.url(),
            "-s",
            &peers,
            "--router-agent",
            &peers,
            "--state-dir",
            &kept,
        ];
        self.used("copier", host, &words)
    }

    fn used(&self, role: &str, host: &Host, words: &[&str]) -> Use {
        Use {
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![("CONSUL_HTTP_TOKEN", self.token(role, host))],
        }
    }
}

impl Server {
    fn new(place: &Place) -> Self {
        Self {
            host: place.host.clone(),
            address: place.address.v4.to_string(),
            directory: place.host.file("consul"),
            process: None,
        }
    }

    fn configure(&self, all: &[String]) {
        std::fs::create_dir_all(&self.directory).unwrap();
        let config = serde_json::json!({
            "server": true,
            "bootstrap_expect": all.len(),
            "retry_join": all,
            "retry_interval": "1s",
            "bind_addr": self.address,
            "client_addr": self.address,
            "data_dir": self.directory.join("data"),
            "node_name": format!("consul-{}", self.address),
            "disable_update_check": true,
            "acl": {
                "enabled": true,
                "default_policy": "deny",
                "tokens": { "master": ROOT, "agent": ROOT },
            },
        });
        std::fs::write(self.directory.join("config.json"), config.to_string()).unwrap();
    }

    fn run(&mut self) {
        let config = self.directory.join("config.json").display().to_string();
        let arguments = ["agent", "-config-file", &config];
        let log = new_log(&self.host, "consul");
        let process = self.host.spawn(program().unwrap(), &arguments, &[], &log);
        self.process = Some(process.unwrap());
    }
}

/// The rules that docs/consul.md gives for a role: the block behind its heading.
fn policy(role: &str) -> String {
    let heading = format!("`{role}`:\n\n```hcl\n");
    let (_, rest) = DOC.split_once(&heading).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

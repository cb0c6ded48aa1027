//! A Consul server in the lab, with access control: each of our daemons gets a token that may do what docs/consul.md
//! says, and no more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use millrace_lab::{Addresses, Host, Process, wait_for};

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

/// A server, whether it runs or not.
pub struct Consul {
    host: Host,
    address: String,
    directory: PathBuf,
    process: Option<Process>,
    /// The tokens that were made, by whose they are.
    tokens: Mutex<BTreeMap<String, String>>,
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
    /// Starts a server on a host; None where there is no program.
    pub fn start(host: &Host, address: Addresses) -> Option<Self> {
        program()?;
        let mut consul = Self {
            host: host.clone(),
            address: address.v4.to_string(),
            directory: host.file("consul"),
            process: None,
            tokens: Mutex::default(),
        };
        std::fs::create_dir_all(&consul.directory).unwrap();
        let config = serde_json::json!({
            "server": true,
            "bootstrap_expect": 1,
            "bind_addr": consul.address,
            "client_addr": consul.address,
            "data_dir": consul.directory.join("data"),
            "node_name": "consul-1",
            "disable_update_check": true,
            "acl": {
                "enabled": true,
                "default_policy": "deny",
                "tokens": { "master": ROOT, "agent": ROOT },
            },
        });
        std::fs::write(consul.directory.join("config.json"), config.to_string()).unwrap();
        consul.run();
        Some(consul)
    }

    /// Its URL, as `--consul` names it.
    pub fn url(&self) -> String {
        format!("http://{}:8500", self.address)
    }

    /// Starts the server, which is not running, and waits until it has a leader.
    pub fn run(&mut self) {
        let config = self.directory.join("config.json").display().to_string();
        let arguments = ["agent", "-config-file", &config];
        let mut logs = (1..).map(|start| self.host.file(&format!("consul-{start}.log")));
        let log = logs.find(|file| !file.exists()).unwrap();
        let process = self.host.spawn(program().unwrap(), &arguments, &[], &log);
        self.process = Some(process.unwrap());
        let leader = wait_for("a Consul leader", Duration::from_secs(30), || {
            self.command(&["acl", "token", "list"]).is_some()
        });
        leader.unwrap_or_else(|error| panic!("{error}: {}", self.process.as_ref().unwrap().log()));
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    /// What one of Consul's own commands prints; None if it fails.
    fn command(&self, words: &[&str]) -> Option<String> {
        let address = format!("CONSUL_HTTP_ADDR={}", self.url());
        let token = format!("CONSUL_HTTP_TOKEN={ROOT}");
        let program = program()?.display().to_string();
        let mut all = vec![address.as_str(), token.as_str(), program.as_str()];
        all.extend(words);
        let output = self.host.run("env", &all).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
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
        let file = self.directory.join(format!("{role}.hcl"));
        std::fs::write(&file, &rules).unwrap();
        let rules = format!("@{}", file.display());
        // There is one already where a token is made a second time.
        self.command(&["acl", "policy", "create", "-name", role, "-rules", &rules]);
        let made = self
            .command(&[
                "acl",
                "token",
                "create",
                "-policy-name",
                role,
                "-format=json",
            ])
            .unwrap();
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

/// The rules that docs/consul.md gives for a role: the block behind its heading.
fn policy(role: &str) -> String {
    let heading = format!("`{role}`:\n\n```hcl\n");
    let (_, rest) = DOC.split_once(&heading).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

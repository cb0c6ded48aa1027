//! nftables tables that keep this host's TCP from answering what is meant for replicas.
//!
//! The tables have an owner, the `nft` process that made them, and the kernel removes them when
//! their owner ends (`flags owner`, Linux 5.12). That process ends when its standard input does, and
//! so with the copier, however that ends. Signals that are meant for the copier do not end it: a
//! copier that drains needs its shield to the last packet, while a terminal and a service manager
//! signal every process of a group.
//!
//! A table is named after a target and a block of ports, and the kernel lets nobody add to another
//! owner's table: so two replays never bear the same sources towards one target.

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use millrace_daemon::exit::ExitError;

/// How long nft may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What every table's name begins with.
const PREFIX: &str = "millrace_local_";
/// Signals that are ignored when a program begins stay ignored (POSIX, exec).
const NFT: &str = "trap '' INT TERM HUP QUIT; exec nft -i";
/// How a shell ends that has not found a program (POSIX).
const NOT_FOUND: i32 = 127;

/// Answers of a target to replicas: dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Where they come from.
    pub(crate) target: SocketAddr,
    /// First and last address of replicas.
    pub(crate) sources: (IpAddr, IpAddr),
    /// First and last port of replicas.
    pub(crate) ports: (u16, u16),
}

/// What has become of a table.
enum State {
    /// It is not there yet.
    Missing,
    /// It is there.
    Up,
    /// Another process has one of its name, or one whose ports overlap.
    Taken(String),
}

/// The tables, while they are there.
#[derive(Debug)]
pub(crate) struct Shield {
    nft: Child,
    rules: Vec<Rule>,
}

impl Shield {
    /// Makes a table for each rule and sees that they are there.
    ///
    /// # Errors
    /// No nft, a kernel or nft that knows no owned tables, or another replay with the same target
    /// and ports.
    pub(crate) fn raise(rules: Vec<Rule>) -> Result<Self, ExitError> {
        let mut nft = Command::new("sh")
            .args(["-c", NFT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| ExitError::caused("--local: cannot start `sh`", &error))?;
        let written = match &mut nft.stdin {
            Some(stdin) => stdin
                .write_all(script(&rules).as_bytes())
                .and_then(|()| stdin.flush()),
            None => Ok(()),
        };
        let mut shield = Self { nft, rules };
        let deadline = Instant::now() + PATIENCE;
        while written.is_ok() && shield.ended().is_none() && Instant::now() < deadline {
            match shield.state() {
                State::Up => return Ok(shield),
                State::Missing => std::thread::sleep(Duration::from_millis(20)),
                State::Taken(table) => {
                    return Err(ExitError::start(format!(
                        "--local: another replay on this host sends to the same target from the same \
                         ports (nftables table {table}): wait until it has ended, or give each replay a \
                         share of its own (-f 0/2 and -f 1/2)"
                    )));
                }
            }
        }
        let status = shield.ended();
        let said = shield.lower();
        Err(ExitError::start(
            match status.and_then(|status| status.code()) {
                Some(NOT_FOUND) => "--local needs `nft` for a target on another host: install \
                                    nftables, or name addresses that are routed to this host with -c"
                    .to_owned(),
                Some(_) | None => format!(
                    "--local: nftables does not take the table that keeps this host from resetting \
                     copied connections (Linux 5.12 and nft 0.9.9 are needed): {said}"
                ),
            },
        ))
    }

    /// The tables' names.
    pub(crate) fn tables(&self) -> String {
        let names: Vec<String> = self.rules.iter().map(Rule::table).collect();
        names.join(", ")
    }

    /// How nft has ended, and its tables with it; `None` while it is there.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.nft.try_wait().ok().flatten()
    }

    fn state(&self) -> State {
        for rule in &self.rules {
            let listed = list(&["list", "table", "inet", &rule.table()]);
            if !listed.contains(&format!("chain {}", chain())) {
                return match listed.contains("chain answers_") {
                    true => State::Taken(rule.table()),
                    false => State::Missing,
                };
            }
            let drops = |line: &str| line.trim_end().ends_with("drop");
            if !listed.lines().any(drops) {
                return State::Missing;
            }
        }
        // Two that begin at the same time see each other here: each looks after its own are up.
        let listed = list(&["list", "tables", "inet"]);
        let mut names = listed.lines().filter_map(|line| line.rsplit(' ').next());
        let overlapping = names.find(|name| self.rules.iter().any(|rule| rule.overlaps(name)));
        match overlapping {
            Some(other) => State::Taken(other.to_owned()),
            None => State::Up,
        }
    }

    /// Ends nft, and the tables with it; gives what it said.
    fn lower(&mut self) -> String {
        drop(self.nft.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.nft.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is ours alone, and has ended unless it hangs.
        let _ = self.nft.kill();
        let _ = self.nft.wait();
        let mut said = String::new();
        if let Some(mut stderr) = self.nft.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        said
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        self.lower();
    }
}

impl Rule {
    /// What the tables of all blocks of ports towards this target begin with.
    fn table_prefix(&self) -> String {
        let ip = self.target.ip().to_string().replace(['.', ':'], "_");
        format!("{PREFIX}{ip}_{}_", self.target.port())
    }

    /// The table for this rule.
    fn table(&self) -> String {
        let (low, high) = self.ports;
        format!("{}{low}_{high}", self.table_prefix())
    }

    /// Whether a table is another one for this target and some of these ports.
    fn overlaps(&self, table: &str) -> bool {
        let ports = table.strip_prefix(&self.table_prefix()).and_then(|ports| {
            let (low, high) = ports.split_once('_')?;
            Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?))
        });
        ports.is_some_and(|(low, high)| {
            (low, high) != self.ports && low <= self.ports.1 && self.ports.0 <= high
        })
    }
}

/// The chain of this process in its tables: it tells them from those of another.
fn chain() -> String {
    format!("answers_{}_", std::process::id())
}

/// What nft says; nothing where it fails.
fn list(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn script(rules: &[Rule]) -> String {
    let chain = chain();
    let mut text = String::new();
    for rule in rules {
        let Rule {
            target,
            sources: (first, last),
            ports: (low, high),
        } = rule;
        let table = rule.table();
        let family = if target.is_ipv4() { "ip" } else { "ip6" };
        let sources = match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        // A string takes whatever is written.
        let _ = writeln!(
            text,
            "add table inet {table} {{ flags owner; }}\nadd chain inet {table} {chain} {{ type filter \
             hook prerouting priority -300; policy accept; }}\nadd rule inet {table} {chain} {family} \
             saddr {} {family} daddr {sources} tcp sport {} tcp dport {low}-{high} drop",
            target.ip(),
            target.port()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(target: &str, ports: (u16, u16)) -> Rule {
        let own: IpAddr = [198, 18, 2, 10].into();
        Rule {
            target: target.parse().unwrap(),
            sources: (own, own),
            ports,
        }
    }

    #[test]
    fn only_answers_of_the_target_to_the_replicas_ports_are_dropped() {
        let text = script(&[rule("198.18.2.20:80", (1024, 2047))]);
        assert!(text.contains("millrace_local_198_18_2_20_80_1024_2047 { flags owner; }"));
        assert!(text.ends_with(
            "ip saddr 198.18.2.20 ip daddr 198.18.2.10 tcp sport 80 tcp dport 1024-2047 drop\n"
        ));
    }

    #[test]
    fn tables_of_one_target_with_common_ports_get_in_each_others_way() {
        let one = rule("198.18.2.20:80", (1024, 2047));
        let meets = |target: &str, ports| one.overlaps(&rule(target, ports).table());
        assert!(meets("198.18.2.20:80", (1024, 17_151)));
        assert!(meets("198.18.2.20:80", (2047, 3000)));
        assert!(!meets("198.18.2.20:80", (2048, 3000)));
        assert!(!meets("198.18.2.20:8080", (1024, 17_151)));
        assert!(!meets("198.18.2.2:80", (1024, 17_151)));
        // Its own is the kernel's to give out once.
        assert!(!meets("198.18.2.20:80", (1024, 2047)));
        assert!(!one.overlaps("millrace_local_198_18_2_20_80_x"));
        let v6 = rule("[2001:db8::14]:80", (1024, 2047)).table();
        assert_eq!(v6, "millrace_local_2001_db8__14_80_1024_2047");
    }
}

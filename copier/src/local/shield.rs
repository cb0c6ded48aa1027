//! An nftables table that keeps this host's TCP from answering what is meant for replicas.
//!
//! The table has an owner, the `nft` process that made it, and the kernel removes it when its owner
//! ends (`flags owner`, Linux 5.12). That process ends when its standard input does, and so with
//! the copier, however that ends.

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millrace_fleet::exit::ExitError;

/// How long nft may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers of a target to replicas: dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where they come from.
    pub target: SocketAddr,
    /// First and last address of replicas.
    pub sources: (IpAddr, IpAddr),
    /// First and last port of replicas.
    pub ports: (u16, u16),
}

/// The table, while it is there.
#[derive(Debug)]
pub struct Shield {
    nft: Child,
    table: String,
}

impl Shield {
    /// Makes the table and sees that it is there.
    ///
    /// # Errors
    /// No nft, or a kernel or nft that knows no owned tables.
    pub fn raise(rules: &[Rule]) -> Result<Self, ExitError> {
        let table = format!("millrace_local_{}", std::process::id());
        let mut nft = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                ExitError::caused(
                    "--local needs `nft` for a target on another host (install nftables, or name \
                     addresses that are routed to this host with -c)",
                    &error,
                )
            })?;
        let script = script(&table, rules);
        let written = match &mut nft.stdin {
            Some(stdin) => stdin
                .write_all(script.as_bytes())
                .and_then(|()| stdin.flush()),
            None => Ok(()),
        };
        let mut shield = Self { nft, table };
        let deadline = Instant::now() + PATIENCE;
        while written.is_ok() && Instant::now() < deadline {
            if shield.is_up(rules.len()) {
                return Ok(shield);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = shield.lower();
        Err(ExitError::start(format!(
            "--local: nftables does not take the table that keeps this host from resetting copied \
             connections (Linux 5.12 and nft 0.9.9 are needed): {said}"
        )))
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    fn is_up(&self, rules: usize) -> bool {
        let output = Command::new("nft")
            .args(["list", "table", "inet", &self.table])
            .output();
        output.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines()
                .filter(|line| line.trim_end().ends_with("drop"))
                .count()
                == rules
        })
    }

    /// Ends nft, and the table with it; gives what it said.
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

fn script(table: &str, rules: &[Rule]) -> String {
    let mut text = format!(
        "add table inet {table} {{ flags owner; }}\nadd chain inet {table} answers {{ type filter \
         hook prerouting priority -300; policy accept; }}\n"
    );
    for Rule {
        target,
        sources: (first, last),
        ports: (low, high),
    } in rules
    {
        let family = if target.is_ipv4() { "ip" } else { "ip6" };
        let sources = match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        // A string takes whatever is written.
        let _ = writeln!(
            text,
            "add rule inet {table} answers {family} saddr {} {family} daddr {sources} tcp sport {} tcp \
             dport {low}-{high} drop",
            target.ip(),
            target.port()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_the_target_to_the_replicas_ports_are_dropped() {
        let own: IpAddr = [198, 18, 2, 10].into();
        let text = script(
            "t",
            &[Rule {
                target: "198.18.2.20:80".parse().unwrap(),
                sources: (own, own),
                ports: (1024, 2047),
            }],
        );
        assert!(text.contains("flags owner"));
        assert!(text.ends_with(
            "ip saddr 198.18.2.20 ip daddr 198.18.2.10 tcp sport 80 tcp dport 1024-2047 drop\n"
        ));
    }
}

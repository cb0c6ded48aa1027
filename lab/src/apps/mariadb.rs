//! A MariaDB server as Debian ships it, with a data directory of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::listening_within;
use crate::error::{Doing, Result};
use crate::host::Host;
use crate::process::Process;

/// How long it may take to make its data directory ready and to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running MariaDB that writes down every statement.
#[derive(Debug)]
pub struct MariaDb {
    host: Host,
    socket: PathBuf,
    log: PathBuf,
    process: Process,
}

/// What one session asked, in order: commands (`Connect`, `Query`, `Prepare`, `Execute`, ...) with their text.
pub type Asked = Vec<(String, String)>;

impl MariaDb {
    /// Makes a data directory, starts a server with these further options on a port of a host, and lets root run `setup`
    /// there.
    ///
    /// # Errors
    /// When mariadbd is not installed or does not start; its own message is in the host's `mariadb.log`.
    pub fn start(host: &Host, port: u16, options: &[&str], setup: &str) -> Result<Self> {
        let directory = host.file("mariadb");
        let data = directory.join("data");
        std::fs::create_dir_all(&data).doing(|| format!("making {}", directory.display()))?;
        let (socket, log) = (directory.join("s"), directory.join("general.log"));
        let at = |path: &PathBuf| path.display().to_string();
        let data_option = format!("--datadir={}", at(&data));
        // A server that starts throws away what it takes for temporary tables of its own.
        let temporary = format!("TMPDIR={}", at(&data));
        let install = [
            temporary.as_str(),
            "mariadb-install-db",
            "--no-defaults",
            &data_option,
            "--user=root",
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=normal",
        ];
        host.check("env", &install)?;
        let own = [
            data_option.clone(),
            format!("--socket={}", at(&socket)),
            format!("--pid-file={}", at(&directory.join("pid"))),
            format!("--tmpdir={}", at(&data)),
            format!("--general-log-file={}", at(&log)),
            format!("--port={port}"),
        ];
        let mut arguments = vec![
            "--no-defaults",
            "--user=root",
            "--general-log=1",
            "--bind-address=*",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=0",
            "--max-connections=500",
            "--back-log=1000",
        ];
        arguments.extend(own.iter().map(String::as_str));
        arguments.extend(options);
        let mut process = host.spawn("mariadbd", &arguments, &[], &host.file("mariadb.log"))?;
        listening_within(host, &mut process, port, PATIENCE)?;
        let this = Self {
            host: host.clone(),
            socket,
            log,
            process,
        };
        this.ask(setup)?;
        Ok(this)
    }

    /// What root gets for this, as lines of columns between tabs.
    ///
    /// # Errors
    /// When the client is not installed, or the server refuses it.
    pub fn ask(&self, statements: &str) -> Result<String> {
        let socket = format!("--socket={}", self.socket.display());
        let arguments = [
            "--no-defaults",
            &socket,
            "-u",
            "root",
            "-N",
            "-B",
            "-e",
            statements,
        ];
        self.host.check("mariadb", &arguments)
    }

    /// What each session of this user asked since the start, in the order in which the sessions began.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn asked_by(&self, user: &str) -> Result<Vec<Asked>> {
        let log = std::fs::read(&self.log).doing(|| format!("reading {}", self.log.display()))?;
        let sessions = sessions(&String::from_utf8_lossy(&log));
        let of_user = |asked: &Asked| {
            let connect = asked.first().filter(|(command, _)| command == "Connect");
            connect.is_some_and(|(_, who)| who.starts_with(&format!("{user}@")))
        };
        Ok(sessions.into_values().filter(of_user).collect())
    }

    /// The program.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.process.terminate(Duration::from_secs(10));
    }
}

/// The general log by the numbers of its connections. A line is a time or none, a tab, the number and the command, a tab, and
/// the text; what does not look so goes on with the text of the line before.
fn sessions(log: &str) -> BTreeMap<u64, Asked> {
    let mut sessions: BTreeMap<u64, Asked> = BTreeMap::new();
    let mut current = None;
    for line in log.lines() {
        if let Some((number, command, text)) = entry(line) {
            let asked = sessions.entry(number).or_default();
            asked.push((command.to_owned(), text.to_owned()));
            current = Some(number);
        } else if let Some((_, text)) = current
            .and_then(|number| sessions.get_mut(&number))
            .and_then(|asked| asked.last_mut())
        {
            text.push('\n');
            text.push_str(line);
        }
    }
    sessions
}

fn entry(line: &str) -> Option<(u64, &str, &str)> {
    const COMMANDS: [&str; 12] = [
        "Connect",
        "Query",
        "Prepare",
        "Execute",
        "Quit",
        "Init DB",
        "Close stmt",
        "Reset stmt",
        "Change user",
        "Field List",
        "Ping",
        "Statistics",
    ];
    let (_, rest) = line.split_once('\t')?;
    let (head, text) = rest
        .trim_start_matches('\t')
        .split_once('\t')
        .unwrap_or((rest, ""));
    let (number, command) = head.trim().split_once(' ')?;
    let number = number.parse().ok()?;
    COMMANDS
        .contains(&command)
        .then_some((number, command, text))
}

#[cfg(test)]
mod tests {
    use super::sessions;

    #[test]
    fn the_general_log_is_read_by_session() {
        let log = "mariadbd, Version: 10.11.19\nTime\t\t    Id Command\tArgument\n\
                   261128 21:01:02\t     3 Connect\tapp@198.18.1.1 on shop using TCP/IP\n\
                   \t\t     3 Query\tSELECT 1\n\t\t     4 Connect\troot@localhost on \n\
                   \t\t     3 Query\tSELECT\n2\n\t\t     3 Quit\t\n";
        let sessions = sessions(log);
        let texts: Vec<_> = sessions[&3]
            .iter()
            .map(|(command, text)| format!("{command}:{text}"))
            .collect();
        assert_eq!(
            texts,
            [
                "Connect:app@198.18.1.1 on shop using TCP/IP",
                "Query:SELECT 1",
                "Query:SELECT\n2",
                "Quit:"
            ]
        );
        assert_eq!(sessions.len(), 2);
    }
}

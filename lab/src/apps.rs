//! Real servers on hosts of a lab: nginx, redis and MariaDB as Debian ships them, each with a configuration of its own.

mod mariadb;

pub use mariadb::{Asked, MariaDb};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::host::Host;
use crate::process::Process;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running nginx with one worker, which answers `/` with a short page and `/upload` with "ok".
#[derive(Debug)]
pub struct Nginx {
    host: Host,
    port: u16,
    process: Process,
    /// How often it was asked for its count: each is a request, too.
    asked: AtomicU64,
}

impl Nginx {
    /// Starts it on a port of a host and waits until it listens.
    ///
    /// # Errors
    /// When nginx is not installed or does not start; its own message is in the host's `nginx.log`.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let page = format!("root {};", host.file("nginx").display());
        Self::start_with(host, port, &page)
    }

    /// The same before an application of the host, to which it passes all requests. JSON comes in chunks, since it is read
    /// for includes.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_before(host: &Host, port: u16, application: u16) -> Result<Self> {
        let pass = format!(
            "proxy_pass http://127.0.0.1:{application}; proxy_http_version 1.1; proxy_set_header Connection ''; \
             ssi on; ssi_types application/json;"
        );
        Self::start_with(host, port, &pass)
    }

    fn start_with(host: &Host, port: u16, location: &str) -> Result<Self> {
        let prefix = host.file("nginx");
        let failed = || format!("making {}", prefix.display());
        std::fs::create_dir_all(&prefix).doing(failed)?;
        std::fs::write(prefix.join("index.html"), "Millrace lab\n").doing(failed)?;
        // Its workers read the page as this user; a lab in a user namespace has no other.
        let config = format!(
            "user root;\nworker_processes 1;\ndaemon off;\npid nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 16384; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 100000000;\n  sendfile on;\n  tcp_nodelay on;\n\
             client_max_body_size 100m;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n\
             fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n\
             server {{\n    listen {port} backlog=65535;\n    listen [::]:{port} ipv6only=on backlog=65535;\n\
             location / {{ {location} }}\n    location = /status {{ stub_status; }}\n  }}\n}}\n"
        );
        let file = prefix.join("nginx.conf");
        std::fs::write(&file, config).doing(failed)?;
        let (prefix, file) = (prefix.display().to_string(), file.display().to_string());
        let arguments = ["-p", &prefix, "-c", &file, "-e", "stderr"];
        let mut process = host.spawn("nginx", &arguments, &[], &host.file("nginx.log"))?;
        listening(host, &mut process, port)?;
        Ok(Self {
            host: host.clone(),
            port,
            process,
            asked: AtomicU64::new(0),
        })
    }

    /// Requests it has answered, as it counts them itself (without those that ask for this number).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn requests(&self) -> Result<u64> {
        let (_, page) = self
            .host
            .get(([127, 0, 0, 1], self.port).into(), "/status")?;
        // ngx_http_stub_status_module: the third line holds accepts, handled and requests.
        let requests = page
            .lines()
            .nth(2)
            .and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        let own = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(requests.unwrap_or_default().saturating_sub(own))
    }

    /// The program; its workers are children of it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to end, it ends its workers; killed, it would leave them to the lab.
        let _ = self.process.terminate(Duration::from_secs(2));
    }
}

/// A running redis that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    host: Host,
    port: u16,
    password: String,
    process: Process,
}

impl Redis {
    /// Starts it on a port of a host and waits until it listens.
    ///
    /// # Errors
    /// When redis-server is not installed or does not start; its own message is in the host's `redis.log`.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        Self::start_with_password(host, port, "")
    }

    /// As [`Redis::start`], with a password that clients must give; an empty one is none.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start_with_password(host: &Host, port: u16, password: &str) -> Result<Self> {
        let directory = host.file("redis");
        std::fs::create_dir_all(&directory).doing(|| format!("making {}", directory.display()))?;
        let (port_text, directory) = (port.to_string(), directory.display().to_string());
        let arguments = [
            "--port",
            &port_text,
            "--dir",
            &directory,
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
            "--bind",
            "*",
            "-::*",
            "--tcp-backlog",
            "65535",
            "--daemonize",
            "no",
            "--requirepass",
            password,
        ];
        let mut process = host.spawn("redis-server", &arguments, &[], &host.file("redis.log"))?;
        listening(host, &mut process, port)?;
        Ok(Self {
            host: host.clone(),
            port,
            password: password.to_owned(),
            process,
        })
    }

    /// What redis-cli prints of a command on the server's own host.
    ///
    /// # Errors
    /// When redis-cli is not installed or redis does not answer.
    pub fn ask(&self, command: &[&str]) -> Result<String> {
        let port = self.port.to_string();
        let mut arguments = vec!["-p", &port, "--no-auth-warning"];
        if !self.password.is_empty() {
            arguments.extend(["-a", &self.password]);
        }
        arguments.extend(command);
        self.host.check("redis-cli", &arguments)
    }

    /// How often each command was called, most called first; the ones that ask for it (`info`) left out.
    ///
    /// # Errors
    /// When redis-cli is not installed or redis does not answer.
    pub fn commands(&self) -> Result<Vec<(String, u64)>> {
        let text = self.ask(&["info", "commandstats"])?;
        let mut commands: Vec<_> = text.lines().filter_map(command_calls).collect();
        commands.retain(|(name, _)| name != "info");
        commands.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        Ok(commands)
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Name and calls of a line `cmdstat_NAME:calls=N,usec=...`.
fn command_calls(line: &str) -> Option<(String, u64)> {
    let (name, values) = line.trim().strip_prefix("cmdstat_")?.split_once(':')?;
    let calls = values
        .split(',')
        .find_map(|value| value.strip_prefix("calls="))?;
    Some((name.to_owned(), calls.parse().ok()?))
}

fn listening(host: &Host, process: &mut Process, port: u16) -> Result<()> {
    listening_within(host, process, port, PATIENCE)
}

fn listening_within(
    host: &Host,
    process: &mut Process,
    port: u16,
    patience: Duration,
) -> Result<()> {
    host.wait_listening(&[port], patience).map_err(|error| {
        if process.is_running() {
            return error;
        }
        crate::Error::Command {
            command: process.label().to_owned(),
            status: "ended at once".to_owned(),
            message: process.log(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::command_calls;

    #[test]
    fn calls_are_read_from_a_line_of_commandstats() {
        let line =
            "cmdstat_set:calls=1200,usec=3,usec_per_call=0.01,rejected_calls=0,failed_calls=0\r";
        assert_eq!(command_calls(line), Some(("set".to_owned(), 1200)));
        assert_eq!(command_calls("# Commandstats"), None);
    }
}

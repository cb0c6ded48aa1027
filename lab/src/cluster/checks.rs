//! Health checks as a director makes them: a TCP connection to each server, once a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::host::Host;

/// Between two checks of a server (keepalived: delay_loop).
const PACE: Duration = Duration::from_secs(1);
/// How long a connection may take (keepalived: connect_timeout).
const PATIENCE: Duration = Duration::from_secs(3);

/// What the checks of one server amounted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The server.
    pub server: SocketAddr,
    /// Connections that were accepted.
    pub passed: u64,
    /// Those that were not, each with the time since the first check and what happened.
    pub failed: Vec<(Duration, String)>,
}

/// Checks that run until they are stopped.
#[derive(Debug)]
pub struct HealthChecks {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<Result<Checked>>>,
}

impl HealthChecks {
    /// Checks `servers` from `host`, each independently of the others.
    #[must_use]
    pub fn start(host: &Host, servers: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let running = servers
            .iter()
            .map(|server| {
                let (server, stop) = (*server, Arc::clone(&stop));
                host.start(move || check(server, stop))
            })
            .collect();
        Self { stop, running }
    }

    /// Ends them; what they saw, in the order of the servers.
    ///
    /// # Errors
    /// When a check could not be made at all.
    pub fn stop(self) -> Result<Vec<Checked>> {
        self.stop.store(true, Ordering::Relaxed);
        self.running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| Error::Unsupported("a health check panicked".to_owned()))?
            })
            .collect()
    }
}

async fn check(server: SocketAddr, stop: Arc<AtomicBool>) -> Checked {
    let start = Instant::now();
    let mut checked = Checked {
        server,
        passed: 0,
        failed: Vec::new(),
    };
    while !stop.load(Ordering::Relaxed) {
        let tried = start.elapsed();
        match timeout(PATIENCE, TcpStream::connect(server)).await {
            Ok(Ok(_)) => checked.passed += 1,
            Ok(Err(error)) => checked.failed.push((tried, error.to_string())),
            Err(_) => checked.failed.push((tried, "no answer".to_owned())),
        }
        tokio::time::sleep(PACE).await;
    }
    checked
}

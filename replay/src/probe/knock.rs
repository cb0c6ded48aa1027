//! A connection of this host's own kernel to a target whose answers to copies do not come: does it answer at all?

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_wire::Endpoint;
use rustix::net::sockopt::set_socket_linger;

use super::verdict::Knock;

/// How long the target is waited for: less than interceptors look for probes.
const PATIENCE: Duration = Duration::from_millis(800);

/// A question under way.
#[derive(Clone, Debug)]
pub(super) struct Knocking(Arc<OnceLock<Knock>>);

impl Knocking {
    /// Asks, on a thread of its own.
    pub(super) fn at(target: Endpoint) -> Self {
        let result = Arc::new(OnceLock::new());
        let its = result.clone();
        let ask = move || {
            // Another outcome says nothing of the target.
            if let Some(knock) = knock(target.into()) {
                let _ = its.set(knock);
            }
        };
        // Without a thread it stays unknown.
        drop(
            std::thread::Builder::new()
                .name("knock".to_owned())
                .spawn(ask),
        );
        Self(result)
    }

    /// What came of it, as far as is known.
    pub(super) fn result(&self) -> Option<Knock> {
        self.0.get().copied()
    }
}

/// Connects and resets: the tested application is not to wait for a request. `None` where the outcome says nothing of the
/// target.
pub fn knock(target: SocketAddr) -> Option<Knock> {
    match TcpStream::connect_timeout(&target, PATIENCE) {
        Ok(stream) => {
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
            Some(Knock::Taken)
        }
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Some(Knock::Refused),
            ErrorKind::TimedOut | ErrorKind::HostUnreachable => Some(Knock::Silent),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_and_a_closed_port_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        assert_eq!(knock(target), Some(Knock::Taken));
        drop(listener);
        assert_eq!(knock(target), Some(Knock::Refused));
    }
}

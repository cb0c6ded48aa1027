//! Which streams are open, and who takes over from whom.

use std::collections::HashMap;
use std::net::SocketAddr;

use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{Hello, Refused};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::hello::refused;
use super::{ConnectionStatus, HeaderQueue};
use millrace_routes::interceptor::ConnId;

#[derive(Debug)]
pub(super) struct Registry {
    max_streams: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    open: HashMap<ConnId, Open>,
}

/// One open stream.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) hello: Hello,
    pub(super) address: Option<SocketAddr>,
    pub(super) queue: HeaderQueue,
    /// Ends its reading.
    pub(super) cancel: CancellationToken,
    /// Cancelled once its `Detached` has been sent.
    pub(super) finished: CancellationToken,
}

impl Registry {
    pub(super) fn new(max_streams: usize) -> Self {
        Registry {
            max_streams,
            state: Mutex::default(),
        }
    }

    /// Registers a stream. Returns its number and the streams that it replaces, which stay
    /// registered until they are removed.
    pub(super) fn add(&self, new: Open) -> Result<(ConnId, Vec<Open>), Refused> {
        let mut state = self.state.lock();
        let mut replaced = Vec::new();
        for old in state.open.values() {
            if old.hello.copier_id != new.hello.copier_id {
                continue;
            }
            let same_run = old.hello.incarnation == new.hello.incarnation;
            if same_run && old.hello.link != new.hello.link {
                continue;
            }
            if !same_run && old.hello.started_at_ms > new.hello.started_at_ms {
                return Err(already_newer(old));
            }
            replaced.push(old.clone());
        }
        if state.open.len() >= self.max_streams + replaced.len() {
            return Err(refused(
                Code::Overloaded,
                format!("{} copier links are attached already", self.max_streams),
            ));
        }
        state.last += 1;
        let conn = ConnId(state.last);
        state.open.insert(conn, new);
        Ok((conn, replaced))
    }

    pub(super) fn remove(&self, conn: ConnId) {
        self.state.lock().open.remove(&conn);
    }

    pub(super) fn refuse_all(&self, refused: &Refused) {
        for open in self.state.lock().open.values() {
            open.queue.refuse_with(refused.clone());
        }
    }

    /// Whether response headers wait on any of them.
    pub(super) fn has_queued(&self) -> bool {
        let state = self.state.lock();
        let mut queues = state.open.values().map(|open| &open.queue);
        queues.any(|queue| queue.status().queued_bytes > 0)
    }

    pub(super) fn connections(&self) -> Vec<ConnectionStatus> {
        let state = self.state.lock();
        let mut list: Vec<_> = state
            .open
            .iter()
            .map(|(conn, open)| ConnectionStatus {
                conn: *conn,
                copier_id: open.hello.copier_id.clone(),
                link: open.hello.link,
                links: open.hello.links,
                claims: open.hello.claims,
                address: open.address,
                queue: open.queue.status(),
            })
            .collect();
        list.sort_by_key(|it| it.conn);
        list
    }
}

fn already_newer(old: &Open) -> Refused {
    let place = old.address.map_or_else(
        || "elsewhere".to_owned(),
        |address| format!("at {}", address.ip()),
    );
    let mut refused = refused(
        Code::Replaced,
        format!(
            "copier '{}' runs {place} and was started later than this one: stop one of them, or \
             give them different names",
            old.hello.copier_id
        ),
    );
    refused.owner.clone_from(&old.hello.copier_id);
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: &str, incarnation: u64, started_at_ms: u64, link: u32) -> Open {
        Open {
            hello: Hello {
                protocol_version: 1,
                copier_id: id.to_owned(),
                incarnation,
                started_at_ms,
                link,
                links: 4,
                claims: false,
            },
            address: None,
            queue: HeaderQueue::new(1000),
            cancel: CancellationToken::new(),
            finished: CancellationToken::new(),
        }
    }

    #[test]
    fn links_of_one_run_live_side_by_side_and_the_newest_of_a_number_wins() {
        let registry = Registry::new(10);
        assert!(registry.add(open("a", 1, 5, 0)).unwrap().1.is_empty());
        assert!(registry.add(open("a", 1, 5, 1)).unwrap().1.is_empty());
        assert!(registry.add(open("b", 1, 5, 0)).unwrap().1.is_empty());
        let (_, replaced) = registry.add(open("a", 1, 5, 1)).unwrap();
        assert_eq!(
            replaced.iter().map(|it| it.hello.link).collect::<Vec<_>>(),
            [1]
        );
    }

    #[test]
    fn a_later_run_replaces_all_links_and_an_earlier_one_is_refused() {
        let registry = Registry::new(10);
        registry.add(open("a", 1, 5, 0)).unwrap();
        registry.add(open("a", 1, 5, 1)).unwrap();
        let (_, replaced) = registry.add(open("a", 2, 6, 0)).unwrap();
        assert_eq!(replaced.len(), 2);
        let error = registry.add(open("a", 1, 5, 0)).unwrap_err();
        assert_eq!((error.code(), error.owner.as_str()), (Code::Replaced, "a"));
    }

    #[test]
    fn beyond_the_limit_is_refused_unless_it_replaces() {
        let registry = Registry::new(2);
        let (first, _) = registry.add(open("a", 1, 5, 0)).unwrap();
        registry.add(open("b", 1, 5, 0)).unwrap();
        assert_eq!(
            registry.add(open("c", 1, 5, 0)).unwrap_err().code(),
            Code::Overloaded
        );
        assert_eq!(registry.add(open("b", 1, 5, 0)).unwrap().1.len(), 1);
        registry.remove(first);
        assert_eq!(registry.connections().len(), 2);
    }
}

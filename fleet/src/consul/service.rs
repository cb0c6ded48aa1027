//! The members of a service, followed by blocking queries for as long as somebody wants to know.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_channel::tls::Role;
use millrace_daemon::blocking::block_on;
use millrace_daemon::incarnation::random_u64;
use millrace_notation::address::HostPort;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::client::{Client, Failure, Request};
use super::cursor::Cursor;
use super::members::{Member, members, service_name};
use crate::directory::{Directory, Listing};
use crate::memory::Memory;
use crate::peers::Cluster;

/// How long Consul holds an answer back while nothing changes. It adds up to a sixteenth by itself.
const WAIT: &str = "120s";
const PATIENCE: Duration = Duration::from_secs(140);
/// What a server that answers by itself may not know yet.
const STALE: Duration = Duration::from_secs(10);

/// The members of a service as they are known.
#[derive(Debug)]
struct State {
    /// Those to talk to; none: never known.
    peers: Option<Vec<HostPort>>,
    doubt: Option<String>,
    /// When Consul's last answer came, or was still waited for.
    heard: Option<Instant>,
}

/// The members of one service.
#[derive(Debug)]
pub struct Service {
    name: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// A service as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ServiceStatus {
    /// Its name in Consul.
    pub service: String,
    /// Those to talk to, as far as is known.
    pub peers: Vec<String>,
    /// Seconds since Consul's last word; none: it has said nothing since the start.
    pub heard_seconds: Option<u64>,
    /// Why the list may be out of date; empty: it is not.
    pub doubt: String,
}

impl Service {
    /// Follows the daemons of a role in a cluster. The last known ones, which a directory keeps, are taken for true until
    /// Consul has answered.
    pub fn follow(
        client: Client,
        role: Role,
        cluster: &Cluster,
        directory: &Path,
        runtime: &Handle,
    ) -> Self {
        let name = service_name(role, cluster);
        let memory = Memory::new(directory, &name);
        let kept = memory.read().unwrap_or_else(|error| {
            tracing::warn!(
                "{}: {error}; nothing is known until Consul answers",
                memory.path().display()
            );
            Vec::new()
        });
        let doubt = match kept.len() {
            0 => "Consul has not answered yet".to_owned(),
            _ => "Consul has not answered yet: those of the last run are taken".to_owned(),
        };
        let state = Arc::new(Mutex::new(State {
            peers: (!kept.is_empty()).then_some(kept),
            doubt: Some(doubt),
            heard: None,
        }));
        let follower = Follower {
            client,
            role,
            cluster: cluster.clone(),
            name: name.clone(),
            memory,
            state: state.clone(),
        };
        Self {
            name,
            state,
            task: runtime.spawn(follower.run()),
        }
    }

    /// As an operator sees it.
    pub fn status(&self) -> ServiceStatus {
        let state = self.state.lock();
        ServiceStatus {
            service: self.name.clone(),
            peers: state
                .peers
                .iter()
                .flatten()
                .map(ToString::to_string)
                .collect(),
            heard_seconds: state.heard.map(|heard| heard.elapsed().as_secs()),
            doubt: state.doubt.clone().unwrap_or_default(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Directory for Service {
    fn listing(&self) -> Listing {
        let state = self.state.lock();
        Listing {
            peers: state.peers.clone().unwrap_or_default(),
            complete: state.peers.is_some(),
            doubt: state.doubt.clone(),
        }
    }
}

/// Who is listed now, asked once.
///
/// # Errors
/// One line: Consul does not answer, or lists nobody who is well.
pub fn look_up(client: &Client, role: Role, cluster: &Cluster) -> Result<Vec<HostPort>, String> {
    let name = service_name(role, cluster);
    let question = Request::get(&["health", "service", &name]);
    let asked = client.send(question.patience(Duration::from_millis(1500)));
    let answer = block_on(asked).map_err(|error| error.to_string())?;
    let answer = answer.map_err(|failure| failure.to_string())?;
    let (listed, _) = members(&answer.body)?;
    judge(None, &listed).ok_or_else(|| nobody(role, cluster))
}

fn nobody(role: Role, cluster: &Cluster) -> String {
    format!(
        "Consul lists no {role} of cluster {cluster} that is well: start one with --cluster {cluster}, and let this \
         side's token read service {}",
        service_name(role, cluster)
    )
}

struct Follower {
    client: Client,
    role: Role,
    cluster: Cluster,
    name: String,
    memory: Memory,
    state: Arc<Mutex<State>>,
}

impl Follower {
    async fn run(self) {
        let mut cursor = Cursor::default();
        loop {
            let asked = Instant::now();
            let pause = match self.ask(&cursor).await {
                Ok((index, listed)) => {
                    self.take(listed);
                    cursor.answered(index, asked.elapsed())
                }
                Err(failure) => {
                    self.doubt(failure.to_string());
                    cursor.failed(random_u64() as f64 / u64::MAX as f64)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&self, cursor: &Cursor) -> Result<(Option<u64>, Vec<Member>), Failure> {
        let question = || {
            let question = Request::get(&["health", "service", &self.name]).patience(PATIENCE);
            match cursor.index() {
                Some(index) => {
                    let index = index.to_string();
                    let question = question.with("index", Some(&index));
                    question.with("wait", Some(WAIT))
                }
                None => question.patience(Duration::from_secs(10)),
            }
        };
        // Any server may answer, which spares the leader, unless it has lost touch with that.
        let mut answer = self.client.send(question().with("stale", None)).await?;
        if !answer.leader || answer.last_contact > STALE {
            answer = self.client.send(question()).await?;
        }
        let (listed, wrong) = members(&answer.body).map_err(Failure::Unreadable)?;
        for why in wrong {
            tracing::warn!("{}: Consul lists what is no address: {why}", self.name);
        }
        Ok((answer.index, listed))
    }

    fn take(&self, listed: Vec<Member>) {
        let mut state = self.state.lock();
        state.heard = Some(Instant::now());
        let Some(peers) = judge(state.peers.as_deref(), &listed) else {
            drop(state);
            self.doubt(nobody(self.role, &self.cluster));
            return;
        };
        if state.doubt.take().is_some() || state.peers.as_ref() != Some(&peers) {
            let shown: Vec<String> = peers.iter().map(ToString::to_string).collect();
            tracing::info!(
                "{}s of cluster {} in Consul: {}",
                self.role,
                self.cluster,
                shown.join(", ")
            );
            self.keep(&peers);
        }
        state.peers = Some(peers);
    }

    fn keep(&self, peers: &[HostPort]) {
        if let Err(error) = self.memory.keep(peers) {
            tracing::warn!(
                "cannot write {}: {error}; a start without Consul will not know these peers",
                self.memory.path().display()
            );
        }
    }

    /// Notes why the list may be out of date. The log has each reason once.
    fn doubt(&self, why: String) {
        let mut state = self.state.lock();
        if state.doubt.as_ref() == Some(&why) {
            return;
        }
        match &state.peers {
            Some(_) => tracing::warn!("{why}; the last known {}s stay", self.role),
            None => tracing::warn!("{why}"),
        }
        state.doubt = Some(why);
    }
}

/// Who is there by a list. None: nobody is well, or nobody is seen. A token that was revoked, a Consul without its state,
/// and an empty cluster look the same: that is never a reason to let go of those that are known.
fn judge(known: Option<&[HostPort]>, listed: &[Member]) -> Option<Vec<HostPort>> {
    let up: Vec<HostPort> = listed
        .iter()
        .filter(|it| it.up)
        .map(|it| it.address.clone())
        .collect();
    if up.is_empty() {
        return None;
    }
    // In the order in which they came to be known: what follows from a list does not change with Consul's order.
    let mut peers: Vec<HostPort> = known
        .unwrap_or_default()
        .iter()
        .filter(|it| up.contains(it))
        .cloned()
        .collect();
    peers.extend(
        up.into_iter()
            .filter(|it| !known.unwrap_or_default().contains(it)),
    );
    Some(peers)
}

#[cfg(test)]
mod tests {
    use millrace_notation::address::DefaultPort;

    use super::*;

    fn peers(text: &str) -> Vec<HostPort> {
        DefaultPort(1).parse_list(text).unwrap()
    }

    fn listed(text: &str, up: bool) -> Vec<Member> {
        let member = |address| Member { address, up };
        peers(text).into_iter().map(member).collect()
    }

    #[test]
    fn an_empty_list_never_means_that_all_have_left() {
        let known = peers("rs1,rs2");
        assert_eq!(judge(Some(&known), &[]), None);
        assert_eq!(judge(Some(&known), &listed("rs1,rs2", false)), None);
        assert_eq!(judge(None, &[]), None);
    }

    #[test]
    fn who_is_not_well_is_left_out_and_who_is_new_comes_last() {
        let known = peers("rs1,rs2");
        let mut list = listed("rs0,rs2", true);
        list.extend(listed("rs1", false));
        assert_eq!(judge(Some(&known), &list), Some(peers("rs2,rs0")));
        let all = listed("rs2,rs1", true);
        assert_eq!(judge(Some(&known), &all), Some(known.clone()));
        assert_eq!(judge(None, &all), Some(peers("rs2,rs1")));
    }
}

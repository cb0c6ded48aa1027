//! How a daemon registers in Consul: a service with a check that it renews itself, registered again wherever Consul has
//! forgotten it, and taken out when the daemon ends.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use millrace_channel::tls::Role;
use millrace_daemon::status::{Headline, State};
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::client::{Client, Failure, Request};
use super::members::service_name;
use crate::peers::Cluster;

/// Without a word for so long the daemon counts as gone.
const TTL: Duration = Duration::from_secs(15);
/// A third of it: two words may be lost.
const RENEW: Duration = Duration::from_secs(5);
/// Consul takes a service out by itself whose check has been critical for so long.
const FORGET: &str = "30m";
/// Bound of leaving: the daemon ends in any case.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the daemon is.
    pub role: Role,
    /// Where it belongs.
    pub cluster: Cluster,
    /// Its name (`--id`).
    pub id: String,
    /// Where its peers connect to, as bound.
    pub bound: SocketAddr,
    /// The address to register in place of that.
    pub advertise: Option<IpAddr>,
    /// What is registered besides, by name.
    pub details: Vec<(&'static str, String)>,
}

/// A registration as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RegistrarStatus {
    /// The service's name in Consul.
    pub service: String,
    /// Whether Consul has taken the last word.
    pub registered: bool,
    /// Why not; empty: it has.
    pub trouble: String,
}

/// Keeps a daemon registered.
#[derive(Debug)]
pub struct Registrar {
    client: Client,
    /// Of the service and of its check.
    id: String,
    status: Arc<Mutex<RegistrarStatus>>,
    task: JoinHandle<()>,
}

/// How the daemon stands.
type Told = Box<dyn Fn() -> Headline + Send + Sync>;

impl Registrar {
    /// Registers, and renews the check with how the daemon stands.
    pub fn start(
        client: Client,
        registration: &Registration,
        told: impl Fn() -> Headline + Send + Sync + 'static,
        runtime: &Handle,
    ) -> Self {
        let service = service_name(registration.role, &registration.cluster);
        let address = registration.address(&client);
        // Where one agent serves several hosts, these may have the same name.
        let id = format!(
            "{service}:{}:{address}:{}",
            registration.id,
            registration.bound.port()
        );
        let status = Arc::new(Mutex::new(RegistrarStatus {
            service,
            trouble: "not registered yet".to_owned(),
            ..RegistrarStatus::default()
        }));
        let keeper = Keeper {
            client: client.clone(),
            body: registration.body(&id, &address).to_string(),
            id: id.clone(),
            told: Box::new(told),
            status: status.clone(),
        };
        Self {
            client,
            id,
            status,
            task: runtime.spawn(keeper.run()),
        }
    }

    /// As an operator sees it.
    pub fn status(&self) -> RegistrarStatus {
        self.status.lock().clone()
    }

    /// Takes the daemon out of Consul, so that nobody is sent to it any more. Takes 2 s at most.
    pub async fn leave(&self) {
        self.task.abort();
        let request =
            Request::put(&["agent", "service", "deregister", &self.id]).patience(FAREWELL);
        if let Err(failure) = self.client.send(request).await {
            tracing::warn!(
                "not taken out of Consul: {failure}; its check becomes critical within {TTL:?}"
            );
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    client: Client,
    id: String,
    /// The registration.
    body: String,
    told: Told,
    status: Arc<Mutex<RegistrarStatus>>,
}

impl Keeper {
    async fn run(self) {
        let mut known = false;
        loop {
            let said = self.say(known).await;
            known = said.is_ok();
            self.note(said);
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Renews the check; what Consul does not know (any more) is registered first.
    async fn say(&self, known: bool) -> Result<(), Failure> {
        if known {
            match self.renew().await {
                // An agent that was started anew, or somebody has taken the service out.
                Err(Failure::Status(..)) => {}
                said => return said,
            }
        }
        self.register().await?;
        self.renew().await
    }

    async fn register(&self) -> Result<(), Failure> {
        let request = Request::put(&["agent", "service", "register"]);
        let request = request.with("replace-existing-checks", Some("true"));
        let request = request.body(self.body.clone());
        self.client.send(request).await.map(drop)
    }

    async fn renew(&self) -> Result<(), Failure> {
        let headline = (self.told)();
        let status = match headline.state {
            State::Working | State::Idle => "passing",
            State::NotWorking => "warning",
        };
        let body = json!({ "Status": status, "Output": headline.sentence });
        let request = Request::put(&["agent", "check", "update", &self.id]);
        self.client
            .send(request.body(body.to_string()))
            .await
            .map(drop)
    }

    fn note(&self, said: Result<(), Failure>) {
        let mut status = self.status.lock();
        match said {
            Ok(()) if status.registered => {}
            Ok(()) => {
                tracing::info!("registered in Consul as {}", self.id);
                status.registered = true;
                status.trouble.clear();
            }
            Err(failure) => {
                let why = failure.to_string();
                if status.trouble != why {
                    tracing::warn!("not registered in Consul: {why}; tried again every {RENEW:?}");
                }
                status.registered = false;
                status.trouble = why;
            }
        }
    }
}

impl Registration {
    /// The address to register; empty: that of the Consul agent's node.
    fn address(&self, client: &Client) -> String {
        let bound = (!self.bound.ip().is_unspecified()).then_some(self.bound.ip());
        let own = self.advertise.or(bound).or_else(|| address_towards(client));
        own.map(|it| it.to_string()).unwrap_or_default()
    }

    fn body(&self, id: &str, address: &str) -> serde_json::Value {
        let mut meta = json!({
            "cluster": self.cluster.as_str(),
            "id": self.id,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(meta) = meta.as_object_mut() {
            let details = self.details.iter();
            meta.extend(details.map(|(name, value)| ((*name).to_owned(), json!(value))));
        }
        json!({
            "ID": id,
            "Name": service_name(self.role, &self.cluster),
            "Address": address,
            "Port": self.bound.port(),
            "Tags": ["millrace"],
            "Meta": meta,
            "Check": {
                "CheckID": id,
                "Name": format!("what the {} says of itself", self.role),
                "TTL": format!("{}s", TTL.as_secs()),
                "DeregisterCriticalServiceAfter": FORGET,
            },
        })
    }
}

/// This host's address on the way to a Consul agent of another host; none: the agent is this host's own, and knows
/// the address of its node.
fn address_towards(client: &Client) -> Option<IpAddr> {
    let authority = &client.settings().authority;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let consul: IpAddr = host.parse().ok().filter(|it: &IpAddr| !it.is_loopback())?;
    let any = match consul {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).ok()?;
    // Nothing is sent: the kernel looks up its route.
    socket.connect((consul, 8500)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_says_who_where_and_for_how_long() {
        let registration = Registration {
            role: Role::Interceptor,
            cluster: "web".parse().unwrap(),
            id: "rs1".to_owned(),
            bound: "[::]:36524".parse().unwrap(),
            advertise: None,
            details: vec![("share", "1 of 2".to_owned())],
        };
        let body = registration.body("x:rs1:36524", "198.18.2.21");
        assert_eq!(body["Name"], "millrace-interceptor-web");
        assert_eq!(
            (&body["ID"], &body["Port"]),
            (&json!("x:rs1:36524"), &json!(36_524))
        );
        assert_eq!(
            (&body["Address"], &body["Check"]["TTL"]),
            (&json!("198.18.2.21"), &json!("15s"))
        );
        assert_eq!(
            (&body["Meta"]["cluster"], &body["Meta"]["id"]),
            (&json!("web"), &json!("rs1"))
        );
        assert_eq!(body["Meta"]["share"], "1 of 2");
    }
}

//! This copier as one of its cluster: what it says of itself in Consul, and who the others are.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use millrace_channel::tls::Role;
use millrace_daemon::status::Headline;
use millrace_engine::Share;
use millrace_fleet::consul::{Client, Enrolled, Registrar, RegistrarStatus, Registration, roll};
use millrace_fleet::peers::Cluster;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;

/// The others are asked for so often.
const LOOK: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(4);

/// A cluster as one of its copiers sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterStatus {
    /// Its name.
    pub cluster: String,
    /// How this copier is registered.
    pub registration: RegistrarStatus,
    /// All copiers, this one among them, as Consul knew them last.
    pub copiers: Vec<Enrolled>,
    /// Why that list may be out of date; empty: it is not.
    pub doubt: String,
}

/// This copier's part in a cluster.
#[derive(Debug)]
pub struct Membership {
    cluster: Cluster,
    registrar: Registrar,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    copiers: Vec<Enrolled>,
    doubt: String,
}

/// Who this copier is.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its name.
    pub id: &'a str,
    /// Its share of the sources.
    pub share: Option<Share>,
    /// Its admin port.
    pub admin: SocketAddr,
}

impl Membership {
    /// Takes part. `told`: how this copier stands, for the others to read.
    pub fn begin(
        client: &Client,
        cluster: &Cluster,
        member: &Member<'_>,
        told: impl Fn() -> Headline + Send + Sync + 'static,
        runtime: &Handle,
    ) -> Self {
        // An admin port that nobody else reaches is no address.
        let bound = match member.admin.ip().is_loopback() {
            true => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            false => member.admin,
        };
        let share = member.share;
        let registration = Registration {
            role: Role::Copier,
            cluster: cluster.clone(),
            id: member.id.to_owned(),
            bound,
            advertise: None,
            details: vec![(
                "share",
                match share {
                    Some(share) => format!("{} of {}", share.index(), share.of()),
                    None => "what the others leave".to_owned(),
                },
            )],
        };
        let registrar = Registrar::start(client.clone(), &registration, told, runtime);
        let known = Arc::<Mutex<Known>>::default();
        runtime.spawn(follow(client.clone(), cluster.clone(), known.clone()));
        Self {
            cluster: cluster.clone(),
            registrar,
            known,
        }
    }

    /// As an operator sees it.
    pub fn status(&self) -> ClusterStatus {
        let known = self.known.lock();
        ClusterStatus {
            cluster: self.cluster.as_str().to_owned(),
            registration: self.registrar.status(),
            copiers: known.copiers.clone(),
            doubt: known.doubt.clone(),
        }
    }

    /// Takes this copier out of Consul. Takes 2 s at most.
    pub async fn leave(&self) {
        self.registrar.leave().await;
    }
}

async fn follow(client: Client, cluster: Cluster, known: Arc<Mutex<Known>>) {
    loop {
        let listed = roll(&client, &cluster, PATIENCE).await;
        {
            let mut known = known.lock();
            match listed {
                Ok(copiers) => {
                    known.copiers = copiers;
                    known.doubt.clear();
                }
                Err(failure) => known.doubt = failure.to_string(),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

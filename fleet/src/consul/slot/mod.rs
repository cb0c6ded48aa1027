//! A numbered slot that is this process's alone, under a session lock
//! (<https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions>).
//!
//! Consul ends a session between one and two TTLs after its last renewal, and keeps its locks back for the lock delay
//! after that. So whoever believes in its lock for one TTL after it *asked* for the last renewal that was granted has
//! stopped before anybody else can have it: no clock but its own is needed.

mod holding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millrace_daemon::blocking::block_on;
use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::random_u64;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::holding::{Ask, Came, Holding};
use super::client::{Client, Failure, Request};

/// What a session lives without a renewal, at least. 10 s is the least that Consul takes.
const TTL: Duration = Duration::from_secs(15);
/// What a lock is kept back after its session has ended: longer than the TTL, since a session that somebody destroys may have
/// been renewed a moment before, and what was sent then is on its way for a while.
const LOCK_DELAY: Duration = Duration::from_secs(20);
/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no slot was had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    /// Consul does not answer, or denies it. It may be tried again.
    #[error(transparent)]
    Consul(#[from] Failure),
    /// All are taken.
    #[error("all {0} are taken")]
    Full(u16),
}

/// How long a slot is one's own.
#[derive(Debug, Default)]
struct Validity {
    /// Milliseconds of [`BootTime`].
    until: AtomicU64,
    lost: AtomicBool,
}

/// A slot, as long as it is one's own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    index: u16,
    validity: Arc<Validity>,
    trouble: Arc<Mutex<String>>,
}

impl Lease {
    fn new(index: u16, holding: &Holding) -> Self {
        let lease = Self {
            index,
            validity: Arc::default(),
            trouble: Arc::default(),
        };
        lease.set(holding);
        lease
    }

    fn set(&self, holding: &Holding) {
        let until = holding.until().ms();
        self.validity.until.store(until, Ordering::Relaxed);
        self.validity
            .lost
            .store(holding.is_lost(), Ordering::Relaxed);
    }

    /// The slot's number.
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// Whether nobody else can have it at this moment.
    pub fn is_valid(&self, now: BootTime) -> bool {
        now.ms() < self.validity.until.load(Ordering::Relaxed)
    }

    /// Whether somebody else has it: it will not be valid again.
    pub fn is_lost(&self) -> bool {
        self.validity.lost.load(Ordering::Relaxed)
    }

    /// Why it is not, or may soon not be, one's own any more; empty: it is.
    pub fn trouble(&self) -> String {
        self.trouble.lock().clone()
    }
}

/// A slot that was taken. It is kept once [`Slot::keep`] is called.
#[derive(Debug)]
pub struct Slot {
    client: Client,
    key: String,
    owner: String,
    session: String,
    holding: Holding,
    lease: Lease,
}

/// A slot that is kept until it is given back, or the process ends.
#[derive(Debug)]
pub struct Kept {
    client: Client,
    key: String,
    session: Arc<Mutex<String>>,
    lease: Lease,
    task: JoinHandle<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    session: String,
}

impl Slot {
    /// Takes one of `of` slots below a prefix of the key-value store. Blocks until Consul has answered.
    ///
    /// # Errors
    /// Why none was had.
    pub fn take(client: &Client, prefix: &str, of: u16, owner: &str) -> Result<Self, NoSlot> {
        let taken = block_on(async {
            let asked = BootTime::now();
            let session = create(client, owner).await?;
            let first = u16::try_from(random_u64() % u64::from(of.max(1))).unwrap_or(0);
            // From a random place: many that start at once meet less often.
            for index in (first..of).chain(0..first) {
                let key = format!("{prefix}{index}");
                if acquire(client, &key, &session, owner).await? {
                    let holding = Holding::new(asked);
                    return Ok(Self {
                        client: client.clone(),
                        key,
                        owner: owner.to_owned(),
                        session,
                        lease: Lease::new(index, &holding),
                        holding,
                    });
                }
            }
            // Nobody waits for a session without a lock.
            drop(destroy(client, &session).await);
            Err(NoSlot::Full(of))
        });
        taken.map_err(|error| Failure::Unreachable(error.to_string()))?
    }

    /// The slot's number.
    pub const fn index(&self) -> u16 {
        self.lease.index
    }

    /// Keeps it from now on.
    pub fn keep(self, runtime: &Handle) -> Kept {
        let session = Arc::new(Mutex::new(self.session));
        let keeper = Keeper {
            client: self.client.clone(),
            key: self.key.clone(),
            owner: self.owner,
            session: session.clone(),
            holding: self.holding,
            lease: self.lease.clone(),
        };
        Kept {
            client: self.client,
            key: self.key,
            session,
            lease: self.lease,
            task: runtime.spawn(keeper.run()),
        }
    }
}

impl Kept {
    /// How long it is one's own.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Gives it back: another one may have it at once.
    pub async fn give_back(self) {
        self.task.abort();
        self.lease.validity.until.store(0, Ordering::Relaxed);
        let session = self.session.lock().clone();
        let path = ["kv", &self.key];
        let release = Request::put(&path).with("release", Some(&session));
        // Otherwise it is free after the TTL and the lock delay.
        drop(self.client.send(release.patience(PATIENCE)).await);
        drop(destroy(&self.client, &session).await);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    client: Client,
    key: String,
    owner: String,
    session: Arc<Mutex<String>>,
    holding: Holding,
    lease: Lease,
}

impl Keeper {
    async fn run(mut self) {
        while let Some(ask) = self.holding.next() {
            let asked = BootTime::now();
            let came = match ask {
                Ask::Renew => self.renew().await,
                Ask::Regain => self.regain().await,
            };
            self.say(match &came {
                Ok(Came::Granted) => "".to_owned(),
                Ok(Came::Taken) => "another copier has it".to_owned(),
                Ok(Came::Ended | Came::KeptBack | Came::Nothing) => {
                    "Consul has ended its session, and keeps it back for the lock delay".to_owned()
                }
                Err(failure) => failure.to_string(),
            });
            let pause = self.holding.came(asked, came.unwrap_or(Came::Nothing));
            self.lease.set(&self.holding);
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self) -> Result<Came, Failure> {
        let session = self.session.lock().clone();
        let renew = Request::put(&["session", "renew", &session]).patience(PATIENCE);
        match self.client.send(renew).await {
            Ok(_) => Ok(Came::Granted),
            Err(Failure::Status(404, _)) => Ok(Came::Ended),
            Err(failure) => Err(failure),
        }
    }

    async fn regain(&self) -> Result<Came, Failure> {
        let session = create(&self.client, &self.owner).await?;
        let acquired = acquire(&self.client, &self.key, &session, &self.owner).await;
        if let Ok(true) = acquired {
            *self.session.lock() = session;
            return Ok(Came::Granted);
        }
        drop(destroy(&self.client, &session).await);
        acquired?;
        let answer = self.client.send(Request::get(&["kv", &self.key])).await;
        let entries: Vec<Entry> = match answer {
            Ok(answer) => serde_json::from_slice(&answer.body)
                .map_err(|error| Failure::Unreadable(error.to_string()))?,
            Err(Failure::Status(404, _)) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let taken = entries.iter().any(|entry| !entry.session.is_empty());
        Ok(if taken { Came::Taken } else { Came::KeptBack })
    }

    fn say(&self, trouble: String) {
        let mut said = self.lease.trouble.lock();
        if *said == trouble {
            return;
        }
        let index = self.lease.index;
        match trouble.as_str() {
            "" => tracing::info!("share {index} is confirmed by Consul again"),
            why => tracing::warn!("share {index} is not confirmed by Consul: {why}"),
        }
        *said = trouble;
    }
}

async fn create(client: &Client, owner: &str) -> Result<String, Failure> {
    let body = json!({
        "Name": owner,
        "TTL": format!("{}s", TTL.as_secs()),
        "LockDelay": format!("{}s", LOCK_DELAY.as_secs()),
        "Behavior": "release",
        // Not serfHealth, whose flaps would take slots away.
        "NodeChecks": [],
        "Checks": [],
    });
    let request = Request::put(&["session", "create"]).patience(PATIENCE);
    let answer = client.send(request.body(body.to_string())).await?;
    let created: Created = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::Unreadable(error.to_string()))?;
    Ok(created.id)
}

async fn destroy(client: &Client, session: &str) -> Result<(), Failure> {
    let request = Request::put(&["session", "destroy", session]).patience(PATIENCE);
    client.send(request).await.map(drop)
}

async fn acquire(client: &Client, key: &str, session: &str, owner: &str) -> Result<bool, Failure> {
    let request = Request::put(&["kv", key]).with("acquire", Some(session));
    let request = request.body(json!({ "owner": owner }).to_string());
    let answer = client.send(request.patience(PATIENCE)).await?;
    super::yes_or_no(&answer)
}

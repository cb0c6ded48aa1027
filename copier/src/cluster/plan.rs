//! The cluster's plan in Consul (`--follow-plan`): read twice a second, and believed for a moment only, so that a stop
//! reaches also a copier that has lost Consul.
//!
//! What it says is for `millrace_pilot` to read; this is when it is asked for, how long it is believed, and what this
//! copier writes there.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::random_u64;
use millrace_fleet::consul::{Client, Failure, Record};
use millrace_fleet::peers::Cluster;
use millrace_pilot::{Driver, Entry, FleetPlan, Note, Signed};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// It is asked for so often.
const LOOK: Duration = Duration::from_millis(500);
/// For so long after it was asked for an answer is believed. With the time that the shard takes to notice, a stop is done
/// everywhere within 2 s.
const LEASE: Duration = Duration::from_millis(1500);
/// Two answers that are late fit in there.
const PATIENCE: Duration = Duration::from_millis(400);
/// What the pilot has noted is of use for so long: later it may hang.
const NOTED: Duration = Duration::from_secs(1);
/// After a failure it is asked for again so soon.
const RETRY: Duration = Duration::from_millis(100);

/// Where the plan of a cluster is kept.
pub fn record(client: Client, cluster: &Cluster) -> Record {
    Record::new(client, cluster.key("plan"))
}

/// The plan that is followed, if one is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterPlan(Option<Arc<Followed>>);

#[derive(Debug)]
struct Followed {
    record: Record,
    /// How an operator begins a command for it.
    command: String,
    /// Who this copier is there.
    name: String,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// None: there is none.
    plan: Option<Arc<FleetPlan>>,
    /// Its version in Consul.
    version: Option<u64>,
    /// It is believed before this moment.
    until: BootTime,
    driver: Driver,
    /// What the pilot has noted last, and when.
    note: Note,
    noted_at: BootTime,
    /// Why it is not, or may soon not be, known any more.
    trouble: String,
    /// Why this copier cannot write there.
    mute: String,
}

/// Seconds since 1970, by this host's clock.
pub(crate) fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn elapsed(at: BootTime) -> Duration {
    at.since(BootTime::default())
}

impl ClusterPlan {
    /// Follows the plan of a cluster, as the copier of a name.
    pub fn follow(client: &Client, cluster: &Cluster, name: String, runtime: &Handle) -> Self {
        let followed = Arc::new(Followed {
            record: record(client.clone(), cluster),
            command: format!(
                "millrace-copier ctl --consul {} --cluster {cluster}",
                client.settings()
            ),
            name,
            seen: Mutex::new(Seen {
                trouble: "Consul has not answered yet".to_owned(),
                ..Seen::default()
            }),
        });
        runtime.spawn(followed.clone().run());
        Self(Some(followed))
    }

    /// The plan as it is known, and how old what is known is.
    pub fn now(&self) -> Option<(Arc<FleetPlan>, Duration)> {
        let seen = self.0.as_ref()?.seen.lock();
        let age = seen.driver.age(elapsed(BootTime::now()));
        Some((seen.plan.clone()?, age))
    }

    /// Takes what the plan is to know of this copier.
    pub fn note(&self, note: Note) {
        if let Some(followed) = &self.0 {
            let mut seen = followed.seen.lock();
            seen.noted_at = BootTime::now();
            seen.note = note;
        }
    }

    /// Whether it is known at this moment how much may be sent.
    pub fn is_valid(&self) -> bool {
        let followed = self.0.as_ref();
        followed.is_none_or(|it| BootTime::now() < it.seen.lock().until)
    }

    /// Whether the pilot has noted what the plan says now: before, nothing is sent by it.
    pub fn is_noted(&self) -> bool {
        let followed = self.0.as_ref();
        followed.is_none_or(|it| {
            let seen = it.seen.lock();
            let edition = seen.plan.as_ref().map_or(0, |plan| plan.edition());
            seen.note.edition == edition
        })
    }

    /// Why guards of the plan act for this copier alone: it cannot write there. None: it can.
    pub fn mute(&self) -> Option<String> {
        let seen = self.0.as_ref()?.seen.lock();
        (!seen.mute.is_empty()).then(|| seen.mute.clone())
    }

    /// How an operator begins a command for the plan.
    pub fn command(&self) -> String {
        self.0
            .as_ref()
            .map_or(String::new(), |it| it.command.clone())
    }

    /// Why nothing is sent: it is not known.
    pub fn obstacle(&self) -> Option<String> {
        let seen = self.0.as_ref()?.seen.lock();
        (BootTime::now() >= seen.until).then(|| {
            let why = match seen.trouble.as_str() {
                "" => "Consul answers too slowly",
                trouble => trouble,
            };
            format!("the cluster's plan is not known at this moment ({why})")
        })
    }
}

impl Followed {
    async fn run(self: Arc<Self>) {
        loop {
            let begun = tokio::time::Instant::now();
            let next = match self.look().await {
                Ok(()) => begun + LOOK,
                Err(failure) => {
                    self.doubt(failure.to_string());
                    tokio::time::Instant::now() + RETRY
                }
            };
            tokio::time::sleep_until(next).await;
        }
    }

    /// Reads the plan, and writes what this copier has to say to it.
    async fn look(&self) -> Result<(), Failure> {
        let asked = BootTime::now();
        let content = self.record.read(PATIENCE).await?;
        let plan = match &content {
            None => None,
            Some(content) => {
                let plan = FleetPlan::parse(&content.bytes);
                Some(plan.map_err(|error| Failure::Unreadable(error.to_string()))?)
            }
        };
        let version = content.map(|it| it.version);
        let Some((version, next)) = self.take(asked, version, plan) else {
            return Ok(());
        };
        let asked = BootTime::now();
        let written = match next.record() {
            Ok(record) => self.record.replace(Some(version), record, PATIENCE).await,
            Err(error) => Err(Failure::Unreadable(error.to_string())),
        };
        match written {
            Ok(true) => {
                self.seen.lock().driver.wrote(elapsed(asked));
                self.note_mute(String::new());
            }
            // Somebody else was first: what there is now is read next time.
            Ok(false) => self.note_mute(String::new()),
            // Others may write what this one cannot.
            Err(failure) => self.note_mute(failure.to_string()),
        }
        Ok(())
    }

    /// Notes why this copier cannot write. The log has each reason once.
    fn note_mute(&self, why: String) {
        let mut seen = self.seen.lock();
        if seen.mute != why && !why.is_empty() {
            tracing::warn!(
                "this copier cannot write the cluster's plan ({}): {why}",
                self.record.key()
            );
        }
        seen.mute = why;
    }

    /// Takes what was read. Gives what is to replace it, and in which version.
    fn take(
        &self,
        asked: BootTime,
        version: Option<u64>,
        plan: Option<FleetPlan>,
    ) -> Option<(u64, FleetPlan)> {
        let mut seen = self.seen.lock();
        if !seen.trouble.is_empty() {
            tracing::info!("the cluster's plan is known ({})", self.record.key());
            seen.trouble.clear();
        }
        seen.until = asked.after(LEASE);
        seen.version = version;
        seen.driver.read(version.unwrap_or(0), elapsed(asked));
        seen.plan = plan.map(Arc::new);
        let plan = seen.plan.clone()?;
        let chance = random_u64() as f64 / u64::MAX as f64;
        let now = elapsed(BootTime::now());
        if BootTime::now().since(seen.noted_at) > NOTED {
            return None;
        }
        let entry = seen.driver.next(now, &plan, &seen.note, chance)?;
        let mut next = (*plan).clone();
        let signed = Signed {
            by: &self.name,
            at: seconds_since_1970(),
        };
        let changed = match entry {
            Entry::Passed(passed) => {
                next.pass(passed, signed);
                true
            }
            Entry::Broken => next.doubt(),
            Entry::Demand(demand) => next.restrain(seen.note.edition, &demand, signed),
        };
        version.filter(|_| changed).map(|version| (version, next))
    }

    /// Notes why the plan may not be known any more. The log has each reason once.
    fn doubt(&self, why: String) {
        let mut seen = self.seen.lock();
        if seen.trouble != why {
            tracing::warn!("the cluster's plan ({}): {why}", self.record.key());
            seen.trouble = why;
        }
    }
}

//! The modules by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use millrace_engine::protocol::Protocol;

use crate::accounts::Accounts;
use crate::http::{self, Http};
use crate::mysql::{self, MySql};
use crate::redis::Redis;
use crate::writes::WriteGuard;

/// What modules are told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names and passwords at the target.
    pub accounts: Arc<Accounts>,
    /// What HTTP's does besides copying.
    pub http: http::Settings,
    /// How sessions of MySQL log in that were picked up in the middle.
    pub midway: Midway,
    /// Which requests may reach the target.
    pub guard: WriteGuard,
}

/// What is not known of a session that was picked up in the middle.
#[derive(Clone, Debug, Default)]
pub struct Midway {
    /// Whose it is. `None`: the only account's, if there is just one.
    pub user: Option<String>,
    /// Its database.
    pub database: Option<String>,
}

/// A protocol that has a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HTTP/1.0 and 1.1: see [`crate::http`].
    Http,
    /// MySQL and MariaDB: see [`crate::mysql`].
    MySql,
    /// Redis: see [`crate::redis`].
    Redis,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::MySql, Self::Redis];

    /// Its name, as operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::MySql => "mysql",
            Self::Redis => "redis",
        }
    }

    /// The module, with these settings.
    pub fn module(self, settings: &Settings) -> Box<dyn Protocol> {
        let Settings {
            accounts,
            http,
            midway,
            guard,
        } = settings;
        match self {
            Self::Http => Box::new(Http::new(http.clone(), guard.clone())),
            Self::MySql => Box::new(MySql::new(mysql::Settings {
                accounts: accounts.clone(),
                guard: guard.clone(),
                midway_user: midway.user.clone(),
                midway_database: midway.database.clone(),
            })),
            Self::Redis => Box::new(Redis::new(accounts.clone(), guard.clone())),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No module has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no protocol module is called {0:?}: there are {list}", list = names())]
pub struct UnknownKind(String);

fn names() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

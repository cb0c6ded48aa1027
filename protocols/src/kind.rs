//! The modules by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use millrace_engine::protocol::Protocol;

use crate::accounts::Accounts;
use crate::http::{self, Http};
use crate::redis::Redis;
use crate::writes::WriteGuard;

/// What modules are told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names and passwords at the target.
    pub accounts: Arc<Accounts>,
    /// What HTTP's does besides copying.
    pub http: http::Settings,
    /// Which requests may reach the target.
    pub guard: WriteGuard,
}

/// A protocol that has a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HTTP/1.0 and 1.1: see [`crate::http`].
    Http,
    /// Redis: see [`crate::redis`].
    Redis,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http, Self::Redis];

    /// Its name, as operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }

    /// The module, with these settings.
    pub fn module(self, settings: &Settings) -> Box<dyn Protocol> {
        let Settings {
            accounts,
            http,
            guard,
        } = settings;
        match self {
            Self::Http => Box::new(Http::new(http.clone(), guard.clone())),
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

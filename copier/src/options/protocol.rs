//! Protocol modules: for which live ports, and with which accounts at the target.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use millrace_daemon::config::secret::Secret;
use millrace_daemon::exit::ExitError;
use millrace_protocols::writes::{Pattern, Rules};
use millrace_protocols::{Accounts, Kind, http};

/// Modules for sessions that cannot be replayed byte for byte.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Protocols")]
pub struct ProtocolOptions {
    /// Replay the sessions of a live port with a protocol module, `PORT=NAME`: http, mysql or redis. Several separated
    /// by commas.
    #[arg(long = "protocol", value_name = "PORT=NAME", value_delimiter = ',')]
    pub protocols: Vec<PortProtocol>,

    /// Names and passwords at the target, for --protocol, separated by commas. The list of processes does not show them; in
    /// a file (--accounts-file) they may hold commas.
    #[arg(short = 'u', long, value_name = "USER@PASSWORD,...")]
    pub accounts: Option<Secret>,

    /// The same in a file: USER@PASSWORD on each line, which not everybody may read.
    #[arg(long, value_name = "FILE")]
    pub accounts_file: Option<PathBuf>,

    /// What the module http is to do: a file of rules, which not everybody may read.
    #[arg(long, value_name = "FILE")]
    pub http_rules: Option<PathBuf>,

    /// As whom sessions of MySQL log in at the target that were picked up in the middle. Default: the only account, if there is
    /// just one; else they are not copied.
    #[arg(long, value_name = "USER")]
    pub midway_user: Option<String>,

    /// The database that such sessions begin with.
    #[arg(long, value_name = "NAME")]
    pub midway_database: Option<String>,

    /// Send nothing that writes, by what the modules of --protocol know of requests.
    #[arg(long)]
    pub read_only: bool,

    /// With --read-only, send these though they write: a protocol, and requests without their values, where * stands for
    /// anything. Several separated by commas.
    #[arg(long, value_name = "NAME:PATTERN", value_delimiter = ',')]
    pub allow_writes: Vec<ProtocolPattern>,

    /// Leave these requests out, whatever they do. Several separated by commas.
    #[arg(long, value_name = "NAME:PATTERN", value_delimiter = ',')]
    pub deny_requests: Vec<ProtocolPattern>,
}

/// Requests of a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolPattern {
    /// The protocol.
    pub kind: Kind,
    /// Its requests.
    pub pattern: Pattern,
}

impl FromStr for ProtocolPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pattern) = text.split_once(':').ok_or("it is not NAME:PATTERN")?;
        Ok(Self {
            kind: name.parse().map_err(|error| format!("{error}"))?,
            pattern: pattern.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

/// A live port whose sessions a module replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortProtocol {
    /// The live port.
    pub port: u16,
    /// The module.
    pub kind: Kind,
}

impl FromStr for PortProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, name) = text.split_once('=').ok_or("it is not PORT=NAME")?;
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self {
            port: port.ok_or("the port must be 1 to 65535")?,
            kind: name.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

impl ProtocolOptions {
    /// What requests of this protocol may reach targets.
    pub fn rules(&self, kind: Kind) -> Rules {
        let of = |all: &[ProtocolPattern]| {
            let its = all.iter().filter(|it| it.kind == kind);
            its.map(|it| it.pattern.clone()).collect()
        };
        Rules {
            read_only: self.read_only,
            allow: of(&self.allow_writes),
            deny: of(&self.deny_requests),
        }
    }

    /// Whether some rule says what may be sent.
    pub const fn has_rules(&self) -> bool {
        self.read_only || !self.allow_writes.is_empty() || !self.deny_requests.is_empty()
    }

    /// The accounts that are given, in a file or by themselves.
    ///
    /// # Errors
    /// Both are given; the file cannot be read, or everybody can read it; or an account is wrong.
    pub fn accounts(&self) -> Result<Accounts, ExitError> {
        let Some(path) = &self.accounts_file else {
            let list = self.accounts.as_ref().map_or("", Secret::reveal);
            return Accounts::parse_list(list)
                .map_err(|error| ExitError::usage(format!("-u: {error}")));
        };
        if self.accounts.is_some() {
            return Err(ExitError::usage(
                "-u and --accounts-file: give the accounts in one place",
            ));
        }
        let what = || format!("--accounts-file {}", path.display());
        let text = read_secret(path).map_err(|error| ExitError::caused(what(), &error))?;
        Accounts::parse(&text).map_err(|error| ExitError::usage(format!("{}: {error}", what())))
    }

    /// The rules of the module for HTTP; without a file there are none.
    ///
    /// # Errors
    /// The file cannot be read, everybody can read it, or it is wrong.
    pub fn http_rules(&self) -> Result<http::Settings, ExitError> {
        let Some(path) = &self.http_rules else {
            return Ok(http::Settings::default());
        };
        let what = || format!("--http-rules {}", path.display());
        let text = read_secret(path).map_err(|error| ExitError::caused(what(), &error))?;
        http::Settings::parse(&text)
            .map_err(|error| ExitError::usage(format!("{}: {error}", what())))
    }

    /// Whether accounts are given.
    pub const fn has_accounts(&self) -> bool {
        self.accounts.is_some() || self.accounts_file.is_some()
    }
}

fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(std::io::Error::other(
            "everybody on this host may read or change it: chmod 640, or 600",
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_module_by_its_name() {
        let redis = PortProtocol {
            port: 6379,
            kind: Kind::Redis,
        };
        assert_eq!("6379=redis".parse(), Ok(redis));
        for wrong in ["redis", "0=redis", "70000=redis", "6379=", "6379=http9"] {
            assert!(wrong.parse::<PortProtocol>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_is_of_one_protocol() {
        let options = ProtocolOptions {
            read_only: true,
            allow_writes: vec!["redis:SET".parse().unwrap()],
            deny_requests: vec!["redis:FLUSH*".parse().unwrap()],
            ..ProtocolOptions::default()
        };
        let rules = options.rules(Kind::Redis);
        assert!(rules.read_only && options.has_rules());
        assert_eq!((rules.allow.len(), rules.deny.len()), (1, 1));
        for wrong in ["SET", "redis:", "http9:GET *"] {
            assert!(wrong.parse::<ProtocolPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_is_refused() {
        let path = std::env::temp_dir().join(format!("millrace-accounts-{}", std::process::id()));
        std::fs::write(&path, "default@secret\n").unwrap();
        let options = ProtocolOptions {
            accounts_file: Some(path.clone()),
            ..ProtocolOptions::default()
        };
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            options.accounts().map_err(|error| error.to_string())
        };
        let refused = with(0o644).unwrap_err();
        assert!(
            refused.contains("everybody on this host may read"),
            "{refused}"
        );
        let accounts = with(0o640).unwrap();
        assert_eq!(accounts.password("default"), Some("secret"));
        std::fs::remove_file(path).unwrap();
    }
}

//! How a channel is protected: what the options ask for.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::tls::{CertificateStatus, Identity, Role, Store, TlsFiles};
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;

/// How a channel between daemons is protected. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Security {
    /// Plain text, no authentication (`--insecure`).
    Insecure,
    /// Mutual TLS with these certificates.
    Mutual(Arc<Store>),
}

/// Why a channel cannot be protected as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// Neither certificates nor `--insecure`.
    #[error(
        "who may connect? Give --ca FILE, --cert FILE and --key FILE (`millrace-copier certs` makes \
         some to try, docs/security.md says how to make real ones), or --insecure where everybody \
         on the network between the daemons is trusted"
    )]
    Undecided,
    /// Both.
    #[error(
        "--insecure contradicts --ca, --cert and --key: leave out the one or the others (look into \
         the configuration file and the environment, too)"
    )]
    Contradiction,
    /// Only some of the three.
    #[error("mutual TLS needs --ca, --cert and --key, all three: {missing} is missing")]
    Incomplete {
        /// The option that is missing.
        missing: &'static str,
    },
    /// The files do not do.
    #[error("{0}")]
    Files(String),
}

impl Security {
    /// What the options ask for, for a daemon with this role. The files are read and checked.
    ///
    /// # Errors
    /// [`SecurityError`]; as an [`ExitError`] its code is 64.
    pub fn from_options(options: &CommonOptions, role: Role) -> Result<Security, SecurityError> {
        let files = [&options.ca, &options.cert, &options.key];
        let any = files.iter().any(|file| file.is_some());
        if options.insecure {
            return if any {
                Err(SecurityError::Contradiction)
            } else {
                Ok(Security::Insecure)
            };
        }
        if !any {
            return Err(SecurityError::Undecided);
        }
        let missing = |missing| SecurityError::Incomplete { missing };
        Security::from_files(
            options.ca.as_deref().ok_or_else(|| missing("--ca"))?,
            options.cert.as_deref().ok_or_else(|| missing("--cert"))?,
            options.key.as_deref().ok_or_else(|| missing("--key"))?,
            role,
        )
    }

    /// Mutual TLS with three PEM files, for a daemon with this role.
    ///
    /// # Errors
    /// [`SecurityError::Files`]
    pub fn from_files(
        ca: &Path,
        cert: &Path,
        key: &Path,
        role: Role,
    ) -> Result<Security, SecurityError> {
        let files = TlsFiles {
            ca: ca.to_owned(),
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        let store = Store::load(files, role).map_err(SecurityError::Files)?;
        Ok(Security::Mutual(Arc::new(store)))
    }

    /// From now on the certificates are read again when their files change, and on SIGHUP; their
    /// end is warned of. For as long as `runtime` and this live.
    ///
    /// # Errors
    /// When the kernel refuses to report SIGHUP (exit code 1).
    pub fn keep_fresh(&self, runtime: &Handle) -> Result<(), ExitError> {
        match self {
            Security::Insecure => Ok(()),
            Security::Mutual(store) => store.watch(runtime),
        }
    }

    /// Who this daemon is; none with `--insecure`.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Security::Insecure => None,
            Security::Mutual(store) => Some(store.identity()),
        }
    }

    /// This daemon's certificate; none with `--insecure`.
    pub fn certificate(&self) -> Option<CertificateStatus> {
        match self {
            Security::Insecure => None,
            Security::Mutual(store) => Some(store.status()),
        }
    }
}

impl From<SecurityError> for ExitError {
    fn from(error: SecurityError) -> Self {
        ExitError::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        common: CommonOptions,
    }

    fn refused(line: &str) -> String {
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let error = Security::from_options(&options.common, Role::Copier).unwrap_err();
        let error = ExitError::from(error);
        assert_eq!(error.code(), 64);
        error.to_string()
    }

    #[test]
    fn a_daemon_that_is_not_told_how_to_talk_refuses_to_start_in_one_line() {
        let options = Options::try_parse_from(["x", "--insecure"]).unwrap();
        let security = Security::from_options(&options.common, Role::Copier).unwrap();
        assert!(matches!(security, Security::Insecure));
        assert!(refused("x").contains("Give --ca FILE, --cert FILE and --key FILE"));
        assert!(refused("x --ca a --cert c").contains("--key is missing"));
        assert!(refused("x --key a --cert c").contains("--ca is missing"));
        assert!(refused("x --insecure --ca a").contains("--insecure contradicts"));
        let missing = refused("x --ca /no/such --cert c --key k");
        assert!(
            missing.starts_with("--ca /no/such: cannot read it"),
            "{missing}"
        );
    }
}

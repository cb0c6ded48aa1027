//! `millrace-lab certs`: a test CA and certificates, for `make certs`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use millrace_lab::{Certificates, Result};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory for the files; a CA that is in it already is used again
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Trust domain: the same for all daemons that work together
    #[arg(long, value_name = "DOMAIN", default_value = "example.test")]
    trust_domain: String,
    /// A certificate to make, ROLE or ROLE/NAME; may be given several times. By default one for
    /// each role
    #[arg(long = "for", value_name = "ROLE[/NAME]")]
    paths: Vec<String>,
    /// How long the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    /// Make another CA first; ca.pem then holds it and those before it
    #[arg(long)]
    new_ca: bool,
    /// Leave only the newest CA in ca.pem
    #[arg(long, conflicts_with = "new_ca")]
    forget_old_cas: bool,
}

/// Roles, as they stand in a certificate.
const ROLES: [&str; 4] = ["copier", "interceptor", "router-agent", "operator"];

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut certificates = Certificates::open(&options.dir, &options.trust_domain)?;
    if options.new_ca {
        certificates.renew_ca()?;
    }
    if options.forget_old_cas {
        certificates.forget_old_cas()?;
    }
    let roles = ROLES.map(str::to_owned);
    let paths = if options.paths.is_empty() {
        &roles[..]
    } else {
        &options.paths
    };
    for path in paths {
        let role = path.split('/').next().unwrap_or_default();
        if !ROLES.contains(&role) {
            return Err(millrace_lab::Error::Unsupported(format!(
                "--for {path}: the role must be one of {}",
                ROLES.join(", ")
            )));
        }
        let files = certificates.issue(path, options.days)?;
        let _ = writeln!(
            std::io::stdout(),
            "--ca {} --cert {} --key {}",
            certificates.ca().display(),
            files.cert.display(),
            files.key.display()
        );
    }
    Ok(())
}

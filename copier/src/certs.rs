//! `millrace-copier certs`: a CA of one's own and certificates for all daemons, to begin with.

use std::io::Write as _;
use std::path::PathBuf;

use millrace_certificates::{Certificates, Error, Host, Terms};
use millrace_channel::tls::Role;
use millrace_daemon::exit::ExitError;

use crate::command::{self, Arguments};

/// Makes a CA and certificates for copiers, interceptors, router-agents and operators.
///
/// The CA's key lies beside the certificates: keep the directory on a host that runs no daemon, and carry to each host
/// ca.pem and the pair of its role.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-certs",
    bin_name = "millrace-copier certs",
    version,
    max_term_width = 100
)]
pub struct CertsOptions {
    /// Directory for the files; a CA that is in it already is used again.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub dir: PathBuf,

    /// Trust domain: the same for all daemons that work together.
    #[arg(long, value_name = "DOMAIN", default_value = "example.test")]
    pub trust_domain: String,

    /// A certificate to make, for copier, interceptor, router-agent or operator, with a name or
    /// without; may be given several times. By default one for each role.
    #[arg(long = "for", value_name = "ROLE[/NAME]")]
    pub paths: Vec<String>,

    /// How long the certificates are valid, 1 to 3650. The CA is valid for 3650 days.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=3650))]
    pub days: i64,

    /// DNS name or IP address at which the daemon is reached; may be given several times, with one --for. Of daemons that
    /// Consul lists, a certificate that names any is accepted at these alone. --renew keeps those of before.
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<Host>,

    /// Replace certificates that are there. A daemon that uses them takes the new ones over.
    #[arg(long)]
    pub renew: bool,

    /// Make another CA; ca.pem then holds it and those before it. No certificates but those of --for.
    #[arg(long)]
    pub new_ca: bool,

    /// Leave only the newest CA in ca.pem. No certificates but those of --for.
    #[arg(long, conflicts_with = "new_ca")]
    pub forget_old_cas: bool,
}

/// Runs the command.
///
/// # Errors
/// Exit code 64 for the command line, 1 for files that cannot be made.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: CertsOptions = command::parse(arguments)?;
    if !options.hosts.is_empty() && options.paths.len() != 1 {
        return Err(ExitError::usage(
            "--host: name the one daemon that is reached there with --for ROLE/NAME",
        ));
    }
    make(&options).map_err(|error| match error {
        Error::Unfit { .. } | Error::Twice(_) | Error::OutlivesCa { .. } => {
            ExitError::usage(error.to_string())
        }
        Error::Io { .. }
        | Error::Exists(_)
        | Error::Half { .. }
        | Error::Foreign(_)
        | Error::Ended
        | Error::Unnamed(_)
        | Error::Cryptography { .. } => ExitError::start(error.to_string()),
    })
}

fn make(options: &CertsOptions) -> Result<(), Error> {
    let mut certificates = Certificates::open(&options.dir, &options.trust_domain)?;
    let all = Role::ALL.map(|role| role.name().to_owned());
    let paths = match options.paths.as_slice() {
        // These change the CA: certificates are another step, for which daemons have to be waited for.
        [] if options.new_ca || options.forget_old_cas => &[],
        [] => &all[..],
        paths => paths,
    };
    // All or none. A new CA lasts long enough for any.
    if !paths.is_empty() && !options.new_ca {
        certificates.may_last(options.days)?;
    }
    for (number, path) in paths.iter().enumerate() {
        certificates.may_renew(path)?;
        if !options.renew {
            certificates.may_issue(path)?;
        } else if options.hosts.is_empty() {
            certificates.hosts(path)?;
        }
        if paths.iter().take(number).any(|other| other == path) {
            return Err(Error::Twice(path.clone()));
        }
    }
    if options.new_ca {
        certificates.renew_ca()?;
    }
    if options.forget_old_cas {
        certificates.forget_old_cas()?;
    }
    for path in paths {
        let terms = Terms {
            days: options.days,
            hosts: options.hosts.clone(),
        };
        let files = match options.renew {
            true => certificates.renew(path, terms)?,
            false => certificates.issue(path, terms)?,
        };
        // Whoever reads stdout may have seen enough.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_wrong_name_nothing_is_made_or_replaced() {
        let dir = std::env::temp_dir().join(format!("millrace-certs-{}", std::process::id()));
        let options = |more: &[&str]| {
            let dir = dir.display().to_string();
            let all = [&["certs", "--dir", &dir][..], more].concat();
            <CertsOptions as clap::Parser>::try_parse_from(all).unwrap()
        };
        make(&options(&["--for", "copier/live1"])).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let before = (read("ca.pem"), read("copier-live1.pem"));
        for paths in [["copier/live1", "interceptr/rs1"], ["copier/a", "copier/a"]] {
            let more = ["--new-ca", "--renew", "--for", paths[0], "--for", paths[1]];
            make(&options(&more)).unwrap_err();
            assert!(before == (read("ca.pem"), read("copier-live1.pem")));
        }
        // Nor with one whose hosts would be lost.
        std::fs::write(dir.join("interceptor.pem"), "nothing").unwrap();
        let both = ["--renew", "--for", "copier/live1", "--for", "interceptor"];
        make(&options(&both)).unwrap_err();
        assert!(before == (read("ca.pem"), read("copier-live1.pem")));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

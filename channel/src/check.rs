//! What can be known of a channel before it is used: this daemon's certificate, and whether its peers take it.

use std::time::Duration;

use millrace_daemon::blocking::block_on;
use millrace_daemon::check::Verdict;
use millrace_daemon::options::CommonOptions;
use millrace_notation::address::HostPort;

use crate::tls::{Expect, Role};
use crate::transport::{Security, Timeouts, reachable};

/// A certificate that ends within so long is warned of, in seconds.
const SOON: i64 = 14 * 24 * 3600;
/// How long a peer is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Whether the certificate that the options name can be used by a daemon with this role, and for how long.
pub fn certificate(options: &CommonOptions, role: Role) -> Verdict {
    let security = match Security::from_options(options, role) {
        Ok(security) => security,
        Err(error) => return Verdict::error(&error),
    };
    let Some(own) = security.certificate() else {
        return Verdict::ok("plain text (--insecure)");
    };
    if own.begins_in_seconds > 0 {
        return Verdict::failure(
            format!("the certificate of {} begins at {}", own.id, own.not_before),
            "set this host's clock (`date -u`), or make the certificate anew",
        );
    }
    let days = own.expires_in_seconds / (24 * 3600);
    let found = format!("{} until {}", own.id, own.not_after);
    match own.expires_in_seconds < SOON {
        true => Verdict::warning(
            format!("{found}: it ends in {days} days"),
            "renew it: it is read again when the file changes",
        ),
        false => Verdict::ok(found),
    }
}

/// Whether peers with a role answer at these addresses, and take this side's certificate. All are asked at once. The
/// certificates of those that are not among the `listed`, whom the operator has named, must confirm their addresses.
pub fn reach(peers: &[HostPort], listed: &[HostPort], security: &Security, role: Role) -> Verdict {
    if peers.is_empty() {
        return Verdict::ok(format!("no {role} is named"));
    }
    // By such a clock others' certificates have not begun either.
    if (security.certificate()).is_some_and(|own| own.begins_in_seconds > 0) {
        return Verdict::skipped("not known as long as this side's certificate cannot be used");
    }
    let answers = block_on(async {
        let mut asked = tokio::task::JoinSet::new();
        for peer in peers {
            let must_confirm = !listed.contains(peer);
            let (peer, security) = (peer.clone(), security.clone());
            let expect = Expect { role, must_confirm };
            asked.spawn(async move {
                let timeouts = Timeouts {
                    connect: PATIENCE,
                    ..Timeouts::default()
                };
                let answer = reachable(&peer, &security, expect, &timeouts).await;
                (peer, answer)
            });
        }
        asked.join_all().await
    });
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => return Verdict::error(&error),
    };
    let mut failures: Vec<String> = answers
        .into_iter()
        .filter_map(|(peer, answer)| Some(format!("{peer}: {}", answer.err()?)))
        .collect();
    failures.sort_unstable();
    if failures.is_empty() {
        let named: Vec<String> = peers.iter().map(ToString::to_string).collect();
        return Verdict::ok(format!(
            "{} {}",
            named.join(", "),
            match peers {
                [_] => "answers",
                _ => "answer",
            }
        ));
    }
    Verdict::failure(
        failures.join("; "),
        format!("on that host: `systemctl status millrace-{role}`, or start it"),
    )
}

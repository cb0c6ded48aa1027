//! Certificates and CAs that are renewed while they are in use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unused_crate_dependencies
)]

mod log;
mod pki;
mod secure;

use std::time::Duration;

use log::Lines;
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_routes::copier::Uplink;
use pki::{Ca, Files, Pair, ca, good, sign};
use rcgen::date_time_ymd;
use secure::{COPIER, attempt, link_to, serve, with};
use tokio::runtime::Handle;

/// Waits until the files are in use, or not.
async fn until(
    security: &Security,
    done: impl Fn(&millrace_channel::tls::CertificateStatus) -> bool,
) {
    for _ in 0..2000 {
        if done(&security.certificate().unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", security.certificate());
}

#[tokio::test]
async fn certificates_and_cas_rotate_under_an_open_stream() {
    let (old, new) = (ca("old"), ca("new"));
    let on_server = Files::new("rot-i", &[&old], &good(&old, "interceptor/rs1"));
    let on_copier = Files::new("rot-c", &[&old], &good(&old, "copier/live-1"));
    let (interceptor, copier) = (
        on_server.security(Role::Interceptor),
        on_copier.security(Role::Copier),
    );
    interceptor.keep_fresh(&Handle::current()).unwrap();
    copier.keep_fresh(&Handle::current()).unwrap();
    let (server, _events) = serve(interceptor.clone());
    let mut first = link_to(server.local_addr(), copier.clone(), "live-1");
    first.up().await;

    // Both CAs everywhere, then certificates of the new one, then the old CA goes.
    for (step, (server_cas, copier_cas, issuer)) in [
        (vec![&old, &new], vec![&old, &new], &old),
        (vec![&old, &new], vec![&old, &new], &new),
        (vec![&new], vec![&new], &new),
    ]
    .into_iter()
    .enumerate()
    {
        on_server.write_cas(&server_cas);
        on_server.write_pair(&good(issuer, "interceptor/rs1"));
        on_copier.write_cas(&copier_cas);
        on_copier.write_pair(&good(issuer, "copier/live-1"));
        let reloads = step as u64 + 1;
        until(&interceptor, |it| {
            it.reloads >= reloads && it.last_error.is_empty()
        })
        .await;
        until(&copier, |it| {
            it.reloads >= reloads && it.last_error.is_empty()
        })
        .await;
        // New connections use the new files, at each step.
        let mut later = link_to(server.local_addr(), copier.clone(), "live-1:2");
        later.up().await;
        later.handle.close();
    }
    // The old CA counts no more, but the first stream has lived through it all.
    let status = first.handle.status();
    assert!(status.connected && status.attempts == 1, "{status:?}");
    first.handle.forget(status.epoch, Vec::new()).unwrap();
    assert_ne!(
        attempt(server.local_addr(), Some(&good(&old, "copier/live-1"))).await,
        ""
    );
    assert_eq!(
        attempt(server.local_addr(), Some(&good(&new, "copier/live-1"))).await,
        ""
    );
}

#[tokio::test]
async fn files_that_do_not_fit_are_not_used_and_that_is_said_once() {
    let lines = Lines::capture();
    let ours = ca("ours");
    let first = good(&ours, "copier/live-1");
    let files = Files::new("misfit", &[&ours], &first);
    let security = files.security(Role::Copier);
    let before = security.certificate().unwrap();
    security.keep_fresh(&Handle::current()).unwrap();

    type Spoil<'a> = Box<dyn Fn() + 'a>;
    let cases: Vec<(&str, Spoil<'_>, &str)> = vec![
        (
            "a certificate without its key",
            Box::new(|| files.write_cert(&good(&ours, "copier/live-1"))),
            "is not the key of",
        ),
        (
            "another role",
            Box::new(|| files.write_pair(&good(&ours, "interceptor/live-1"))),
            "but this daemon is a copier",
        ),
        (
            "expired",
            Box::new(|| {
                let expired = with(COPIER, |it| it.not_after = date_time_ymd(2021, 1, 1));
                files.write_pair(&sign(&ours, &expired));
            }),
            "expired at 2021-01-01",
        ),
        (
            "cut off",
            Box::new(|| {
                files.write_pair(&first);
                let cert = first.cert.get(..first.cert.len() / 2).unwrap().to_owned();
                files.write_cert(&Pair {
                    cert,
                    key: String::new(),
                });
            }),
            "is it cut off?",
        ),
        (
            "gone",
            Box::new(|| std::fs::remove_file(files.ca()).unwrap()),
            "cannot read it",
        ),
    ];
    for (n, (what, spoil, said)) in cases.iter().enumerate() {
        spoil();
        until(&security, |it| it.failed_reloads == n as u64 + 1).await;
        let now = security.certificate().unwrap();
        assert!(now.last_error.contains(said), "{what}: {}", now.last_error);
        assert_eq!(
            (&now.id, &now.loaded_at),
            (&before.id, &before.loaded_at),
            "{what}"
        );
        assert_eq!(now.reloads, 0, "{what}");
        let warned = lines.with(said).await;
        assert_eq!(warned.len(), 1, "{what}: {warned:?}");
        assert!(!warned[0].contains("PRIVATE KEY"));
    }
    // And back: the next good files are used.
    files.write_cas(&[&ours]);
    files.write_pair(&good(&ours, "copier/live-1"));
    until(&security, |it| it.reloads == 1 && it.last_error.is_empty()).await;
}

#[tokio::test]
async fn the_end_of_a_certificate_is_warned_of() {
    let lines = Lines::capture();
    let ours = ca("ours");
    let files = Files::new("end", &[&ours], &short(&ours));
    let security = files.security(Role::Copier);
    assert!(security.certificate().unwrap().expires_in_seconds < 3 * 24 * 3600);
    security.keep_fresh(&Handle::current()).unwrap();
    assert_eq!(lines.with("expires in").await.len(), 1);
}

/// Ends the day after tomorrow.
fn short(ca: &Ca) -> Pair {
    let days = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
        / 86_400
        + 2;
    // Civil date from days since 1970 (Howard Hinnant's algorithm).
    let z = days + 719_468;
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u8;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u8;
    let year = (yoe + z.div_euclid(146_097) * 400) as i32 + i32::from(month <= 2);
    let params = with(COPIER, |it| it.not_after = date_time_ymd(year, month, day));
    sign(ca, &params)
}

//! The listening side of a handshake.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::material::Material;
use super::refusal::{Reason, Refusal};
use super::verifier::Verdict;
use super::{Identity, Roles};

/// First byte of every TLS connection: a record of type handshake (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

/// A fatal alert protocol_version (RFC 8446, section 6) in a record of its own: what a peer that
/// speaks plain text gets, so that a Millrace daemon can tell what is wrong.
const ALERT_VERSION: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// How long the last words to a refused peer may take. Closing at once with unread bytes would
/// make the kernel reset the connection, and the peer lose the alert.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes of a refused peer that are read and thrown away.
const MAX_LEFTOVER: usize = 64 << 10;

/// Shakes hands with a peer that must have one of `roles`, within `limit`.
pub(crate) async fn accept(
    mut stream: TcpStream,
    material: &Material,
    roles: Roles,
    limit: Duration,
) -> Result<(TlsStream<TcpStream>, Identity), Refusal> {
    let (config, verdict) = material
        .server(roles)
        .map_err(|error| Refusal::new(Reason::Other, format!("this side's TLS: {error}")))?;
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Err((Some(stream), gone())),
            Ok(_) if first == [HANDSHAKE_RECORD] => {}
            Ok(_) => {
                let _ = stream.write_all(&ALERT_VERSION).await;
                return Err((Some(stream), plain_text()));
            }
        }
        let accepted = TlsAcceptor::from(config)
            .accept(stream)
            .into_fallible()
            .await;
        accepted.map_err(|(error, stream)| (Some(stream), refusal(&error, &verdict)))
    };
    let result = timeout(limit, handshake).await;
    match result {
        Ok(Ok(stream)) => match verdict.get() {
            Some(Ok(identity)) => Ok((stream, identity.clone())),
            // The verifier is mandatory: it cannot have been passed by.
            Some(Err(_)) | None => Err(Refusal::new(
                Reason::NoCertificate,
                "it did not show who it is",
            )),
        },
        Ok(Err((stream, refusal))) => {
            if let Some(stream) = stream {
                let _ = timeout(LAST_WORDS, close(stream)).await;
            }
            Err(refusal)
        }
        Err(_) => Err(Refusal::new(
            Reason::TimedOut,
            format!("it did not finish the TLS handshake within {limit:?}"),
        )),
    }
}

async fn close(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut scrap = [0; 4096];
    let mut total = 0;
    while total < MAX_LEFTOVER {
        match stream.read(&mut scrap).await {
            Ok(0) | Err(_) => return,
            Ok(count) => total += count,
        }
    }
}

fn gone() -> Refusal {
    Refusal::new(
        Reason::Aborted,
        "it left before the TLS handshake was over: a port scan or a health check?",
    )
}

fn plain_text() -> Refusal {
    Refusal::new(
        Reason::PlainText,
        "it speaks plain text to this TLS port: does it run with --insecure? Give it --ca, --cert \
         and --key",
    )
}

/// Why the handshake failed, in words.
fn refusal(error: &std::io::Error, verdict: &Verdict) -> Refusal {
    if let Some(Err(refusal)) = verdict.get() {
        return refusal.clone();
    }
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    let Some(tls): Option<&rustls::Error> = inner else {
        return gone();
    };
    use rustls::PeerIncompatible as Unfit;
    match tls {
        rustls::Error::NoCertificatesPresented => Refusal::new(
            Reason::NoCertificate,
            "it shows no certificate: give it --ca, --cert and --key",
        ),
        rustls::Error::PeerIncompatible(
            Unfit::SupportedVersionsExtensionRequired
            | Unfit::ServerDoesNotSupportTls12Or13
            | Unfit::Tls12NotOffered
            | Unfit::Tls12NotOfferedOrEnabled
            | Unfit::ServerTlsVersionIsDisabledByOurConfig,
        ) => Refusal::new(
            Reason::OldTls,
            "it offers no TLS 1.3, which is what Millrace speaks: upgrade it",
        ),
        rustls::Error::AlertReceived(alert) => Refusal::new(
            Reason::RefusedByPeer,
            format!(
                "it does not accept this side's certificate (alert {alert:?}): see its log for the \
                 reason"
            ),
        ),
        other => Refusal::new(Reason::Other, format!("the TLS handshake failed: {other}")),
    }
}

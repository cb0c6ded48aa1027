//! The connecting side of a handshake.

use std::io;
use std::sync::Arc;

use rustls::AlertDescription as Alert;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Role;
use super::certificate::Leaf;
use super::material::Material;

/// The name in the handshake. It is neither sent nor checked.
const NAME: &str = "millrace";

/// Who is expected at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Its role.
    pub role: Role,
    /// Its address came from a directory that others may write: if its certificate names hosts or addresses, that one
    /// must be among them.
    pub must_confirm: bool,
}

impl From<Role> for Expect {
    /// Someone whom the operator has named.
    fn from(role: Role) -> Self {
        Self {
            role,
            must_confirm: false,
        }
    }
}

/// Whether the peer's certificate names the host that it was looked for at, or no host at all.
///
/// # Errors
/// One line in the operator's words.
pub(crate) fn confirm(stream: &TlsStream<TcpStream>, host: &str, role: Role) -> Result<(), String> {
    let (tcp, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = shown else {
        return Err(format!("the {role} showed no certificate"));
    };
    let leaf = Leaf::read(certificate).map_err(|error| error.to_string())?;
    if leaf.hosts().is_empty() {
        return Ok(());
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    let address = tcp.peer_addr().map(|peer| peer.ip().to_canonical());
    let address = address.map_err(|error| error.to_string())?;
    let names = [
        Some(ServerName::from(address)),
        ServerName::try_from(host).ok(),
    ];
    let mut names = names.into_iter().flatten();
    if names.any(|name| verify_server_name(&parsed, &name).is_ok()) {
        return Ok(());
    }
    Err(format!(
        "the {role}'s certificate does not confirm the address {host} that Consul lists: it is for {}",
        leaf.hosts().join(", ")
    ))
}

/// Shakes hands with a peer that must have `role`, and waits until it has accepted us: in TLS 1.3
/// a client is done before the server has looked at its certificate.
///
/// # Errors
/// One line in the operator's words.
pub(crate) async fn connect(
    stream: TcpStream,
    material: &Material,
    role: Role,
) -> Result<TlsStream<TcpStream>, String> {
    let (config, verdict) = material
        .client(role)
        .map_err(|error| format!("this side's TLS: {error}"))?;
    let name = ServerName::try_from(NAME).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&config));
    let mut stream = match connector.connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            if let Some(Err(refusal)) = verdict.get() {
                return Err(format!("the {role} is not trusted: {refusal}"));
            }
            return Err(explain(&error).unwrap_or_else(|| left(&error)));
        }
    };
    // An HTTP/2 server speaks at once (RFC 9113, section 3.4). Nothing is consumed here.
    match stream.fill_buf().await {
        Ok([]) => Err(left(&io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(stream),
        Err(error) => Err(explain(&error).unwrap_or_else(|| left(&error))),
    }
}

fn left(error: &io::Error) -> String {
    format!("it ended the TLS handshake ({error}): see its log for the reason")
}

/// What an error of a TLS stream means, in the operator's words; none if it is not of TLS.
pub(crate) fn explain(error: &io::Error) -> Option<String> {
    let tls: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let text = match tls {
        rustls::Error::AlertReceived(alert) => alert_in_words(*alert),
        rustls::Error::InvalidMessage(_) => {
            "it answers in plain text: it runs with --insecure, or another program listens there; \
             start it with --ca, --cert and --key"
                .to_owned()
        }
        rustls::Error::PeerIncompatible(_) => {
            format!("it speaks no TLS 1.3 that fits ({tls}): upgrade it")
        }
        other => format!("TLS failed: {other}"),
    };
    Some(text)
}

fn alert_in_words(alert: Alert) -> String {
    let text = match alert {
        Alert::UnknownCA => {
            "it does not know the CA of this side's certificate: add that CA to its --ca, or give \
             this side a certificate of its CA"
        }
        Alert::CertificateExpired => {
            "it finds this side's certificate expired or not yet valid: compare the clocks \
             (`date -u` on both hosts), or renew --cert"
        }
        Alert::AccessDenied => {
            "it refuses this side's role: give a certificate (--cert) whose URI names the role of \
             this daemon"
        }
        Alert::BadCertificate => {
            "it cannot take this side's certificate: it needs exactly one URI \
             spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME], of the same trust domain"
        }
        Alert::UnsupportedCertificate => {
            "it refuses the use of this side's certificate: its extendedKeyUsage must name \
             clientAuth"
        }
        Alert::CertificateRequired => {
            "it wants a certificate, which this side did not show: give --cert and --key"
        }
        Alert::ProtocolVersion => "it speaks no TLS 1.3: upgrade it",
        // A foreign enum: its own name is the best there is.
        _ => return format!("it ended TLS with the alert {alert:?}: see its log for the reason"),
    };
    text.to_owned()
}

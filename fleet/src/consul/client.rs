//! One request to Consul, and what came back.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Method;
use hyper::header::HeaderValue;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use millrace_daemon::exit::causes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::settings::{Settings, SettingsError};

/// Everything but what RFC 3986, section 2.3, leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// More of an answer is not read.
const MAX_ANSWER: usize = 16 << 20;
/// Bound of a connection attempt.
const CONNECT: Duration = Duration::from_secs(3);

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answered, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The token may not do this, or Consul does not know it (yet).
    #[error("Consul denies it: {0}")]
    Denied(String),
    /// Consul answers with an error: its status code and words.
    #[error("Consul answers {0}: {1}")]
    Status(u16, String),
    /// What came back cannot be read.
    #[error("Consul's answer cannot be read: {0}")]
    Unreadable(String),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    body: Bytes,
    patience: Duration,
}

impl Request {
    /// A question. The parts of the path are escaped.
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// A command.
    pub fn put(path: &[&str]) -> Self {
        Self::new(Method::PUT, path)
    }

    fn new(method: Method, path: &[&str]) -> Self {
        let mut whole = String::from("/v1");
        for part in path {
            let _ = write!(whole, "/{}", utf8_percent_encode(part, RESERVED));
        }
        whole.push('?');
        Self {
            method,
            path: whole,
            body: Bytes::new(),
            patience: Duration::from_secs(5),
        }
    }

    /// With a parameter; without a value it is a flag.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.path.push_str(name);
        if let Some(value) = value {
            let _ = write!(self.path, "={}", utf8_percent_encode(value, RESERVED));
        }
        self.path.push('&');
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits up to so long for the answer, 5 s by default.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// An answer with a status code of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
    /// `X-Consul-Index`: the state that this is of.
    pub index: Option<u64>,
    /// `X-Consul-LastContact`: how long ago a server that answers by itself (`stale`) heard its leader.
    pub last_contact: Duration,
    /// `X-Consul-KnownLeader`.
    pub leader: bool,
}

/// A client of Consul. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: Arc<Settings>,
}

impl Client {
    /// A client for these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(&settings)?);
        let builder = builder.https_or_http();
        let builder = match &settings.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|_| {
                    SettingsError(format!("CONSUL_TLS_SERVER_NAME {name}: no name of a host"))
                })?;
                builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        Ok(Self {
            http: Http::builder(TokioExecutor::new())
                .build(builder.enable_http1().wrap_connector(tcp)),
            settings: Arc::new(settings),
        })
    }

    /// Where Consul is, and who we are to it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// Why there is none, or none of success, in the operator's words.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let patience = request.patience;
        let exchanged = tokio::time::timeout(patience, self.exchange(request)).await;
        exchanged
            .unwrap_or_else(|_| Err(self.unreachable(&format!("no answer within {patience:?}"))))
    }

    async fn exchange(&self, request: Request) -> Result<Answer, Failure> {
        let settings = &self.settings;
        let token = settings.token.read();
        let token = token.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let mut request = request;
        for (name, value) in [("ns", &settings.namespace), ("dc", &settings.datacenter)] {
            if let Some(value) = value {
                request = request.with(name, Some(value));
            }
        }
        let path = request.path.trim_end_matches(['?', '&']);
        let unusable = |error: hyper::http::Error| Failure::Unreachable(error.to_string());
        let uri = hyper::Uri::builder()
            .scheme(settings.scheme.clone())
            .authority(settings.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(unusable)?;
        let mut built = hyper::Request::builder().method(request.method).uri(uri);
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(token).map_err(|_| {
                Failure::Unreachable("Consul's token holds what no header may".to_owned())
            })?;
            value.set_sensitive(true);
            built = built.header("X-Consul-Token", value);
        }
        let built = built.body(Full::new(request.body)).map_err(unusable)?;
        let response = self.http.request(built).await;
        let response = response.map_err(|error| self.unreachable(&causes(&error)))?;
        let (head, body) = response.into_parts();
        let number = |name: &str| head.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let answer = Answer {
            index: number("X-Consul-Index"),
            last_contact: Duration::from_millis(number("X-Consul-LastContact").unwrap_or(0)),
            leader: head
                .headers
                .get("X-Consul-KnownLeader")
                .is_none_or(|it| it == "true"),
            body: Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| Failure::Unreadable(error.to_string()))?
                .to_bytes(),
        };
        if head.status.is_success() {
            return Ok(answer);
        }
        let words = printable(&answer.body);
        Err(match head.status.as_u16() {
            401 | 403 => Failure::Denied(words),
            // Releases before 1.10 say it with another code.
            500 if words.contains("ACL not found") || words.contains("Permission denied") => {
                Failure::Denied(words)
            }
            code => Failure::Status(code, words),
        })
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::Unreachable(format!(
            "Consul at {} does not answer: {why}",
            self.settings
        ))
    }
}

/// The first line of what Consul says, for a log.
fn printable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default().chars();
    line.filter(|it| !it.is_control()).take(200).collect()
}

fn tls(settings: &Settings) -> Result<rustls::ClientConfig, SettingsError> {
    let wrong =
        |variable: &str, why: &dyn std::fmt::Display| SettingsError(format!("{variable}: {why}"));
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = &settings.ca {
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = read.map_err(|error| {
            wrong(
                "CONSUL_CACERT",
                &format!("cannot read {}: {error}", path.display()),
            )
        })?;
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(wrong(
                "CONSUL_CACERT",
                &format!("no certificate in {}", path.display()),
            ));
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| wrong("TLS", &error))?
    .with_root_certificates(roots);
    let Some((certificate, key)) = &settings.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("CONSUL_CLIENT_CERT", &error))?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("CONSUL_CLIENT_KEY", &error))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| wrong("CONSUL_CLIENT_CERT", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_holds_what_it_is_given_and_no_more() {
        let request = Request::get(&["kv", "a/b?c#d", "ü"])
            .with("stale", None)
            .with("wait", Some("2m 0s"));
        assert_eq!(
            request.path,
            "/v1/kv/a%2Fb%3Fc%23d/%C3%BC?stale&wait=2m%200s&"
        );
    }

    #[test]
    fn an_error_page_becomes_one_short_line() {
        assert_eq!(printable(b"ACL not found\nmore\n"), "ACL not found");
        assert_eq!(printable(&[0x1b, b'[', b'1', b'm', 0xff]), "[1m\u{fffd}");
        assert_eq!(printable(&[b'x'; 4000]).len(), 200);
    }
}

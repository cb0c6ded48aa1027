//! The collector: where it is, and what it says to spans.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use millrace_daemon::exit::{ExitError, causes};
use millrace_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use millrace_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

/// The port of OTLP over gRPC.
const PORT: u16 = 4317;
/// Bounds of a connection attempt, and of an answer.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(10);
/// More of an answer is not read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// More of what a collector says of itself is not repeated, in characters.
const MAX_WORDS: usize = 200;

/// A collector that can be reached. Nothing is sent yet.
#[derive(Clone, Debug)]
pub struct Collector {
    url: Uri,
    tls: Arc<rustls::ClientConfig>,
}

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// They may be sent again later.
    Passing(String),
    /// They never will be.
    Final(String),
}

impl Collector {
    /// The collector at this URL, with the CAs of its certificate.
    ///
    /// # Errors
    /// What is wrong with the options, with exit code 64.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, ExitError> {
        let wrong = |why: &str| {
            ExitError::usage(format!(
                "--otlp-endpoint {url}: {why}; write http://HOST[:PORT] or https://HOST[:PORT]"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("no URL"))?;
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("no host"))?;
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(ExitError::usage(
                "--otlp-endpoint: no user or password in the address",
            ));
        }
        if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong("OTLP over gRPC has no path"));
        }
        let scheme = match uri.scheme_str() {
            Some("http") if ca.is_some() => {
                return Err(ExitError::usage(
                    "--otlp-ca is for https: write --otlp-endpoint https://HOST[:PORT], or leave it out",
                ));
            }
            Some("http") => "http",
            Some("https") if ca.is_some() => "https",
            Some("https") => {
                return Err(ExitError::usage(format!(
                    "--otlp-endpoint {url}: name the CA of the collector's certificate with --otlp-ca (on Debian \
                     /etc/ssl/certs/ca-certificates.crt has the public ones)"
                )));
            }
            Some(_) | None => return Err(wrong("no such protocol")),
        };
        let port = uri.port_u16().unwrap_or(PORT);
        let whole = format!("{scheme}://{host}:{port}").parse();
        Ok(Self {
            url: whole.map_err(|_| wrong("no host and port"))?,
            tls: Arc::new(tls(ca)?),
        })
    }

    /// Its URL, for people.
    pub const fn url(&self) -> &Uri {
        &self.url
    }

    /// Whether whoever is on the way can read what is sent.
    pub fn is_in_the_clear(&self) -> bool {
        self.url.scheme_str() == Some("http")
    }

    /// A client that connects when it first sends, and again after a connection was lost.
    pub(super) fn client(&self) -> TraceServiceClient<Channel> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&self.tls))
            .https_or_http()
            .enable_http2()
            .wrap_connector(tcp);
        let channel = Endpoint::from(self.url.clone())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // A connection whose other end is gone without a word is not waited for.
            .http2_keep_alive_interval(ANSWER)
            .keep_alive_timeout(CONNECT)
            .connect_with_connector_lazy(connector);
        TraceServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER)
    }
}

/// Sends spans; gives how many of them the collector refused, and what it says to that.
pub(super) async fn send(
    client: &mut TraceServiceClient<Channel>,
    request: ExportTraceServiceRequest,
) -> Result<(u64, String), Failure> {
    match client.export(request).await {
        Ok(answer) => {
            let partial = answer.into_inner().partial_success.unwrap_or_default();
            let refused = u64::try_from(partial.rejected_spans).unwrap_or(0);
            Ok((refused, words_of(&partial.error_message)))
        }
        Err(status) => {
            let words = words_of(&causes(&status));
            Err(match may_be_sent_again(status.code()) {
                true => Failure::Passing(words),
                false => Failure::Final(words),
            })
        }
    }
}

/// What a collector says, for the log: one line of it, and no more than so much.
fn words_of(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_WORDS).map(shown).collect()
}

/// The codes of OTLP after which a client sends again. One that says that it is full says so for a while. What tonic
/// makes of a broken connection has one of the codes of the last line. An answer that is too long is out of range: it was sent
/// by a collector that has taken the spans.
const fn may_be_sent_again(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unknown
    )
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, ExitError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca {
        let wrong = |why: &str| ExitError::usage(format!("--otlp-ca {}: {why}", path.display()));
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = read.map_err(|error| wrong(&error.to_string()))?;
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(wrong("there is no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ExitError::caused("cannot use TLS", &error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_a_url_and_mistakes_say_what_to_write() {
        let shown = |url: &str| Collector::new(url, None).map(|it| it.url.to_string());
        assert_eq!(shown("http://otel").unwrap(), "http://otel:4317/");
        assert_eq!(shown("http://[::1]:43/").unwrap(), "http://[::1]:43/");
        for (url, words) in [
            ("otel:4317", "http://HOST"),
            ("ftp://otel", "no such protocol"),
            ("http://otel/v1/traces", "no path"),
            ("http://me:secret@otel", "no user or password"),
            ("https://otel", "--otlp-ca"),
            ("", "no URL"),
        ] {
            let error = shown(url).unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let missing = Some(Path::new("/nonexistent/ca.pem"));
        for (url, words) in [
            ("http://otel", "is for https"),
            ("https://otel", "--otlp-ca /none"),
        ] {
            let error = Collector::new(url, missing).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        assert!(may_be_sent_again(Code::Unavailable));
        for code in [
            Code::InvalidArgument,
            Code::Unimplemented,
            Code::Unauthenticated,
        ] {
            assert!(!may_be_sent_again(code), "{code:?}");
        }
    }

    /// Accepts one connection in TLS; gives what its client chose to speak, and how it began.
    async fn accept(
        listener: tokio::net::TcpListener,
        config: Arc<rustls::ServerConfig>,
    ) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        use tokio::io::AsyncReadExt;
        let (stream, _) = listener.accept().await?;
        let mut stream = tokio_rustls::TlsAcceptor::from(config)
            .accept(stream)
            .await?;
        let mut first = vec![0; 14];
        stream.read_exact(&mut first).await?;
        let chosen = stream.get_ref().1.alpn_protocol().unwrap_or_default();
        Ok((chosen.to_vec(), first))
    }

    #[tokio::test]
    async fn https_speaks_http_2_to_whom_the_ca_vouches_for_and_to_nobody_else() {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let directory = std::env::temp_dir();
        for (ca, trusted) in [(&own, true), (&other, false)] {
            let file = directory.join(format!(
                "millrace-otlp-{}-{trusted}.pem",
                std::process::id()
            ));
            std::fs::write(&file, ca.cert.pem()).unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!(
                "https://localhost:{}",
                listener.local_addr().unwrap().port()
            );
            let collector = Collector::new(&url, Some(&file)).unwrap();
            std::fs::remove_file(&file).unwrap();
            let mut client = collector.client();
            let request = ExportTraceServiceRequest::default();
            let (accepted, sent) =
                tokio::join!(accept(listener, config.clone()), send(&mut client, request));
            // Nobody answers there.
            assert!(matches!(sent, Err(Failure::Passing(_))), "{sent:?}");
            match accepted {
                Ok((chosen, first)) => {
                    assert!(trusted);
                    assert_eq!(
                        (&chosen[..], &first[..]),
                        (&b"h2"[..], &b"PRI * HTTP/2.0"[..])
                    );
                }
                Err(error) => assert!(!trusted, "{error}"),
            }
        }
    }
}

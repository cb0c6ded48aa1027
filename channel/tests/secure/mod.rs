//! Ends over mutual TLS on loopback, for tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_channel::link::{self, LinkConfig, LinkHandle};
use millrace_channel::server::{self, AttachEvents, ServerConfig, ServerHandle};
use millrace_channel::transport::Security;
use millrace_channel::upkeep::Backoff;
use millrace_daemon::listen;
use millrace_notation::address::HostPort;
use millrace_routes::copier::LinkEvent;
use rcgen::CertificateParams;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::pki::{Pair, params};

/// Far longer than anything here takes: reached only when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A copier's identity.
pub(crate) const COPIER: &str = "spiffe://example.test/millrace/copier/live-1";

pub(crate) fn serve(security: Security) -> (ServerHandle, AttachEvents) {
    let config = ServerConfig::new(security, "rs1");
    let listener = listen::bind("127.0.0.1:0".parse().unwrap(), "-p").unwrap();
    server::spawn(config, listener, &Handle::current(), || {}).unwrap()
}

pub(crate) struct TestLink {
    pub(crate) handle: LinkHandle,
    pub(crate) events: UnboundedReceiver<LinkEvent>,
}

pub(crate) fn link_to(address: SocketAddr, security: Security, id: &str) -> TestLink {
    link_with(LinkConfig::new(HostPort::from(address), security, id))
}

pub(crate) fn link_with(mut config: LinkConfig) -> TestLink {
    config.peer.backoff = Backoff {
        first: Duration::from_millis(20),
        max: Duration::from_millis(200),
    };
    let (sender, events) = unbounded_channel();
    let handle = link::spawn(config, &Handle::current(), move |event| {
        let _ = sender.send(event);
    });
    TestLink { handle, events }
}

impl TestLink {
    pub(crate) async fn up(&mut self) {
        loop {
            match timeout(PATIENCE, self.events.recv())
                .await
                .expect("no event")
            {
                Some(LinkEvent::Up { .. }) => return,
                Some(_) => {}
                None => panic!("the link is gone"),
            }
        }
    }

    /// Why it does not come up.
    pub(crate) async fn error(&self) -> String {
        for _ in 0..2000 {
            let error = self.handle.status().last_error;
            if !error.is_empty() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no error");
    }
}

/// Trusts every server: here the server is the one who has to look.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Connects with any certificate, and returns what the server's side ended it with; empty when
/// the server accepted.
pub(crate) async fn attempt(address: SocketAddr, pair: Option<&Pair>) -> String {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("any").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let result = async {
        let mut stream = connector.connect(name, stream).await?;
        stream.read_u8().await
    };
    match timeout(PATIENCE, result).await.expect("hangs") {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn with(uri: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = params(&[uri]);
    change(&mut params);
    params
}

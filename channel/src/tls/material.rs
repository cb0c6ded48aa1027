//! What three files, read together, make: our identity, and whom we trust.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::certificate::Leaf;
use super::files::TlsFiles;
use super::verifier::{PeerVerifier, Verdict};
use super::{Identity, Role, Roles};

/// The only protocol inside: HTTP/2 (RFC 9113, section 3.2).
const ALPN: &[u8] = b"h2";

/// Certificates, key and CAs that belong together. Never changes; a reload makes a new one.
#[derive(Debug)]
pub(crate) struct Material {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    /// Checks the chain of a client; who it is comes after.
    clients: Arc<dyn ClientCertVerifier>,
    own: Arc<CertifiedKey>,
    leaf: Leaf,
    identity: Identity,
    loaded_at: SystemTime,
}

impl Material {
    /// Reads the files and checks that they fit each other and `role`.
    ///
    /// # Errors
    /// What is wrong and what to do, in one line.
    pub(super) fn load(files: &TlsFiles, role: Role) -> Result<Self, String> {
        let contents = files.read()?;
        let cert = files.cert.display();
        let provider = Arc::new(ring::default_provider());
        let first = contents.chain.first();
        let leaf = first
            .ok_or_else(|| format!("--cert {cert}: no certificate is in it"))
            .and_then(|der| Leaf::read(der).map_err(|error| format!("--cert {cert}: {error}")))?;
        let identity = leaf
            .identity()
            .map_err(|error| format!("--cert {cert}: {error}"))?;
        if identity.role != role {
            return Err(format!(
                "--cert {cert}: it is for {identity}, but this daemon is a {role}: give a \
                 certificate for spiffe://{}/millrace/{role}[/NAME]",
                identity.trust_domain
            ));
        }
        if leaf.not_after() < seconds_now() {
            return Err(format!(
                "--cert {cert}: expired at {} by this host's clock (`date -u`): renew it, or set the clock",
                leaf.not_after_text()
            ));
        }
        let own =
            CertifiedKey::from_der(contents.chain, contents.key, &provider).map_err(|error| {
                match error {
                    rustls::Error::InconsistentKeys(_) => format!(
                        "--key {} is not the key of --cert {cert}: give the pair that was made \
                     together",
                        files.key.display()
                    ),
                    other => format!("--key {}: it cannot be used ({other})", files.key.display()),
                }
            })?;
        let roots = Arc::new(contents.roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| format!("--ca {}: {error}", files.ca.display()))?;
        Ok(Material {
            provider,
            roots,
            clients,
            own: Arc::new(own),
            leaf,
            identity,
            loaded_at: SystemTime::now(),
        })
    }

    /// For one connection that we accept from `roles`. The verdict says who it is, or why not.
    pub(super) fn server(
        &self,
        roles: Roles,
    ) -> Result<(Arc<ServerConfig>, Verdict), rustls::Error> {
        let verdict: Verdict = Arc::new(OnceLock::new());
        let verifier = Arc::new(self.verifier(roles, verdict.clone()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection proves who it is: a resumed session would outlive its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((Arc::new(config), verdict))
    }

    /// For one connection that we make to a peer with `role`.
    pub(super) fn client(&self, role: Role) -> Result<(Arc<ClientConfig>, Verdict), rustls::Error> {
        let verdict: Verdict = Arc::new(OnceLock::new());
        let verifier = Arc::new(self.verifier(role.into(), verdict.clone()));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Names are not what is authenticated, so none is told either.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), verdict))
    }

    fn verifier(&self, roles: Roles, verdict: Verdict) -> PeerVerifier {
        PeerVerifier::new(
            self.roots.clone(),
            self.clients.clone(),
            self.provider.signature_verification_algorithms,
            self.identity.trust_domain.clone(),
            roles,
            verdict,
        )
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn not_before_text(&self) -> String {
        self.leaf.not_before_text()
    }

    /// Seconds until the certificate is valid; 0 once it is.
    pub(super) fn begins_in(&self) -> u64 {
        self.leaf.not_before().saturating_sub(seconds_now())
    }

    pub(super) fn not_after_text(&self) -> String {
        self.leaf.not_after_text()
    }

    /// Seconds that the certificate is still valid; negative when it is not.
    pub(super) fn expires_in(&self) -> i64 {
        let seconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        seconds(self.leaf.not_after()) - seconds(seconds_now())
    }

    pub(super) fn loaded_at(&self) -> SystemTime {
        self.loaded_at
    }
}

/// Since 1970.
pub(super) fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

//! The check of a peer's certificate: chain, validity, use, identity, trust domain, role.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use super::certificate::Leaf;
use super::refusal::{Reason, Refusal};
use super::{Identity, Roles};

/// What the verifier of one connection found. A peer is only who it says it is once the handshake
/// is complete: the certificate comes before the proof that the peer has its key.
pub(super) type Verdict = Arc<OnceLock<Result<Identity, Refusal>>>;

/// Verifies the peer of one connection.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    trust_domain: String,
    roles: Roles,
    verdict: Verdict,
}

impl PeerVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        clients: Arc<dyn ClientCertVerifier>,
        algorithms: WebPkiSupportedAlgorithms,
        trust_domain: String,
        roles: Roles,
        verdict: Verdict,
    ) -> Self {
        PeerVerifier {
            roots,
            clients,
            algorithms,
            trust_domain,
            roles,
            verdict,
        }
    }

    /// Records the verdict, and turns a refusal into the alert that fits it.
    fn judge(&self, leaf: &CertificateDer<'_>, chain: Result<(), Error>) -> Result<(), Error> {
        let (verdict, error) = match chain {
            Ok(()) => match self.identify(leaf) {
                Ok(identity) => (Ok(identity), None),
                Err(refusal) => {
                    let error = if refusal.reason == Reason::WrongRole {
                        // Alert access_denied: the certificate is fine, its holder may not.
                        CertificateError::ApplicationVerificationFailure
                    } else {
                        // Alert bad_certificate.
                        CertificateError::BadEncoding
                    };
                    (Err(refusal), Some(Error::InvalidCertificate(error)))
                }
            },
            Err(error) => (Err(chain_refusal(leaf, &error)), Some(error)),
        };
        // Set once: each connection has its own verifier, and a peer shows one certificate.
        let _ = self.verdict.set(verdict);
        error.map_or(Ok(()), Err)
    }

    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<Identity, Refusal> {
        let identity = Leaf::read(leaf)
            .map_err(|error| error.to_string())
            .and_then(|leaf| leaf.identity())
            .map_err(|why| {
                Refusal::new(
                    Reason::BadIdentity,
                    format!(
                        "its certificate does not say who it is: {why}; make one with exactly one \
                         URI spiffe://{}/millrace/ROLE[/NAME]",
                        self.trust_domain
                    ),
                )
            })?;
        if identity.trust_domain != self.trust_domain {
            return Err(Refusal::new(
                Reason::TrustDomain,
                format!(
                    "its certificate is for {identity}, of another trust domain than ours ({}): \
                     make one of this trust domain",
                    self.trust_domain
                ),
            ));
        }
        if !self.roles.contains(identity.role) {
            return Err(Refusal::new(
                Reason::WrongRole,
                format!(
                    "its certificate is for {identity}, but here it must be of role {}: is the \
                     address right, and the certificate the daemon's own?",
                    self.roles
                ),
            ));
        }
        Ok(identity)
    }
}

/// Why a chain is refused, in words.
fn chain_refusal(leaf: &CertificateDer<'_>, error: &Error) -> Refusal {
    let leaf = Leaf::read(leaf).ok();
    let since = |text: fn(&Leaf) -> String| leaf.as_ref().map(text).unwrap_or_default();
    let who = leaf
        .as_ref()
        .and_then(|leaf| leaf.identity().ok())
        .map(|it| format!(" ({it})"))
        .unwrap_or_default();
    let of = |reason, text: String| Refusal::new(reason, text);
    let Error::InvalidCertificate(kind) = error else {
        return of(
            Reason::BadCertificate,
            format!("its certificate{who} cannot be used: {error}"),
        );
    };
    match kind {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => of(
            Reason::Expired,
            format!(
                "its certificate{who} expired at {}: renew it, and compare the clocks (`date -u` on both hosts)",
                since(Leaf::not_after_text)
            ),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => of(
            Reason::NotYetValid,
            format!(
                "its certificate{who} is not valid before {}: compare the clocks (`date -u` on both hosts)",
                since(Leaf::not_before_text)
            ),
        ),
        CertificateError::UnknownIssuer => of(
            Reason::UnknownCa,
            format!(
                "no CA in our --ca has signed its certificate{who}: add its CA to --ca, or give it \
                 a certificate of ours"
            ),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => of(
            Reason::WrongUsage,
            format!(
                "its certificate{who} may not be used like this: its extendedKeyUsage must name \
                 clientAuth for those who connect and serverAuth for those who listen"
            ),
        ),
        // A foreign enum without an end.
        other => of(
            Reason::BadCertificate,
            format!("its certificate{who} cannot be used ({other}): make a new one"),
        ),
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// None: what CAs we trust is nobody's business before it has shown who it is.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = self.clients.verify_client_cert(leaf, intermediates, now);
        self.judge(leaf, chain.map(|_| ()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// The server's name is not looked at: its role is what makes it the right one, as with any
    /// SPIFFE identity.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = ParsedCertificate::try_from(leaf).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        });
        self.judge(leaf, chain)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

//! Why a handshake failed: counted by reason, and told in one line that says what to do.

use std::fmt;

/// Why a handshake was refused. What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The certificate's role may not use the service.
    WrongRole,
    /// The certificate is not valid any more.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// No CA that we trust has signed it.
    UnknownCa,
    /// The peer gave no certificate.
    NoCertificate,
    /// The certificate does not say who it is for, or says it wrongly or twice.
    BadIdentity,
    /// The certificate is of another trust domain.
    TrustDomain,
    /// The certificate's extended key usage excludes this use.
    WrongUsage,
    /// The certificate is broken in another way.
    BadCertificate,
    /// The peer spoke in plain text.
    PlainText,
    /// The peer spoke TLS to a side that was told to talk in plain text.
    UnexpectedTls,
    /// The peer offered no TLS 1.3.
    OldTls,
    /// The peer refused our certificate.
    RefusedByPeer,
    /// The handshake took too long.
    TimedOut,
    /// The peer left in the middle of the handshake.
    Aborted,
    /// Too many connections from one address.
    TooMany,
    /// Anything else.
    Other,
}

impl Reason {
    /// All there are.
    pub const ALL: [Reason; 17] = [
        Reason::WrongRole,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::UnknownCa,
        Reason::NoCertificate,
        Reason::BadIdentity,
        Reason::TrustDomain,
        Reason::WrongUsage,
        Reason::BadCertificate,
        Reason::PlainText,
        Reason::UnexpectedTls,
        Reason::OldTls,
        Reason::RefusedByPeer,
        Reason::TimedOut,
        Reason::Aborted,
        Reason::TooMany,
        Reason::Other,
    ];

    /// As it stands in /status and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::WrongRole => "wrong_role",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::UnknownCa => "unknown_ca",
            Reason::NoCertificate => "no_certificate",
            Reason::BadIdentity => "bad_identity",
            Reason::TrustDomain => "trust_domain",
            Reason::WrongUsage => "wrong_usage",
            Reason::BadCertificate => "bad_certificate",
            Reason::PlainText => "plain_text",
            Reason::UnexpectedTls => "unexpected_tls",
            Reason::OldTls => "old_tls",
            Reason::RefusedByPeer => "refused_by_peer",
            Reason::TimedOut => "timed_out",
            Reason::Aborted => "aborted",
            Reason::TooMany => "too_many",
            Reason::Other => "other",
        }
    }
}

/// A refused handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// What happened and what to do, in one line.
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Refusal {
            reason,
            text: text.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

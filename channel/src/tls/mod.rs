//! Mutual TLS between daemons: who a peer is, and whether it may do what it asks for.
//!
//! TLS 1.3 only (RFC 8446), with certificates on both sides. Who a peer is stands in its
//! certificate as one URI, `spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME]` (the form of SPIFFE-ID
//! 1.0, sections 2 and 3): the [`Role`] decides what it may do, host names and addresses do not
//! count. The three files are read again when they change; what is open stays open.

mod accept;
mod certificate;
mod connect;
mod files;
mod identity;
mod material;
mod refusal;
mod role;
mod store;
mod verifier;
mod watch;

pub use certificate::named_hosts;
pub use connect::Expect;
pub use identity::{Identity, IdentityError};
pub use refusal::Reason;
pub use role::{Role, Roles};
pub use store::{CertificateStatus, Store};

pub(crate) use accept::{HANDSHAKE_RECORD, accept};
pub(crate) use connect::{confirm, connect, explain};
pub(crate) use files::TlsFiles;
pub(crate) use refusal::Refusal;

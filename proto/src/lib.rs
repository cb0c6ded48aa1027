//! The contract between Millrace's daemons.
//!
//! [`v1`] is generated from `millrace/v1/interceptor.proto` and `millrace/v1/router.proto`, which
//! document every message. What
//! travels in large numbers is packed by hand into `bytes` fields of those messages: [`flow`]
//! (route info, copier to interceptor) and [`header`] (response headers, interceptor to copier).
//! [`claim`] and [`trace`] turn claims and traces into checked types and back.
//!
//! Every decoder here is total: any bytes give a value or an error, never a panic, and what they
//! accept encodes back to the same bytes.

mod bytes;
pub mod claim;
pub mod flow;
pub mod header;
pub mod trace;

pub use claim::{ClaimError, ClaimSet, ClientRange, MAX_CLAIM_ENTRIES};
pub use flow::{FlowId, FlowIds, FlowRecord, FlowRecords};
pub use header::{FlowKey, HeaderRecord, HeaderRecords, Response};
pub use trace::{Obstacle, Sight, TraceReport, TraceRequest};

/// The version of the contract that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest version that this build still understands.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;

/// The size that senders fill batches to: large enough to spread the cost of a message, small
/// enough that a Ping waits little behind it. Bytes.
pub const BATCH_BYTES: usize = 32 * 1024;

/// The largest encoded message that either side accepts. Bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// The mark (`skb->mark`) of packets that an interceptor lets pass from its netfilter queue, so that
/// the router-agent's floor on the same host lets them pass too: "mrpa" in ASCII.
pub const PASSED_MARK: u32 = 0x6d72_7061;

/// Generated from the files in `millrace/v1/`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::match_wildcard_for_single_variants,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod v1 {
    tonic::include_proto!("millrace.v1");
}

/// What a collector of OpenTelemetry takes (OTLP 1.x, traces), generated from the files in `opentelemetry/proto/`, which
/// are OpenTelemetry's own.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::match_wildcard_for_single_variants,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod otlp {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.common.v1");
        }
    }
    pub mod resource {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.resource.v1");
        }
    }
    pub mod trace {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.trace.v1");
        }
    }
    pub mod collector {
        pub mod trace {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
            }
        }
    }
}

/// Why packed bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a record.
    #[error("the bytes end inside a record")]
    Truncated,
    /// An address family other than 4 and 6.
    #[error("address family {0} is neither 4 nor 6")]
    Family(u8),
    /// A bit that this version does not define, or a combination that makes no sense.
    #[error("flag byte {0:#04x} is not valid in this version")]
    Flags(u8),
    /// No payload is told in this way: none, more than a record carries, or more than its segment has.
    #[error("a payload of {0} bytes is none, or more than its record can have")]
    PayloadLength(u16),
    /// A field that must be zero is not.
    #[error("a field that is absent by its flag is not zero")]
    NotCanonical,
}

/// The two ends of a flow are of different address families, which no packet can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flow between an IPv4 and an IPv6 address cannot exist")]
pub struct MixedFamilies;

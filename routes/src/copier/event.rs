//! What a copier hears on a link to an interceptor.

use bytes::Bytes;
use millrace_proto::v1::refused::Code;
use millrace_proto::{ClientRange, TraceReport};

use super::Epoch;

/// What happens on a link.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// The stream is open: send all that is owned.
    Up {
        /// The epoch that begins.
        epoch: Epoch,
        /// The interceptor's name.
        interceptor_id: String,
        /// The interceptor's run: another one than before has forgotten everything.
        incarnation: u64,
    },
    /// The stream is gone; the link connects again by itself.
    Down {
        /// The epoch that ended.
        epoch: Epoch,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Response headers: read them with [`millrace_proto::HeaderRecords`].
    Headers {
        /// The packed records, unchecked.
        bytes: Bytes,
        /// How many the interceptor says there are.
        count: u32,
        /// How many were dropped in this epoch because this side read too slowly (cumulative).
        dropped: u64,
        /// When they were ready to be sent, in microseconds of a clock of the interceptor that begins with the stream; 0 if
        /// it does not say.
        ready_at: u64,
    },
    /// Flows that were announced here and belong to another copier: their replicas are to be moved
    /// to other ports.
    Conflict {
        /// Their ids, unchecked: read them with [`millrace_proto::FlowIds`].
        ids: Bytes,
    },
    /// The claim of this epoch is granted: until then nothing may be sent to the targets.
    Granted,
    /// Other copiers claim these ranges; this one yields them: it opens no flow there any more, announces what it
    /// still has, and claims again without them.
    Others {
        /// All of them, in place of what was said before.
        ranges: Vec<ClientRange>,
    },
    /// Another copier has these flows within this one's claim, or has them no more.
    Taken {
        /// The flows, unchecked: read them with [`millrace_proto::FlowRecords`].
        flows: Bytes,
        /// They have ended.
        ended: bool,
    },
    /// What the interceptor's host saw of some probes.
    Traced(TraceReport),
    /// The interceptor refused; the link tries again by itself, at its slowest pace.
    Refused {
        /// Why.
        code: Code,
        /// Why, in one line.
        reason: String,
        /// Who owns what was asked for, or empty.
        owner: String,
    },
}

//! What was captured of a connection that its receiver may not have accepted.

use millrace_wire::{Flags, Seq, TcpHeader, TcpOptions};

use crate::live_view::Said;
use crate::stream::End;
#[cfg(doc)]
use crate::stream::EndKind;
use crate::time::Time;

/// What was captured of one connection and does not count yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubts {
    /// Behind the last segment of the client that fits no window.
    pub(crate) stray: Option<Seq>,
    /// The number of a SYN that came while the connection was open.
    pub(crate) syn: Option<Seq>,
    /// What the live server said behind a hole.
    pub(crate) behind_hole: Option<Said>,
    /// The client's last acknowledgement of what the live server is not known to have sent.
    pub(crate) unsent: Option<Seq>,
    /// The live server's last segment, if it acknowledged what the client is not known to have sent.
    pub(crate) unasked: Option<Said>,
    /// The number of the live server's first word, if it is far from what the client has acknowledged.
    pub(crate) number: Option<Seq>,
    /// A SYN-ACK in other numbers than the connection's.
    pub(crate) greeting: Option<Greeting>,
    pub(crate) reset: Option<DoubtfulReset>,
}

/// What is remembered of a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The client's first byte.
    pub(crate) next: Seq,
    /// The live server's.
    pub(crate) first: Seq,
    window_scale: Option<u8>,
}

impl Greeting {
    pub(crate) fn of(header: &TcpHeader) -> Self {
        Self {
            next: header.ack,
            first: header.seq.add(1),
            window_scale: header.options.window_scale,
        }
    }

    /// The header that it was in, as far as it matters.
    pub(crate) fn header(&self) -> TcpHeader {
        TcpHeader {
            seq: self.first.add(u32::MAX),
            ack: self.next,
            flags: Flags::SYN | Flags::ACK,
            options: TcpOptions {
                window_scale: self.window_scale,
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        }
    }
}

/// A RST that did not stand at the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoubtfulReset {
    pub(crate) at: Time,
    /// The end that it makes: [`EndKind::Severed`] if it came from the live server.
    pub(crate) end: End,
    /// What the client and the live server had sent before.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
}

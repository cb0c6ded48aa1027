//! Where responses come from: a device, or a queue.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use millrace_capture::filter::HEADERS_ONLY;
use millrace_capture::{Expression, Filter, ResponseFilter, Tap};
use millrace_wire::{Decoder, LinkType, TcpPacket, Verify};

use crate::queue::{Head, Heads};

/// Frames taken from one ring before the others, and route info, get their turn.
const FRAMES_IN_A_ROW: usize = 4096;

/// Which frames of a device are responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in: others sent them here, to an assistant.
    Incoming,
    /// All: nothing else is on a sink.
    Any,
}

/// A source of responses.
#[derive(Debug)]
pub enum Source {
    /// A device.
    Device(Box<Tap>, Direction),
    /// A queue.
    Queue(Heads, VecDeque<Head>),
}

impl Source {
    /// Hands over what has come, decoded, for as long as a turn lasts. The second argument of
    /// `take` says whether the frame may be a response. Says whether there is more.
    pub fn read(
        &mut self,
        decoder: &mut Decoder,
        mut take: impl FnMut(&TcpPacket<'_>, bool),
    ) -> bool {
        match self {
            Self::Device(tap, direction) => {
                let taken = tap.read(FRAMES_IN_A_ROW, |link, frame| {
                    let len = frame.original_len as usize;
                    let decoded =
                        decoder.decode(frame.timestamp, link, frame.data, len, Verify::Nothing);
                    if let Ok(packet) = decoded {
                        take(&packet, *direction == Direction::Any || !frame.outgoing);
                    }
                });
                taken == FRAMES_IN_A_ROW
            }
            Self::Queue(heads, taken) => {
                heads.take(taken);
                for head in taken.drain(..) {
                    let len = head.original_len;
                    let decoded =
                        decoder.decode(0, LinkType::RawIp, head.data(), len, Verify::Nothing);
                    if let Ok(packet) = decoded {
                        take(&packet, true);
                    }
                }
                false
            }
        }
    }

    /// Captures packets from these ports whole from now on; port 0 stands for all, and where an operator's expression or a
    /// firewall's rule chooses the packets, any port does.
    pub fn set_whole(&mut self, ports: &[u16]) {
        match self {
            Self::Device(tap, _) => {
                let filter = match tap.filter() {
                    Filter::Responses(filter) => Filter::Responses(ResponseFilter {
                        whole_ports: ports.to_vec(),
                        ..filter.clone()
                    }),
                    Filter::Expression(expression) => Filter::Expression(Expression {
                        snap_len: match ports {
                            [] => HEADERS_ONLY,
                            _ => u32::MAX,
                        },
                        ..expression.clone()
                    }),
                    other @ (Filter::Services(_) | Filter::Connects(_)) => other.clone(),
                };
                if let Err(error) = tap.set_filter(filter) {
                    tracing::warn!("answers come without their payload: {error}");
                }
            }
            Self::Queue(heads, _) if !ports.is_empty() => heads.want_whole(),
            // To have heads again it would lose packets.
            Self::Queue(..) => {}
        }
    }

    /// What to sleep on; a queue's thread wakes the worker itself.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Device(tap, _) => tap.fd(),
            Self::Queue(..) => None,
        }
    }

    /// Says that the source may have failed.
    pub fn suspect(&mut self) {
        match self {
            Self::Device(tap, _) => tap.suspect(),
            Self::Queue(..) => {}
        }
    }

    /// Packets that came, and packets that were lost before they could be read.
    pub fn counts(&mut self) -> (u64, u64) {
        match self {
            Self::Device(tap, _) => {
                let statistics = tap.statistics();
                (statistics.received, statistics.dropped)
            }
            Self::Queue(heads, _) => heads.counts(),
        }
    }

    /// Its name, for /readyz.
    pub fn name(&self) -> String {
        match self {
            Self::Device(tap, _) => format!("device {}", tap.devices()),
            Self::Queue(..) => "queue".to_owned(),
        }
    }

    /// Whether it is there, so that responses can come from it.
    pub fn delivers(&self) -> bool {
        match self {
            Self::Device(tap, _) => tap.is_open(),
            Self::Queue(..) => true,
        }
    }
}

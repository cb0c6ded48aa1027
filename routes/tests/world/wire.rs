//! A link between a copier and an interceptor: what is on its way, and what each end believes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::{ClaimSet, FlowId, TraceRequest};
use millrace_routes::copier::{Epoch, LinkEvent, SendError, Uplink};
use millrace_routes::interceptor::ConnId;
use millrace_wire::FourTuple;

use super::rng::Rng;

/// From copier to interceptor.
pub enum Message {
    ResyncBegin,
    ResyncEnd,
    Announce(Bytes),
    Forget(Bytes),
    Claim(ClaimSet),
}

/// From interceptor to copier.
pub enum Reply {
    Event(LinkEvent),
    /// The ids of flows that are another copier's.
    Conflict(FlowId),
    /// The header of a response to this flow.
    Header(FourTuple),
}

#[derive(Default)]
pub struct Wire {
    /// The stream as the copier sees it.
    pub epoch: Option<Epoch>,
    last_epoch: Epoch,
    /// The stream as the interceptor sees it.
    pub conn: Option<ConnId>,
    pub up: VecDeque<Message>,
    pub down: VecDeque<Reply>,
    /// Nothing more comes through; each end learns of it when it has read what had.
    pub is_cut: bool,
    pub cut_at: Duration,
    /// Messages that fit into the copier's queue.
    room: usize,
    /// Messages that the copier has sent.
    pub sent: u64,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wire = self.0.borrow();
        write!(f, "{:?}/{:?}", wire.epoch, wire.conn)
    }
}

/// An end of a wire.
#[derive(Clone, Default)]
pub struct Line(pub Rc<RefCell<Wire>>);

impl Line {
    pub fn new(room: usize) -> Self {
        let line = Self::default();
        line.0.borrow_mut().room = room;
        line
    }

    /// A new connection, of which both ends know.
    pub fn connect(&self, conn: ConnId, up: impl FnOnce(Epoch) -> LinkEvent) {
        let mut wire = self.0.borrow_mut();
        wire.last_epoch += 1;
        wire.epoch = Some(wire.last_epoch);
        wire.conn = Some(conn);
        wire.is_cut = false;
        wire.up.clear();
        let first = Reply::Event(up(wire.last_epoch));
        wire.down = VecDeque::from([first]);
    }

    /// The connection breaks: a part of what is on its way still arrives.
    pub fn cut(&self, now: Duration, rng: &mut Rng) {
        let mut wire = self.0.borrow_mut();
        if wire.is_cut {
            return;
        }
        wire.cut_at = now;
        wire.is_cut = true;
        let (up, down) = (rng.below(wire.up.len() + 1), rng.below(wire.down.len() + 1));
        wire.up.truncate(up);
        wire.down.truncate(down);
    }

    /// Says something to the copier.
    pub fn reply(&self, reply: Reply) {
        let mut wire = self.0.borrow_mut();
        if !wire.is_cut {
            wire.down.push_back(reply);
        }
    }

    fn send(&self, epoch: Epoch, message: Message) -> Result<(), SendError> {
        let mut wire = self.0.borrow_mut();
        if wire.epoch != Some(epoch) {
            return Err(SendError::NotConnected);
        }
        if wire.up.len() >= wire.room {
            return Err(SendError::Full);
        }
        wire.sent += 1;
        if !wire.is_cut {
            wire.up.push_back(message);
        }
        Ok(())
    }
}

impl Uplink for Line {
    fn name(&self) -> String {
        "a line".to_owned()
    }

    fn queued_bytes(&self) -> usize {
        // As if each message were large: a resync pauses when half of the room is taken.
        let wire = self.0.borrow();
        if wire.up.len() * 2 > wire.room {
            1 << 30
        } else {
            0
        }
    }

    fn announce(&self, epoch: Epoch, flows: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(epoch, Message::Announce(flows.into()))
    }

    fn forget(&self, epoch: Epoch, ids: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(epoch, Message::Forget(ids.into()))
    }

    fn claim(&self, epoch: Epoch, claim: &ClaimSet) -> Result<(), SendError> {
        self.send(epoch, Message::Claim(claim.clone()))
    }

    fn resync_begin(&self, epoch: Epoch) -> Result<(), SendError> {
        self.send(epoch, Message::ResyncBegin)
    }

    fn resync_end(&self, epoch: Epoch) -> Result<(), SendError> {
        self.send(epoch, Message::ResyncEnd)
    }

    fn trace(&self, _: Epoch, _: &TraceRequest) -> Result<(), SendError> {
        Ok(())
    }
}

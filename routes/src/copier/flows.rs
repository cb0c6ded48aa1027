//! What a copier has that interceptors must know of.

use millrace_proto::{ClientRange, FlowId};
use millrace_wire::FourTuple;

/// The flows of a copier: its replicas, each from its source to its target.
pub trait Flows {
    /// All of them.
    fn each(&self) -> impl Iterator<Item = (FlowId, FourTuple)>;

    /// One of them, if it still exists.
    fn get(&self, id: FlowId) -> Option<FourTuple>;

    /// Whether responses to it must come with their payload.
    fn wants_payload(&self, id: FlowId) -> bool;

    /// Whether its target has answered its SYN.
    fn is_connected(&self, id: FlowId) -> bool;

    /// Another copier owns this flow: it begins anew from another source, unless it is connected. Says whether it
    /// does.
    fn move_away(&mut self, id: FlowId) -> bool;

    /// No flow begins in these ranges any more; in those that were named before and are not now they may again.
    fn leave(&mut self, ranges: &[ClientRange]);

    /// Another copier has this flow, or has it no more: none begins there meanwhile, and one of this copier's that
    /// does so just now moves away.
    fn set_taken(&mut self, flow: &FourTuple, is_taken: bool);
}

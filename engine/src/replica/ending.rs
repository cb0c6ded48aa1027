//! How a replica ends: as its client did, or counted under the reason why not.

use millrace_wire::TcpHeader;

use super::connection::{Connection, FIN_WAIT, State};
use super::linger::Linger;
use super::tale::tell_unestablished;
use super::{Context, Phase, Replica};
use crate::stats::{AbortReason, Owed};
use crate::stream::EndKind;
use crate::time::Time;

/// How long the target must have been quiet before a connection that the live server cut is cut
/// here too, in microseconds.
const SEVERED_QUIET: u32 = 1_000_000;
/// How long a target may be ahead of the live server when both reset a connection, in microseconds:
/// the two programs take their own time, and what is captured comes in blocks.
const AHEAD: u32 = 250_000;

impl Replica {
    /// The client's stream has grown or ended, a time came, or the target was heard: opens the
    /// gate as far as it goes, and ends what has come to its end.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>) {
        let Phase::Established(c) = &mut self.phase else {
            return;
        };
        if c.state.is_reset_by_target() {
            return self.judge_cut(cx);
        }
        c.open_gate(cx);
        c.note_live_over(cx);
        let Some(end) = cx.stream.end() else { return };
        let all_acked = c.sender.una() >= end.offset;
        let gate_open = cx.turns.get(c.gate.next_mark()).is_none();
        match end.kind {
            EndKind::Fin => {
                if c.sender.una() > end.offset {
                    c.complete(cx);
                    self.close_if_finished(cx);
                }
            }
            EndKind::Reset if all_acked && gate_open => {
                c.complete(cx);
                c.state = State::ResetDue;
            }
            EndKind::Severed | EndKind::Lost | EndKind::SetAside | EndKind::Uncopied(_)
                if all_acked =>
            {
                let cut_at = c.cut_at(cx);
                if !c.receiver.finished() && cut_at > cx.now {
                    c.look_at = cut_at;
                    return;
                }
                match end.kind {
                    EndKind::Lost => self.abort(cx, AbortReason::CaptureGap),
                    EndKind::SetAside => self.abort(cx, AbortReason::SetAside),
                    EndKind::Uncopied(reason) => self.abort(cx, reason),
                    EndKind::Fin | EndKind::Reset | EndKind::Severed => {
                        c.complete(cx);
                        c.state = State::ResetDue;
                    }
                }
            }
            EndKind::Reset
            | EndKind::Severed
            | EndKind::Lost
            | EndKind::SetAside
            | EndKind::Uncopied(_) => {}
        }
    }

    /// After the client's FIN was acknowledged: done when the target has ended too, or when the
    /// client did not want to hear more.
    fn close_if_finished(&mut self, cx: &mut Context<'_>) {
        let Phase::Established(c) = &mut self.phase else {
            return;
        };
        if c.receiver.finished() {
            c.tell_end(cx, None);
            // TIME-WAIT or the end of LAST-ACK: answer the target's FIN, should it come again.
            self.phase = Phase::Lingering(Box::new(c.closed(cx.now)));
        } else if cx.reset_after_fin {
            c.state = State::ResetDue;
        }
    }

    /// The target reset the connection.
    pub(super) fn on_reset(&mut self, cx: &mut Context<'_>, header: &TcpHeader) {
        let Phase::Established(c) = &mut self.phase else {
            return;
        };
        // A stack that resets a connection says how much of it had arrived.
        c.on_ack(cx, header, false);
        let end = cx.stream.end();
        let delivered = end.filter(|end| c.sender.una() >= end.offset);
        let as_live = match delivered.map(|end| end.kind) {
            // Both sides had ended: how the target cleans up is its own affair.
            Some(EndKind::Fin) => c.receiver.finished(),
            // It was to be reset anyway.
            Some(EndKind::Reset | EndKind::Severed) => true,
            Some(EndKind::Lost | EndKind::SetAside | EndKind::Uncopied(_)) | None => false,
        };
        if c.state.is_complete() || as_live {
            c.complete(cx);
            c.give_up_answer(cx);
            c.tell_end(cx, None);
            self.phase = Phase::Closed;
        } else if c.receiver.finished() {
            self.abort(cx, AbortReason::TargetClosed);
        } else {
            c.state = State::ResetByTarget;
            c.look_at = cx.now.plus_micros(AHEAD);
            self.judge_cut(cx);
        }
    }

    /// The target reset the connection, which has not ended on the live side: that too may be a
    /// reset, seen a moment later.
    fn judge_cut(&mut self, cx: &mut Context<'_>) {
        let Phase::Established(c) = &mut self.phase else {
            return;
        };
        let gate_open = cx.turns.get(c.gate.next_mark()).is_none();
        let all_acked = c.sender.una() >= cx.stream.len();
        match cx.stream.end().map(|end| end.kind) {
            None if all_acked && gate_open && cx.now < c.look_at => {}
            Some(EndKind::Reset | EndKind::Severed) if all_acked => {
                c.complete(cx);
                c.give_up_answer(cx);
                c.tell_end(cx, None);
                self.phase = Phase::Closed;
            }
            None | Some(_) => self.abort(cx, AbortReason::TargetReset),
        }
    }

    /// Ends the replica since its target has had its time.
    pub(crate) fn time_out(&mut self, cx: &mut Context<'_>) {
        let owed = match &self.phase {
            Phase::SynSent(_) => Some(Owed::Handshake),
            Phase::Established(c) => c.owed(),
            Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => None,
        };
        if let Some(owed) = owed {
            tracing::trace!(client = %cx.tuple.source, "the target's time is over: it owes the {}", owed.name());
            cx.stats.replicas_timed_out.add(owed);
        }
        self.abort(cx, AbortReason::Timeout);
    }

    /// Ends the replica, counted. What the target has of the connection is reset.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>, reason: AbortReason) {
        // Whether the target has no connection any more, and whether it had its time to answer.
        let (target_is_gone, had_its_time) = match reason {
            AbortReason::TargetReset | AbortReason::TargetClosed => (true, true),
            // Of the last nothing more is to be sent.
            AbortReason::Refused | AbortReason::Misdirected => (true, false),
            AbortReason::Timeout => (false, true),
            AbortReason::CaptureGap
            | AbortReason::Urgent
            | AbortReason::Memory
            | AbortReason::SetAside
            | AbortReason::Idle
            | AbortReason::Shutdown
            | AbortReason::Stopped
            | AbortReason::Unproven
            | AbortReason::Mptcp
            | AbortReason::Protocol => (false, false),
        };
        let left = match &self.phase {
            Phase::Lingering(_) | Phase::Closed => return,
            Phase::Waiting { .. } => None,
            Phase::SynSent(handshake) => Some(Linger::abandoned(cx.now, handshake.first())),
            Phase::Established(c) => Some(c.reset(cx.now)),
        };
        if let Phase::Established(c) = &mut self.phase
            && had_its_time
        {
            c.give_up_answer(cx);
        }
        let completed = matches!(&self.phase, Phase::Established(c) if c.state.is_complete());
        if !completed {
            tracing::trace!(client = %cx.tuple.source, "the copy is given up: {}", reason.name());
            cx.stats.replicas_aborted.add(reason);
        }
        if self.traits.is_sampled() {
            let begun_at = match &mut self.phase {
                Phase::SynSent(handshake) => Some(handshake.sent_at()),
                Phase::Waiting { .. } | Phase::Lingering(_) | Phase::Closed => None,
                Phase::Established(c) => {
                    c.tell_end(cx, Some(reason).filter(|_| !completed));
                    None
                }
            };
            if !self.is_established() {
                tell_unestablished(cx, self.service(), begun_at, reason);
            }
        }
        self.phase = match left.filter(|_| !target_is_gone) {
            Some(linger) => Phase::Lingering(Box::new(linger)),
            None => Phase::Closed,
        };
    }
}

impl Connection {
    /// Every byte was acknowledged, and the connection ends as the client's did.
    fn complete(&mut self, cx: &mut Context<'_>) {
        if !self.state.is_complete() {
            self.state = State::FinWait2 {
                live_over: cx.live_over,
            };
            tracing::trace!(client = %cx.tuple.source, "the copy is complete: {} bytes", cx.stream.len());
            cx.stats.replicas_completed += 1;
            if let Some(latency) = self.gate.finish() {
                cx.stats.target_latency.record(latency);
                self.tell_latency(cx, latency);
            }
        }
    }

    /// When a connection that the live server cut is cut here: once the target has been quiet for
    /// a while, and no later than a target may go on after a FIN.
    fn cut_at(&self, cx: &Context<'_>) -> Time {
        let quiet = self.gate.clock.latest().plus_micros(SEVERED_QUIET);
        quiet.min(cx.live_heard_at.max(self.gate.clock.asked_at) + FIN_WAIT)
    }
}

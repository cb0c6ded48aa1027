//! What the shard puts out: packets to targets, and flows to interceptors.

use std::time::Instant;

use millrace_capture::SendErrorKind;
use millrace_daemon::boottime::BootTime;
use millrace_daemon::quiet::times_before;
use millrace_engine::{Event, ReplicaKey, SendFailure, Time};

use super::packets::{push, push_transmit};
use super::{PACKETS_IN_A_ROW, Shard};
use crate::may_send::MaySend;
use crate::probe::Prober;
use crate::routes::{EngineFlows, moment};

impl Shard {
    /// Puts out what the engine wants to say: flows to the interceptors, and some packets to the
    /// sender. Says whether there are more packets.
    pub(super) fn put_out(&mut self, now: Time) -> bool {
        let mut unsent = false;
        let may_send = self.may_send;
        let lapsed = may_send == MaySend::Nothing;
        if lapsed {
            self.acknowledge(now);
        }
        for count in 0.. {
            unsent = !lapsed && count >= PACKETS_IN_A_ROW;
            if unsent || lapsed {
                break;
            }
            let Some(transmit) = self.engine.poll_transmit(now) else {
                break;
            };
            push_transmit(&mut self.sender, &mut self.builder, &transmit);
        }
        while may_send == MaySend::Everything
            && let Some((id, tuple, header)) = self.prober.poll_transmit()
        {
            push(
                &mut self.sender,
                &mut self.builder,
                id,
                &tuple,
                &header,
                [&[]; 3],
            );
        }
        self.tell_flows(now);
        while let Some(told) = self.engine.poll_told() {
            (self.tell)(told);
        }
        unsent
    }

    /// Acknowledges what still comes in, for a moment: what an interceptor saw was diverted. See
    /// [`millrace_engine::Engine::acknowledge`].
    pub(super) fn acknowledge(&mut self, now: Time) {
        let Some(first) = self.standstill.may_acknowledge(BootTime::now()) else {
            return;
        };
        let Self {
            engine,
            builder,
            sender,
            ..
        } = self;
        engine.acknowledge(now, first, |transmit| {
            push_transmit(sender, builder, &transmit);
        });
    }

    pub(super) fn tell_flows(&mut self, now: Time) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::FlowOpened { key, tuple } => {
                    let engine = &mut self.engine;
                    let flows = EngineFlows { engine, now };
                    self.routes.flow_opened(key.flow_id(), &tuple, &flows);
                    self.has_announced = true;
                }
                Event::HeardEnough { key } => {
                    let engine = &mut self.engine;
                    let flows = EngineFlows { engine, now };
                    self.routes.heard_enough(key.flow_id(), &flows);
                }
                Event::FlowClosed { key } => self.routes.flow_closed(key.flow_id()),
                Event::TargetSilent(silence) => {
                    let guarded = self.diverters.keep_all_clients();
                    self.prober
                        .on_silence(now, &mut self.engine, &silence, guarded);
                }
                // Counted, and shown in the report.
                Event::ConversationFailed { failure, .. } => {
                    if let Some(more) = self.failures.say(failure.kind, Instant::now()) {
                        let more = times_before(more);
                        tracing::warn!(
                            "a copied connection ends, says its protocol module: {failure}{more}"
                        );
                    }
                }
                Event::Misdirected {
                    target,
                    misdirection,
                } => self
                    .prober
                    .on_misdirected(target, misdirection, &mut self.routes),
            }
        }
    }

    pub(super) fn flush(&mut self) {
        // Interceptors are told of a flow while its first packet is on its way; a response that is sooner waits there.
        let now = self.clock.now();
        let engine = &mut self.engine;
        self.routes
            .flush(moment(now), &mut EngineFlows { engine, now });
        // This thread may have stood still since it put the packets out. TCP sends them again.
        if self.may_send_now() == MaySend::Nothing && self.may_send != MaySend::Nothing {
            self.sender.discard();
        }
        let Self {
            sender,
            engine,
            prober,
            too_long_said,
            ..
        } = self;
        sender.flush(|failure| {
            if Prober::is_probe(failure.cookie) {
                prober.on_send_failure(failure.cookie, failure.kind, failure.errno);
                return;
            }
            let too_long = failure.kind == SendErrorKind::MessageTooLong;
            if too_long && !*too_long_said {
                *too_long_said = true;
                tracing::warn!(
                    "a packet of {} bytes is too long for the way to {}: sending smaller ones \
                     (set --mtu to the MTU of that way)",
                    failure.length,
                    failure.destination
                );
            }
            let kind = if too_long {
                SendFailure::TooLong
            } else {
                SendFailure::Lost
            };
            engine.send_failed(
                ReplicaKey::from_flow_id(failure.cookie),
                kind,
                failure.length,
            );
        });
    }
}

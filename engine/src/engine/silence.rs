//! The dead man's switch: a target that answered and then lets too many packets go unanswered is stopped.
//! Its answers may be reaching the real clients.
//!
//! What a lossy network explains is no silence: the share of late answers is learned, and only more than that is
//! suspected. While it is, no connection begins, and a few of the unanswered packets are sent again. If these stay
//! unanswered, nothing at all is sent to the target until [`Engine::set_target_open`]; handshakes that were
//! unanswered are reset and begin anew then.

use std::time::Duration;

use millrace_wire::{Flags, FourTuple, TcpHeader};

use super::{Engine, Event, TargetSilence};
use crate::config::{ClientKind, Way};
use crate::key::ReplicaKey;
use crate::replica::Outgoing;
use crate::silence::{Asked, Fate, Kind, Ruling};
use crate::tables::Replicas;
use crate::time::Time;

/// Whether silence of a target means something, and when it is judged next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening {
    means_something: bool,
    pub(super) judged_at: Time,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            means_something: true,
            judged_at: Time::NEVER,
        }
    }
}

impl Engine {
    /// Says whether silence of a target means something: it does not while an interceptor that would have
    /// seen its answers is known to be away.
    pub fn listen(&mut self, now: Time, listening: bool) {
        if std::mem::replace(&mut self.listening.means_something, listening) != listening {
            self.forget_silence(now);
        }
    }

    /// Stops the way of this kind of clients to this service's target as if it had fallen silent: its target has,
    /// elsewhere.
    pub fn stop_way(&mut self, now: Time, service: usize, kind: ClientKind) {
        let Ok(service) = u16::try_from(service) else {
            return;
        };
        let way = Way::new(service, kind);
        let Some(state) = self.ways.get_mut(way) else {
            return;
        };
        if !state.silence.is_stopped() {
            forget(&mut self.replicas, state.silence.start());
            state.silence.stop();
            self.call_off(now, way);
        }
    }

    /// What silence of this service's target means was found out, and it may go on: no more than it was is no news.
    pub fn tolerate_silence(&mut self, service: usize) {
        for kind in ClientKind::ALL {
            if let Some(state) = self.ways.find_mut(service, kind) {
                state.silence.tolerate();
            }
        }
    }

    /// A probe of this service's target was answered after this time: an answer of the target that takes as long is
    /// not late.
    pub fn note_round_trip(&mut self, service: usize, took: Duration) {
        for kind in ClientKind::ALL {
            if let Some(state) = self.ways.find_mut(service, kind) {
                state.silence.note_round_trip(took);
            }
        }
    }

    /// What was sent until now may have been answered unseen.
    pub(super) fn forget_silence(&mut self, now: Time) {
        for way in self.ways.iter_mut() {
            if !way.silence.is_stopped() {
                forget(&mut self.replicas, way.silence.start());
            }
        }
        self.listening.judged_at = Time::NEVER;
        self.resume_waiting(now);
    }

    /// Silence on this way is judged from the beginning, and what was stopped goes on.
    pub(super) fn end_silence(&mut self, now: Time, way: Way) {
        let Some(state) = self.ways.get_mut(way) else {
            return;
        };
        let stopped = state.silence.is_stopped();
        forget(&mut self.replicas, state.silence.start());
        if stopped {
            let keys = self.replicas.keys_where(|replica| replica.way() == way);
            self.retry(now, keys);
        }
    }

    /// A packet of this replica goes out.
    pub(super) fn note_asked(&mut self, now: Time, key: ReplicaKey, outgoing: &Outgoing) {
        if !self.listening.means_something || !self.config.stop_on_silence {
            return;
        }
        let kind = match (outgoing.header.flags.has(Flags::SYN), outgoing.len) {
            (true, _) => Kind::Connecting,
            (false, 1..) => Kind::Established,
            (false, 0) => return,
        };
        let Some(replica) = self.replicas.get_mut(key) else {
            return;
        };
        let Some(way) = self.ways.get_mut(replica.way()) else {
            return;
        };
        let lane = way.silence.lane(kind);
        if !replica.is_asked() && lane.ask(now, key) {
            replica.ask(now);
            self.listening.judged_at = self.listening.judged_at.min(now + lane.patience());
        }
    }

    /// The target of this replica has answered. Says whether there is such a replica.
    pub(super) fn note_heard(&mut self, now: Time, key: ReplicaKey) -> bool {
        let Some(replica) = self.replicas.get_mut(key) else {
            return false;
        };
        if !replica.is_asked() {
            return true;
        }
        let kind = match replica.is_connecting() {
            true => Kind::Connecting,
            false => Kind::Established,
        };
        let (way, again) = (replica.way(), replica.has_sent_again());
        if let Some(took) = replica.hear(now)
            && let Some(way) = self.ways.get_mut(way)
        {
            way.silence.lane(kind).heard(took, again);
            if way.silence.is_holding() {
                self.listening.judged_at = now;
            }
        }
        true
    }

    /// Judges how silent the targets are.
    pub(super) fn judge_silence(&mut self, now: Time) {
        // The owner may have stood still: what is due since is no later for that.
        let late = now.since(self.listening.judged_at);
        let mut next = Time::NEVER;
        for way in Way::all(self.config.services.len()) {
            let Some(state) = self.ways.get_mut(way) else {
                continue;
            };
            let replicas = &self.replicas;
            let fate = |asked: &Asked| match replicas.get(asked.key) {
                Some(replica) if replica.is_asked_at(asked.at) => Fate::Unanswered,
                Some(_) | None => Fate::Over,
            };
            state.silence.excuse(late);
            match state.silence.judge(now, fate) {
                Ruling::Nothing => {}
                Ruling::Challenge(asked) => {
                    for Asked { key, .. } in asked {
                        self.with_replica(now, key, |replica, cx| replica.on_path_restored(cx.now));
                        self.replicas.hurry(key);
                    }
                }
                Ruling::Resume => self.resume_waiting(now),
                Ruling::Stop(unanswered, of) => {
                    self.stats.targets_stopped += 1;
                    let silence = TargetSilence {
                        service: way.service().into(),
                        kind: way.kind(),
                        unanswered,
                        of,
                    };
                    self.events.push_back(Event::TargetSilent(silence));
                    self.call_off(now, way);
                }
            }
            if let Some(state) = self.ways.get(way) {
                next = next.min(state.silence.due(now));
            }
        }
        self.listening.judged_at = next;
    }

    /// Resets the handshakes with a stopped target that are under way. They begin anew once it is open.
    fn call_off(&mut self, now: Time, way: Way) {
        if let Some(state) = self.ways.get_mut(way) {
            state.set_open(now, false);
        }
        let connecting = self
            .replicas
            .keys_where(|replica| replica.way() == way && replica.is_connecting());
        for key in connecting.into_iter().rev() {
            let iss = self.run_replica(now, key, |replica, cx| replica.call_off(cx.now));
            let Some(first) = iss.flatten() else {
                continue;
            };
            if let Some(tuple) = self.flow(key) {
                let header = TcpHeader {
                    seq: first,
                    flags: Flags::RST,
                    ..TcpHeader::default()
                };
                self.resets.push_back((key, tuple, header));
            }
            if let Some(state) = self.ways.get_mut(way) {
                state.put_back(key);
            }
            self.settle(now, key);
        }
    }

    /// The next reset of a handshake that was called off.
    pub(super) fn next_reset(&mut self) -> Option<(ReplicaKey, FourTuple, TcpHeader)> {
        self.resets.pop_front()
    }

    /// Whether nothing may be sent for this replica.
    pub(super) fn is_stopped(&self, key: ReplicaKey) -> bool {
        let replica = self.replicas.get(key);
        replica.is_some_and(|replica| self.ways.is_stopped(replica.way()))
    }
}

/// No answer is due to these packets any more.
fn forget(replicas: &mut Replicas, asked: impl Iterator<Item = Asked>) {
    for Asked { key, at, .. } in asked {
        if let Some(replica) = replicas
            .get_mut(key)
            .filter(|replica| replica.is_asked_at(at))
        {
            replica.hear(at);
        }
    }
}

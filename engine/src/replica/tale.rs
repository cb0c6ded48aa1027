//! What is kept of a connection whose session is sampled, and how it is told: see [`crate::sampled`].

use std::time::Duration;

use super::Context;
use super::connection::Connection;
use super::gate::{Passed, Progress};
use crate::sampled::{Answer, TaleKey, Teller, Told, ToldReplica, ToldTurn};
use crate::stats::{AbortReason, TurnLatency};
use crate::time::Time;
use crate::turns::Mark;

/// What is kept of one connection.
#[derive(Debug)]
pub(crate) struct Tale {
    teller: Teller,
    established_at: Time,
    /// Turns that went to the target.
    turns: u32,
    /// Packets that were sent again before the turn under way.
    retransmitted: u32,
    under_way: Option<UnderWay>,
}

/// A turn whose answer may come yet.
#[derive(Debug)]
struct UnderWay {
    start: u64,
    captured_at: Time,
    sent_at: Time,
    lag: Option<u32>,
    /// What the target had answered before.
    answered: u64,
    retransmitted: u32,
    /// The latency at the live server, once it is known.
    live_first: Option<u32>,
    /// That at the target, and when its last byte came.
    target: Option<(TurnLatency, Time)>,
    answer: Option<Answer>,
}

/// How the gate let a turn go.
pub(super) struct Passage {
    pub(super) passed: Passed,
    /// Of the turn before.
    pub(super) latency: Option<TurnLatency>,
    pub(super) progress: Progress,
    /// How long ago its client sent it, in microseconds.
    pub(super) behind: u32,
    pub(super) lag: Option<u32>,
    /// It is a turn, and not the end of the stream.
    pub(super) asks: bool,
}

impl Tale {
    /// Keeps from now on what is to be told of a connection that has just been accepted.
    pub(super) fn begin(cx: &mut Context<'_>, service: u16, begun_at: Time) -> TaleKey {
        let key = cx.tales.next_key();
        let tale = Self {
            teller: teller(cx, key, service, begun_at),
            established_at: cx.now,
            turns: 0,
            retransmitted: 0,
            under_way: None,
        };
        cx.tales.keep(key, Box::new(tale));
        key
    }

    /// A packet was sent again.
    pub(super) const fn sent_again(&mut self) {
        match &mut self.under_way {
            Some(turn) => turn.retransmitted += 1,
            None => self.retransmitted += 1,
        }
    }

    /// Tells the turn under way, which ends at this offset.
    fn tell_turn(
        &mut self,
        cx: &mut Context<'_>,
        end: u64,
        taken: u64,
        answered: u64,
        aborted: Option<AbortReason>,
    ) {
        let Some(turn) = self.under_way.take() else {
            return;
        };
        self.retransmitted += turn.retransmitted;
        let micros = |micros: u32| Duration::from_micros(micros.into());
        let told = || {
            Told::Turn(Box::new(ToldTurn {
                teller: self.teller,
                number: self.turns.saturating_sub(1),
                captured_at: turn.captured_at,
                sent_at: turn.sent_at,
                ended_at: turn.target.map_or(cx.now, |(_, at)| at),
                bytes: end.saturating_sub(turn.start),
                delivered: taken.min(end).saturating_sub(turn.start),
                retransmitted: turn.retransmitted,
                lag: turn.lag.map(micros),
                live_first: turn.live_first.map(micros),
                target: turn
                    .target
                    .map(|(latency, _)| (micros(latency.first), micros(latency.last))),
                answered: answered.saturating_sub(turn.answered),
                answer: turn.answer,
                aborted,
            }))
        };
        cx.stats.untold += u64::from(!cx.tales.tell(told));
    }
}

impl Connection {
    /// The gate has let the turn at `mark` go.
    #[cold]
    pub(super) fn tell_passage(&mut self, cx: &mut Context<'_>, mark: &Mark, passage: &Passage) {
        let ended_at = |latency: TurnLatency| self.gate.clock.asked_at.plus_micros(latency.last);
        let key = self.tale;
        let Some((key, mut tale)) = key.and_then(|key| Some((key, cx.tales.take(key)?))) else {
            return;
        };
        let answered = bytes_of(passage.progress);
        if let Some(turn) = &mut tale.under_way {
            turn.target = passage.latency.map(|latency| (latency, ended_at(latency)));
            turn.live_first = Some(mark.live_latency).filter(|latency| *latency > 0);
            turn.answer = Some(match passage.passed {
                Passed::Answered => Answer::Whole,
                Passed::Quiet => Answer::Shorter,
                Passed::Overridden => Answer::Awaited,
            });
        }
        if !passage.asks {
            // Its answer may go on until the connection is over.
            cx.tales.keep(key, tale);
            return;
        }
        tale.tell_turn(cx, mark.start, passage.progress.acked, answered, None);
        tale.turns += 1;
        tale.under_way = Some(UnderWay {
            start: mark.start,
            captured_at: cx.now - Duration::from_micros(passage.behind.into()),
            sent_at: cx.now,
            lag: passage.lag,
            answered,
            retransmitted: 0,
            live_first: None,
            target: None,
            answer: None,
        });
        cx.tales.keep(key, tale);
    }

    /// The latency of the turn under way is known.
    #[cold]
    pub(super) fn tell_latency(&self, cx: &mut Context<'_>, latency: TurnLatency) {
        let ended_at = self.gate.clock.asked_at.plus_micros(latency.last);
        let tale = self.tale.and_then(|key| cx.tales.get_mut(key));
        if let Some(turn) = tale.and_then(|tale| tale.under_way.as_mut()) {
            turn.target.get_or_insert((latency, ended_at));
        }
    }

    /// The connection is over: nothing more is heard of it.
    #[cold]
    pub(super) fn tell_end(&mut self, cx: &mut Context<'_>, aborted: Option<AbortReason>) {
        let Some(key) = self.tale.take() else {
            return;
        };
        let latency = self.gate.finish();
        let ended_at = |latency: TurnLatency| self.gate.clock.asked_at.plus_micros(latency.last);
        let Some(mut tale) = cx.tales.take(key) else {
            return;
        };
        if let Some(turn) = &mut tale.under_way {
            let latency = latency.map(|latency| (latency, ended_at(latency)));
            turn.target = turn.target.or(latency);
        }
        let (bytes, taken) = (cx.stream.len(), self.sender.una());
        let answered = bytes_of(Progress {
            answered: self.receiver.answered(),
            finished: self.receiver.finished(),
            acked: taken,
        });
        tale.tell_turn(cx, bytes, taken, answered, aborted);
        let over = || {
            Told::Replica(Box::new(ToldReplica {
                teller: tale.teller,
                established_at: Some(tale.established_at),
                ended_at: cx.now,
                turns: tale.turns,
                bytes,
                delivered: taken.min(bytes),
                retransmitted: tale.retransmitted,
                aborted,
            }))
        };
        cx.stats.untold += u64::from(!cx.tales.tell(over));
    }
}

/// A sampled replica ends that never was a connection. `begun_at`: when its SYN was sent, if one was.
pub(super) fn tell_unestablished(
    cx: &mut Context<'_>,
    service: u16,
    begun_at: Option<Time>,
    reason: AbortReason,
) {
    let key = cx.tales.next_key();
    let teller = teller(cx, key, service, begun_at.unwrap_or(cx.now));
    let over = || {
        Told::Replica(Box::new(ToldReplica {
            teller,
            established_at: None,
            ended_at: cx.now,
            turns: 0,
            bytes: cx.stream.len(),
            delivered: 0,
            retransmitted: 0,
            aborted: Some(reason),
        }))
    };
    cx.stats.untold += u64::from(!cx.tales.tell(over));
}

fn teller(cx: &Context<'_>, key: TaleKey, service: u16, begun_at: Time) -> Teller {
    Teller {
        number: key.get(),
        service: usize::from(service),
        live: *cx.tuple,
        begun_at,
    }
}

/// Bytes that the target answered, without its FIN.
fn bytes_of(progress: Progress) -> u64 {
    progress.answered.saturating_sub(progress.finished.into())
}

//! Replicas that play scripts of their own: what their conversations hear, and what becomes of what these write.

use std::panic::{AssertUnwindSafe, catch_unwind};

use millrace_wire::{Flags, TcpHeader};

use super::{Engine, Event};
use crate::key::{ReplicaKey, SessionKey};
use crate::live_view::Said;
use crate::protocol::{Beginning, Failure, FailureKind, Heard, Protocol, Talk};
use crate::replica::{Needs, Replica};
use crate::stats::AbortReason;
use crate::time::Time;

impl Engine {
    /// From now on new replicas of this service (its place in [`crate::Config::services`]) are played by this module's
    /// conversations.
    pub fn set_protocol(&mut self, service: usize, protocol: Box<dyn Protocol>) {
        if let Some(slot) = self.protocols.get_mut(service) {
            self.hears_live |= protocol.hears_live();
            *slot = Some(protocol);
        }
    }

    /// Whether what the target of this replica sends must be carried here with its payload.
    pub fn wants_answers(&self, key: ReplicaKey) -> bool {
        self.replicas.talk(key).is_some_and(Talk::wants_answers)
    }

    /// The conversation of a new replica, where its service has a module.
    ///
    /// # Errors
    /// It cannot be played.
    pub(super) fn begin_talk(
        &self,
        service: u16,
        beginning: Beginning,
    ) -> Result<Option<Talk>, ()> {
        match self.protocols.get(usize::from(service)) {
            Some(Some(protocol)) => {
                let begin = AssertUnwindSafe(|| Some(Talk::new(protocol.begin(beginning)?)));
                catch_unwind(begin).ok().flatten().map(Some).ok_or(())
            }
            Some(None) | None => Ok(None),
        }
    }

    /// Whether a module plays the replicas of this service.
    pub(super) fn has_protocol(&self, service: u16) -> bool {
        matches!(self.protocols.get(usize::from(service)), Some(Some(_)))
    }

    /// So many of a session's copies are to get its client's bytes as they are. What conversations play, scripts say; where
    /// one has failed, or could not begin, it is these bytes that its target lacks.
    pub(super) fn plain_copies(&self, key: SessionKey, service: u16, copies: u16) -> u16 {
        match self.has_protocol(service) {
            true => self.unplayed_copies(key, copies),
            false => copies,
        }
    }

    /// Of a session whose service has a module, the copies that no conversation plays.
    #[cold]
    fn unplayed_copies(&self, key: SessionKey, copies: u16) -> u16 {
        let replicas = self.replicas.siblings(self.sessions.first_replica(key));
        let played =
            replicas.filter(|(_, replica)| !replica.is_lingering() && replica.traits.is_scripted());
        copies.saturating_sub(u16::try_from(played.count()).unwrap_or(u16::MAX))
    }

    /// The live server of a session sent these bytes, as far as they were captured. Says whether anybody hears them.
    #[cold]
    pub(super) fn overhear(&mut self, key: SessionKey, said: &Said, bytes: &[u8]) -> bool {
        if bytes.is_empty() || self.is_nearly_full() || !self.is_heard_live(key) {
            return false;
        }
        self.overheard.take(key, said.start(), bytes, said.acked());
        true
    }

    /// Whether some conversation about a session hears its live server.
    fn is_heard_live(&self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let protocol = self.protocols.get(usize::from(session.service));
        let hears = protocol.is_some_and(|it| it.as_ref().is_some_and(|it| it.hears_live()));
        let mut replicas = self.replicas.siblings(session.first_replica());
        hears && replicas.any(|(_, it)| !it.is_lingering() && it.traits.is_scripted())
    }

    /// The client of a session goes on, or the live server has said something: what it has said by now comes before what the
    /// client says next.
    #[cold]
    pub(super) fn log_live(&mut self, key: SessionKey, client_goes_on: bool) {
        if client_goes_on && self.is_heard_live(key) {
            self.overheard.listen(key);
        }
        if let Some(session) = self.sessions.get(key) {
            let seen = client_goes_on.then(|| session.live.client_saw_bytes());
            self.overheard.log(key, seen, session.stream().len());
        }
    }

    /// Tells the conversations about a session what client and live server have sent since.
    pub(super) fn tell(&mut self, now: Time, session: SessionKey) {
        let mut next = self.sessions.first_replica(session);
        let mut heard_live = u64::MAX;
        while let Some(key) = next {
            next = self.replicas.sibling_of(key);
            let Some(its) = self.sessions.get(session) else {
                return;
            };
            let (pool, log) = (&mut self.pool, self.overheard.of(session));
            let replica = self.replicas.get(key);
            let Some(talk) = self
                .replicas
                .talk(key)
                .filter(|_| replica.is_some_and(|it| !it.is_lingering()))
            else {
                continue;
            };
            if !talk.is_behind(its.stream(), log) {
                heard_live = heard_live.min(talk.next_live());
                continue;
            }
            let sides = (its.stream(), its.turns());
            let heard = self.replicas.with_talk(key, |talk, _| {
                let heard = talk.hear_live_connection(now, pool, sides, log);
                (heard, talk.next_live())
            });
            if let Some((heard, next_live)) = heard {
                heard_live = heard_live.min(next_live);
                self.take_words(now, key, heard);
            }
        }
        if self.hears_live {
            self.overheard.forget_before(session, heard_live);
        }
        if self.holds_client(session) {
            self.arm_session(session);
        }
    }

    /// Whether a replica plays a script of its own.
    pub(super) fn is_scripted(&self, key: ReplicaKey) -> bool {
        let replica = self.replicas.get(key);
        replica.is_some_and(|replica| replica.traits.is_scripted())
    }

    /// Takes a segment of the target of a replica that plays a script of its own. Not inlined: where no module is, nothing is
    /// paid for it.
    #[inline(never)]
    pub(super) fn take_answer(
        &mut self,
        now: Time,
        key: ReplicaKey,
        header: &TcpHeader,
        payload: &[u8],
        len: u32,
    ) {
        let Some(replica) = self.replicas.get(key) else {
            return;
        };
        let (session, was_open) = (replica.session, replica.is_established());
        let listens = replica.may_take_data(header)
            && self.replicas.talk(key).is_some_and(Talk::wants_answers);
        if !listens {
            self.with_replica(now, key, |replica, cx| replica.on_header(cx, header, len));
            self.release_played(key);
            let is_open = self.replicas.get(key).is_some_and(Replica::is_established);
            if is_open && !was_open {
                let first = header.seq.add(u32::from(header.flags.has(Flags::SYN)));
                self.replicas
                    .with_talk(key, |talk, _| talk.connected(first));
            }
            return;
        }
        let is_full = self.is_nearly_full();
        let pool = &mut self.pool;
        let counted = self.replicas.with_talk(key, |talk, _| {
            let held = talk.holds_client();
            let segment = (header, payload, len);
            let (counted, heard) = talk.hear_answer(now, pool, segment, is_full);
            (counted, heard, held)
        });
        let Some((counted, heard, held)) = counted else {
            return;
        };
        if !self.take_words(now, key, heard) {
            return;
        }
        let held = held.then_some(session);
        self.let_go_on(now, key, held);
        let (header, arrived) = match &counted {
            Some((counted, arrived)) => (counted, *arrived),
            None => (header, len),
        };
        let is_early = len > 0 && arrived == 0;
        self.with_replica(now, key, |replica, cx| {
            replica.on_header(cx, header, arrived);
            if is_early {
                replica.demand_ack();
            }
        });
        self.release_played(key);
        if self.replicas.get(key).is_some_and(Replica::has_heard_end) {
            self.hear_target_end(now, key, held);
        }
    }

    /// The target of a replica sends nothing more.
    #[cold]
    fn hear_target_end(&mut self, now: Time, key: ReplicaKey, held: Option<SessionKey>) {
        let pool = &mut self.pool;
        let heard = self
            .replicas
            .with_talk(key, |talk, _| talk.hear_target_end(now, pool));
        if heard.is_some_and(|heard| self.take_words(now, key, heard)) {
            self.let_go_on(now, key, held);
            self.with_replica(now, key, Replica::advance);
        }
    }

    /// A conversation that held the client back may hear of this session what has waited, if it does so no more.
    fn let_go_on(&mut self, now: Time, key: ReplicaKey, held: Option<SessionKey>) {
        let goes_on = |_: &SessionKey| !self.replicas.talk(key).is_some_and(Talk::holds_client);
        if let Some(session) = held.filter(goes_on) {
            self.tell(now, session);
        }
    }

    /// When a session is given up of whose scripts one has no end though its client's stream has: its module waits for
    /// something that does not come. Or when its target has kept a module waiting for too long.
    pub(super) fn script_overdue_at(&self, key: SessionKey) -> Time {
        if !self.replicas.has_talks() {
            return Time::NEVER;
        }
        let Some(session) = self.sessions.get(key) else {
            return Time::NEVER;
        };
        let is_ended = session.stream().end().is_some();
        if !is_ended && !self.replicas.has_holding() {
            return Time::NEVER;
        }
        let replicas = self.replicas.siblings(session.first_replica());
        let played = replicas.filter(|(_, replica)| !replica.is_lingering());
        let due = played.filter_map(|(key, _)| {
            let talk = self.replicas.talk(key)?;
            let ended = is_ended && talk.is_unended();
            let ended = ended.then_some(session.last_seen + self.config.idle_timeout);
            Some(ended.unwrap_or(Time::NEVER).min(self.silent_at(talk)))
        });
        due.min().unwrap_or(Time::NEVER)
    }

    /// Whether some conversation about a session holds its client back.
    fn holds_client(&self, key: SessionKey) -> bool {
        if !self.replicas.has_holding() {
            return false;
        }
        let mut replicas = self.replicas.siblings(self.sessions.first_replica(key));
        let holds = |talk: Option<&Talk>| talk.is_some_and(Talk::holds_client);
        replicas.any(|(key, _)| holds(self.replicas.talk(key)))
    }

    /// When the target of a conversation that holds the client back has said nothing for too long. Of a recording, whoever
    /// feeds it decides.
    fn silent_at(&self, talk: &Talk) -> Time {
        let since = talk.held_since().filter(|_| !self.clock.is_recorded());
        since.map_or(Time::NEVER, |since| since + self.config.answer_timeout)
    }

    /// Ends the replicas of a session whose targets have kept their modules waiting for too long. Says whether there were any.
    pub(super) fn end_silent(&mut self, now: Time, session: SessionKey) -> bool {
        let replicas = self.replicas.siblings(self.sessions.first_replica(session));
        let silent = replicas.map(|(key, _)| key).filter(|key| {
            let talk = self.replicas.talk(*key);
            talk.is_some_and(|talk| self.silent_at(talk) <= now)
        });
        let silent: Vec<ReplicaKey> = silent.collect();
        for key in &silent {
            let text = "the target does not say what its module waits for";
            let heard = Heard {
                failure: Some(Failure::new(FailureKind::Silent, text)),
                ..Heard::default()
            };
            self.take_words(now, *key, heard);
        }
        !silent.is_empty()
    }

    /// Bytes of this session's scripts that targets have not taken yet.
    pub(super) fn unplayed(&self, key: SessionKey) -> u64 {
        if !self.replicas.has_talks() {
            return 0;
        }
        let replicas = self.replicas.siblings(self.sessions.first_replica(key));
        let talks = replicas.filter_map(|(key, _)| self.replicas.talk(key));
        talks.map(Talk::backlog).sum()
    }

    /// What a conversation has written counts, and ends its replica where it cannot go on. Says whether it goes on.
    fn take_words(&mut self, now: Time, key: ReplicaKey, heard: Heard) -> bool {
        self.stats.bytes_wanted += heard.written;
        self.stats.requests_left_out += heard.left_out;
        if heard.enough {
            self.events.push_back(Event::HeardEnough { key });
        }
        let Some(failure) = heard.failure else {
            return true;
        };
        self.stats.conversations_failed.add(failure.kind);
        self.events
            .push_back(Event::ConversationFailed { key, failure });
        self.with_replica(now, key, |replica, cx| {
            replica.abort(cx, AbortReason::Protocol);
        });
        false
    }

    /// A replica is over: what its conversation has not heard of the client is what its target lacks.
    #[cold]
    pub(super) fn count_unheard(&mut self, key: ReplicaKey) {
        let replica = self.replicas.get(key);
        let session = replica.and_then(|replica| self.sessions.get(replica.session));
        let sent = session.map_or(0, |session| session.stream().len());
        let unheard = self.replicas.with_talk(key, |talk, _| talk.give_up(sent));
        self.stats.bytes_wanted += unheard.unwrap_or(0);
    }

    /// A replica is forgotten, and its conversation with it.
    #[cold]
    pub(super) fn end_talk(&mut self, key: ReplicaKey) {
        self.count_unheard(key);
        if let Some(talk) = self.replicas.take_talk(key) {
            talk.discard(&mut self.pool);
        }
        let session = self.replicas.get(key).map(|replica| replica.session);
        if let Some(session) = session.filter(|session| !self.is_heard_live(*session)) {
            self.overheard.forget(session);
        }
    }

    /// Frees what the target has taken of a replica's script.
    fn release_played(&mut self, key: ReplicaKey) {
        let needs = self.replicas.get(key).map(Replica::needs);
        if let (Some(needs), Some(talk)) = (needs, self.replicas.talk(key))
            && talk.may_free(&self.pool, needs)
        {
            let pool = &mut self.pool;
            self.replicas
                .with_talk(key, |talk, _| talk.release(pool, needs));
        }
    }

    /// Frees all of a script whose replica is over, and counts what it lacked. Not inlined, as above.
    #[inline(never)]
    pub(super) fn give_up_script(&mut self, key: ReplicaKey) {
        if self.replicas.get(key).is_some_and(Replica::is_lingering) {
            self.count_unheard(key);
            let pool = &mut self.pool;
            self.replicas.with_talk(key, |talk, _| {
                talk.stop_holding();
                talk.release(pool, Needs::NOTHING);
            });
        }
    }
}

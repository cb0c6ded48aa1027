//! One replica's conversation, with the script that it writes and what it has heard.

use std::panic::{AssertUnwindSafe, catch_unwind};

use millrace_wire::{Flags, Seq, TcpHeader};

use super::script::Played;
use super::{ClientEnd, Conversation, Failure, FailureKind, Live, Script, Turn};
use crate::overheard::{Log, Piece};
use crate::payload::Payload;
use crate::pool::BlockPool;
use crate::replica::Needs;
use crate::stream::{ClientStream, Cursor, EndKind, RunInfo};
use crate::time::Time;
use crate::turns::Turns;

/// Further ahead than this no target sends: it is the window that replicas advertise.
const PLAUSIBLE: u64 = 8 << 20;
/// A conversation is given so many bytes of either side at once, at most.
const PIECE: usize = 16 * 1024;

/// A conversation.
pub(crate) struct Talk {
    conversation: Box<dyn Conversation>,
    played: Played,
    /// What of the client's stream it still has to hear.
    needs: Needs,
    /// Number of the live server's piece that it hears next.
    next_live: u64,
    heard_end: bool,
    /// What the target sends, once the connection is there.
    answers: Option<ClientStream>,
    /// How much of it the conversation was told.
    told: u64,
    told_end: bool,
    /// The conversation wants to be told.
    listens: bool,
    /// It wants to hear nothing of the client for now.
    holds_client: bool,
    /// Since when.
    held_since: Option<Time>,
    /// Memory of the conversation itself, in bytes.
    own_memory: usize,
    /// Its replica is over, and what it has not heard is counted.
    given_up: bool,
}

/// What came of a conversation's words.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Bytes that the script has grown by.
    pub(crate) written: u64,
    /// Requests of the client that it leaves out.
    pub(crate) left_out: u64,
    /// It wants to hear nothing more of the target.
    pub(crate) enough: bool,
    /// It cannot go on.
    pub(crate) failure: Option<Failure>,
}

impl Heard {
    fn join(&mut self, other: Self) {
        self.written += other.written;
        self.left_out += other.left_out;
        self.enough |= other.enough;
        self.failure = self.failure.take().or(other.failure);
    }
}

impl Talk {
    pub(crate) fn new(conversation: Box<dyn Conversation>) -> Self {
        Self {
            listens: conversation.wants_answers(),
            holds_client: conversation.holds_client(),
            held_since: None,
            own_memory: conversation.memory(),
            given_up: false,
            conversation,
            played: Played::new(),
            needs: Needs::EVERYTHING,
            next_live: 0,
            heard_end: false,
            answers: None,
            told: 0,
            told_end: false,
        }
    }

    /// What its replica plays.
    pub(crate) const fn played(&self) -> &Played {
        &self.played
    }

    /// What of the client's stream it has not heard.
    pub(crate) const fn needs(&self) -> Needs {
        self.needs
    }

    /// Memory besides the blocks of its streams, in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        let answers = self.answers.as_ref();
        size_of::<Self>()
            + self.own_memory
            + self.played.turns.heap_size()
            + answers.map_or(0, ClientStream::held_memory)
    }

    /// Bytes that the target has not taken yet.
    pub(crate) const fn backlog(&self) -> u64 {
        self.played.stream.stored()
    }

    /// Whether the live connection has anything that it has not been told, as far as it wants to be told.
    pub(crate) fn is_behind(&self, stream: &ClientStream, log: Option<&Log>) -> bool {
        let has_more = !self.holds_client && self.needs.stream < stream.len();
        let has_end = !self.heard_end && stream.end().is_some();
        has_more || has_end || log.is_some_and(|log| log.get(self.next_live).is_some())
    }

    /// Tells it what both sides of the live connection have sent since, in the order in which it was captured, and how the
    /// client's ended.
    pub(crate) fn hear_live_connection(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        (stream, turns): (&ClientStream, &Turns),
        log: Option<&Log>,
    ) -> Heard {
        let mut heard = Heard::default();
        let mut piece = pool.take_scratch();
        let mut cursor = Cursor::default();
        while heard.failure.is_none() {
            let live = log.and_then(|log| log.get(self.next_live));
            // What follows the client's last byte comes even if it acknowledges more: a FIN, or what was not captured.
            let is_at_end = stream.end().is_some() && self.needs.stream >= stream.len();
            if let Some((_, live)) =
                live.filter(|(after, _)| is_at_end || *after <= self.needs.stream)
            {
                self.next_live += 1;
                heard.join(self.hear_live(now, pool, live));
                continue;
            }
            if self.holds_client || self.needs.stream >= stream.len() {
                break;
            }
            let from = self.needs.stream;
            let turn = self.next_turn(turns, from);
            let next = turns.get(self.needs.marks).map(|mark| mark.start);
            let ends = [next, live.map(|(after, _)| after)];
            let ends = ends.into_iter().flatten();
            let to = ends.fold(stream.len(), u64::min);
            let len = usize::try_from(to.saturating_sub(from)).map_or(PIECE, |len| len.min(PIECE));
            piece.clear();
            for part in stream.read(pool, &mut cursor, from, len) {
                piece.extend_from_slice(part);
            }
            if piece.is_empty() {
                // It was given up.
                self.needs.stream = stream.len();
                break;
            }
            self.needs.stream += piece.len() as u64;
            let said = self.speak(now, pool, |conversation, script| {
                conversation.on_client(&piece, turn, script)
            });
            if said.failure.is_some() {
                // What it could not stand reaches the target no more than what follows.
                self.needs.stream = from + said.written.min(piece.len() as u64);
            }
            heard.join(said);
        }
        pool.give_scratch(piece);
        let end = stream
            .end()
            .filter(|_| heard.failure.is_none() && !self.holds_client);
        if let Some(end) = end.filter(|_| !std::mem::replace(&mut self.heard_end, true)) {
            let turn = self.next_turn(turns, end.offset);
            let how = match end.kind {
                EndKind::Fin => Some(ClientEnd::Fin),
                EndKind::Reset => Some(ClientEnd::Reset),
                EndKind::Severed | EndKind::Lost | EndKind::SetAside | EndKind::Uncopied(_) => None,
            };
            match how {
                Some(how) => heard.join(self.speak(now, pool, |conversation, script| {
                    conversation.on_client_end(how, turn, script)
                })),
                // What is left of a message is no message.
                None => {
                    self.played.stream.cut_short(end.kind);
                }
            }
        }
        if heard.enough {
            self.forget_answers(pool);
        }
        heard
    }

    /// The turn that begins at this offset of the client's stream, if one does.
    fn next_turn(&mut self, turns: &Turns, at: u64) -> Option<Turn> {
        let mark = turns
            .get(self.needs.marks)
            .filter(|mark| mark.start == at)?;
        self.needs.marks += 1;
        Some(Turn { mark: *mark })
    }

    /// Whether the target's bytes must come here, and not only their number.
    pub(crate) const fn wants_answers(&self) -> bool {
        self.listens
    }

    /// Whether more may still be played.
    pub(crate) fn is_unended(&self) -> bool {
        self.played.stream.end().is_none()
    }

    /// The connection is there; the target's first byte has this number.
    pub(crate) fn connected(&mut self, first: Seq) {
        if self.listens {
            self.answers = Some(ClientStream::new(first));
        }
    }

    /// Takes a segment of the target, and tells the conversation what it makes whole. Gives what of it counts as received,
    /// where that is not all: only bytes that have arrived here, in their order.
    pub(crate) fn hear_answer(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        (header, payload, len): (&TcpHeader, &[u8], u32),
        is_full: bool,
    ) -> (Option<(TcpHeader, u32)>, Heard) {
        if self.is_next(header, payload, len) {
            return (None, self.hear_at_once(now, pool, payload));
        }
        let counted = self.take_answer(now, pool, (header, payload, len), is_full);
        (Some(counted), self.hear_target(now, pool))
    }

    /// Whether a segment goes on where the conversation has been told all.
    fn is_next(&self, header: &TcpHeader, payload: &[u8], len: u32) -> bool {
        let is_whole = !payload.is_empty() && u32::try_from(payload.len()) == Ok(len);
        self.answers.as_ref().is_some_and(|answers| {
            let next = answers.len();
            is_whole
                && answers.is_bare()
                && self.told == next
                && answers.offset_of(header.seq) == Some(next)
        })
    }

    /// Tells the conversation what the target has sent, without storing it first.
    fn hear_at_once(&mut self, now: Time, pool: &mut BlockPool, payload: &[u8]) -> Heard {
        let mut heard = Heard::default();
        for piece in payload.chunks(PIECE) {
            self.told += piece.len() as u64;
            if let Some(answers) = self.answers.as_mut() {
                answers.pass(piece.len() as u64);
            }
            if heard.failure.is_none() && self.listens {
                heard.join(self.speak(now, pool, |conversation, script| {
                    conversation.on_target(piece, script)
                }));
            }
        }
        if !self.listens {
            self.forget_answers(pool);
        }
        heard
    }

    fn take_answer(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        (header, payload, len): (&TcpHeader, &[u8], u32),
        is_full: bool,
    ) -> (TcpHeader, u32) {
        let Some(answers) = self.answers.as_mut() else {
            return (*header, len);
        };
        let before = answers.len();
        let whole = u32::try_from(payload.len()).is_ok_and(|arrived| arrived == len);
        let offset = answers.offset_of(header.seq);
        let end = offset.map(|offset| offset + u64::from(len));
        // What lies ahead is held only while there is memory for more than open sessions.
        let most = match is_full {
            true => before,
            false => before + PLAUSIBLE,
        };
        if let Some(offset) = offset.filter(|it| whole && *it <= most) {
            let info = RunInfo {
                at: now,
                answer: 0,
                fresh: false,
            };
            let bytes = Payload::Borrowed(payload);
            // Without memory it is as if it had been lost on its way.
            let _ = answers.accept(pool, offset, payload, bytes, info, |_, _, _| {});
        }
        let has = answers.len();
        let mut counted = *header;
        if end.is_none_or(|end| end <= before) && (len > 0 || has == before) {
            // It repeats what is there, or bears nothing at all.
            if offset.is_none_or(|offset| offset <= before) {
                return (counted, len);
            }
        }
        // `before` modulo 2^32.
        counted.seq = answers.first_seq().add(before as u32);
        if end != Some(has) {
            counted.flags = counted.flags.without(Flags::FIN);
        }
        (counted, u32::try_from(has - before).unwrap_or(u32::MAX))
    }

    /// Whether what the client sends waits for what the target has yet to say.
    pub(crate) const fn holds_client(&self) -> bool {
        self.holds_client
    }

    /// Its replica is over. Gives how much of the `sent` bytes of the client it never heard, or has not played, once.
    pub(crate) fn give_up(&mut self, sent: u64) -> u64 {
        if std::mem::replace(&mut self.given_up, true) {
            return 0;
        }
        let conversation = &self.conversation;
        let unplayed = catch_unwind(AssertUnwindSafe(|| conversation.unplayed()));
        let is_ended = self.played.stream.end().is_some();
        let unplayed = unplayed.ok().filter(|_| !is_ended).unwrap_or(0);
        sent.saturating_sub(self.needs.stream) + unplayed
    }

    /// Its replica is over: nobody waits for anything any more.
    pub(crate) const fn stop_holding(&mut self) {
        self.holds_client = false;
        self.held_since = None;
    }

    /// Since when it has held the client back.
    pub(crate) const fn held_since(&self) -> Option<Time> {
        self.held_since
    }

    /// Number of the first piece of the live server that it has not heard.
    pub(crate) const fn next_live(&self) -> u64 {
        self.next_live
    }

    fn hear_live(&mut self, now: Time, pool: &mut BlockPool, piece: &Piece) -> Heard {
        let live = match piece {
            Piece::Bytes(bytes) => Live::Bytes(bytes),
            Piece::Missing(bytes) => Live::Missing { bytes: *bytes },
        };
        self.speak(now, pool, |conversation, script| {
            conversation.on_live(live, script)
        })
    }

    /// Tells it what the target has sent since.
    fn hear_target(&mut self, now: Time, pool: &mut BlockPool) -> Heard {
        let mut heard = Heard::default();
        let mut piece = pool.take_scratch();
        while heard.failure.is_none()
            && let Some(answers) = self.answers.as_mut()
            && self.told < answers.len()
        {
            piece.clear();
            for part in answers.read(pool, &mut Cursor::default(), self.told, PIECE) {
                piece.extend_from_slice(part);
            }
            if piece.is_empty() {
                break;
            }
            self.told += piece.len() as u64;
            answers.release(pool, self.told);
            heard.join(self.speak(now, pool, |conversation, script| {
                conversation.on_target(&piece, script)
            }));
            if !self.listens {
                self.forget_answers(pool);
            }
        }
        pool.give_scratch(piece);
        heard
    }

    /// Tells it that the target sends nothing more.
    pub(crate) fn hear_target_end(&mut self, now: Time, pool: &mut BlockPool) -> Heard {
        match std::mem::replace(&mut self.told_end, true) {
            true => Heard::default(),
            false => self.speak(now, pool, |conversation, script| {
                conversation.on_target_end(script)
            }),
        }
    }

    fn forget_answers(&mut self, pool: &mut BlockPool) {
        if let Some(mut answers) = self.answers.take() {
            answers.discard(pool);
        }
    }

    /// Whether something was played of the script, up to this, that is not freed yet.
    pub(crate) fn may_free(&self, pool: &BlockPool, played: Needs) -> bool {
        let Played { stream, turns, .. } = &self.played;
        stream.can_release(pool, played.stream)
            || turns.can_forget(played.marks.min(turns.next_number()))
    }

    /// Frees what was played of the script, up to this.
    pub(crate) fn release(&mut self, pool: &mut BlockPool, played: Needs) {
        let Played { stream, turns, .. } = &mut self.played;
        if played.stream == Needs::NOTHING.stream {
            stream.discard(pool);
        } else {
            stream.release(pool, played.stream);
        }
        turns.forget_before(played.marks.min(turns.next_number()));
    }

    /// Frees everything.
    pub(crate) fn discard(mut self, pool: &mut BlockPool) {
        self.played.stream.discard(pool);
        self.forget_answers(pool);
        let conversation = self.conversation;
        // It is over: what it thinks of that changes nothing.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(conversation)));
    }

    /// Lets the conversation write. One that panics fails alone.
    fn speak(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        speak: impl FnOnce(&mut dyn Conversation, &mut Script<'_>) -> Result<(), Failure>,
    ) -> Heard {
        let mut script = Script {
            played: &mut self.played,
            pool,
            now,
            written: 0,
            left_out: 0,
            is_short_of_memory: false,
        };
        let conversation = self.conversation.as_mut();
        let said = catch_unwind(AssertUnwindSafe(|| {
            let said = speak(conversation, &mut script);
            let now = (
                conversation.wants_answers(),
                conversation.holds_client(),
                conversation.memory(),
            );
            (said, now)
        }));
        let listened = self.listens;
        let said = said.map(|(said, (wants, holds, memory))| {
            self.own_memory = memory;
            self.listens &= wants;
            // Nothing else would ever change its mind.
            self.holds_client = holds && self.listens && !self.told_end;
            self.held_since = match self.holds_client {
                true => self.held_since.or(Some(now)),
                false => None,
            };
            said
        });
        let failure = match said {
            Ok(Ok(())) if script.is_short_of_memory => {
                Some(Failure::new(FailureKind::Memory, "no memory is left"))
            }
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure::new(
                FailureKind::Fault,
                "the protocol module panicked",
            )),
        };
        Heard {
            written: script.written,
            left_out: script.left_out,
            enough: listened && !self.listens,
            failure,
        }
    }
}

//! One replica: what the client says becomes what the target is told, as far as the target's answers have come.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_engine::protocol::{Beginning, ClientEnd, Failure};

use super::Settings;
use super::answers::Shape;
use super::auth::Exchange;
use super::greeting::Greeting;
use super::live::{Live, Login};
use super::packets::{Head, Packets, Part, packet};
use super::side::Side;
use super::statements::Statements;
use super::wire::{malformed, unsupported};
use crate::stage::{Pace, Stage};

/// More requests than so many are not played before the first of them is answered.
const MOST_UNANSWERED: usize = 1024;
/// So much of the live server is kept while the client is held; of more than that the beginning is missing.
const MOST_LIVE: usize = 64 << 10;

/// What was heard and waits its turn. It may have a log-in in it: nothing shows it.
enum Item<T> {
    Client(Option<T>, Vec<u8>),
    Live(Vec<u8>),
    /// Bytes of the live server that were not captured.
    Missing,
}

/// Bytes of what waits.
#[derive(Clone, Copy, Default)]
struct Waiting {
    client: usize,
    live: usize,
}

impl Waiting {
    /// Those of the side that an item is of.
    const fn of<T>(&mut self, item: &Item<T>) -> Option<(&mut usize, usize)> {
        match item {
            Item::Client(_, bytes) => Some((&mut self.client, bytes.len())),
            Item::Live(bytes) => Some((&mut self.live, bytes.len())),
            Item::Missing => None,
        }
    }

    const fn add<T>(&mut self, item: &Item<T>) {
        if let Some((sum, len)) = self.of(item) {
            *sum += len;
        }
    }

    const fn take<T>(&mut self, item: &Item<T>) {
        if let Some((sum, len)) = self.of(item) {
            *sum = sum.saturating_sub(len);
        }
    }
}

/// How far the session is.
pub(super) enum Phase {
    /// The target has not greeted yet.
    Greeting,
    /// It has, and the client has not answered.
    Greeted(Greeting),
    /// The target has not accepted the log-in yet.
    LoggingIn(Exchange),
    /// The client's commands are played.
    Commands,
    /// The target has refused the log-in. It may be that the live server did, too: then all is well.
    Refused(Failure),
}

/// The client's message that is under way.
pub(super) enum Message {
    /// None.
    None,
    /// It is held until enough of it is there.
    Held(Held),
    /// It is played as it comes.
    Passes,
    /// It is a part of a file.
    File,
    /// It is not played.
    Dropped,
}

/// A message of which only the beginning is there. It may be a log-in: nothing shows it.
pub(super) struct Held {
    pub(super) head: Head,
    pub(super) bytes: Vec<u8>,
    pub(super) is_whole: bool,
}

/// One replica.
pub(super) struct Player<T, N> {
    pub(super) settings: Arc<Settings>,
    pub(super) is_midway: bool,
    /// A command of the client has begun.
    pub(super) has_seen_command: bool,
    pub(super) phase: Phase,
    /// The method and the scramble of the last log-in, for the next one.
    pub(super) last_login: Option<Exchange>,
    items: VecDeque<Item<T>>,
    /// How long they are.
    waiting: Waiting,
    end: Option<(ClientEnd, Option<T>)>,
    /// A turn that goes before what is played next.
    turn: Option<T>,
    client: Packets,
    pub(super) message: Message,
    pub(super) target: Side<N>,
    /// Where the target's answers end is not known any more.
    pub(super) is_target_lost: bool,
    pub(super) live: Live,
    pub(super) statements: Statements,
    /// What the client and the live server agreed on; not known of a session picked up in the middle.
    pub(super) client_capabilities: Option<u32>,
    /// Whether the client's statements have query attributes; if that is not known, their form tells.
    pub(super) has_attributes: Option<bool>,
    /// What was agreed on with the target.
    pub(super) target_capabilities: u32,
    /// The client's next message needs the target's answer to this PREPARE.
    pub(super) awaited: Option<u64>,
    /// The last request may make the target ask for a file.
    pub(super) loads: bool,
    /// The number of the next packet of a file.
    pub(super) file_number: u8,
}

impl<T: Copy, N: Copy> Player<T, N> {
    pub(super) fn new(settings: Arc<Settings>, beginning: Beginning) -> Self {
        let is_midway = beginning == Beginning::Turn;
        Self {
            settings,
            is_midway,
            has_seen_command: false,
            phase: Phase::Greeting,
            last_login: None,
            items: VecDeque::new(),
            waiting: Waiting::default(),
            end: None,
            turn: None,
            client: Packets::default(),
            message: Message::None,
            target: Side::new([Shape::Greeting]),
            is_target_lost: false,
            live: match is_midway {
                true => Live::midway(),
                false => Live::from_the_beginning(),
            },
            statements: Statements::default(),
            client_capabilities: None,
            has_attributes: None,
            target_capabilities: 0,
            awaited: None,
            loads: false,
            file_number: 0,
        }
    }

    /// See [`millrace_engine::protocol::Conversation`], as for all that follows.
    pub(super) fn on_client<S: Stage<Turn = T, Number = N>>(
        &mut self,
        bytes: &[u8],
        turn: Option<T>,
        stage: &mut S,
    ) -> Result<(), Failure> {
        if !self.items.is_empty() || self.is_blocked() {
            self.push(Item::Client(turn, bytes.to_vec()));
            return Ok(());
        }
        self.read(bytes, turn, stage)
    }

    pub(super) fn on_client_end<S: Stage<Turn = T, Number = N>>(
        &mut self,
        end: ClientEnd,
        turn: Option<T>,
        stage: &mut S,
    ) -> Result<(), Failure> {
        self.end = Some((end, turn));
        self.go_on(stage)
    }

    pub(super) fn on_live(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.holds_client() {
            self.live.hear(bytes, &mut self.statements)?;
            return self.check_refusal();
        }
        // It comes behind what the client said and is held here.
        match self.waiting.live + bytes.len() > MOST_LIVE {
            true => self.on_live_missing(),
            false => self.push(Item::Live(bytes.to_vec())),
        }
        Ok(())
    }

    fn push(&mut self, item: Item<T>) {
        self.waiting.add(&item);
        self.items.push_back(item);
    }

    pub(super) fn on_live_missing(&mut self) {
        match self.items.back() {
            None if !self.is_blocked() => self.live.lose(),
            Some(Item::Missing) => {}
            None | Some(Item::Client(..) | Item::Live(_)) => self.push(Item::Missing),
        }
    }

    pub(super) fn holds_client(&self) -> bool {
        !self.items.is_empty() || self.is_blocked()
    }

    /// Bytes of both sides that are kept here.
    pub(super) fn held(&self) -> usize {
        let message = match &self.message {
            Message::Held(held) => held.bytes.len(),
            Message::None | Message::Passes | Message::File | Message::Dropped => 0,
        };
        self.waiting.client + self.waiting.live + message
    }

    /// Memory that all this takes, besides itself.
    pub(super) fn memory(&self) -> usize {
        self.held() + self.items.len() * size_of::<Item<T>>() + self.statements.memory()
    }

    /// Bytes of the client that were heard and may still be played.
    pub(super) fn unplayed(&self) -> u64 {
        let message = match &self.message {
            Message::Held(held) => held.bytes.len(),
            Message::None | Message::Passes | Message::File | Message::Dropped => 0,
        };
        (self.waiting.client + message) as u64
    }

    /// Plays what waits, as far as it may.
    pub(super) fn go_on<S: Stage<Turn = T, Number = N>>(
        &mut self,
        stage: &mut S,
    ) -> Result<(), Failure> {
        // What is held may have been waited for.
        self.read(&[], None, stage)?;
        while !self.is_blocked()
            && let Some(item) = self.items.pop_front()
        {
            self.waiting.take(&item);
            match item {
                Item::Client(turn, bytes) => self.read(&bytes, turn, stage)?,
                Item::Live(bytes) => {
                    self.live.hear(&bytes, &mut self.statements)?;
                    self.check_refusal()?;
                }
                Item::Missing => self.live.lose(),
            }
        }
        if self.items.is_empty()
            && !self.is_blocked()
            && let Some((end, turn)) = self.end.take()
        {
            self.turn = turn.or(self.turn);
            self.place_turn(stage);
            stage.end(end);
        }
        Ok(())
    }

    /// Whether the client's next bytes, or what is held of a message, must wait for the target.
    fn is_blocked(&self) -> bool {
        match &self.phase {
            Phase::Greeting | Phase::LoggingIn(_) => true,
            Phase::Greeted(_) | Phase::Refused(_) => false,
            Phase::Commands if self.is_target_lost => false,
            Phase::Commands => {
                let is_between = matches!(self.message, Message::None | Message::Held(_));
                let is_loading =
                    self.loads && self.target.is_waiting() && !self.target.wants_file();
                let is_full = self.target.len() >= MOST_UNANSWERED;
                is_between && (is_loading || is_full)
                    || self
                        .awaited
                        .is_some_and(|place| self.statements.is_awaited(place))
            }
        }
    }

    /// Reads what the client says. What must wait is kept.
    fn read<S: Stage<Turn = T, Number = N>>(
        &mut self,
        mut bytes: &[u8],
        turn: Option<T>,
        stage: &mut S,
    ) -> Result<(), Failure> {
        if let Some(turn) = turn {
            self.take_turn(turn, stage);
        }
        while !self.is_blocked() {
            if self.is_ready() {
                self.decide(stage)?;
                continue;
            }
            match self.client.next(&mut bytes) {
                Some(Part::Head(head)) => self.on_head(head, stage)?,
                Some(Part::Body { bytes, is_last }) => self.on_body(bytes, is_last, stage),
                None => break,
            }
        }
        if !bytes.is_empty() {
            let item = Item::Client(None, bytes.to_vec());
            self.waiting.add(&item);
            self.items.push_front(item);
        }
        Ok(())
    }

    /// The client had waited before what comes next.
    fn take_turn<S: Stage<Turn = T, Number = N>>(&mut self, turn: T, stage: &mut S) {
        if !self.client.is_within() {
            if stage.is_settled(turn) {
                self.live.turn();
            }
            self.turn = Some(turn);
            return;
        }
        // It paused within a message, which nothing answers.
        match self.message {
            Message::Passes | Message::File => {
                stage.turn(turn, Pace::Answered);
            }
            Message::None | Message::Held(_) | Message::Dropped => {
                self.turn = self.turn.or(Some(turn));
            }
        }
    }

    /// A turn goes before what is played next, if the client had waited.
    fn place_turn<S: Stage<Turn = T, Number = N>>(&mut self, stage: &mut S) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        // A server that asked for a file answers no more until it has it.
        let is_over = !self.target.is_waiting() || self.target.wants_file();
        match (self.is_target_lost, is_over) {
            (true, _) => {
                stage.turn(turn, Pace::Counted);
            }
            (false, true) => {
                stage.turn(turn, Pace::Answered);
            }
            (false, false) => self.target.wait(stage.turn(turn, Pace::Told)),
        }
    }

    /// Plays, behind the turn that is due.
    pub(super) fn play<S: Stage<Turn = T, Number = N>>(&mut self, bytes: &[u8], stage: &mut S) {
        self.place_turn(stage);
        stage.play(bytes);
    }

    fn on_head<S: Stage<Turn = T, Number = N>>(
        &mut self,
        head: Head,
        stage: &mut S,
    ) -> Result<(), Failure> {
        if head.continues {
            if matches!(self.message, Message::Passes | Message::File) {
                self.play_head(head, stage);
            }
            return Ok(());
        }
        self.message = match (&self.phase, head.number) {
            (Phase::Refused(failure), 0) if self.live.login != Login::Refused => {
                return Err(failure.clone());
            }
            (Phase::Refused(_), _) => Message::Dropped,
            (Phase::Greeted(_), 0) => return Err(malformed("a client begins with a command")),
            (Phase::Greeted(_), _) => hold(head),
            (_, 0) => {
                self.end_file(stage);
                hold(head)
            }
            _ if self.is_midway && !self.has_seen_command => {
                return Err(unsupported("it was picked up within a command"));
            }
            _ if self.loads && self.target.wants_file() => {
                self.message = Message::File;
                self.play_head(head, stage);
                Message::File
            }
            // Of a log-in at the live server, or of a file that the target did not ask for.
            _ => Message::Dropped,
        };
        Ok(())
    }

    fn play_head<S: Stage<Turn = T, Number = N>>(&mut self, head: Head, stage: &mut S) {
        let head = match self.message {
            // Not all that went before is as long as it was at the live server.
            Message::File => Head {
                number: self.file_number,
                ..head
            },
            Message::None | Message::Held(_) | Message::Passes | Message::Dropped => head,
        };
        self.file_number = head.number.wrapping_add(1);
        self.play(&head.encode(), stage);
    }

    /// The live server wanted no file, or no more of it, but the target does: there is none.
    fn end_file<S: Stage<Turn = T, Number = N>>(&mut self, stage: &mut S) {
        if self.loads && self.target.wants_file() {
            stage.play(&packet(self.file_number, b""));
            self.target.answers().file_is_over();
        }
    }

    fn on_body<S: Stage<Turn = T, Number = N>>(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        stage: &mut S,
    ) {
        match &mut self.message {
            Message::Held(held) => {
                held.bytes.extend_from_slice(bytes);
                held.is_whole = is_last;
                return;
            }
            Message::Passes => self.play(bytes, stage),
            // An empty packet is the end of a file.
            Message::File if bytes.is_empty() && is_last => self.target.answers().file_is_over(),
            Message::File => self.play(bytes, stage),
            Message::None | Message::Dropped => {}
        }
        if is_last {
            self.message = Message::None;
        }
    }

    /// Where the target's answers end is not known any more: what waits for them waits as without a module.
    pub(super) fn lose_target<S: Stage<Turn = T, Number = N>>(&mut self, stage: &mut S) {
        self.is_target_lost = true;
        self.loads = false;
        for turn in self.target.forget() {
            stage.answered(turn);
        }
    }
}

const fn hold(head: Head) -> Message {
    Message::Held(Held {
        head,
        bytes: Vec::new(),
        is_whole: false,
    })
}

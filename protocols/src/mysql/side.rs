//! A server's side: which answers are due, and which of them is being heard.

use std::collections::VecDeque;

use millrace_engine::protocol::Failure;

use super::answers::{Answers, Event, Shape};

/// An answer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) shape: Shape,
    /// The statement that it prepares.
    pub(super) statement: Option<u64>,
}

#[derive(Debug)]
enum Pending<N> {
    Answer(Due),
    /// It waits for all that is before it.
    Turn(N),
}

/// One side.
#[derive(Debug)]
pub(super) struct Side<N> {
    answers: Answers,
    pending: VecDeque<Pending<N>>,
    /// What is being heard.
    current: Option<Due>,
}

impl<N: Copy> Side<N> {
    pub(super) fn new(first: impl IntoIterator<Item = Shape>) -> Self {
        let mut side = Self {
            answers: Answers::default(),
            pending: VecDeque::new(),
            current: None,
        };
        for shape in first {
            side.expect(shape, None);
        }
        side
    }

    pub(super) const fn answers(&mut self) -> &mut Answers {
        &mut self.answers
    }

    /// An answer is due, after those before.
    pub(super) fn expect(&mut self, shape: Shape, statement: Option<u64>) {
        let due = Due { shape, statement };
        self.pending.push_back(Pending::Answer(due));
    }

    /// This turn waits for all answers that are due.
    pub(super) fn wait(&mut self, turn: N) {
        self.pending.push_back(Pending::Turn(turn));
    }

    /// A turn for which nothing is due any more.
    pub(super) fn free_turn(&mut self) -> Option<N> {
        let Some(Pending::Turn(turn)) = self.pending.front().filter(|_| self.current.is_none())
        else {
            return None;
        };
        let turn = *turn;
        self.pending.pop_front();
        Some(turn)
    }

    /// Whether anything is due.
    pub(super) fn is_waiting(&self) -> bool {
        self.current.is_some() || !self.pending.is_empty()
    }

    /// Answers and turns that wait.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether the server waits for a file of the client.
    pub(super) const fn wants_file(&self) -> bool {
        self.answers.wants_file()
    }

    /// Nothing is due any more, whatever was. Gives the turns that waited for it.
    pub(super) fn forget(&mut self) -> Vec<N> {
        self.answers.restart();
        self.current = None;
        let turns = self.pending.drain(..).filter_map(|it| match it {
            Pending::Turn(turn) => Some(turn),
            Pending::Answer(_) => None,
        });
        turns.collect()
    }

    /// Reads on up to the next event, from the front of the bytes; with what it belongs to. `None` once they are used up.
    ///
    /// # Errors
    /// The server does not speak the protocol, or nothing was due.
    pub(super) fn hear(&mut self, bytes: &mut &[u8]) -> Result<Option<(Event, Due)>, Failure> {
        if self.current.is_none()
            && let Some(Pending::Answer(due)) = self.pending.front()
        {
            self.current = Some(*due);
            self.answers.begin(due.shape);
            self.pending.pop_front();
        }
        let event = self.answers.hear(bytes)?;
        let (Some(event), Some(due)) = (event, self.current) else {
            return Ok(None);
        };
        if self.answers.is_idle() {
            self.current = None;
        }
        Ok(Some((event, due)))
    }
}

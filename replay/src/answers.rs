//! Where the targets' answers come from: links to interceptors, or this host itself.

use std::os::fd::BorrowedFd;

use millrace_capture::RingStatistics;
use millrace_engine::{Engine, Time};

use crate::local::Answers;

/// Where the targets' answers come from.
pub enum AnswerSource {
    /// Interceptors return their headers over links, through the inbox.
    Links,
    /// This host catches them itself.
    Local(Box<Answers>),
}

impl AnswerSource {
    /// Hands the engine what this host has caught; the engine sends while answers are `diverted`. Says whether there is more.
    pub(crate) fn take(&mut self, now: Time, engine: &mut Engine, diverted: bool) -> bool {
        match self {
            Self::Links => false,
            Self::Local(answers) => {
                engine.set_open(now, diverted);
                answers.take(now, engine)
            }
        }
    }

    /// Whether answers will not come any more, so that nothing can be finished.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Links => false,
            Self::Local(answers) => answers.is_lost(),
        }
    }

    /// What to sleep on, beside the inbox.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let local = match self {
            Self::Links => None,
            Self::Local(answers) => Some(answers.fds()),
        };
        local.into_iter().flatten()
    }

    /// Has failed rings found.
    pub(crate) fn suspect(&mut self) {
        match self {
            Self::Links => {}
            Self::Local(answers) => answers.suspect(),
        }
    }

    /// What this host's own rings counted.
    pub(crate) fn statistics(&mut self) -> RingStatistics {
        match self {
            Self::Links => RingStatistics::default(),
            Self::Local(answers) => answers.statistics(),
        }
    }
}

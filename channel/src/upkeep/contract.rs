//! What one kind of stream adds to a stream.

use std::time::Duration;

use millrace_daemon::boottime::BootTime;

use super::{Backoff, Dial};

/// The client's side of a contract: what its messages mean. The stream calls it in order.
pub(crate) trait Contract {
    /// What this side says.
    type Outgoing;
    /// What the peer says.
    type Incoming;
    /// What comes with the answer to a ping.
    type Pong;
    /// How the peer refuses.
    type Refusal: Refusal;

    /// An attempt begins: what is said first.
    fn first(&mut self) -> Self::Outgoing;

    /// Judges the answer to the first message, if there is one. The stream is up if it is good.
    ///
    /// # Errors
    /// Why it is not.
    fn judge(&mut self, answer: Option<Self::Incoming>) -> Result<(), End<Self::Refusal>>;

    /// Takes in any later message. Returns the number and the rest if it answers a ping.
    ///
    /// # Errors
    /// Why the stream ends with it.
    fn take(&mut self, message: Self::Incoming) -> Taken<Self>;

    /// A ping with a number.
    fn ping(&mut self, nonce: u64) -> Self::Outgoing;

    /// The answer to the last ping, which was sent at `asked_at`.
    fn pong(&mut self, pong: Self::Pong, asked_at: BootTime);

    /// An attempt has ended: why, in an operator's words, too; and whether the stream was up.
    fn ended(&mut self, end: End<Self::Refusal>, reason: &str, was_up: bool);
}

/// What a message came to: the number and the rest of an answer to a ping, nothing, or the end.
pub(crate) type Taken<C> =
    Result<Option<(u64, <C as Contract>::Pong)>, End<<C as Contract>::Refusal>>;

/// The same on the network.
pub(crate) trait Wire: Contract {
    /// Opens a stream on a new connection. What [`Wire::send`] takes goes there from now on.
    fn dial(&mut self) -> Dial<Self::Incoming>;

    /// Sends a message, without waiting. Says whether there was room for it.
    fn send(&mut self, message: Self::Outgoing) -> bool;
}

/// The times and words of a contract.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The peer, as in `interceptor rs1:36524`.
    pub(crate) peer: String,
    /// For how long it is tried again, as in `it is back`.
    pub(crate) until: &'static str,
    /// Bound of connecting and of the answer to the first message.
    pub(crate) answer_within: Duration,
    /// What is said when there is none.
    pub(crate) no_answer: String,
    /// What is said when the peer ends the stream.
    pub(crate) ended: &'static str,
    /// How often the peer is pinged, unless its last answer is still awaited.
    pub(crate) ping_every: Duration,
    /// What such an answer is called.
    pub(crate) pong: &'static str,
    /// The waits between attempts.
    pub(crate) backoff: Backoff,
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End<R> {
    /// This side closed it.
    Closed,
    /// It broke, or did not come up.
    Failed(String),
    /// The peer refused.
    Refused(R),
}

/// A peer's refusal.
pub(crate) trait Refusal {
    /// Why, in the peer's words.
    fn reason(&self) -> &str;

    /// Whether the peer, or its successor, may say otherwise the next moment. Who would say the same again is asked at
    /// the slowest pace.
    fn passes(&self) -> bool;
}

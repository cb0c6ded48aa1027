//! One connection of a stream: being opened, then open.

use std::future::{Future, pending};
use std::pin::Pin;

use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::Peer;
use crate::tls::{Expect, Role};
use crate::transport::{self, Diagnosis, Opened};

/// A connection that is being opened.
pub(crate) type Dial<I> = Pin<Box<dyn Future<Output = Result<Inbound<I>, String>> + Send>>;

/// What comes on an open one.
#[derive(Debug)]
pub(crate) struct Inbound<I> {
    messages: Streaming<I>,
    diagnosis: Diagnosis,
}

/// Connects to a peer, which must have this role, and makes the call that opens the stream.
///
/// # Errors
/// One line in the operator's words.
pub(crate) async fn call<I, F>(
    peer: &Peer,
    role: Role,
    open: impl FnOnce(Channel) -> F,
) -> Result<Inbound<I>, String>
where
    F: Future<Output = Result<Response<Streaming<I>>, Status>>,
{
    let expect = Expect {
        role,
        must_confirm: peer.must_confirm,
    };
    let opened = transport::channel(&peer.address, &peer.security, expect, &peer.timeouts);
    let Opened { channel, diagnosis } = opened.await?;
    match open(channel).await {
        Ok(response) => Ok(Inbound {
            messages: response.into_inner(),
            diagnosis,
        }),
        Err(status) => Err(diagnosis.explain(&status)),
    }
}

/// The connection of the present attempt.
pub(super) enum Line<I> {
    /// There is none.
    None,
    Opening(Dial<I>),
    Open(Box<Inbound<I>>),
}

impl<I> Line<I> {
    /// Waits for what the peer says next; none when it has ended the stream. May be dropped and called again without
    /// loss.
    ///
    /// # Errors
    /// Why the connection is lost, or was not opened, in the operator's words.
    pub(super) async fn next(&mut self) -> Result<Option<I>, String> {
        if let Line::Opening(dial) = self {
            *self = Line::Open(Box::new(dial.await?));
        }
        match self {
            Line::Open(inbound) => {
                let message = inbound.messages.message().await;
                message.map_err(|status| inbound.diagnosis.explain(&status))
            }
            Line::None | Line::Opening(_) => pending().await,
        }
    }
}

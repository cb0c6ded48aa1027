//! Where a replica stands.

use millrace_engine::protocol::ClientEnd;

use super::super::head::Head;
use super::super::request::{Body, Gathered, Request};

/// Where in the client's stream the player is.
pub(super) enum At {
    /// At a head, or within one.
    Head,
    /// Within a body that is sent as it comes, or not at all.
    Body { body: Body, is_played: bool },
    /// Within a body that is gathered.
    Gathering(Box<Request<'static>>, Box<Gathered>),
    /// Behind a request that waits for this rule's value, at least.
    Waiting(Box<Request<'static>>, usize, Vec<u8>),
    /// Within another protocol.
    Tunnel,
    /// Where nothing is sent any more.
    Silence,
}

/// What may follow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Requests,
    /// Another protocol, which was asked of the target too.
    Tunnel,
    /// The same, by CONNECT.
    Connect,
    /// Another protocol, of a request that was left out.
    Unheard,
    /// HTTP/2, which was not offered to the target.
    Http2,
}

impl Next {
    pub(super) fn after(head: &Head<'_>, is_played: bool) -> Self {
        match (head.asks_for_tunnel(), is_played) {
            (true, true) if head.is_connect() => Self::Connect,
            (true, true) => Self::Tunnel,
            (true, false) => Self::Unheard,
            (false, _) if head.offers_h2c() => Self::Http2,
            (false, _) => Self::Requests,
        }
    }

    pub(super) const fn may_tunnel(self) -> bool {
        matches!(self, Self::Tunnel | Self::Connect)
    }
}

/// What has come while something was waited for.
pub(super) enum Input<T> {
    Client(Option<T>, Vec<u8>),
    End(ClientEnd, Option<T>),
}

/// How far behind the live server the client is heard, which is never held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    /// In the order in which both were captured.
    None,
    /// The client is held back.
    Held,
    /// It was, and the rest of that is heard now.
    Behind,
}

/// Behind a head whose body this is.
pub(super) fn after(body: Body, is_played: bool) -> At {
    match body.is_over() {
        true => At::Head,
        false => At::Body { body, is_played },
    }
}

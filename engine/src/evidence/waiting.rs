//! Segments of clients that wait for what bears them out, and what becomes of them.

use bytes::Bytes;
use millrace_wire::{Flags, FourTuple, TcpHeader, TcpPacket};

use crate::live_view::ACKS_APART;
use crate::session::{Phase, Session};
use crate::stream::ClientStream;
use crate::time::Time;

/// A segment that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) at: Time,
    pub(crate) tuple: FourTuple,
    pub(crate) header: TcpHeader,
    pub(crate) payload: Bytes,
    pub(crate) payload_len: usize,
    /// It begins a turn if it is what it seems.
    pub(crate) fresh: bool,
    /// It ends the stream, ahead of bytes that have not come.
    pub(crate) loose: bool,
    /// For so long the live server may still accept it though it has passed it over, and nobody asks why bytes before
    /// a FIN do not come.
    pub(crate) until: Time,
    /// What it acknowledges is so near what the live server is known to have sent that it may be lost.
    pub(crate) likely: bool,
    /// The live server has acknowledged it, or the client has gone on behind it.
    pub(crate) borne_out: bool,
    /// The live server has answered it: what it said reaches beyond what the client had seen.
    pub(crate) answered: bool,
    /// The live server has spoken since, and not acknowledged it.
    pub(crate) passed_over: bool,
}

/// What becomes of a segment that waits.
pub(crate) enum Fate {
    Wait,
    Take,
    Drop,
    /// All of it has come by other segments.
    Repeated,
}

impl Waiting {
    /// Memory that it takes.
    pub(crate) fn cost(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }

    /// Where it begins and ends in this stream, a FIN included.
    pub(crate) fn place(&self, stream: &ClientStream) -> (u64, u64) {
        let offset = stream.offset_of(self.header.seq).unwrap_or(0);
        (offset, self.end(offset))
    }

    /// Where it ends if it begins at this offset, a FIN included.
    pub(crate) fn end(&self, offset: u64) -> u64 {
        offset + self.payload_len as u64 + u64::from(self.header.flags.has(Flags::FIN))
    }

    /// Whether a segment of its client begins where it ends, and acknowledges as much or a little more.
    pub(crate) fn is_continued_by(&self, header: &TcpHeader) -> bool {
        let length = self.end(0) as u32;
        let further = header.ack.since(self.header.ack);
        length > 0
            && header.seq == self.header.seq.add(length)
            && header.flags.has(Flags::ACK)
            && u64::try_from(further).is_ok_and(|further| further <= ACKS_APART)
    }

    /// When it is decided if nothing more is said.
    pub(crate) fn due(&self) -> Time {
        match self.passed_over || self.loose || self.likely {
            true => self.until,
            false => Time::NEVER,
        }
    }

    pub(crate) fn packet(&self) -> TcpPacket<'_> {
        TcpPacket {
            tuple: self.tuple,
            header: self.header,
            payload: &self.payload,
            payload_len: self.payload_len,
        }
    }
}

/// How far the client is known to have sent: what is in the stream, and what waits and continues that.
pub(crate) fn known_end<'w>(
    stream: &ClientStream,
    waiting: impl Iterator<Item = &'w Waiting>,
) -> u64 {
    let mut places: Vec<(u64, u64)> = waiting.map(|one| one.place(stream)).collect();
    places.sort_unstable();
    let continued = |known: u64, (offset, end)| match offset <= known {
        true => known.max(end),
        false => known,
    };
    places.into_iter().fold(stream.known_end(), continued)
}

/// Whether a segment ends what is replayed: a FIN, or urgent data.
pub(crate) fn ends(header: &TcpHeader) -> bool {
    header.flags.has(Flags::FIN) || header.flags.has(Flags::URG)
}

/// What becomes of a segment now; `all` says that nothing else is to come.
pub(crate) fn decide(session: &Session, one: &Waiting, clock: Time, all: bool) -> Fate {
    let is_unsent = session.live.is_unsent(&one.header);
    let is_due = all || one.due() <= clock;
    match session.phase() {
        // What is watched goes by what it takes for the client's: nothing that the live server would not have taken.
        Phase::Midway(_) => {
            let is_doubted = one.passed_over || is_unsent && !one.likely;
            return match one.borne_out || !is_doubted {
                true => Fate::Take,
                false => Fate::Drop,
            };
        }
        // The live server resets whoever acknowledges what it never sent.
        Phase::Opening => {
            return match (one.borne_out || !is_unsent, is_due) {
                (true, _) => Fate::Take,
                (false, true) => Fate::Drop,
                (false, false) => Fate::Wait,
            };
        }
        Phase::Active { .. } => {}
    }
    let Some(offset) = session.stream().offset_of(one.header.seq) else {
        return Fate::Drop;
    };
    let has = session.stream().len();
    let fin = one.header.flags.has(Flags::FIN);
    if has >= one.end(offset) || fin && session.stream().announced_end().is_some() {
        return Fate::Repeated;
    }
    let is_loose = ends(&one.header) && offset > has;
    if one.borne_out || !(is_loose || is_unsent) {
        return Fate::Take;
    }
    match (is_due, one.passed_over || is_unsent && !one.likely) {
        (true, true) => Fate::Drop,
        // The live server's words are not captured.
        (true, false) => Fate::Take,
        (false, _) => Fate::Wait,
    }
}

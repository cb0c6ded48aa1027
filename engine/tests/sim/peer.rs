//! One side of a live connection: a TCP with retransmission that accepts what RFC 9293 and RFC 5961
//! let it accept, written apart from the engine. What a live server of this kind has accepted is
//! what a replay must deliver.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use millrace_engine::Time;
use millrace_wire::{Flags, FourTuple, Seq, TcpHeader};

use super::Packet;

const WINDOW: i64 = 65_000;
const MSS: usize = 1000;
/// Segments in flight.
const FLIGHT: u64 = 8;
const RTO: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Listen,
    SynSent,
    SynReceived,
    Open,
    /// Both sides have closed, or a reset was accepted.
    Closed,
}

/// What one side says after what the other has said in all: ascending.
pub type Script = VecDeque<(u64, Vec<u8>)>;

pub struct Peer {
    /// From this side to the other.
    tuple: FourTuple,
    isn: Seq,
    peer_isn: Seq,
    pub state: State,
    script: Script,
    /// Whether this side closes at the end of its script, or when the other has closed.
    closes_first: bool,
    sent: Vec<u8>,
    fin: bool,
    una: u64,
    nxt: u64,
    /// The highest that was ever sent.
    max: u64,
    /// What was accepted, in order.
    pub received: Vec<u8>,
    /// The other side has closed, and its FIN was accepted.
    pub peer_closed: bool,
    pub was_reset: bool,
    out_of_order: BTreeMap<u64, Vec<u8>>,
    peer_fin: Option<u64>,
    rto_at: Option<Time>,
    out: Vec<Packet>,
}

impl Peer {
    pub fn client(tuple: FourTuple, isn: u32, script: Script) -> Self {
        Self::new(tuple, isn, script, true)
    }

    pub fn server(tuple: FourTuple, isn: u32, script: Script) -> Self {
        Self::new(tuple, isn, script, false)
    }

    fn new(tuple: FourTuple, isn: u32, script: Script, closes_first: bool) -> Self {
        Self {
            tuple,
            isn: Seq(isn),
            peer_isn: Seq(0),
            state: State::Listen,
            script,
            closes_first,
            sent: Vec::new(),
            fin: false,
            una: 0,
            nxt: 0,
            max: 0,
            received: Vec::new(),
            peer_closed: false,
            was_reset: false,
            out_of_order: BTreeMap::new(),
            peer_fin: None,
            rto_at: None,
            out: Vec::new(),
        }
    }

    pub fn connect(&mut self, now: Time) {
        self.state = State::SynSent;
        self.send(Flags::SYN, self.isn, &[]);
        self.rto_at = Some(now + RTO);
    }

    pub fn take_output(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.out)
    }

    pub fn deadline(&self) -> Option<Time> {
        self.rto_at
    }

    pub fn on_time(&mut self, now: Time) {
        if self.rto_at.is_none_or(|at| at > now) {
            return;
        }
        self.rto_at = Some(now + RTO);
        match self.state {
            State::SynSent => self.send(Flags::SYN, self.isn, &[]),
            State::SynReceived => self.send(Flags::SYN | Flags::ACK, self.isn, &[]),
            State::Open => {
                // Go back to what is missing, one segment at a time.
                self.nxt = self.una;
                self.send_some(1);
            }
            State::Listen | State::Closed => self.rto_at = None,
        }
    }

    /// The next byte that is expected, and the next to be sent, for those who forge segments.
    pub fn edges(&self) -> (Seq, Seq) {
        (self.ack(), self.seq_at(self.nxt))
    }

    pub fn on_packet(&mut self, now: Time, header: &TcpHeader, payload: &[u8]) {
        let (flags, ack) = (header.flags, header.ack);
        match self.state {
            State::Closed => {
                // TIME-WAIT: the last acknowledgement was lost.
                if !self.was_reset && flags.has(Flags::FIN) {
                    self.acknowledge();
                }
                return;
            }
            State::Listen => {
                if flags == Flags::SYN {
                    self.peer_isn = header.seq;
                    self.state = State::SynReceived;
                    self.send(Flags::SYN | Flags::ACK, self.isn, &[]);
                    self.rto_at = Some(now + RTO);
                }
                return;
            }
            State::SynSent => {
                if flags.has(Flags::SYN | Flags::ACK) && ack == self.isn.add(1) {
                    self.peer_isn = header.seq;
                    self.state = State::Open;
                    self.acknowledge();
                    self.go_on(now);
                }
                return;
            }
            State::SynReceived => {
                if flags == Flags::SYN && header.seq == self.peer_isn {
                    self.send(Flags::SYN | Flags::ACK, self.isn, &[]);
                    return;
                }
            }
            State::Open => {}
        }
        let rel = i64::from(header.seq.0.wrapping_sub(self.ack().0).cast_signed());
        // RFC 5961 3.2 and 4.2.
        if flags.has(Flags::RST) {
            match rel {
                0 => {
                    self.was_reset = true;
                    self.state = State::Closed;
                    self.rto_at = None;
                }
                1..WINDOW => self.acknowledge(),
                _ => {}
            }
            return;
        }
        let length = payload.len() as i64 + i64::from(flags.has(Flags::FIN));
        if flags.has(Flags::SYN) {
            return self.acknowledge();
        }
        // RFC 9293 3.10.7.4, first: acceptability.
        if rel >= WINDOW || rel + length < 0 || (length > 0 && rel + length <= 0) {
            if length > 0 {
                self.acknowledge();
            }
            return;
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        // RFC 5961 5.2.
        let acked = i64::from(ack.0.wrapping_sub(self.seq_at(self.una).0).cast_signed());
        if acked > (self.max - self.una) as i64 || acked < -WINDOW {
            return self.acknowledge();
        }
        if self.state == State::SynReceived {
            self.state = State::Open;
        }
        if acked > 0 {
            self.una += acked as u64;
            self.nxt = self.nxt.max(self.una);
            self.rto_at = Some(now + RTO);
        }
        if length > 0 {
            self.accept(rel, payload, flags.has(Flags::FIN));
            self.acknowledge();
        }
        self.go_on(now);
    }

    fn accept(&mut self, rel: i64, payload: &[u8], fin: bool) {
        let offset = self.received.len() as i64 + rel;
        let skip = (-rel).clamp(0, payload.len() as i64) as usize;
        let start = offset + skip as i64;
        if let Some(end) = u64::try_from(offset + payload.len() as i64)
            .ok()
            .filter(|_| fin)
        {
            self.peer_fin.get_or_insert(end);
        }
        for (index, byte) in payload[skip..].iter().enumerate() {
            // The first that came stays.
            self.out_of_order
                .entry(start as u64 + index as u64)
                .or_insert_with(|| vec![*byte]);
        }
        while let Some(byte) = self.out_of_order.remove(&(self.received.len() as u64)) {
            self.received.extend(byte);
        }
        self.peer_closed |= self.peer_fin == Some(self.received.len() as u64);
    }

    /// Says what is due, and closes when all is said.
    fn go_on(&mut self, now: Time) {
        while let Some((after, _)) = self.script.front()
            && *after <= self.received.len() as u64
            && let Some((_, bytes)) = self.script.pop_front()
        {
            self.sent.extend(bytes);
        }
        let all_said = self.script.is_empty() && self.una == self.sent.len() as u64;
        self.fin |= match self.closes_first {
            true => all_said,
            false => self.peer_closed && self.script.is_empty(),
        };
        self.send_some(FLIGHT);
        let end = self.sent.len() as u64 + u64::from(self.fin);
        if self.una == end {
            self.rto_at = None;
            if self.fin && self.peer_closed {
                self.state = State::Closed;
            }
        } else if self.rto_at.is_none() {
            self.rto_at = Some(now + RTO);
        }
    }

    fn send_some(&mut self, segments: u64) {
        let len = self.sent.len() as u64;
        while self.nxt < (self.una + segments * MSS as u64).min(len) {
            let from = self.nxt as usize;
            let to = self.sent.len().min(from + MSS);
            let bytes = self.sent[from..to].to_vec();
            self.send(Flags::ACK | Flags::PSH, self.seq_at(self.nxt), &bytes);
            self.nxt = to as u64;
        }
        if self.fin && self.nxt == len {
            self.send(Flags::ACK | Flags::FIN, self.seq_at(len), &[]);
            self.nxt = len + 1;
        }
        self.max = self.max.max(self.nxt);
    }

    fn acknowledge(&mut self) {
        self.send(Flags::ACK, self.seq_at(self.nxt), &[]);
    }

    fn seq_at(&self, offset: u64) -> Seq {
        self.isn.add(1).add(offset as u32)
    }

    fn ack(&self) -> Seq {
        let next = self.received.len() as u32 + u32::from(self.peer_closed);
        self.peer_isn.add(1).add(next)
    }

    fn send(&mut self, flags: Flags, seq: Seq, payload: &[u8]) {
        let ack = match flags.has(Flags::ACK) {
            true => self.ack(),
            false => Seq(0),
        };
        self.out.push(Packet {
            tuple: self.tuple,
            header: TcpHeader {
                seq,
                ack,
                flags,
                window: WINDOW as u16,
                ..TcpHeader::default()
            },
            payload: payload.to_vec(),
            payload_len: payload.len(),
        });
    }
}

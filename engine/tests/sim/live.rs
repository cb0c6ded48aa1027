//! A live connection as capture sees it: written down as a conversation, played back as segments.

use std::time::Duration;

use millrace_engine::Time;
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader};

use super::rng::Rng;
use super::{LIVE, Packet, client};

/// What one side does next.
#[derive(Clone, Debug)]
pub enum Action {
    /// The client sends bytes.
    Client(Vec<u8>),
    /// The server sends this many bytes.
    Server(u64),
    /// Nothing happens.
    Pause(Duration),
    /// The client sends a FIN.
    ClientFin,
    /// The server sends a FIN.
    ServerFin,
    /// The client sends a RST.
    ClientReset,
    /// The server sends a RST.
    ServerReset,
    /// The client acknowledges what it has received, without data.
    ClientAck,
}

/// `len` bytes that differ from place to place.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// Plays a conversation.
pub struct Live {
    pub client: Endpoint,
    pub live: Endpoint,
    pub client_isn: Seq,
    pub server_isn: Seq,
    /// Largest payload of a captured segment.
    pub segment: usize,
    /// Half a round trip between client and server.
    pub delay: Duration,
    /// Whether the handshake is part of the capture.
    pub handshake: bool,
    pub now: Time,
    sent: u32,
    answered: u32,
    seen: u32,
    server_has: u32,
    pub packets: Vec<(Time, Packet)>,
}

impl Live {
    pub fn new(start: Time, port: u16) -> Self {
        Self {
            client: client(port),
            live: LIVE,
            client_isn: Seq(1_000_000_007u32.wrapping_mul(u32::from(port))),
            server_isn: Seq(77_777u32.wrapping_mul(u32::from(port))),
            segment: 1460,
            delay: Duration::from_micros(500),
            handshake: true,
            now: start,
            sent: 0,
            answered: 0,
            seen: 0,
            server_has: 0,
            packets: Vec::new(),
        }
    }

    /// Plays all actions; gives the captured packets in time order.
    pub fn play(mut self, actions: &[Action]) -> Vec<(Time, Packet)> {
        if self.handshake {
            self.shake_hands();
        }
        for action in actions {
            self.act(action);
        }
        self.packets.sort_by_key(|(time, _)| *time);
        self.packets
    }

    pub fn shake_hands(&mut self) {
        let isn = self.client_isn;
        self.push_client(Flags::SYN, isn, Seq(0), Vec::new());
        let ack = self.client_isn.add(1);
        self.push_server(Flags::SYN | Flags::ACK, self.server_isn, ack, 0);
        self.now = self.now + self.delay * 2;
        self.push_client(Flags::ACK, ack, self.server_isn.add(1), Vec::new());
    }

    pub fn act(&mut self, action: &Action) {
        match action {
            Action::Client(bytes) => {
                // The client has seen by now what the server sent.
                self.seen = self.answered;
                for piece in bytes.chunks(self.segment) {
                    self.now = self.now + Duration::from_micros(20);
                    let (seq, ack) = (self.client_seq(), self.server_ack());
                    self.push_client(Flags::ACK | Flags::PSH, seq, ack, piece.to_vec());
                    self.sent += piece.len() as u32;
                }
            }
            Action::Server(len) => {
                self.server_has = self.sent;
                self.now = self.now + Duration::from_micros(300);
                let mut left = *len as usize;
                while left > 0 {
                    let piece = left.min(self.segment);
                    let seq = self.server_isn.add(1).add(self.answered);
                    let ack = self.client_isn.add(1).add(self.server_has);
                    self.push_server(Flags::ACK, seq, ack, piece);
                    self.answered += piece as u32;
                    left -= piece;
                    self.now = self.now + Duration::from_micros(10);
                }
                self.now = self.now + self.delay * 2;
            }
            Action::Pause(duration) => self.now = self.now + *duration,
            Action::ClientAck => {
                self.seen = self.answered;
                let (seq, ack) = (self.client_seq(), self.server_ack());
                self.push_client(Flags::ACK, seq, ack, Vec::new());
            }
            Action::ClientFin => {
                self.now = self.now + Duration::from_micros(50);
                self.seen = self.answered;
                let (seq, ack) = (self.client_seq(), self.server_ack());
                self.push_client(Flags::FIN | Flags::ACK, seq, ack, Vec::new());
                self.sent += 1;
                self.server_has = self.sent;
                let server = self.server_isn.add(1).add(self.answered);
                self.push_server(Flags::ACK, server, self.client_seq(), 0);
            }
            Action::ServerFin => {
                let seq = self.server_isn.add(1).add(self.answered);
                let ack = self.client_isn.add(1).add(self.sent);
                self.push_server(Flags::FIN | Flags::ACK, seq, ack, 0);
                self.answered += 1;
                self.now = self.now + self.delay * 2;
            }
            Action::ClientReset => {
                self.now = self.now + Duration::from_micros(50);
                let (seq, ack) = (self.client_seq(), self.server_ack());
                self.push_client(Flags::RST | Flags::ACK, seq, ack, Vec::new());
            }
            Action::ServerReset => {
                let seq = self.server_isn.add(1).add(self.answered);
                let ack = self.client_isn.add(1).add(self.sent);
                self.push_server(Flags::RST | Flags::ACK, seq, ack, 0);
            }
        }
    }

    fn client_seq(&self) -> Seq {
        self.client_isn.add(1).add(self.sent)
    }

    fn server_ack(&self) -> Seq {
        self.server_isn.add(1).add(self.seen)
    }

    pub fn push_client(&mut self, flags: Flags, seq: Seq, ack: Seq, payload: Vec<u8>) {
        let payload_len = payload.len();
        self.push(
            FourTuple::new(self.client, self.live),
            flags,
            seq,
            ack,
            payload,
            payload_len,
        );
    }

    pub fn push_server(&mut self, flags: Flags, seq: Seq, ack: Seq, len: usize) {
        // Capture keeps only headers of the live server.
        self.push(
            FourTuple::new(self.live, self.client),
            flags,
            seq,
            ack,
            Vec::new(),
            len,
        );
    }

    fn push(
        &mut self,
        tuple: FourTuple,
        flags: Flags,
        seq: Seq,
        ack: Seq,
        payload: Vec<u8>,
        payload_len: usize,
    ) {
        let header = TcpHeader {
            seq,
            ack,
            flags,
            window: 65_000,
            ..TcpHeader::default()
        };
        self.packets.push((
            self.now,
            Packet {
                tuple,
                header,
                payload,
                payload_len,
            },
        ));
    }
}

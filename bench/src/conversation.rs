//! One session: client, live server and target, each as far as the engine can tell.

use std::time::Duration;

use millrace_engine::{Engine, FlowRef, Time};
use millrace_wire::{Flags, FourTuple, Seq, TcpHeader, TcpOptions, TcpPacket};

use crate::{LIVE, START, TARGET, client, take_events};

/// Initial sequence numbers of live server and target.
const LIVE_ISN: Seq = Seq(0x0100_0000);
const TARGET_ISN: Seq = Seq(0x0200_0000);
/// The client's.
const CLIENT_ISN: Seq = Seq(0x0300_0000);

/// A session and its replica, and the numbers that each end has reached.
#[derive(Clone, Copy, Debug)]
pub struct Conversation {
    now: Time,
    tuple: FourTuple,
    client: Seq,
    live: Seq,
    flow: Option<FourTuple>,
    /// Behind what the target has received.
    received: Seq,
    target: Seq,
    echo: u32,
}

impl Conversation {
    /// The session of the client with this number; nothing has happened yet.
    pub fn new(number: u32) -> Self {
        Self {
            now: START + Duration::from_micros(u64::from(number)),
            tuple: FourTuple::new(client(number), LIVE),
            client: CLIENT_ISN,
            live: LIVE_ISN,
            flow: None,
            received: Seq(0),
            target: TARGET_ISN,
            echo: 0,
        }
    }

    /// As [`Conversation::turn`], with the bytes of the target's answer.
    pub fn turn_heard(&mut self, engine: &mut Engine, request: &[u8], answer: &[u8]) {
        self.ask_live(engine, request, answer.len());
        let Some(flow) = self.flow else { return };
        let flags = Flags::ACK | Flags::PSH;
        let len = answer.len();
        let header = self.target_header(flow, flags, len, TcpOptions::default());
        // Segments of benchmarks are short.
        engine.target_segment(self.now, FlowRef::Tuple(flow), &header, answer, len as u32);
        self.deliver(engine);
        self.pass(engine, Duration::from_millis(11));
    }

    /// Both handshakes.
    pub fn open(&mut self, engine: &mut Engine) {
        self.client_sends(engine, Flags::SYN, &[]);
        self.live_sends(engine, Flags::SYN | Flags::ACK, 0);
        self.client_sends(engine, Flags::ACK, &[]);
        self.deliver(engine);
        let options = TcpOptions {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..TcpOptions::default()
        };
        self.target_sends(engine, Flags::SYN | Flags::ACK, 0, options);
        self.deliver(engine);
    }

    /// A request, its answer by live server and target, and the acknowledgements of both.
    pub fn turn(&mut self, engine: &mut Engine, request: &[u8], answer: usize) {
        self.ask_live(engine, request, answer);
        self.response(engine, answer);
        // Longer than the delayed acknowledgement takes.
        self.pass(engine, Duration::from_millis(11));
    }

    fn ask_live(&mut self, engine: &mut Engine, request: &[u8], answer: usize) {
        self.client_sends(engine, Flags::ACK | Flags::PSH, request);
        self.pass(engine, Duration::from_micros(200));
        self.live_sends(engine, Flags::ACK | Flags::PSH, answer);
        self.client_sends(engine, Flags::ACK, &[]);
    }

    /// A segment of an upload, acknowledged by both servers.
    pub fn upload(&mut self, engine: &mut Engine, bytes: &[u8]) {
        self.client_sends(engine, Flags::ACK, bytes);
        self.live_sends(engine, Flags::ACK, 0);
        self.pass(engine, Duration::from_micros(20));
        self.response(engine, 0);
    }

    /// A response header of the target with this much payload; acknowledges all that it has received.
    pub fn response(&mut self, engine: &mut Engine, payload: usize) {
        let flags = Flags::ACK | Flags::PSH;
        self.target_sends(engine, flags, payload, TcpOptions::default());
        self.deliver(engine);
    }

    /// Both sides end, the client first.
    pub fn close(&mut self, engine: &mut Engine) {
        self.client_sends(engine, Flags::FIN | Flags::ACK, &[]);
        self.live_sends(engine, Flags::FIN | Flags::ACK, 0);
        self.client_sends(engine, Flags::ACK, &[]);
        self.pass(engine, Duration::from_micros(200));
        let flags = Flags::FIN | Flags::ACK;
        self.target_sends(engine, flags, 0, TcpOptions::default());
        self.deliver(engine);
    }

    /// Time passes, and what is due happens.
    pub fn pass(&mut self, engine: &mut Engine, span: Duration) {
        let end = self.now + span;
        while let Some(due) = engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            engine.timeout(self.now);
            self.deliver(engine);
        }
        self.now = end;
        self.deliver(engine);
    }

    fn client_sends(&mut self, engine: &mut Engine, flags: Flags, payload: &[u8]) {
        let ack = if flags.has(Flags::ACK) {
            self.live
        } else {
            Seq(0)
        };
        let packet = segment(self.tuple, flags, self.client, ack, payload, payload.len());
        self.client = packet.seq_end();
        engine.segment(self.now, self.now, &packet);
    }

    fn live_sends(&mut self, engine: &mut Engine, flags: Flags, len: usize) {
        let tuple = self.tuple.reversed();
        let packet = segment(tuple, flags, self.live, self.client, &[], len);
        self.live = packet.seq_end();
        engine.segment(self.now, self.now, &packet);
    }

    fn target_sends(&mut self, engine: &mut Engine, flags: Flags, len: usize, options: TcpOptions) {
        let Some(flow) = self.flow else { return };
        let header = self.target_header(flow, flags, len, options);
        // Segments of benchmarks are short.
        engine.target_header(self.now, FlowRef::Tuple(flow), &header, len as u32);
    }

    /// That of the target's next segment.
    fn target_header(
        &mut self,
        flow: FourTuple,
        flags: Flags,
        len: usize,
        options: TcpOptions,
    ) -> TcpHeader {
        let mut packet = segment(flow.reversed(), flags, self.target, self.received, &[], len);
        packet.header.options = options;
        packet.header.options.timestamps = Some((self.now.as_micros() as u32, self.echo));
        self.target = packet.seq_end();
        packet.header
    }

    /// Hands the target what is sent to it.
    fn deliver(&mut self, engine: &mut Engine) {
        while let Some(packet) = engine.poll_transmit(self.now) {
            if packet.tuple.destination != TARGET {
                continue;
            }
            self.flow = Some(packet.tuple);
            let header = packet.header;
            let bytes = packet.payload_len();
            let end = segment(
                packet.tuple,
                header.flags,
                header.seq,
                header.ack,
                &[],
                bytes,
            )
            .seq_end();
            self.received = end;
            self.echo = header.options.timestamps.map_or(0, |(value, _)| value);
        }
        take_events(engine);
    }
}

fn segment(
    tuple: FourTuple,
    flags: Flags,
    seq: Seq,
    ack: Seq,
    payload: &[u8],
    payload_len: usize,
) -> TcpPacket<'_> {
    TcpPacket {
        tuple,
        header: TcpHeader {
            seq,
            ack,
            flags,
            window: 65_000,
            ..TcpHeader::default()
        },
        payload,
        payload_len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    #[test]
    fn what_is_heard_is_framed() {
        let mut engine = crate::http_engine(64 << 20, crate::OTHER_HOST);
        let mut conversation = Conversation::new(0);
        conversation.open(&mut engine);
        for _ in 0..5 {
            conversation.turn_heard(&mut engine, crate::REQUEST, crate::ANSWER);
        }
        conversation.close(&mut engine);
        let stats = engine.stats();
        assert_eq!(stats.bytes_captured, 5 * 120);
        // Each request bears another host.
        assert_eq!(stats.bytes_wanted, 5 * 118);
        assert_eq!(stats.bytes_delivered, stats.bytes_wanted);
        assert_eq!(stats.replicas_completed, 1, "{:?}", stats.replicas_aborted);
        assert_eq!((stats.gate_quiet, stats.gate_overridden), (0, 0));
    }

    /// A benchmark of something that does not happen would be fast.
    #[test]
    fn what_benchmarks_play_is_copied_whole() {
        let mut engine = engine(64 << 20);
        for number in 0..10 {
            let mut conversation = Conversation::new(number);
            conversation.open(&mut engine);
            for _ in 0..5 {
                conversation.turn(&mut engine, &[7; 120], 500);
            }
            for _ in 0..100 {
                conversation.upload(&mut engine, &[7; 1448]);
            }
            conversation.close(&mut engine);
        }
        let stats = engine.stats();
        assert_eq!(stats.bytes_captured, 10 * (5 * 120 + 100 * 1448));
        assert_eq!(stats.bytes_delivered, stats.bytes_captured);
        assert_eq!(stats.replicas_completed, 10, "{:?}", stats.replicas_aborted);
        assert_eq!(stats.packets_retransmitted, 0);
        // Five requests and the upload, each after an answer.
        assert_eq!(stats.gate_passed, 10 * 6);
    }
}

//! The module of HTTP in the engine: segments of a client and its live server go in, and come out as a target gets them.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_engine::{Config, Engine, FlowRef, LiveAddress, ReplicaKey, Service, Time};
use millrace_protocols::http::{Http, Settings};
use millrace_protocols::writes::{Rules, WriteGuard};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpPacket};

const ACK: Flags = Flags::ACK;

/// A client, its live server, and the target, without a network.
struct World {
    engine: Engine,
    now: Time,
    client: Endpoint,
    live: Endpoint,
    /// The next numbers of the three.
    client_seq: u32,
    live_seq: u32,
    target_seq: u32,
    replica: Option<ReplicaKey>,
    received: Vec<u8>,
    /// What the target acknowledges.
    acked: Seq,
}

impl World {
    fn new(settings: &str, rules: Rules) -> Self {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        let (client, live) = (endpoint("198.18.0.1:40000"), endpoint("198.18.0.10:80"));
        let mut engine = Engine::new(Config {
            services: vec![Service {
                live: LiveAddress::At(live.ip),
                live_port: live.port,
                target: endpoint("198.18.0.20:80"),
            }],
            ..Config::default()
        });
        let guard = WriteGuard::new(Arc::new(rules), Arc::default());
        let module = Http::new(Settings::parse(settings).unwrap(), guard);
        engine.set_protocol(0, Box::new(module));
        let now = Time::from_micros(1_700_000_000_000_000);
        engine.set_open(now, true);
        let mut world = Self {
            engine,
            now,
            client,
            live,
            client_seq: 100,
            live_seq: 900,
            target_seq: 5000,
            replica: None,
            received: Vec::new(),
            acked: Seq(0),
        };
        world.capture(true, Flags::SYN, b"");
        world.client_seq += 1;
        world.capture(false, Flags(Flags::SYN.0 | ACK.0), b"");
        world.live_seq += 1;
        world.capture(true, ACK, b"");
        world.wait(1);
        world
    }

    fn capture(&mut self, of_client: bool, flags: Flags, payload: &[u8]) {
        let (from, to, seq, ack) = match of_client {
            true => (self.client, self.live, self.client_seq, self.live_seq),
            false => (self.live, self.client, self.live_seq, self.client_seq),
        };
        let packet = TcpPacket {
            tuple: FourTuple::new(from, to),
            header: header(seq, ack, flags),
            payload,
            payload_len: payload.len(),
        };
        self.engine.segment(self.now, self.now, &packet);
        self.send();
    }

    fn client(&mut self, text: &str) {
        self.capture(true, ACK, text.as_bytes());
        self.client_seq += u32::try_from(text.len()).unwrap();
        self.wait(2);
    }

    fn live(&mut self, text: &str) {
        self.capture(false, ACK, text.as_bytes());
        self.live_seq += u32::try_from(text.len()).unwrap();
        self.wait(2);
    }

    fn target(&mut self, text: &str) {
        let header = header(self.target_seq, self.acked.0, ACK);
        let flow = FlowRef::Id(self.replica.unwrap().flow_id());
        let len = u32::try_from(text.len()).unwrap();
        self.engine
            .target_segment(self.now, flow, &header, text.as_bytes(), len);
        self.target_seq += len;
        self.wait(2);
    }

    fn wait(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            self.engine.timeout(self.now);
            self.send();
        }
    }

    /// The target takes what is sent, and acknowledges it.
    fn send(&mut self) {
        loop {
            let Some(packet) = self.engine.poll_transmit(self.now) else {
                return;
            };
            let (key, seq) = (packet.key, packet.header.seq);
            let is_syn = packet.header.flags.has(Flags::SYN);
            let parts: Vec<u8> = packet.payload.concat();
            self.replica = Some(key);
            let len = u32::try_from(parts.len()).unwrap() + u32::from(is_syn);
            if len == 0 {
                continue;
            }
            let end = seq.add(len);
            if is_syn || seq == self.acked {
                self.received.extend(parts);
                self.acked = end;
            }
            let flags = match is_syn {
                true => Flags(Flags::SYN.0 | ACK.0),
                false => ACK,
            };
            let answer = header(self.target_seq, self.acked.0, flags);
            self.target_seq += u32::from(is_syn);
            let flow = FlowRef::Id(key.flow_id());
            self.engine.target_header(self.now, flow, &answer, 0);
        }
    }

    fn received(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }
}

fn header(seq: u32, ack: u32, flags: Flags) -> TcpHeader {
    TcpHeader {
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 65_000,
        ..TcpHeader::default()
    }
}

fn answer(fields: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {len}\r\n\r\n{body}")
}

#[test]
fn requests_are_chosen_changed_and_timed() {
    let settings = "exact_ends = true\nhost = 'test'\nexcept = ['* /healthz']";
    let rules = Rules {
        read_only: true,
        ..Rules::default()
    };
    let mut world = World::new(settings, rules);
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    world.client(&get("/a", "live"));
    assert_eq!(world.received(), get("/a", "test"));
    world.live(&answer("", "live"));
    world.client(&get("/b", "live"));
    // As many bytes as the live server has sent are no whole answer.
    world.target("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    world.wait(20);
    assert_eq!(world.received(), "");
    world.target("0\r\n\r\n");
    assert_eq!(world.received(), get("/b", "test"));
    world.target(&answer("", ""));
    world.live(&answer("", "live"));
    world.client("POST /c HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd");
    world.live(&answer("", "no target says this"));
    world.client(&get("/healthz", "live"));
    world.live(&answer("", "nor this"));
    assert_eq!(world.received(), "");
    world.client(&get("/d", "live"));
    world.wait(20);
    assert_eq!(world.received(), get("/d", "test"));
    assert_eq!(world.engine.stats().requests_left_out, 2);
}

#[test]
fn a_request_waits_for_the_value_that_the_target_has_in_place_of_the_live_servers() {
    let mut world = World::new(
        "[[token]]\nfrom = 'json:csrf'\nto = ['form', 'header:X-Csrf']",
        Rules::default(),
    );
    let form = |value: &str| {
        let body = format!("csrf={value}");
        let len = body.len();
        format!(
            "POST /b HTTP/1.1\r\nX-Csrf: {value}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {len}\r\n\r\n{body}"
        )
    };
    let get = "GET /a HTTP/1.1\r\n\r\n";
    world.client(get);
    world.live(&answer("", "{\"csrf\": \"live\"}"));
    world.client(&form("live"));
    world.live(&answer("", "{}"));
    // The client goes on, and is held back; its live server is heard all the same.
    world.client(get);
    world.live(&answer("", "{\"csrf\": \"next\"}"));
    world.client(&form("next"));
    world.wait(50);
    assert_eq!(world.received(), get);
    world.target(&answer("", "{\"csrf\": \"of-the-target\"}"));
    world.wait(20);
    assert_eq!(world.received(), form("of-the-target"));
    world.target(&answer("", "{}"));
    world.wait(20);
    assert_eq!(world.received(), get);
    world.target(&answer("", "{\"csrf\": \"2\"}"));
    world.wait(20);
    assert_eq!(world.received(), form("2"));
}

#[test]
fn an_offer_of_http_2_that_no_server_takes_up_silences_nothing() {
    let rules = Rules {
        read_only: true,
        ..Rules::default()
    };
    let mut world = World::new("", rules);
    let get = "GET /a HTTP/1.1\r\nHost: live\r\n\r\n";
    let offer = "GET /a HTTP/1.1\r\nHost: live\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    for request in [offer, get, get, get] {
        world.client(request);
        world.live(&answer("", ""));
        world.target(&answer("", ""));
        world.wait(20);
        assert_eq!(world.received(), get);
    }
    assert_eq!(world.engine.stats().requests_left_out, 0);
}

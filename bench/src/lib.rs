//! A live connection and its target, played to the engine by hand: what benchmarks measure is the engine alone.

pub mod budget;
mod conversation;

pub use conversation::Conversation;

use std::net::{IpAddr, Ipv4Addr};

use millrace_engine::{Config, Engine, Event, LiveAddress, Service, Time};
use millrace_protocols::http;
use millrace_protocols::writes::WriteGuard;
use millrace_wire::Endpoint;

/// The live service.
pub const LIVE: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10)), 80);
/// The target.
pub const TARGET: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 20)), 8080);
/// A request of HTTP of 120 bytes.
pub const REQUEST: &[u8] =
    b"GET /shop/articles/4711?colour=red HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\n\
    Accept: */*\r\nX-Pad: xxxxxxxxxxxx\r\n\r\n";
/// An answer to it of 500 bytes.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 435\r\n\r\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
/// When a benchmark begins: far from zero, as a wall clock is.
pub const START: Time = Time::from_micros(1_700_000_000_000_000);

/// As [`engine`], with the module of HTTP, which hears where answers end and does what else these rules say.
pub fn http_engine(memory_limit: u64, rules: &str) -> Engine {
    let rules = format!("exact_ends = true\n{rules}\n");
    let rules = http::Settings::parse(&rules).unwrap_or_default();
    let mut engine = engine(memory_limit);
    let module = http::Http::new(rules, WriteGuard::default());
    engine.set_protocol(0, Box::new(module));
    engine
}

/// A rule that changes a header.
pub const OTHER_HOST: &str = "host = \"test.other\"";

/// An engine that may send, with `memory_limit` bytes.
pub fn engine(memory_limit: u64) -> Engine {
    let mut engine = Engine::new(Config {
        services: vec![Service {
            live: LiveAddress::At(LIVE.ip),
            live_port: LIVE.port,
            target: TARGET,
        }],
        memory_limit,
        seed: 7,
        ..Config::default()
    });
    engine.set_open(START, true);
    engine
}

/// The client with this number: 50,000 ports of an address, then the next address.
pub fn client(number: u32) -> Endpoint {
    const PORTS: u32 = 50_000;
    let ip = u32::from(Ipv4Addr::new(198, 19, 0, 1)) + number / PORTS;
    // Below 65,536 by the modulus.
    Endpoint::new(IpAddr::V4(ip.into()), 10_000 + (number % PORTS) as u16)
}

/// Takes all events; gives their number.
pub fn take_events(engine: &mut Engine) -> usize {
    let mut count = 0;
    while let Some(event) = engine.poll_event() {
        match event {
            Event::FlowOpened { .. }
            | Event::FlowClosed { .. }
            | Event::TargetSilent(_)
            | Event::Misdirected { .. }
            | Event::ConversationFailed { .. }
            | Event::HeardEnough { .. } => {
                count += 1;
            }
        }
    }
    count
}

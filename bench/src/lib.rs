//! A live connection and its target, played to the engine by hand: what benchmarks measure is the engine alone.

pub mod budget;
mod conversation;

pub use conversation::Conversation;

use std::net::{IpAddr, Ipv4Addr};

use millrace_engine::{Config, Engine, Event, Service, Time};
use millrace_wire::Endpoint;

/// The live service.
pub const LIVE: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10)), 80);
/// The target.
pub const TARGET: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 20)), 8080);
/// When a benchmark begins: far from zero, as a wall clock is.
pub const START: Time = Time::from_micros(1_700_000_000_000_000);

/// An engine that may send, with `memory_limit` bytes.
pub fn engine(memory_limit: u64) -> Engine {
    let mut engine = Engine::new(Config {
        services: vec![Service {
            live_ip: Some(LIVE.ip),
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

//! A simulated world for the engine: a client and a live server as capture sees them, a target
//! with a TCP of its own, and a network between that delays, loses, repeats and reorders.
//! Everything is drawn from one seed, and time is a number: a run is instant and repeatable.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod behaviour;
pub mod live;
pub mod peer;
pub mod rng;
pub mod target;
pub mod world;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use millrace_engine::{Config, LiveAddress, Service, Time};
use millrace_wire::{Endpoint, FourTuple, TcpHeader, TcpPacket};

pub use behaviour::Behaviour;
pub use live::{Action, Live, bytes};
pub use rng::Rng;
pub use target::Target;
pub use world::{Link, World, answer_byte};

/// A packet on its own, as it would stand in a frame.
#[derive(Clone, Debug)]
pub struct Packet {
    pub tuple: FourTuple,
    pub header: TcpHeader,
    pub payload: Vec<u8>,
    pub payload_len: usize,
}

impl Packet {
    pub fn view(&self) -> TcpPacket<'_> {
        TcpPacket {
            tuple: self.tuple,
            header: self.header,
            payload: &self.payload,
            payload_len: self.payload_len,
        }
    }
}

pub const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, last))
}

pub const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

pub fn client(port: u16) -> Endpoint {
    Endpoint::new(v4(1), port)
}

pub const LIVE: Endpoint = Endpoint::new(v4(10), 80);
pub const TARGET: Endpoint = Endpoint::new(v4(20), 8080);

/// The start of simulated time: far from zero, as a wall clock is.
pub const START: Time = Time::from_micros(1_700_000_000_000_000);

pub fn at(after: Duration) -> Time {
    START + after
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn config() -> Config {
    Config {
        services: vec![Service {
            live: LiveAddress::At(LIVE.ip),
            live_port: LIVE.port,
            target: TARGET,
        }],
        seed: 7,
        ..Config::default()
    }
}

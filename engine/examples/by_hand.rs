//! The engine by hand: a client, a live server and a target without a network.
//!
//!     cargo run -p millrace-engine --example by_hand
//!
//! Captured segments go in, packets to the target come out, and the headers of its responses go in again.

#![allow(clippy::print_stdout, unreachable_pub, unused_crate_dependencies)]

mod hand;

use std::net::SocketAddr;

use hand::{SYN_ACK, answer, capture, header};
use millrace_engine::{Config, Engine, FlowRef, LiveAddress, Service, Time};
use millrace_wire::{Endpoint, Flags};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = |text: &str| text.parse::<SocketAddr>().map(Endpoint::from);
    let (client, live) = (endpoint("198.18.0.1:40000")?, endpoint("198.18.0.10:80")?);
    let mut engine = Engine::new(Config {
        services: vec![Service {
            live: LiveAddress::At(live.ip),
            live_port: live.port,
            target: endpoint("198.18.0.20:80")?,
        }],
        ..Config::default()
    });
    // The engine has no clock: time is a number that goes in.
    let now = Time::from_micros(1_700_000_000_000_000);
    // Responses come back, and none reaches the client.
    engine.set_open(now, true);

    let (there, back) = ([client, live], [live, client]);
    let request = b"GET / HTTP/1.1\r\n\r\n";
    capture(&mut engine, now, there, header(100, 0, Flags::SYN), b"");
    capture(&mut engine, now, back, header(900, 101, SYN_ACK), b"");
    let ack = header(101, 901, Flags::ACK);
    capture(&mut engine, now, there, ack, b"");
    capture(&mut engine, now, there, ack, request);

    // The copy opens a connection of its own. The target answers as any TCP does.
    while let Some(packet) = engine.poll_transmit(now) {
        let (bytes, flags) = (packet.payload_len(), packet.header.flags);
        println!(
            "to the target: {:?}: {bytes} bytes, {flags:?}",
            packet.tuple
        );
        let Some(answer) = answer(&packet, 5001) else {
            continue;
        };
        let flow = FlowRef::Id(packet.key.flow_id());
        engine.target_header(now, flow, &answer, 0);
    }
    let stats = engine.stats();
    println!(
        "{} of {} bytes delivered",
        stats.bytes_delivered, stats.bytes_captured
    );
    Ok(())
}

//! The engine by hand: a client, a live server and a target without a network.
//!
//!     cargo run -p millrace-engine --example by_hand
//!
//! Captured segments go in, packets to the target come out, and the headers of its responses go in again.

#![allow(clippy::print_stdout, unused_crate_dependencies)]

use std::net::SocketAddr;

use millrace_engine::{Config, Engine, FlowRef, Service, Time, Transmit};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpPacket};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = |text: &str| text.parse::<SocketAddr>().map(Endpoint::from);
    let (client, live) = (endpoint("198.18.0.1:40000")?, endpoint("198.18.0.10:80")?);
    let mut engine = Engine::new(Config {
        services: vec![Service {
            live_ip: Some(live.ip),
            live_port: live.port,
            target: endpoint("198.18.0.20:80")?,
        }],
        ..Config::default()
    });
    // The engine has no clock: time is a number that goes in.
    let now = Time::from_micros(1_700_000_000_000_000);
    // Responses come back, and none reaches the client.
    engine.set_open(now, true);

    // What a capture on the live server sees of a request.
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let ack = Flags::ACK;
    capture(
        &mut engine,
        now,
        client,
        live,
        header(100, 0, Flags::SYN),
        b"",
    );
    capture(
        &mut engine,
        now,
        live,
        client,
        header(900, 101, Flags(Flags::SYN.0 | ack.0)),
        b"",
    );
    capture(&mut engine, now, client, live, header(101, 901, ack), b"");
    capture(
        &mut engine,
        now,
        client,
        live,
        header(101, 901, ack),
        request,
    );

    // The copy opens a connection of its own. The target answers as any TCP does (RFC 9293 3.5).
    while let Some(packet) = engine.poll_transmit(now) {
        println!("to the target: {}", show(&packet));
        let Some(answer) = target(&packet) else {
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

fn capture(
    engine: &mut Engine,
    now: Time,
    from: Endpoint,
    to: Endpoint,
    header: TcpHeader,
    payload: &[u8],
) {
    let (tuple, payload_len) = (FourTuple::new(from, to), payload.len());
    engine.segment(
        now,
        now,
        &TcpPacket {
            tuple,
            header,
            payload,
            payload_len,
        },
    );
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

/// What a target answers: SYN-ACK, or an acknowledgement of what came.
fn target(packet: &Transmit<'_>) -> Option<TcpHeader> {
    let syn = packet.header.flags.has(Flags::SYN);
    let length = packet.payload_len() as u32 + u32::from(syn);
    let seq = if syn { 5000 } else { 5001 };
    let flags = if syn { Flags::SYN.0 } else { 0 } | Flags::ACK.0;
    (length > 0).then(|| header(seq, packet.header.seq.add(length).0, Flags(flags)))
}

fn show(packet: &Transmit<'_>) -> String {
    format!(
        "{:?}: {} bytes, {:?}",
        packet.tuple,
        packet.payload_len(),
        packet.header.flags
    )
}

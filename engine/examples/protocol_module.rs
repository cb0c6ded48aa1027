//! A protocol module: log-ins with a secret of the target.
//!
//!     cargo run -p millrace-engine --example protocol_module
//!
//! The protocol is made up. A server greets with `CHALLENGE 7`, and its client proves that it knows a secret, `PROOF 7 secret`,
//! before it asks anything. Challenge and secret of the target are others than those of the live server, so that a copy byte
//! for byte would be refused. docs/writing-a-protocol-module.md goes through this file.

#![allow(clippy::print_stdout, unreachable_pub, unused_crate_dependencies)]

mod hand;

use std::net::SocketAddr;

use hand::{SYN_ACK, answer, capture, header};
use millrace_engine::protocol::{
    Beginning, Conversation, Failure, FailureKind, Protocol, Script, Turn,
};
use millrace_engine::{Config, Engine, FlowRef, LiveAddress, Service, Time};
use millrace_wire::{Endpoint, Flags};

/// A greeting is no longer than this, in bytes: whatever a server sends, no more is kept.
const LONGEST_GREETING: usize = 64;

/// The module: begins a conversation for each replica.
struct Challenges {
    secret: &'static str,
}

impl Protocol for Challenges {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        // Without the greeting nothing can be proven: sessions that are picked up in the middle are refused, and counted.
        (beginning == Beginning::Connection).then(|| {
            Box::new(Player {
                secret: self.secret,
                greeting: Vec::new(),
                proof: Vec::new(),
                stage: Stage::Greeting,
            }) as Box<dyn Conversation>
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The target has not greeted yet.
    Greeting,
    /// The client has not proven anything yet.
    Proof,
    /// All goes as the client says it.
    LoggedIn,
}

/// One replica.
struct Player {
    secret: &'static str,
    /// What the target has said so far.
    greeting: Vec<u8>,
    /// The client's first line so far.
    proof: Vec<u8>,
    stage: Stage,
}

impl Conversation for Player {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        // The turn goes before the first byte of what is played for it.
        if let Some(turn) = turn {
            script.turn(turn);
        }
        if self.stage == Stage::LoggedIn {
            script.play(bytes);
            return Ok(());
        }
        // A message may come in any pieces, and with the next one behind it.
        self.proof.extend_from_slice(bytes);
        let Some(end) = self.proof.iter().position(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let challenge = String::from_utf8_lossy(&self.greeting);
        let number = challenge
            .trim()
            .strip_prefix("CHALLENGE ")
            .ok_or_else(|| Failure::new(FailureKind::Malformed, "the target does not greet"))?;
        script.play(format!("PROOF {number} {}\n", self.secret).as_bytes());
        script.play(self.proof.get(end + 1..).unwrap_or_default());
        self.stage = Stage::LoggedIn;
        Ok(())
    }

    fn on_target(&mut self, bytes: &[u8], _: &mut Script<'_>) -> Result<(), Failure> {
        self.greeting.extend_from_slice(bytes);
        if self.greeting.len() > LONGEST_GREETING {
            let text = "the target's greeting is too long";
            return Err(Failure::new(FailureKind::Malformed, text));
        }
        if self.greeting.ends_with(b"\n") {
            self.stage = Stage::Proof;
        }
        Ok(())
    }

    // Of what the target says, the greeting alone is needed: nothing else is carried here.
    fn wants_answers(&self) -> bool {
        self.stage == Stage::Greeting
    }

    // Until then the engine keeps what the client says.
    fn holds_client(&self) -> bool {
        self.stage == Stage::Greeting
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = |text: &str| text.parse::<SocketAddr>().map(Endpoint::from);
    let (client, live) = (endpoint("198.18.0.1:40000")?, endpoint("198.18.0.10:700")?);
    let mut engine = Engine::new(Config {
        services: vec![Service {
            live: LiveAddress::At(live.ip),
            live_port: live.port,
            target: endpoint("198.18.0.20:700")?,
        }],
        ..Config::default()
    });
    let module = Challenges {
        secret: "of-the-target",
    };
    engine.set_protocol(0, Box::new(module));
    let now = Time::from_micros(1_700_000_000_000_000);
    engine.set_open(now, true);

    let (there, back) = ([client, live], [live, client]);
    let (greeting, proof) = (b"CHALLENGE 3\n", b"PROOF 3 of-the-live-server\nASK\n");
    capture(&mut engine, now, there, header(100, 0, Flags::SYN), b"");
    capture(&mut engine, now, back, header(900, 101, SYN_ACK), b"");
    capture(&mut engine, now, there, header(101, 901, Flags::ACK), b"");
    capture(
        &mut engine,
        now,
        back,
        header(901, 101, Flags::ACK),
        greeting,
    );
    capture(&mut engine, now, there, header(101, 913, Flags::ACK), proof);

    // The target has another challenge, and says it once the connection is there.
    let (greeting, mut next) = (b"CHALLENGE 7\n", 5001);
    while let Some(packet) = engine.poll_transmit(now) {
        let flow = FlowRef::Id(packet.key.flow_id());
        print!("{}", String::from_utf8_lossy(&packet.payload.concat()));
        let greets = packet.header.flags.has(Flags::SYN);
        let received = packet.header.seq.add(u32::from(greets)).0;
        let answer = answer(&packet, next);
        if let Some(answer) = answer {
            engine.target_header(now, flow, &answer, 0);
        }
        if greets {
            let header = header(next, received, Flags::ACK);
            engine.target_segment(now, flow, &header, greeting, greeting.len() as u32);
            next += greeting.len() as u32;
        }
    }
    Ok(())
}

//! Instructions that the engine spends, counted by callgrind: the same on every run and on every machine.
//!
//! Each benchmark does its thing [`TIMES`] times after a warm-up; divide the figure by that.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "in what the macros make"
)]

use std::hint::black_box;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use millrace_bench::{ANSWER, Conversation, OTHER_HOST, REQUEST, budget, engine, http_engine};
use millrace_engine::Engine;

/// How often each benchmark does its thing.
const TIMES: u32 = 1000;
const MEMORY_LIMIT: u64 = 512 << 20;

type State = (Engine, Conversation);

/// A benchmark fails that takes more than so many instructions each time.
fn within(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions * u64::from(TIMES))]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// An open session that has played some turns, among 1,000 idle ones.
fn open() -> State {
    let mut engine = engine(MEMORY_LIMIT);
    for number in 1..=TIMES {
        Conversation::new(number).open(&mut engine);
    }
    let mut conversation = Conversation::new(0);
    conversation.open(&mut engine);
    for _ in 0..20 {
        conversation.turn(&mut engine, &[7; 120], 500);
    }
    (engine, conversation)
}

/// A session in the middle of an upload.
fn uploading() -> State {
    let (mut engine, mut conversation) = open();
    for _ in 0..20 {
        conversation.upload(&mut engine, &[7; 1448]);
    }
    (engine, conversation)
}

/// An engine that has seen a few sessions come and go.
fn used() -> Engine {
    let mut engine = engine(MEMORY_LIMIT);
    for number in 0..50 {
        session(&mut engine, number);
    }
    engine
}

fn session(engine: &mut Engine, number: u32) {
    let mut conversation = Conversation::new(number);
    conversation.open(engine);
    conversation.turn(engine, &[7; 120], 500);
    conversation.close(engine);
}

// Request of 120 bytes, answer of 500: 3 captured segments, 1 response header, 2 packets sent.
#[library_benchmark(setup = open, config = within(budget::KEEP_ALIVE_TURN))]
#[bench::one_connection()]
fn keep_alive_turn((mut engine, mut conversation): State) -> State {
    for _ in 0..TIMES {
        conversation.turn(black_box(&mut engine), black_box(&[7; 120]), 500);
    }
    (engine, conversation)
}

/// As [`open`], of HTTP.
fn open_http(rules: &str) -> State {
    let mut engine = http_engine(MEMORY_LIMIT, rules);
    for number in 1..=TIMES {
        Conversation::new(number).open(&mut engine);
    }
    let mut conversation = Conversation::new(0);
    conversation.open(&mut engine);
    for _ in 0..20 {
        conversation.turn_heard(&mut engine, REQUEST, ANSWER);
    }
    (engine, conversation)
}

// The same, framed by the module of HTTP.
#[library_benchmark(setup = open_http, config = within(budget::HTTP_TURN))]
#[bench::one_connection("")]
fn http_turn((mut engine, mut conversation): State) -> State {
    for _ in 0..TIMES {
        conversation.turn_heard(black_box(&mut engine), black_box(REQUEST), ANSWER);
    }
    (engine, conversation)
}

// The same, with another header.
#[library_benchmark(setup = open_http, config = within(budget::HTTP_TURN_CHANGED))]
#[bench::one_connection(OTHER_HOST)]
fn http_turn_changed((mut engine, mut conversation): State) -> State {
    for _ in 0..TIMES {
        conversation.turn_heard(black_box(&mut engine), black_box(REQUEST), ANSWER);
    }
    (engine, conversation)
}

// Segment of 1,448 bytes, with the live server's and the target's acknowledgement.
#[library_benchmark(setup = uploading, config = within(budget::BULK_UPLOAD_SEGMENT))]
#[bench::one_connection()]
fn bulk_upload_segment((mut engine, mut conversation): State) -> State {
    for _ in 0..TIMES {
        conversation.upload(black_box(&mut engine), black_box(&[7; 1448]));
    }
    (engine, conversation)
}

// Handshakes, one turn, FINs of both sides: 9 captured segments, 3 response headers.
#[library_benchmark(setup = used, config = within(budget::ONE_REQUEST_SESSION))]
#[bench::new_connections()]
fn one_request_session(mut engine: Engine) -> Engine {
    for number in 100..100 + TIMES {
        session(black_box(&mut engine), number);
    }
    engine
}

// Header of a segment of 1,448 bytes that the target sends.
#[library_benchmark(setup = open, config = within(budget::RESPONSE_HEADER))]
#[bench::download()]
fn response_header((mut engine, mut conversation): State) -> State {
    for _ in 0..TIMES {
        conversation.response(black_box(&mut engine), 1448);
    }
    (engine, conversation)
}

library_benchmark_group!(
    name = engine_cost,
    benchmarks = [
        keep_alive_turn,
        http_turn,
        http_turn_changed,
        bulk_upload_segment,
        one_request_session,
        response_header
    ]
);

main!(library_benchmark_groups = engine_cost);

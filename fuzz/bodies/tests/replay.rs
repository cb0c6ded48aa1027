//! Every kept input of every target, once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unused_crate_dependencies
)]

use std::path::{Path, PathBuf};

use millrace_fuzz_bodies::BODIES;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(target)
}

fn replay(target: &str) {
    let (_, body) = BODIES.iter().find(|(name, _)| *name == target).unwrap();
    let mut count = 0;
    let mut names: Vec<PathBuf> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        let bytes = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| body(&bytes));
        assert!(outcome.is_ok(), "{} breaks {target}", path.display());
        count += 1;
    }
    assert!(count >= 20, "only {count} inputs are kept for {target}");
}

#[test]
fn the_corpus_of_wire_decode() {
    replay("wire_decode");
}

#[test]
fn the_corpus_of_capture_to_engine() {
    replay("capture_to_engine");
}

#[test]
fn the_corpus_of_packet_files() {
    replay("packet_files");
}

#[test]
fn the_corpus_of_proto_messages() {
    replay("proto_messages");
}

#[test]
fn the_corpus_of_protocol_modules() {
    replay("protocol_modules");
}

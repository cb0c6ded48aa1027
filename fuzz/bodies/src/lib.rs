//! The fuzz targets' bodies, as plain functions: each takes any bytes and panics when a promise is broken.
//!
//! `fuzz/fuzz_targets/` hands them to libFuzzer; the tests of this crate hand them the kept corpora under
//! `fuzz/corpus/`, so that what a fuzzer once found is tried again wherever the tests run.
//!
//! | target | what is fed | what is promised |
//! |---|---|---|
//! | [`wire_decode`] | captured frames | no panic; what is decoded can be built again and decodes to the same |
//! | [`capture_to_engine`] | frames, segments, response headers, time | no panic; bounded memory and output; every replica has one outcome; all ends |
//! | [`protocol_modules`] | the same, with modules that play the replicas; what clients and targets say | the same; a conversation that fails ends its replica alone |
//! | [`packet_files`] | one or two packet files | no panic; no more than they hold; what is read can be written and read again |
//! | [`proto_messages`] | bytes from another daemon | no panic; what is accepted encodes back to the same |

mod engine;
mod files;
mod flows;
mod input;
mod proto;
mod wire;

pub use engine::{capture_to_engine, protocol_modules};
pub use files::packet_files;
pub use input::Input;
pub use proto::proto_messages;
pub use wire::wire_decode;

/// A body by the name of its target, which is also the name of its corpus.
pub type Body = (&'static str, fn(&[u8]));

/// All bodies.
pub const BODIES: [Body; 5] = [
    ("wire_decode", wire_decode),
    ("capture_to_engine", capture_to_engine),
    ("protocol_modules", protocol_modules),
    ("proto_messages", proto_messages),
    ("packet_files", packet_files),
];

//! See `millrace_fuzz_bodies::proto_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz_bodies::proto_messages(data));

//! See `millrace_fuzz_bodies::wire_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz_bodies::wire_decode(data));

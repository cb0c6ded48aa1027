//! See `millrace_fuzz_bodies::protocol_modules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz_bodies::protocol_modules(data));

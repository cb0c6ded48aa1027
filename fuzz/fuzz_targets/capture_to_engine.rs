//! See `millrace_fuzz_bodies::capture_to_engine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz_bodies::capture_to_engine(data));

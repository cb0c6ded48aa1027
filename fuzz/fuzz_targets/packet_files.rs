//! See `millrace_fuzz_bodies::packet_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_fuzz_bodies::packet_files(data));

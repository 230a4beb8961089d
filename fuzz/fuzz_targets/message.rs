#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| henge_fuzz::fuzz::message(data));

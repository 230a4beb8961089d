#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| henge_server::pgwire::fuzz::hello(data));

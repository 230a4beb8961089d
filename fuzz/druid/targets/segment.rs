#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz_druid::segment::druid::fuzz::segment(input));

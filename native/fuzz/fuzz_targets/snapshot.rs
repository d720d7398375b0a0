#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| emmap_fuzz::snapshot::run(data));

//! The notation of series in test scripts.
#![no_main]

libfuzzer_sys::fuzz_target!(|line: &str| {
    // Repetitions make many values of few bytes; the parser has a limit for them, which takes its time to reach.
    if line.len() < 200 {
        let _ = query::parser::series::parse(line);
    }
});

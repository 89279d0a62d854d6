//! The PromQL parser: what parses, prints as text that parses to the same text again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(tree) = query::parser::parse(text) else { return };
    let printed = tree.to_string();
    match query::parser::parse(&printed) {
        Ok(again) => assert_eq!(again.to_string(), printed, "printing changes what was printed"),
        Err(error) => panic!("{printed:?} was printed for {text:?} and does not parse: {error}"),
    }
});

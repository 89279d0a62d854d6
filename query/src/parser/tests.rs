//! The parser as a whole: what it takes, what it refuses and in which words, that it is bounded.

use super::*;
use crate::ast::*;

/// The tree without positions.
fn shape(expr: &Expr) -> String {
    let mut text = format!("{expr:?}");
    while let Some(at) = text.find("span: Span {") {
        let end = at + text[at..].find('}').expect("a span ends");
        text.replace_range(at..=end, "-");
    }
    text
}

fn message(text: &str) -> String {
    match parse(text) {
        Ok(expr) => format!("parses as {expr}"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check_round_trip(text: &str) {
    let expr = parse(text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let printed = expr.to_string();
    let again = parse(&printed).unwrap_or_else(|e| panic!("{text}\nprinted as {printed}\n{e}"));
    assert_eq!(shape(&again), shape(&expr), "{text}\nprinted as {printed}");
}

/// Every expression of Prometheus's test scripts, and whether it is expected to fail.
fn corpus() -> Vec<(String, String, bool)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/promqltest");
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| {
        panic!("{folder}: {e}. This test reads Prometheus's PromQL test scripts, which lie beside the project, in ../shared/promqltest")
    });
    let mut found = Vec::new();
    for file in files.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let mut words = line.splitn(3, char::is_whitespace);
            let command = words.next().unwrap_or_default();
            if !command.starts_with("eval") {
                continue;
            }
            let (kind, rest) = (words.next().unwrap(), words.next().unwrap());
            // `at T EXPR` or `from A to B step C EXPR`
            let skip = if kind == "instant" { 2 } else { 6 };
            let mut expr = rest;
            for _ in 0..skip {
                expr = expr.trim_start().split_once(char::is_whitespace).unwrap().1;
            }
            let mut fails = command == "eval_fail";
            while let Some((_, line)) = lines.next_if(|(_, l)| !l.trim().is_empty() && !l.starts_with("eval"))
            {
                fails |= line.trim_start().starts_with("expect fail");
            }
            let place = format!("{}:{}", file.file_name().unwrap().display(), number + 1);
            found.push((place, expr.trim().to_string(), fails));
        }
    }
    assert!(found.len() > 1_000, "only {} expressions in {folder}", found.len());
    found
}

#[test]
fn every_expression_of_prometheus_parses_and_prints_to_itself() {
    for (place, text, fails) in corpus() {
        match parse(&text) {
            Ok(_) => check_round_trip(&text),
            Err(_) if fails => {}
            Err(error) => panic!("{place}: {text}\n{error}"),
        }
    }
}

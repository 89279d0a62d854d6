//! `promqltest [-v] FILE…`: runs PromQL test scripts and prints how many of their cases pass.

use anyhow::{Result, bail};
use std::path::PathBuf;
use tests::promqltest::report::Report;

fn main() -> Result<()> {
    let mut verbose = false;
    let mut files = Vec::new();
    for arg in std::env::args_os().skip(1) {
        match arg.to_str() {
            Some("-v" | "--verbose") => verbose = true,
            Some(option) if option.starts_with('-') => {
                bail!("unknown option {option}; usage: promqltest [-v] FILE…")
            }
            _ => files.push(PathBuf::from(arg)),
        }
    }
    if files.is_empty() {
        bail!("no test script given; usage: promqltest [-v] FILE…");
    }
    let mut sum = Report::default();
    for file in files {
        let report = tests::promqltest::run(&file)?;
        println!("{}: {report}", file.display());
        if verbose {
            for failure in &report.failures {
                println!("  {}:{}: {}\n    {}", file.display(), failure.line, failure.text, failure.why);
            }
        }
        sum += report;
    }
    println!("sum: {sum}");
    Ok(())
}

//! `cargo xtask tidy`: the house rules, as checks that a test runs too.
//!
//! Formatting and everything that the compiler can see are left to rustfmt and clippy.

mod layers;
mod text;

use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// A file of the repository, read.
pub struct File {
    /// Relative to the root, with `/` between folders.
    pub path: String,
    pub text: String,
}

pub fn run() -> Result<ExitCode> {
    let problems = problems()?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("the house is tidy");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} house rules are broken", problems.len());
    Ok(ExitCode::FAILURE)
}

/// What breaks a rule, one sentence each.
fn problems() -> Result<Vec<String>> {
    let files = files(&workspace::root())?;
    let metadata = workspace::metadata()?;
    let mut problems = layers::directions(&metadata);
    problems.extend(layers::purity()?);
    problems.extend(text::check(&files, &layers::members(&metadata)));
    problems.sort();
    Ok(problems)
}

/// All text files that are part of the repository, sorted by path.
fn files(root: &Path) -> Result<Vec<File>> {
    const SKIPPED: [&str; 6] = [".git", "target", "node_modules", "corpus", "artifacts", "sarsen-data"];
    let mut files = vec![];
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) {
                    dirs.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).context("a file outside of the repository")?;
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() {
        let problems = super::problems().unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}

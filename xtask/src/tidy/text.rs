//! Rules that can be seen in the text.

use super::File;
use std::path::{Component, Path, PathBuf};

/// A file longer than this is two nouns.
const LINES_MAX: usize = 1000;

/// Where the cluster meets the runtime and the network. The rest of it decides, and runs in the simulator too.
const SHELLS: [&str; 2] = ["cluster/src/transport/", "cluster/src/node/"];

/// The page of which every sentence is held by a test.
const GUARANTEES: &str = "docs/guarantees.md";

/// What is found there only.
const RUNTIME: [&str; 5] = ["tokio", "tokio_stream", "tonic", "hyper", "hyper_util"];

/// Every rule over every file.
pub fn check(files: &[File], crates: &[String]) -> Vec<String> {
    let mut problems = vec![];
    for file in files {
        if file.path.ends_with(".rs") {
            problems.extend(rust(file));
        }
        if file.path.ends_with(".md") {
            problems.extend(links(file, files));
            problems.extend(named_tests(file, files));
        }
        // The rules name what they forbid.
        if !file.path.starts_with("xtask/src/tidy/") {
            problems.extend(unfinished(file));
        }
    }
    problems.extend(promises(text_of(files, GUARANTEES)));
    problems.extend(formats(files));
    problems.extend(paragraphs(files, crates));
    problems.extend(lints(files, crates));
    problems
}

fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
}

/// Size, waiting for time, and tests that are switched off.
fn rust(file: &File) -> Vec<String> {
    let mut problems = vec![];
    let count = file.text.lines().count();
    if count > LINES_MAX {
        problems.push(format!("{}: {count} lines; above {LINES_MAX} it is two nouns", file.path));
    }
    if file.path.starts_with("xtask/src/tidy/") {
        return problems;
    }
    for (number, line) in file.text.lines().enumerate() {
        let at = format!("{}:{}", file.path, number + 1);
        if line.contains("thread::sleep") || line.contains("time::sleep(") && in_tests(&file.path) {
            problems.push(format!("{at}: sleeps; wait for a condition, within a bound"));
        }
        if file.path.starts_with("cluster/src/") && !SHELLS.iter().any(|shell| file.path.starts_with(shell)) {
            let used = RUNTIME.iter().filter(|name| line.contains(&format!("{name}::")));
            problems.extend(used.map(|name| {
                format!("{at}: uses {name}; of the cluster only transport and node do, the rest decides without it")
            }));
        }
        if line.trim_start().starts_with("#[ignore") && !line.contains("#[ignore = \"needs ") {
            problems
                .push(format!("{at}: a test may be ignored only for what it needs: #[ignore = \"needs …\"]"));
        }
    }
    problems
}

fn in_tests(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/")
}

/// Notes about work that was left undone.
fn unfinished(file: &File) -> Vec<String> {
    const WORDS: [&str; 6] = ["TODO", "FIXME", "XXX", "HACK", "todo!(", "unimplemented!("];
    let mut problems = vec![];
    for (number, line) in file.text.lines().enumerate() {
        for word in WORDS {
            if has_word(line, word) {
                problems.push(format!("{}:{}: {word}: do it, or leave it out", file.path, number + 1));
            }
        }
    }
    problems
}

/// Whether `word` stands in `line` and is no part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && (word.ends_with('(') || !after.is_some_and(is_part))
    })
}

/// Links to files that are not there.
fn links(file: &File, files: &[File]) -> Vec<String> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut problems = vec![];
    for (at, _) in file.text.match_indices("](") {
        let target = file.text[at + 2..].split([')', '#', ' ', '\n']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let path = normal(&folder.join(target));
        let is_there = files
            .iter()
            .any(|other| Path::new(&other.path) == path || Path::new(&other.path).starts_with(&path));
        if !is_there {
            problems.push(format!("{}: links to {target}, which is not there", file.path));
        }
    }
    problems
}

/// Tests that a page names and that are not in the file it links to: [`name`](path.rs).
fn named_tests(file: &File, files: &[File]) -> Vec<String> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut problems = vec![];
    for (at, _) in file.text.match_indices("`](") {
        let target = file.text[at + 3..].split([')', '#']).next().unwrap_or_default();
        let name = file.text[..at].rsplit("[`").next().unwrap_or_default();
        let path = normal(&folder.join(target));
        // A link to a file that is not there is told elsewhere.
        let linked = files.iter().find(|other| target.ends_with(".rs") && Path::new(&other.path) == path);
        if let Some(linked) = linked
            && !linked.text.contains(&format!("fn {name}("))
        {
            problems.push(format!("{}: names the test {name}, which is not in {target}", file.path));
        }
    }
    problems
}

/// Promises that name no test. Each is a point of a list; what is not promised needs none.
fn promises(page: &str) -> Vec<String> {
    let promised = page.split("\n## ").filter(|section| !section.starts_with("What is not promised"));
    let points = promised.flat_map(|section| section.split("\n* ").skip(1));
    // A point ends where an empty line is.
    let points = points.map(|point| point.split("\n\n").next().unwrap_or_default().trim_end());
    let bare = points.filter(|point| !(point.contains("`](") && point.ends_with(".rs))")));
    bare.map(|point| {
        let begin = point.lines().next().unwrap_or_default();
        format!("{GUARANTEES}: the promise \"{begin}\" does not end with the test that holds it")
    })
    .collect()
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(result.pop()),
            Component::Normal(part) => result.push(part),
            _ => {}
        }
    }
    result
}

/// Every page about a format is listed in the index of formats.
fn formats(files: &[File]) -> Vec<String> {
    const INDEX: &str = "docs/format/README.md";
    let index = text_of(files, INDEX);
    let pages = files.iter().filter_map(|file| file.path.strip_prefix("docs/format/"));
    pages
        .filter(|page| {
            page.ends_with(".md") && *page != "README.md" && !index.contains(&format!("]({page})"))
        })
        .map(|page| format!("{INDEX} does not mention {page}"))
        .collect()
}

/// Every crate has a paragraph on the map.
fn paragraphs(files: &[File], crates: &[String]) -> Vec<String> {
    let map = text_of(files, "ARCHITECTURE.md");
    let has_paragraph = |name: &str| map.lines().any(|line| line.starts_with(&format!("### `{name}`")));
    let missing = crates.iter().filter(|name| !has_paragraph(name));
    missing.map(|name| format!("ARCHITECTURE.md has no paragraph about `{name}`")).collect()
}

/// Every crate takes the workspace's lints.
fn lints(files: &[File], crates: &[String]) -> Vec<String> {
    let takes =
        |name: &str| text_of(files, &format!("{name}/Cargo.toml")).contains("[lints]\nworkspace = true");
    let missing = crates.iter().filter(|name| !takes(name));
    missing.map(|name| format!("{name}/Cargo.toml does not take the workspace's lints")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_file_of_more_than_a_thousand_lines_is_refused() {
        assert!(rust(&file("a.rs", &"\n".repeat(1000))).is_empty());
        assert_eq!(rust(&file("a.rs", &"\n".repeat(1001))).len(), 1);
    }

    #[test]
    fn sleeping_is_refused() {
        assert_eq!(rust(&file("a.rs", "std::thread::sleep(d);")).len(), 1);
        assert_eq!(rust(&file("tests/tests/it/a.rs", "tokio::time::sleep(d).await;")).len(), 1);
    }

    #[test]
    fn of_the_cluster_only_its_shell_uses_the_runtime() {
        let text = "let (tx, rx) = tokio::sync::oneshot::channel();";
        assert!(rust(&file("cluster/src/transport/a.rs", text)).is_empty());
        assert!(rust(&file("cluster/src/node/mod.rs", text)).is_empty());
        assert_eq!(rust(&file("cluster/src/control/mod.rs", text)).len(), 1);
    }

    #[test]
    fn a_test_is_ignored_only_for_what_it_needs() {
        assert_eq!(rust(&file("a.rs", "    #[ignore]")).len(), 1);
        assert_eq!(rust(&file("a.rs", "    #[ignore = \"slow\"]")).len(), 1);
        assert!(rust(&file("a.rs", "    #[ignore = \"needs prometheus\"]")).is_empty());
    }

    #[test]
    fn unfinished_work_is_refused_and_longer_words_are_not() {
        assert_eq!(unfinished(&file("a.rs", "// TODO: more")).len(), 1);
        assert_eq!(unfinished(&file("a.md", "a FIXME here")).len(), 1);
        assert_eq!(unfinished(&file("a.rs", "    todo!()")).len(), 1);
        assert!(unfinished(&file("a.rs", "let MASTODONTODOS = 1; // XXXL")).is_empty());
    }

    #[test]
    fn a_link_must_lead_somewhere() {
        let files = [
            file("docs/a.md", "[x](../README.md#top) [y](b/) [z](https://example.org/x)"),
            file("README.md", ""),
            file("docs/b/c.md", ""),
        ];
        assert!(links(&files[0], &files).is_empty());
        assert_eq!(links(&file("docs/a.md", "[x](README.md)"), &files).len(), 1);
    }

    #[test]
    fn a_test_that_is_named_must_be_in_its_file() {
        let files = [file("tests/it/a.rs", "fn it_holds() {"), file("docs/x.md", "")];
        let page = |text: &str| named_tests(&file("docs/a.md", text), &files).len();
        assert_eq!(page("so ([`it_holds`](../tests/it/a.rs), [`x`](x.md))"), 0);
        assert_eq!(page("so ([`it_hold`](../tests/it/a.rs), [`holds`](../tests/it/a.rs))"), 2);
    }

    #[test]
    fn every_promise_ends_with_its_test() {
        let held = "# G\n\nWords.\n\n## A\n\n* so\n  it is ([`a`](../a.rs))\n* and so ([`b`](../b.rs), [`c`](../c.rs))\n\nWords.\n\n## What is not promised\n\n* this\n";
        assert!(promises(held).is_empty(), "{:?}", promises(held));
        assert_eq!(promises("## A\n\n* so it is\n* so ([`a`](../a.rs)) and more\n").len(), 2);
    }

    #[test]
    fn every_format_page_is_in_the_index() {
        let files = [
            file("docs/format/README.md", "[wal](wal.md)"),
            file("docs/format/wal.md", ""),
            file("docs/format/block.md", ""),
        ];
        assert_eq!(formats(&files), ["docs/format/README.md does not mention block.md"]);
    }

    #[test]
    fn every_crate_is_on_the_map_and_takes_the_lints() {
        let files = [
            file("ARCHITECTURE.md", "### `disk`: files\n"),
            file("disk/Cargo.toml", "[lints]\nworkspace = true\n"),
            file("model/Cargo.toml", "[package]\n"),
        ];
        let crates = ["disk".to_owned(), "model".to_owned()];
        assert_eq!(paragraphs(&files, &crates), ["ARCHITECTURE.md has no paragraph about `model`"]);
        assert_eq!(lints(&files, &crates), ["model/Cargo.toml does not take the workspace's lints"]);
    }
}

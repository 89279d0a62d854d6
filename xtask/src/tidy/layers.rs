//! Which crate may import which, and which ones stay pure.

use crate::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The layers, lowest first. A crate may import what is in a lower layer; nothing beside it and nothing above.
const LAYERS: [&[&str]; 4] = [
    &["model"],
    &["disk"],
    &["ingest", "query", "cluster", "storage"],
    &["server", "operator", "tests", "xtask"],
];

/// Crates whose code is deterministic and synchronous: no runtime, no sockets, no wall clock.
const PURE: [&str; 5] = ["model", "disk", "storage", "query", "ingest"];

/// What a pure crate does not depend on, directly or through others.
const IMPURE: [&str; 11] =
    ["tokio", "async-std", "smol", "mio", "socket2", "axum", "hyper", "ureq", "reqwest", "chrono", "time"];

/// The workspace's crates.
pub fn members(metadata: &Value) -> Vec<String> {
    packages(metadata).filter_map(|package| package["name"].as_str()).map(String::from).collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Imports that do not point downwards; those of tests and build scripts count like all others.
pub fn directions(metadata: &Value) -> Vec<String> {
    let mut problems = vec![];
    for package in packages(metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = layer(name) else {
            problems.push(format!(
                "crate `{name}` has no layer; give it one in xtask/src/tidy/layers.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(other) = dependency["name"].as_str() else { continue };
            let is_ours = dependency["path"].is_string();
            if is_ours && layer(other).is_none_or(|other| other >= own) {
                problems.push(format!(
                    "`{name}` imports `{other}`, which does not stand below it (ARCHITECTURE.md, layers)"
                ));
            }
        }
    }
    problems
}

/// Pure crates with something impure below them.
pub fn purity() -> Result<Vec<String>> {
    let mut problems = vec![];
    for name in PURE {
        let output = workspace::cargo()
            .args(["tree", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .output()
            .context("starting cargo tree")?;
        ensure!(output.status.success(), "cargo tree failed:\n{}", String::from_utf8_lossy(&output.stderr));
        problems.extend(impure(name, &String::from_utf8_lossy(&output.stdout)));
    }
    Ok(problems)
}

/// What a list of packages, one a line with its version, has that a pure crate must not have.
fn impure(name: &str, tree: &str) -> Vec<String> {
    let mut found: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|package| IMPURE.contains(package))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.iter().map(|found| format!("`{name}` is pure, and depends on `{found}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn imports(name: &str, other: &str) -> Vec<String> {
        directions(&json!({
            "packages": [{ "name": name, "dependencies": [
                { "name": other, "path": format!("/somewhere/{other}") },
                { "name": "bytes", "path": null },
            ] }]
        }))
    }

    #[test]
    fn imports_point_downwards_only() {
        assert!(imports("storage", "disk").is_empty());
        assert!(imports("server", "query").is_empty());
        assert_eq!(imports("query", "storage").len(), 1, "siblings");
        assert_eq!(imports("model", "disk").len(), 1, "upwards");
        assert_eq!(imports("tests", "xtask").len(), 1, "beside");
        assert_eq!(imports("gadget", "model").len(), 1, "no layer");
    }

    #[test]
    fn a_runtime_below_a_pure_crate_is_found() {
        let tree = "storage v0.1.0 (/somewhere)\nbytes v1.10.0\ntokio v1.54.1\ntokio v1.54.1 (*)\n";
        assert_eq!(impure("storage", tree), ["`storage` is pure, and depends on `tokio`"]);
        assert!(impure("storage", "storage v0.1.0\ntokio-free v1.0.0\n").is_empty());
    }
}

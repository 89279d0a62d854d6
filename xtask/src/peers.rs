//! The programs that Sarsen is tested against: Debian's Prometheus, its node exporter and VictoriaMetrics' agent.
//!
//! What is not on the `PATH` is fetched as Debian packages and unpacked below the target directory. Nothing is
//! installed: no root is needed, no service is started, and `cargo clean` takes it all away again.

use crate::process::{must, which};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Debian package and the program in it that is used.
struct Peer {
    package: &'static str,
    program: &'static str,
}

const PEERS: [Peer; 3] = [
    Peer { package: "prometheus", program: "prometheus" },
    Peer { package: "prometheus-node-exporter", program: "prometheus-node-exporter" },
    Peer { package: "victoria-metrics", program: "vmagent" },
];

/// Makes sure that all peers can be started, and returns the `PATH` on which they are found.
pub fn ensure() -> Result<OsString> {
    let home = workspace::target_dir()?.join("peers");
    let bin = home.join("root/usr/bin");
    let missing: Vec<&Peer> = PEERS
        .iter()
        .filter(|peer| which(peer.program).is_none() && !bin.join(peer.program).is_file())
        .collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
        fetch(&packages, &home).with_context(|| {
            format!(
                "the tests need {names}, and fetching the packages failed; `apt-get install {names}` as root, \
                 or run `cargo xtask test --without-peers` to skip the tests that need them",
                names = packages.join(" ")
            )
        })?;
    }
    let mut dirs: Vec<PathBuf> = vec![];
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    dirs.push(bin);
    let path = std::env::join_paths(dirs).context("joining the PATH")?;
    for peer in &PEERS {
        works(peer.program, &path)?;
    }
    Ok(path)
}

/// Whether there is a kubectl that is new enough: 1.25 was the first that lets the server check fields.
pub fn has_kubectl() -> bool {
    let Ok(output) = Command::new("kubectl").args(["version", "--client", "--output=json"]).output() else {
        return false;
    };
    output.status.success() && is_new(&String::from_utf8_lossy(&output.stdout))
}

fn is_new(version: &str) -> bool {
    let version: serde_json::Value = serde_json::from_str(version).unwrap_or_default();
    let text = version["clientVersion"]["gitVersion"].as_str().unwrap_or_default();
    let mut numbers = text.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(1), Some(25))
}

/// Fetches Debian packages with a package list of our own and unpacks them.
fn fetch(packages: &[&str], home: &Path) -> Result<()> {
    for tool in ["apt-get", "dpkg-deb"] {
        if which(tool).is_none() {
            bail!("there is no `{tool}` here; this is not a Debian");
        }
    }
    println!("fetching {} (Debian packages, unpacked below {})", packages.join(", "), home.display());
    let (lists, cache, root) = (home.join("lists"), home.join("cache"), home.join("root"));
    for dir in [lists.join("partial"), cache.join("archives/partial"), root.clone()] {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.current_dir(home).arg("-q=2");
        for option in [
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", cache.display()),
            // Root would hand the download to the user `_apt`, who may not write below the target directory.
            "APT::Sandbox::User=root".into(),
            // Hooks of the system's configuration clean its cache, which is not ours to clean.
            "APT::Update::Post-Invoke::=true".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    };
    must(apt().arg("update"))?;
    must(apt().arg("download").args(packages))?;
    for entry in fs::read_dir(home).context("looking for the packages")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            must(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
        }
    }
    Ok(())
}

/// Whether the program starts at all; a library may be missing where it was only unpacked.
fn works(program: &str, path: &OsString) -> Result<()> {
    let output = Command::new("env")
        .env("PATH", path)
        .args([program, "--version"])
        .output()
        .with_context(|| format!("starting {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`{program} --version` ended with {}: {text}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_new;

    #[test]
    fn kubectl_says_how_new_it_is() {
        let version = |text: &str| format!("{{\"clientVersion\": {{\"gitVersion\": \"{text}\"}}}}");
        assert!(
            is_new(&version("v1.25.0")) && is_new(&version("v1.36.2-other")) && is_new(&version("v2.0.0"))
        );
        assert!(!is_new(&version("v1.24.9")) && !is_new("no version"));
    }
}

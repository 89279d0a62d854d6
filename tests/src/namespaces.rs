//! Network and mount namespaces of a test's own.
//!
//! A test that needs them runs itself once more inside of new ones. Everything that it makes in there goes when that process ends.

use std::process::{Command, Stdio};

/// Set in the process that runs inside.
const INSIDE: &str = "SARSEN_TEST_NETWORK";

/// Whether this process is inside. Otherwise the test `name` is run there, and has passed when this returns.
pub fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let uid = Command::new("id").arg("-u").output().map(|output| output.stdout).unwrap_or_default();
    if uid.trim_ascii() != b"0" {
        println!("SKIPPED {name}: needs root, to make network namespaces");
        return false;
    }
    let test = std::env::current_exe().expect("this program has a path");
    let status = Command::new("unshare")
        .args(["--mount", "--net"])
        .arg(test)
        .args([name, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .status()
        .expect("unshare(1) is there");
    assert!(status.success(), "inside of its namespaces the test failed; see above");
    false
}

/// Runs a command of words without spaces. Panics with what it says when it fails.
pub fn run(command: &str) {
    if let Err(failure) = attempt(command) {
        panic!("{failure}");
    }
}

/// The same, and the caller decides what a failure means.
pub fn attempt(command: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command}: {}: {}", output.status, said.trim()))
        }
        Err(error) => Err(format!("{command}: {error}")),
    }
}

/// Loopback, and a place for names of network namespaces that nobody else sees.
pub fn prepare() {
    run("ip link set lo up");
    run("mkdir -p /run/netns");
    run("mount -t tmpfs tmpfs /run/netns");
}

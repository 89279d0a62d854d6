//! The real kubectl, as a process.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs it with words and with what it is to read, by the file `kubeconfig`. Says whether it was content, and what it printed.
pub fn kubectl(kubeconfig: &Path, line: &str, input: &str) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", kubeconfig).env("HOME", kubeconfig.parent().unwrap_or(Path::new("/")));
    command.args(line.split(' ')).arg("--request-timeout=20s");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl can be started");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

//! The page `docs/operations/cluster.md`: its commands, run as they stand there.

use super::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;
use tests::process::{BOUND, Process, binary, free_port};
use tests::until::until;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/cluster.md");
    fs::read_to_string(path).expect("the page is there")
}

/// The commands of the block below the line `<!-- run: name -->`, with this test's ports instead of the page's.
fn commands(page: &str, name: &str, ports: &[(String, String)]) -> Vec<String> {
    let marker = format!("<!-- run: {name} -->");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("the page has no block {name:?}"));
    let (_, rest) = rest.split_once("```console\n").expect("a block of commands");
    let (block, _) = rest.split_once("```").expect("the block ends");
    let mut commands: Vec<String> = vec![];
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push(command.into()),
            // A line that goes on; what a command prints is not shown with `>`.
            None => {
                if let (Some(last), Some(more)) = (commands.last_mut(), line.strip_prefix("    ")) {
                    last.push('\n');
                    last.push_str(more);
                }
            }
        }
    }
    for command in &mut commands {
        for (from, to) in ports {
            *command = command.replace(from, to);
        }
    }
    assert!(!commands.is_empty(), "the block {name:?} has no command");
    commands
}

/// A shell in `dir` in which `sarsen` is the binary under test.
fn shell(dir: &Path, command: &str) -> Command {
    let folder: PathBuf = binary().parent().expect("a binary lies in a folder").into();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("exec {command}")).current_dir(dir);
    shell.env("PATH", format!("{}:{path}", folder.display())).env("SARSEN_LIMITS_DISK_FREE_MIN", "1MiB");
    shell
}

fn output(dir: &Path, command: &str) -> Output {
    // More than one program in a line is not replaced by the first.
    shell(dir, &format!("bash -c {}", quoted(command))).output().expect("bash is there")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn succeeds(dir: &Path, command: &str) -> String {
    let output = output(dir, command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn three_nodes_in_three_terminals_are_safe_in_less_than_two_minutes_and_survive_a_kill() {
    let page = page();
    let dir = folder();
    let ports: Vec<(String, String)> = ["7420", "7421", "7430", "7431", "7440", "7441"]
        .map(|port| (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port())))
        .into();
    // The first node stands on the defaults, which other tests of this machine may use.
    let first = format!("--http-listen {} --cluster-listen {}", ports[0].1, ports[1].1);
    let url = ("sarsen status".to_string(), format!("SARSEN_URL=http://{} sarsen status", ports[0].1));
    let began = Instant::now();
    let mut nodes = Vec::new();
    for (number, name) in ["first", "second", "third"].into_iter().enumerate() {
        let [command] = &commands(&page, name, &ports)[..] else { panic!("one command a terminal") };
        let command = if number == 0 { format!("{command} {first}") } else { command.clone() };
        let mut node = Process::start(name, &mut shell(dir.path(), &command), &dir.path().join(name));
        let client = Client::at(&ports[2 * number].1);
        node.await_ready(|| client.is_ok("/-/ready"));
        nodes.push(node);
    }
    let status = &commands(&page, "status", &ports)[0].replace(&url.0, &url.1);
    until("the page's cluster to be safe", BOUND, || {
        let text = succeeds(dir.path(), status);
        if text.starts_with("SAFE: every shard has its 3 copies") { Ok(()) } else { Err(text) }
    });
    let safe = began.elapsed();
    assert!(safe < Duration::from_secs(120), "{safe:?}");
    println!("three nodes were safe after {safe:?}");

    let tried = commands(&page, "write and read", &ports);
    let told: Vec<String> = tried.iter().map(|command| succeeds(dir.path(), command)).collect();
    let read = told.last().expect("a command");
    assert!(read.contains("21.5"), "{read}");

    // What the page says of a node that is killed.
    nodes[1].kill();
    until("the page's cluster to notice", BOUND, || {
        let text = succeeds(dir.path(), status);
        if text.starts_with("DEGRADED:") && text.contains("is down") { Ok(()) } else { Err(text) }
    });
    let read = succeeds(dir.path(), tried.last().expect("a command"));
    assert!(read.contains("21.5"), "{read}");
    let [again] = &commands(&page, "again", &ports)[..] else { panic!("one command") };
    let mut node = Process::start("again", &mut shell(dir.path(), again), &dir.path().join("again"));
    let client = Client::at(&ports[2].1);
    node.await_ready(|| client.is_ok("/-/ready"));
    nodes[1] = node;
    until("the page's cluster to be safe again", BOUND, || {
        let text = succeeds(dir.path(), status);
        if text.starts_with("SAFE:") { Ok(()) } else { Err(text) }
    });
    for command in commands(&page, "look", &ports).iter().chain(&commands(&page, "settings", &ports)) {
        let command = command.replacen("sarsen ", &format!("SARSEN_URL=http://{} sarsen ", ports[0].1), 1);
        succeeds(dir.path(), &command);
    }
}

//! `sarsen ns …`: namespaces.

use super::{Output, http, query, table};
use crate::args::{NsCommand, Remote};
use crate::config;
use crate::namespaces::{SETTINGS, Wanted};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;

const PATH: &str = "/api/v1/admin/namespaces";

/// Asks or changes, and prints.
pub fn run(command: NsCommand) -> anyhow::Result<()> {
    match command {
        NsCommand::List(remote) => ls(&remote),
        NsCommand::Apply { name, settings, file, dry_run, yes, remote } => {
            let wanted = match (file, name) {
                (Some(file), _) => from_file(&file)?,
                (None, Some(name)) => from_arguments(name, &settings)?,
                (None, None) => bail!("name a namespace, or a file with -f"),
            };
            apply(&remote, &wanted, dry_run, yes)
        }
        NsCommand::Delete { name, remote } => {
            http::send("DELETE", &remote.url, &format!("{PATH}/{name}"), &[], None)?;
            println!("{name} is deleted");
            Ok(())
        }
    }
}

fn ls(remote: &Remote) -> anyhow::Result<()> {
    let data = http::get(&remote.url, PATH, &[])?.data;
    if remote.output == Output::Json {
        return query::print_json(&data);
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_string();
    let rows: Vec<Vec<String>> = data
        .as_array()
        .into_iter()
        .flatten()
        .map(|ns| {
            std::iter::once(text(&ns["name"])).chain(SETTINGS.map(|setting| text(&ns[setting]))).collect()
        })
        .collect();
    Ok(table::print(&["NAMESPACE", "RETENTION", "DURABILITY", "WRITE", "READ"], &rows)?)
}

fn from_arguments(name: String, settings: &[String]) -> anyhow::Result<Wanted> {
    if settings.is_empty() {
        bail!(
            "say what shall be different about `{name}`, such as retention=30d; there are {}",
            SETTINGS.join(", ")
        );
    }
    let pair = |text: &String| {
        let (setting, value) =
            text.split_once('=').with_context(|| format!("{text:?} is not of the form retention=30d"))?;
        Ok((setting.trim().to_string(), value.trim().to_string()))
    };
    let settings = settings.iter().map(pair).collect::<anyhow::Result<_>>()?;
    Ok(Wanted::from([(name, settings)]))
}

fn from_file(file: &Path) -> anyhow::Result<Wanted> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    let mut wanted = Wanted::new();
    for scalar in config::scalars(&name, &text)? {
        let (namespace, setting) = scalar.key.split_once('.').with_context(|| {
            format!(
                "{name}:{}: `{}` stands outside of a namespace; write `default:` above it",
                scalar.line, scalar.key
            )
        })?;
        wanted.entry(namespace.to_string()).or_default().insert(setting.to_string(), scalar.value);
    }
    Ok(wanted)
}

fn apply(remote: &Remote, wanted: &Wanted, dry_run: bool, yes: bool) -> anyhow::Result<()> {
    let body = serde_json::to_value(wanted)?;
    let post = |dry_run: bool| {
        let params = [("dry_run", dry_run.to_string())];
        http::send("POST", &remote.url, PATH, &params, Some(&body)).map(|answer| answer.data)
    };
    let plan = post(true)?;
    let changes = plan["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let removal = changes.iter().find(|change| change["removes"] == true);
    if let Some(change) = removal.filter(|_| !dry_run && !yes) {
        bail!(
            "samples older than {} would be removed for good; look at it with --dry-run, and confirm with --yes",
            change["to"].as_str().unwrap_or_default()
        );
    }
    let done = if dry_run || changes.is_empty() { plan.clone() } else { post(false)? };
    if remote.output == Output::Json {
        return query::print_json(&done);
    }
    for change in changes {
        let text = |key: &str| change[key].as_str().unwrap_or_default();
        let note = if change["removes"] == true { "   (removes older samples)" } else { "" };
        println!("{}: {} {} -> {}{note}", text("namespace"), text("setting"), text("from"), text("to"));
    }
    println!(
        "{}",
        match (changes.is_empty(), dry_run) {
            (true, _) => "nothing is different",
            (false, true) => "not applied (--dry-run)",
            (false, false) => "applied; every node follows within seconds",
        }
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_arguments_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ns.yaml");
        std::fs::write(&file, "default:\n  retention: 30d\n  write_consistency: all\n").unwrap();
        let arguments = ["retention=30d", "write_consistency = all"].map(str::to_string);
        assert_eq!(from_file(&file).unwrap(), from_arguments("default".into(), &arguments).unwrap());
        std::fs::write(&file, "retention: 30d\n").unwrap();
        assert!(from_file(&file).unwrap_err().to_string().contains("ns.yaml:1: `retention` stands outside"));
        assert!(from_arguments("default".into(), &[]).is_err());
        assert!(from_arguments("default".into(), &["retention".into()]).is_err());
    }
}

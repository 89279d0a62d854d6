//! The secret that the nodes of a cluster share: given, or kept in the data directory, or drawn for a new cluster.
//!
//! ```text
//! <data>/join-token    one line, readable by its owner only
//! ```

use crate::config::{Auto, Config, Secret, Setting};
use anyhow::{Context, bail};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a data directory keeps it.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("join-token")
}

/// A token and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The configuration gives it.
    Given(Secret),
    /// The data directory keeps it.
    Kept(Secret),
    /// It is new.
    Drawn(Secret),
}

impl Token {
    /// The token itself.
    pub fn secret(&self) -> &Secret {
        match self {
            Token::Given(secret) | Token::Kept(secret) | Token::Drawn(secret) => secret,
        }
    }

    /// How to write it on the command line of another node. It is shown once, when nobody can know it yet.
    pub fn argument(&self, dir: &Path) -> String {
        match self {
            Token::Given(_) => "\"$SARSEN_JOIN_TOKEN\"".to_string(),
            Token::Kept(_) => format!("\"$(cat '{}')\"", path(dir).display()),
            Token::Drawn(secret) => secret.reveal().to_string(),
        }
    }
}

/// The token that this node is to use. `member`: whether the directory belongs to a cluster already.
pub fn choose(config: &Config, member: bool, random: impl Fn() -> u128) -> anyhow::Result<Token> {
    if let Auto::Set(token) = &config.join_token {
        return Ok(Token::Given(token.clone()));
    }
    let path = path(&config.data_dir);
    match fs::read_to_string(&path) {
        Ok(text) => Secret::parse(text.trim_end()).map(Token::Kept).with_context(|| {
            format!(
                "{} holds no token; put the cluster's there or give it with --join-token, another node has it in its data directory",
                path.display()
            )
        }),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("reading {}", path.display()))
        }
        // A member had one; a wrong new one would only be refused by the others.
        Err(_) if !config.join.0.is_empty() => bail!(
            "joining {} needs its token: give it with --join-token or SARSEN_JOIN_TOKEN; the first node printed it and keeps it \
             in its data directory as `join-token`",
            config.join.0.join(",")
        ),
        Err(_) => {
            if member {
                tracing::info!(file = %path.display(), "there was no join token; a new one was drawn");
            }
            let drawn = Secret::parse(&format!("{:032x}", random())).context("BUG: a drawn token is none")?;
            Ok(Token::Drawn(drawn))
        }
    }
}

/// Keeps it for the next start, and for whoever adds a node.
pub fn keep(dir: &Path, token: &Secret) -> anyhow::Result<()> {
    let path = path(dir);
    if fs::read_to_string(&path).is_ok_and(|text| text.trim_end() == token.reveal()) {
        return Ok(());
    }
    let write = || {
        let mut file =
            fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        // One that was there may have had other rights.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(format!("{}\n", token.reveal()).as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("keeping the join token in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peers;

    #[test]
    fn a_token_is_drawn_once_kept_for_its_owner_only_and_replaced_by_a_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().to_path_buf(), ..Config::default() };
        let drawn = choose(&config, false, || 7).unwrap();
        assert_eq!(drawn.argument(dir.path()), format!("{:032x}", 7));
        keep(dir.path(), drawn.secret()).unwrap();
        let kept = choose(&config, true, || 8).unwrap();
        assert_eq!(kept, Token::Kept(drawn.secret().clone()));
        assert!(
            kept.argument(dir.path()).contains("join-token") && !kept.argument(dir.path()).contains("0007")
        );
        let rights = fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(rights & 0o777, 0o600);
        config.join_token = Auto::Set(Secret::parse("another-token").unwrap());
        let given = choose(&config, true, || 8).unwrap();
        assert_eq!(given.secret().reveal(), "another-token");
        keep(dir.path(), given.secret()).unwrap();
        config.join_token = Auto::Auto;
        assert_eq!(choose(&config, true, || 8).unwrap().secret(), given.secret());
    }

    #[test]
    fn joining_without_a_token_is_refused_with_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let join = Peers(vec!["a:1".to_string()]);
        let config = Config { data_dir: dir.path().to_path_buf(), join, ..Config::default() };
        let error = choose(&config, false, || 7).unwrap_err().to_string();
        assert!(error.contains("SARSEN_JOIN_TOKEN") && error.contains("`join-token`"), "{error}");
        fs::write(path(dir.path()), "n o\n").unwrap();
        assert!(choose(&config, false, || 7).unwrap_err().to_string().contains("holds no token"));
    }
}

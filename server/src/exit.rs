//! With which code the process ends, for whoever supervises it: what is to be done about it follows from the code, and the last line on standard error
//! says it in words.

use cluster::stop::{Reason, Stop};
use std::io;

/// A command line or configuration that makes no sense, as clap's own.
pub const USAGE: u8 = 2;

/// The code for a reason.
pub fn code(reason: Reason) -> u8 {
    match reason {
        Reason::Other => 1,
        Reason::Wiped => 10,
        Reason::Foreign => 11,
        Reason::Stale => 12,
        Reason::Copied => 13,
        Reason::Removed => 14,
        Reason::Token => 15,
        Reason::Disk => 16,
    }
}

/// Why a node did not start or ended, from the first of its errors that says so.
pub fn reason(error: &anyhow::Error) -> Reason {
    error.chain().find_map(known).unwrap_or(Reason::Other)
}

fn known(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return Some(stop.reason);
    }
    if let Some(error) = error.downcast_ref::<cluster::node::Error>() {
        return Some(error.reason());
    }
    if let Some(error) = error.downcast_ref::<storage::Error>() {
        return Some(match error {
            storage::Error::Corrupt { .. } => Reason::Disk,
            // Another process has it open, or it is of another version: nothing of that makes the volume another's.
            storage::Error::Refused { .. } => Reason::Other,
            storage::Error::Disk(error) => Reason::of_disk(error),
            storage::Error::Limit { .. } => Reason::Other,
        });
    }
    if let Some(error) = error.downcast_ref::<disk::Error>() {
        return Some(Reason::of_disk(error));
    }
    error.downcast_ref::<io::Error>().map(Reason::of_io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_a_code_of_its_own_which_the_help_and_the_page_name() {
        let codes: BTreeSet<u8> = Reason::ALL.into_iter().map(code).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&USAGE));
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("server").unwrap().render_long_help().to_string();
        // Wherever its lines are broken.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let page = include_str!("../../docs/operations/cluster.md");
        for reason in Reason::ALL {
            let code = code(reason);
            assert!(
                help.contains(&format!("{code} {reason}")),
                "--help does not say {code} {reason}:\n{help}"
            );
            assert!(
                page.contains(&format!("| {code} | {reason} |")),
                "the page does not say {code} {reason}"
            );
        }
    }

    #[test]
    fn the_reason_is_found_below_what_was_being_done() {
        let io = |code| io::Error::from_raw_os_error(code);
        let broken = disk::Error::Io { op: "open", path: "/data".into(), source: io(5) };
        assert_eq!(reason(&anyhow::Error::new(broken).context("opening the data")), Reason::Disk);
        assert_eq!(reason(&anyhow::Error::new(io(30)).context("keeping the token")), Reason::Disk);
        assert_eq!(reason(&anyhow::Error::new(io(13))), Reason::Other);
        assert_eq!(reason(&Stop::new(Reason::Removed, "it was removed").into()), Reason::Removed);
        let refused = storage::Error::Refused { dir: "/data".into(), why: "of a newer version".into() };
        assert_eq!(reason(&refused.into()), Reason::Other);
        assert_eq!(reason(&anyhow::anyhow!("whatever")), Reason::Other);
    }
}

//! Why a node must not start, or not go on: for people in words, for whoever supervises it as a kind to decide on.

use std::{fmt, io};

/// Of what kind a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Anything else: the address is taken, the settings do not fit, a bug. The same directory may be good.
    Other = 0,
    /// The directory is empty, and the cluster knows a node at this address; or a part of the directory is gone.
    Wiped = 1,
    /// The directory is another node's, or another cluster's.
    Foreign = 2,
    /// The directory is an old copy of this node's.
    Stale = 3,
    /// Another process works with a copy of the directory.
    Copied = 4,
    /// The node was removed from its cluster for ever.
    Removed = 5,
    /// The join token is not the cluster's.
    Token = 6,
    /// The disk cannot be read or written, or gives back other bytes than were written. (One that is only full is none of these.)
    Disk = 7,
}

impl Reason {
    /// All of them, by their numbers.
    pub const ALL: [Reason; 8] = [
        Reason::Other,
        Reason::Wiped,
        Reason::Foreign,
        Reason::Stale,
        Reason::Copied,
        Reason::Removed,
        Reason::Token,
        Reason::Disk,
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Other => "other",
            Reason::Wiped => "wiped",
            Reason::Foreign => "foreign",
            Reason::Stale => "stale",
            Reason::Copied => "copied",
            Reason::Removed => "removed",
            Reason::Token => "token",
            Reason::Disk => "disk",
        }
    }

    /// What a failure of the file system says of the disk.
    pub fn of_disk(error: &disk::Error) -> Reason {
        match error {
            disk::Error::Io { source, .. } => Reason::of_io(source),
            disk::Error::Failed { full: false, .. } | disk::Error::Corrupt { .. } => Reason::Disk,
            disk::Error::Failed { .. } | disk::Error::Limit { .. } | disk::Error::Version { .. } => {
                Reason::Other
            }
        }
    }

    /// The same of an error of the operating system. What rights, a wrong path or a full disk are behind says nothing against the disk.
    pub fn of_io(error: &io::Error) -> Reason {
        // Of Linux, on every architecture that there is a build for: EIO, ENXIO, ENODEV, EROFS, EUCLEAN, EREMOTEIO, ENOMEDIUM.
        const BROKEN: [i32; 7] = [5, 6, 19, 30, 117, 121, 123];
        let is_broken = error.raw_os_error().is_some_and(|code| BROKEN.contains(&code));
        match is_broken || error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            true => Reason::Disk,
            false => Reason::Other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason, and what happened with the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Stop {
    /// Of what kind.
    pub reason: Reason,
    /// For people.
    pub why: String,
}

impl Stop {
    /// For this reason.
    pub fn new(reason: Reason, why: impl Into<String>) -> Stop {
        Stop { reason, why: why.into() }
    }

    /// For none that a supervisor could decide on.
    pub fn other(why: impl Into<String>) -> Stop {
        Stop::new(Reason::Other, why)
    }
}

impl From<disk::Error> for Stop {
    fn from(error: disk::Error) -> Stop {
        Stop::new(Reason::of_disk(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_disk_that_is_only_full_or_may_not_be_used_has_not_failed() {
        let io = |kind| disk::Error::Io { op: "write", path: "/data".into(), source: Error::from(kind) };
        for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::NotFound] {
            assert_eq!(Reason::of_disk(&io(kind)), Reason::Other);
        }
        assert_eq!(Reason::of_disk(&io(ErrorKind::ReadOnlyFilesystem)), Reason::Disk);
        // EIO.
        let source = Error::from_raw_os_error(5);
        let broken = disk::Error::Io { op: "fsync", path: "/data".into(), source };
        assert_eq!(Stop::from(broken).reason, Reason::Disk);
        let log = |full| disk::Error::Failed { path: "/data".into(), reason: "first".into(), full };
        assert_eq!([log(true), log(false)].map(|e| Reason::of_disk(&e)), [Reason::Other, Reason::Disk]);
    }

    #[test]
    fn numbers_are_places() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}

//! A machine's disk that can fail: a file system on a device, of which the kernel says that it cannot be written.

use super::cluster::Kubernetes;
use crate::namespaces::run;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// What a device can hold. Only what is written takes room.
const BYTES: u64 = 4 << 30;
/// What is left of it when it has failed: less than what any file system keeps at its beginning.
const BYTES_LEFT: u64 = 64 << 10;

/// A device that is mounted, until this is dropped.
pub struct Device {
    image: PathBuf,
    mounted: PathBuf,
}

impl Kubernetes {
    /// Puts a device under the volumes of a machine that has none yet.
    pub fn device(&self, host: &str) -> Device {
        let mounted = self.host(host, |host, _| host.disk());
        assert!(
            fs::read_dir(&mounted).is_ok_and(|mut disk| disk.next().is_none()),
            "{host} has no volumes yet"
        );
        let image = self.dir().join(format!("{host}.img"));
        let file = File::options().write(true).create_new(true).open(&image);
        file.and_then(|file| file.set_len(BYTES)).expect("a file can be made");
        run(&format!("mkfs.ext4 -q -F {}", image.display()));
        run(&format!("mount -o loop,errors=continue {} {}", image.display(), mounted.display()));
        Device { image, mounted }
    }
}

impl Device {
    /// From now on each write, and each read of what is not in memory, is an input/output error.
    pub fn fail(&self) {
        let output = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.mounted).output();
        let source = output.expect("findmnt can be run").stdout;
        let file = File::options().write(true).open(&self.image).expect("the file is there");
        file.set_len(BYTES_LEFT).expect("a file can be cut");
        // The kernel looks at the size of a device when it is told to.
        run(&format!("losetup -c {}", String::from_utf8_lossy(&source).trim()));
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        run(&format!("umount -l {}", self.mounted.display()));
    }
}

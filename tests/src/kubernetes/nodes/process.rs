//! A container: a process in a file system, a network and a name of its own.
//!
//! The root is a tmpfs of the container's mount namespace with the host's programs and libraries read-only, a few devices, `/proc`, and
//! the pod's volumes. Every command of the chain that sets it up becomes the next one (`exec`), so the child is the container's first
//! process itself: signals reach it, and its exit status is its own. It is killed when the thread that started it ends.
//!
//! Left out: memory limits, process namespaces, capabilities.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Everything about a container that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The binary that is the image.
    pub image: PathBuf,
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Whether the root cannot be written.
    pub is_read_only: bool,
    /// User, group, and a group more.
    pub user: (i64, i64, Option<i64>),
    /// The name of the machine, as the process sees it.
    pub hostname: String,
}

/// A folder or file of the host, inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: String,
    /// Whether it cannot be written.
    pub is_read_only: bool,
}

/// Where a container's own files are on the host.
#[derive(Clone, Debug)]
pub struct Files {
    /// The mount point of its root.
    pub root: PathBuf,
    /// What it prints.
    pub log: PathBuf,
    /// `/dev/termination-log` inside, or where the pod wants it.
    pub termination: PathBuf,
    /// How it is set up.
    pub script: PathBuf,
    /// `/etc/hosts` inside.
    pub hosts: PathBuf,
}

/// The path that programs are looked for in, outside and inside.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Launch {
    /// Starts it in a network namespace.
    pub fn start(&self, namespace: &str, files: &Files, termination: &str) -> io::Result<Child> {
        fs::create_dir_all(&files.root)?;
        fs::write(&files.termination, "")?;
        fs::write(&files.script, self.script(files, termination))?;
        let log = OpenOptions::new().create(true).append(true).open(&files.log)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "unshare", "--mount", "--uts", "sh"]).arg(&files.script);
        command.env_clear().env("PATH", PATH).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
    }

    /// What `sh` does before it becomes the process.
    fn script(&self, files: &Files, termination: &str) -> String {
        let root = quoted(&files.root.to_string_lossy());
        let mut script = format!(
            "set -e\nhostname {}\nmount -t tmpfs -o mode=755 tmpfs {root}\ncd {root}\n\
             mkdir -p usr etc proc dev tmp run var\nchmod 1777 tmp\n\
             mount --rbind -o ro /usr usr\nmount -o remount,bind,ro usr\nmount --rbind /proc proc\n\
             for name in bin sbin lib lib32 lib64; do\n\
             if [ -L /$name ]; then cp -P /$name $name; elif [ -d /$name ]; then mkdir $name; mount --bind /$name $name; fi\n\
             done\n\
             for name in null zero full random urandom; do : > dev/$name; mount --bind /dev/$name dev/$name; done\n\
             [ -e /etc/ld.so.cache ] && cp /etc/ld.so.cache etc\n\
             echo 'hosts: files' > etc/nsswitch.conf\n\
             echo 'multi on' > etc/host.conf\n\
             echo 'root:x:0:0::/root:/bin/sh\nnonroot:x:65532:65532::/:/bin/false' > etc/passwd\n\
             echo 'root:x:0:\nnonroot:x:65532:' > etc/group\n",
            quoted(&self.hostname),
        );
        let file = |path: &Path, target: &str, is_read_only: bool| Mount {
            source: path.into(),
            target: target.into(),
            is_read_only,
        };
        let mut mounts = vec![
            file(&files.hosts, "/etc/hosts", true),
            file(&files.termination, termination, false),
            file(&self.image, &inside(&self.image), true),
        ];
        mounts.extend(self.mounts.iter().cloned());
        // Outer mount points before what lies in them.
        mounts[3..].sort_by(|a, b| a.target.cmp(&b.target));
        for Mount { source, target, is_read_only } in &mounts {
            let (source, target) = (quoted(&source.to_string_lossy()), quoted(&format!(".{target}")));
            let _ = write!(
                script,
                "if [ -d {source} ]; then mkdir -p {target}; else mkdir -p \"$(dirname {target})\"; : > {target}; fi\n\
                 mount --bind {source} {target}\n"
            );
            if *is_read_only {
                let _ = writeln!(script, "mount -o remount,bind,ro {target}");
            }
        }
        if self.is_read_only {
            script.push_str("mount -o remount,ro .\n");
        }
        let (user, group, extra) = self.user;
        let groups = extra.map_or("--clear-groups".into(), |extra| format!("--groups {extra}"));
        let mut words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        // An image may have its one binary in any folder.
        if self.words.first().map(Path::new).and_then(Path::file_name) == self.image.file_name() {
            words[0] = quoted(&inside(&self.image));
        }
        let _ = writeln!(
            script,
            "exec chroot . setpriv --reuid {user} --regid {group} {groups} --pdeathsig KILL -- {}",
            words.join(" ")
        );
        script
    }
}

/// Where an image's binary is inside.
pub fn inside(image: &Path) -> String {
    format!("/{}", image.file_name().unwrap_or_default().to_string_lossy())
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_becomes_the_process_and_words_stay_words() {
        let launch = Launch {
            image: "/builds/sarsen".into(),
            words: ["/usr/bin/sarsen", "a b", "it's"].map(String::from).to_vec(),
            environment: vec![],
            mounts: vec![Mount { source: "/data/a".into(), target: "/var/lib/x".into(), is_read_only: true }],
            is_read_only: true,
            user: (65532, 65532, Some(7)),
            hostname: "h".into(),
        };
        let path = |name: &str| PathBuf::from("/pod").join(name);
        let files = Files {
            root: path("root"),
            log: path("log"),
            termination: path("end"),
            script: path("sh"),
            hosts: path("hosts"),
        };
        let script = launch.script(&files, "/dev/termination-log");
        let last = script.lines().last().expect("lines");
        assert_eq!(
            last,
            "exec chroot . setpriv --reuid 65532 --regid 65532 --groups 7 --pdeathsig KILL -- '/sarsen' 'a b' 'it'\\''s'"
        );
        assert!(
            script.contains("mount --bind '/data/a' './var/lib/x'\nmount -o remount,bind,ro './var/lib/x'\n"),
            "{script}"
        );
        assert!(script.contains("mount -o remount,ro .\nexec"), "{script}");
    }
}

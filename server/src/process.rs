//! What the operating system knows about this process.

/// Resources in use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Start of the process, Unix seconds.
    pub start_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Limit of open file descriptors.
    pub max_fds: u64,
}

/// Ticks a second in `/proc`: fixed at 100 for user space on every architecture of Linux.
const TICKS: f64 = 100.0;

impl Usage {
    /// From `/proc`; `None` where there is none.
    pub fn read() -> Option<Usage> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything; the fields after it are numbers. `state` is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            line.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let max_fds = limits
            .lines()
            .find_map(|l| l.strip_prefix("Max open files"))
            .and_then(|l| l.split_ascii_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        Some(Usage {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            resident_bytes: kib("VmRSS")? * 1024,
            virtual_bytes: field(23)?,
            threads: field(20)?,
            start_seconds: boot_seconds()? + field(22)? as f64 / TICKS,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds,
        })
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

/// Memory that this process may use: the smaller of the machine's and its control group's.
pub fn memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let machine = line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024;
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(group.map_or(machine, |limit| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_plausible() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.resident_bytes < usage.virtual_bytes);
        assert!(usage.threads >= 1 && usage.open_fds >= 3 && usage.max_fds >= usage.open_fds);
        let now = crate::time::now().0 as f64 / 1000.0;
        assert!(usage.start_seconds > now - 86_400.0 && usage.start_seconds <= now + 2.0);
        assert!(memory_bytes().unwrap() > 64 << 20);
    }
}

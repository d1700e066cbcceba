//! What a process uses, as proc(5) tells.

use anyhow::Context as _;

/// The kernel's clock ticks a second in /proc: 100 on every Linux that Debian builds (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_ticks(&text).map(|ticks| ticks / TICKS_PER_SECOND).with_context(|| format!("understand {path}"))
}

/// User and system time: fields 14 and 15 of proc(5), counted behind the name, which may hold anything.
fn parse_cpu_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// What it had written to disks.
pub(crate) fn write_bytes(pid: u32) -> anyhow::Result<u64> {
    field(&format!("/proc/{pid}/io"), "write_bytes: ")
}

/// What of it is in memory.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

/// Its open file descriptors, sockets included.
pub(crate) fn open_files(pid: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(std::fs::read_dir(&path).with_context(|| format!("list {path}"))?.count())
}

/// The number that stands behind `name`, whatever unit is behind it.
fn field(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("find {name:?} in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_this_process() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        write_bytes(pid).unwrap();
        assert!(resident_bytes(pid).unwrap() > 1024 * 1024);
        assert!(open_files(pid).unwrap() > 2);
    }

    #[test]
    fn a_name_with_a_bracket_does_not_confuse() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_cpu_ticks(stat), Some(300.0));
    }
}

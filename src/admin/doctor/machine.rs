//! What the kernel says of this machine. `root` stands before every path that is read, for tests.

use super::claims::{self, Claim, Known};
use super::{Finding, Level};
use anyhow::{Context, Result, bail};
use ashlar_runtime::{os, ring};
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Clocks that cost tens of nanoseconds and go on evenly.
const GOOD_CLOCKS: &[&str] = &["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen", "arch_sys_counter"];
/// Schedulers that leave order to the device, or at least do not hold requests back.
const GOOD_SCHEDULERS: &[&str] = &["none", "mq-deadline", "kyber"];
/// The usual size of a frame.
const MTU: u64 = 1500;
/// What an OSD writes at a time must not tear within this.
const PAGE_BYTES: u64 = 4096;

fn read(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_string())
}

/// Clock, io_uring, networks.
pub fn findings(root: &Path) -> Vec<Finding> {
    let parts = [clock(root), io_uring(root), mtu(root)];
    parts.into_iter().flatten().collect()
}

fn clock(root: &Path) -> Option<Finding> {
    let name = read(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    Some(match GOOD_CLOCKS.contains(&name.as_str()) {
        true => Finding::new(Level::Good, "clock", name),
        false => Finding::new(
            Level::Warn,
            "clock",
            format!("{name} is slow or uneven, and leases are measured with it; see why the kernel does not use tsc"),
        ),
    })
}

fn io_uring(root: &Path) -> Option<Finding> {
    let text = match read(root, "proc/sys/kernel/io_uring_disabled")?.as_str() {
        "0" => return Some(Finding::new(Level::Good, "io_uring", "may be used")),
        "1" => "only for a group: see that OSDs are in kernel.io_uring_group, or set kernel.io_uring_disabled=0",
        _ => "switched off: OSDs cannot start; set kernel.io_uring_disabled=0",
    };
    Some(Finding::new(Level::Bad, "io_uring", text))
}

/// Links of different sizes in one network drop what is too large for some.
fn mtu(root: &Path) -> Option<Finding> {
    let links = fs::read_dir(root.join("sys/class/net")).ok()?;
    let mut sizes: Vec<(String, u64)> = Vec::new();
    for name in links.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let is_up = read(root, &format!("sys/class/net/{name}/operstate")).is_some_and(|state| state == "up");
        let size = read(root, &format!("sys/class/net/{name}/mtu")).and_then(|size| size.parse().ok());
        sizes.extend(size.filter(|_| is_up && name != "lo").map(|size| (name, size)));
    }
    sizes.sort();
    let text = sizes.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(", ");
    let small = sizes.iter().any(|(_, size)| *size < MTU);
    Some(match sizes.as_slice() {
        [] => return None,
        _ if small => Finding::new(Level::Warn, "mtu", format!("{text}: below {MTU} packets are many; see why")),
        [(_, first), rest @ ..] if rest.iter().any(|(_, size)| size != first) => {
            Finding::new(Level::Warn, "mtu", format!("{text}: see that the cluster's network has one size everywhere"))
        }
        _ => Finding::new(Level::Good, "mtu", text),
    })
}

/// What is known of a device, or of the one below a file, and what somebody claims of it.
pub fn device(root: &Path, path: &Path, claim: Option<&Claim>) -> Result<Vec<Finding>> {
    let about = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {about}"))?;
    let meta = file.metadata()?;
    let is_file = meta.is_file();
    if !is_file && !meta.file_type().is_block_device() {
        bail!("neither a file nor a block device: name what an OSD has as its data or log");
    }
    if is_file && os::is_in_memory(&file)? {
        return Ok(vec![Finding::new(Level::Warn, about, "in memory: nothing of it survives the machine")]);
    }
    let number = if is_file { meta.dev() } else { meta.rdev() };
    let Some(queue) = queue_of(root, number) else {
        let text = "no device of this machine is below it (a network or FUSE file system): flushes are all there is to \
                    trust; see what they are worth";
        let claimed =
            claim.into_iter().flat_map(|claim| claims::judge(claim, Known { is_file, ..Known::default() }, &about));
        return Ok([Finding::new(Level::Warn, about.as_str(), text)].into_iter().chain(claimed).collect());
    };
    let mut found = queue_findings(&queue, &about, is_file);
    // What the device below can do, a file system may not pass on.
    let of_file = Known { is_file, ..Known::default() };
    let known = if is_file { of_file } else { known(&queue, start_of(root, number)) };
    found.extend(claim.into_iter().flat_map(|claim| claims::judge(claim, known, &about)));
    Ok(found)
}

/// Where a partition begins on its disk; 0 of a disk.
fn start_of(root: &Path, number: u64) -> u64 {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let sectors = read(root, &format!("sys/dev/block/{major}:{minor}/start")).and_then(|text| text.parse::<u64>().ok());
    sectors.unwrap_or(0) * 512
}

/// What the kernel promises of a device, or of a partition of it that begins there.
fn known(queue: &Path, start_bytes: u64) -> Known {
    let volatile = read(queue, "write_cache").map(|text| text != "write through");
    let stated = read(queue, "atomic_write_unit_max_bytes").and_then(|text| text.parse().ok()).unwrap_or(0);
    Known { volatile, atomic_bytes: ring::atomic_unit(stated, start_bytes).into(), is_file: false }
}

/// The request queue of a device, by its number; of a partition, that of its disk.
fn queue_of(root: &Path, number: u64) -> Option<PathBuf> {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let device = root.join(format!("sys/dev/block/{major}:{minor}")).canonicalize().ok()?;
    [device.join("queue"), device.parent()?.join("queue")].into_iter().find(|path| path.is_dir())
}

fn queue_findings(queue: &Path, about: &str, is_file: bool) -> Vec<Finding> {
    let read = |name: &str| read(queue, name);
    let number = |name: &str| read(name).and_then(|text| text.parse::<u64>().ok());
    let mut found = Vec::new();
    let mut tell = |level, text: String| found.push(Finding::new(level, about, text));
    if is_file {
        tell(Level::Warn, "a file: good for trying; a device of its own is faster, and one layer less can fail".into());
    }
    match read("write_cache").as_deref() {
        Some("write through") => tell(
            Level::Good,
            "write cache: none that loses power, says the kernel; a RAID controller or hypervisor may know better: if in \
             doubt, --durability flush"
                .into(),
        ),
        Some(_) => {
            let fua = if read("fua").as_deref() == Some("1") { "" } else { ", which cannot be bypassed (no FUA)" };
            let faster = if is_file { "" } else { "; with power-loss protection --durability plp is faster" };
            tell(Level::Good, format!("write cache: volatile{fua}, flushed by the OSD{faster}"));
        }
        None => tell(Level::Warn, "write cache: unknown; --durability flush is always right".into()),
    }
    if let Some(scheduler) = read("scheduler") {
        let active = scheduler.split(['[', ']']).nth(1).unwrap_or(&scheduler).to_string();
        match GOOD_SCHEDULERS.contains(&active.as_str()) {
            true => tell(Level::Good, format!("scheduler: {active}")),
            false => tell(
                Level::Warn,
                format!("scheduler: {active} holds requests back; echo none > {}", queue.join("scheduler").display()),
            ),
        }
    }
    match number("atomic_write_unit_max_bytes").unwrap_or(0) {
        0 => tell(Level::Good, "atomic writes: none promised; the store's checksums tell a torn write".into()),
        bytes if bytes < PAGE_BYTES => tell(Level::Good, format!("atomic writes: {bytes} bytes")),
        bytes => tell(Level::Good, format!("atomic writes: up to {bytes} bytes")),
    }
    if number("rotational") == Some(1) {
        tell(Level::Warn, "it rotates, says the kernel: thousands of small writes a second are not to be had".into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files below a temporary root.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("ashlar-doctor-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("inside")).expect("scratch");
                fs::write(path, text).expect("scratch");
            }
            Root(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn machines_are_judged() {
        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let good = Root::new(
            "good",
            &[
                (clock, "tsc\n"),
                ("proc/sys/kernel/io_uring_disabled", "0\n"),
                ("sys/class/net/eth0/operstate", "up\n"),
                ("sys/class/net/eth0/mtu", "9000\n"),
                ("sys/class/net/lo/operstate", "up\n"),
                ("sys/class/net/lo/mtu", "65536\n"),
            ],
        );
        assert_eq!(levels(&findings(&good.0)), [Level::Good; 3]);
        let bad = Root::new(
            "bad",
            &[
                (clock, "hpet"),
                ("proc/sys/kernel/io_uring_disabled", "2"),
                ("sys/class/net/eth0/operstate", "up"),
                ("sys/class/net/eth0/mtu", "9000"),
                ("sys/class/net/eth1/operstate", "up"),
                ("sys/class/net/eth1/mtu", "1500"),
            ],
        );
        assert_eq!(levels(&findings(&bad.0)), [Level::Warn, Level::Bad, Level::Warn]);
        assert_eq!(findings(Path::new("/nonexistent")), []);
    }

    #[test]
    fn devices_are_judged() {
        let fast = [("write_cache", "write through"), ("scheduler", "[none] mq-deadline"), ("rotational", "0")];
        let fast = Root::new("fast", &fast);
        assert_eq!(levels(&queue_findings(&fast.0, "d", false)), [Level::Good; 3]);
        let slow = Root::new("slow", &[("scheduler", "none [bfq]"), ("rotational", "1")]);
        let found = queue_findings(&slow.0, "d", true);
        assert_eq!(levels(&found), [Level::Warn, Level::Warn, Level::Warn, Level::Good, Level::Warn]);
        assert!(found[2].text.contains("bfq holds requests back; echo none >"), "{}", found[2].text);
    }

    #[test]
    fn a_partition_promises_what_it_begins_on_a_multiple_of() {
        let queue = Root::new("atomic", &[("write_cache", "write back"), ("atomic_write_unit_max_bytes", "65536")]);
        let at = |start| known(&queue.0, start);
        assert_eq!(at(0), Known { volatile: Some(true), atomic_bytes: 65_536, is_file: false });
        assert_eq!((at(1 << 20).atomic_bytes, at(63 * 512).atomic_bytes), (65_536, 0));
        assert_eq!(known(Path::new("/nonexistent"), 0), Known::default());
    }

    #[test]
    fn what_no_osd_can_have_is_refused() {
        let directory = device(Path::new("/"), &std::env::temp_dir(), None).expect_err("a directory");
        assert!(directory.to_string().contains("neither a file"), "{directory}");
        assert!(device(Path::new("/"), Path::new("/nonexistent"), None).is_err());
    }

    #[test]
    fn files_in_memory_are_told() {
        let path = Path::new("/dev/shm").join(format!("ashlar-doctor-{}", std::process::id()));
        fs::write(&path, "x").expect("scratch");
        let found = device(Path::new("/"), &path, None).expect("it is there");
        fs::remove_file(&path).expect("scratch");
        assert!(found[0].text.contains("in memory"), "{found:?}");
    }
}

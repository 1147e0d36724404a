//! The commands on files.

use super::*;
use crate::bench::store::driver::{Driver, Work};
use ashlar_core::store::log::{Durability, Way};
use ashlar_runtime::ring::DeviceFile;
use clap::Parser;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs a command line.
fn disk(line: &str) -> Result<()> {
    run(Cli::try_parse_from(std::iter::once("disk").chain(line.split(' ')))?.command)
}

fn error(line: &str) -> String {
    format!("{:#}", disk(line).expect_err(line))
}

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("ashlar-disk-{}-{name}", std::process::id())))
    }

    fn change(&self, at: u64, byte: u8) {
        let file = std::fs::File::options().write(true).open(&self.0).unwrap();
        file.write_all_at(&[byte], at).unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const CLUSTER: &str = "11111111-2222-3333-4444-555555555555";

fn prepare(path: &Path, more: &str) -> String {
    format!("prepare {} --id 3 --cluster {CLUSTER} --size 64M{more}", path.display())
}

#[test]
fn a_store_is_built_once_and_mended() {
    let file = Temporary::new("build");
    let path = file.0.display();
    assert!(error(&format!("check {path}")).contains("does not exist"));
    disk(&prepare(&file.0, "")).unwrap();
    assert!(error(&prepare(&file.0, "")).contains("holds the store"));
    disk(&prepare(&file.0, " --force")).unwrap();
    disk(&format!("inspect {path}")).unwrap();
    disk(&format!("check {path}")).unwrap();
    file.change(100, 1);
    assert!(error(&format!("check {path}")).contains("is not whole"));
    disk(&format!("check {path} --repair")).unwrap();
    disk(&format!("check {path}")).unwrap();
    let dump = format!("dump {path} --pool 1 --inode 1 --stripe 0");
    assert!(error(&dump).contains("it is not there"), "{}", error(&dump));
}

#[test]
fn what_is_in_use_or_somebody_elses_is_refused() {
    let file = Temporary::new("refuse");
    DeviceFile::create(&file.0, 64 << 20).unwrap();
    file.change(1080, 0x53);
    file.change(1081, 0xef);
    assert!(error(&prepare(&file.0, "")).contains("ext4"));
    let open = DeviceFile::open(&file.0).unwrap();
    assert!(error(&prepare(&file.0, " --force")).contains("in use"));
    drop(open);
    assert!(error(&format!("inspect {}", file.0.display())).contains("no store"));
}

#[test]
fn damage_to_data_is_found_and_a_copy_read_out() {
    let file = Temporary::new("damage");
    DeviceFile::create(&file.0, 64 << 20).unwrap();
    let device = DeviceFile::open(&file.0).unwrap();
    let mut driver = Driver::new(device, Durability::Plp, 4096).unwrap();
    driver.fill(90).unwrap();
    let work = Work { name: "", bytes: 4096, depth: 1, way: Way::Inline, prepares: false, goal: None };
    let figures = driver.measure(&work, Duration::from_millis(100)).unwrap();
    assert_eq!(figures.waves, 1, "one device write before the answer");
    let work = Work { depth: 8, way: Way::Intent, ..work };
    let figures = driver.measure(&work, Duration::from_millis(100)).unwrap();
    assert!(figures.amplification < 3.0, "{}", figures.amplification);
    drop(driver);
    let path = file.0.display();
    disk(&format!("check {path}")).unwrap();
    let copy = Temporary::new("copy");
    disk(&format!("dump {path} --pool 1 --inode 1 --stripe 5 --to {}", copy.0.display())).unwrap();
    let bytes = std::fs::read(&copy.0).unwrap();
    assert_eq!(bytes.len(), 128 << 10);
    // Its last sector lies somewhere in the data.
    let image = std::fs::read(&file.0).unwrap();
    let sector = &bytes[bytes.len() - 512..];
    let mut places = (0..image.len()).step_by(512).filter(|at| image[*at..*at + 512] == *sector);
    let at = places.next_back().expect("a copy has a block");
    file.change(at as u64 + 7, !image[at + 7]);
    assert!(error(&format!("check {path}")).contains("is not whole"));
}

#[test]
fn a_file_that_is_too_small_for_a_store_is_said_to_be_that() {
    let file = Temporary::new("small");
    std::fs::write(&file.0, [1; 4096]).unwrap();
    let refusal = error(&format!("inspect {}", file.0.display()));
    assert!(refusal.contains("has 4096 bytes: too few for a store"), "{refusal}");
}

fn put(file: &Temporary, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(&file.0).unwrap().write_all_at(bytes, at).unwrap();
}

fn bytes_at(file: &Temporary, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open(&file.0).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// What the system's own tool sees on a file; nothing where it is not installed.
fn wipefs(file: &Temporary) -> Option<String> {
    let output = std::process::Command::new("wipefs").arg(&file.0).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A superblock of Linux RAID of version 1, whole enough for `wipefs`: it says where it lies, and has a checksum.
fn raid(sector: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9]);
    bytes[4] = 1;
    bytes[144..152].copy_from_slice(&sector.to_le_bytes());
    let words = bytes[..256].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    bytes[216..220].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// 64 MiB and some sectors that are no whole unit: there lies the backup of a partition table.
#[test]
fn what_others_left_is_refused_and_with_force_gone() {
    let end = (64 << 20) + 7 * 512u64;
    let marks: [(&str, u64, Vec<u8>); 5] = [
        ("RAID", 4096, raid(8)),
        ("RAID", (64 << 20) - 8192, raid(((64 << 20) - 8192) / 512)),
        ("GPT", 4096, b"EFI PART".to_vec()),
        ("GPT", end - 512, b"EFI PART".to_vec()),
        ("ZFS", (64 << 20) - (128 << 10), vec![0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ];
    for (name, at, mark) in marks {
        let file = Temporary::new("others");
        std::fs::File::create(&file.0).unwrap().set_len(end).unwrap();
        put(&file, at, &mark);
        let prepare = format!("prepare {} --id 3 --cluster {CLUSTER}", file.0.display());
        assert!(error(&prepare).contains(name), "{name} at {at}: {}", error(&prepare));
        disk(&format!("{prepare} --force")).unwrap();
        assert_eq!(bytes_at(&file, at, mark.len()), vec![0; mark.len()], "{name} at {at}");
        assert_eq!(wipefs(&file).unwrap_or_default(), "", "{name} at {at}");
        disk(&format!("check {}", file.0.display())).unwrap();
    }
}

#[test]
fn a_copy_is_written_over_nothing_that_somebody_may_want() {
    let (file, copy) = (Temporary::new("dumped"), Temporary::new("dump"));
    DeviceFile::create(&file.0, 64 << 20).unwrap();
    let mut driver = Driver::new(DeviceFile::open(&file.0).unwrap(), Durability::Plp, 4096).unwrap();
    driver.fill(90).unwrap();
    drop(driver);
    let dump = |to: &Path, more: &str| {
        format!("dump {} --pool 1 --inode 1 --stripe 5 --to {}{more}", file.0.display(), to.display())
    };
    let before = std::fs::read(&file.0).unwrap();
    for more in ["", " --force"] {
        assert!(error(&dump(&file.0, more)).contains("is a store"), "{}", error(&dump(&file.0, more)));
        assert!(error(&dump(Path::new("/dev/null"), more)).contains("not a regular file"));
    }
    assert!(std::fs::read(&file.0).unwrap() == before, "the store was touched");
    std::fs::write(&copy.0, "mine").unwrap();
    assert!(error(&dump(&copy.0, "")).contains("--force"));
    assert_eq!(std::fs::read(&copy.0).unwrap(), b"mine");
    disk(&dump(&copy.0, " --force")).unwrap();
    assert_eq!(std::fs::read(&copy.0).unwrap().len(), 128 << 10);
}

#[test]
fn slips_are_told_and_leave_nothing_behind() {
    let file = Temporary::new("slips");
    let nil = "00000000-0000-0000-0000-000000000000";
    assert!(error(&format!("prepare {} --id 3 --cluster {nil} --size 64M", file.0.display())).contains("no cluster"));
    for (log, refusal) in [("63M", "too large"), ("4K", "too small"), ("1T", "1099511627776 bytes is too large")] {
        let error = error(&prepare(&file.0, &format!(" --log-size {log}")));
        assert!(error.contains(refusal), "{error}");
        assert!(!file.0.exists(), "a prepare that failed left its file");
    }
    disk(&prepare(&file.0, "")).unwrap();
    let other = format!("prepare {} --id 3 --cluster {CLUSTER} --size 65M --force", file.0.display());
    assert!(error(&other).contains("has 67108864 bytes"), "{}", error(&other));
    let (data, log) = (Temporary::new("data"), Temporary::new("log"));
    DeviceFile::create(&log.0, 64 << 20).unwrap();
    disk(&prepare(&data.0, &format!(" --log {}", log.0.display()))).unwrap();
    let inspected = error(&format!("inspect {}", log.0.display()));
    assert!(inspected.contains("is the log of store"), "{inspected}");
}

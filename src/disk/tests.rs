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
    assert!(error(&dump).contains("cannot read"), "{}", error(&dump));
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

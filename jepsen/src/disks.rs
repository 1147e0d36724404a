//! Disks with a volatile cache, which a power cut empties.
//!
//! nbdkit keeps what is written and not flushed apart from the disk's file, and forgets it when it is killed; nbdfuse makes
//! a file of that, on which an OSD lives. What was flushed survives, nothing else does.
//!
//! Owns these processes and mounts. Invariant: none is left behind, however a test ends.

use crate::cluster::{Cluster, signal};
use crate::command;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For a disk to appear.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Whether this machine can mount them.
pub fn are_possible() -> bool {
    let installed = |name: &str| Path::new("/usr/bin").join(name).exists();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    is_root && Path::new("/dev/fuse").exists() && installed("nbdkit") && installed("nbdfuse")
}

/// An NBD export as a file: `folder/disk`.
pub struct Mount {
    folder: PathBuf,
    nbdfuse: Child,
}

impl Mount {
    /// Mounts the default export of a socket.
    pub fn new(socket: &Path, folder: &Path) -> Result<Mount> {
        Mount::named(socket, "", folder)
    }

    /// Mounts an export of a socket.
    pub fn named(socket: &Path, export: &str, folder: &Path) -> Result<Mount> {
        std::fs::create_dir_all(folder)?;
        let (uri, disk) = (format!("nbd+unix:///{export}?socket={}", socket.display()), folder.join("disk"));
        let nbdfuse = quiet("nbdfuse").args(["-C", "4"]).arg(&disk).arg(uri).spawn()?;
        let mount = Mount { folder: folder.to_path_buf(), nbdfuse };
        until(|| std::fs::metadata(&disk).is_ok_and(|about| about.len() > 0)).context("nbdfuse mounts nothing")?;
        Ok(mount)
    }
}

impl Drop for Mount {
    /// Without a server nbdfuse answers every request with an error, until it is unmounted.
    fn drop(&mut self) {
        let folder = self.folder.display().to_string();
        // Nobody may be there to be unmounted.
        let _ = command::run("umount", &["-l", &folder], LIMIT);
        let _ = self.nbdfuse.kill();
        let _ = self.nbdfuse.wait();
    }
}

/// One disk.
struct Disk {
    nbdkit: Child,
    mount: Option<Mount>,
}

impl Disk {
    /// Makes `folder/disk` of the contents of `file`.
    fn attach(file: &Path, folder: &Path) -> Result<Disk> {
        std::fs::create_dir_all(folder)?;
        let socket = folder.with_extension("sock");
        let _ = std::fs::remove_file(&socket);
        let mut nbdkit = quiet("nbdkit");
        nbdkit.args(["--foreground", "--filter=cache", "--unix"]).arg(&socket).arg("file").arg(file);
        let nbdkit = nbdkit.arg("cache=writeback").spawn().context("cannot start nbdkit")?;
        // Taken apart by `Drop` from here on, whatever fails.
        let mut disk = Disk { nbdkit, mount: None };
        until(|| socket.exists()).context("nbdkit does not listen")?;
        disk.mount = Some(Mount::new(&socket, folder)?);
        Ok(disk)
    }
}

impl Drop for Disk {
    /// The power goes: the server first, so that nothing more is written.
    fn drop(&mut self) {
        let _ = self.nbdkit.kill();
        let _ = self.nbdkit.wait();
        self.mount = None;
    }
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn until(done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        if Instant::now() > deadline {
            bail!("not after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The disks of a cluster's OSDs: by the OSD's name, the file below and the place of the disk.
pub struct Disks {
    below: BTreeMap<String, Vec<(PathBuf, PathBuf)>>,
    attached: BTreeMap<String, Vec<Disk>>,
}

impl Disks {
    /// Puts volatile disks under the files of a cluster that was started once in `scratch` and does not run.
    pub fn under(scratch: &Scratch) -> Result<Disks> {
        let cluster = scratch.join("cluster");
        let mut disks = Disks { below: BTreeMap::new(), attached: BTreeMap::new() };
        for entry in std::fs::read_dir(&cluster)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
            let Some(osd) = name.strip_suffix(".img").map(|name| name.trim_end_matches(".log").to_string()) else {
                continue;
            };
            let (file, folder) = (scratch.join(&format!("below-{name}")), scratch.join(&format!("disk-{name}")));
            std::fs::rename(&path, &file)?;
            std::os::unix::fs::symlink(folder.join("disk"), &path)?;
            disks.below.entry(osd).or_default().push((file, folder));
        }
        disks.power_on()?;
        Ok(disks)
    }

    /// Attaches all disks that are not.
    pub fn power_on(&mut self) -> Result<()> {
        for (osd, places) in &self.below {
            if !self.attached.contains_key(osd) {
                let disks = places.iter().map(|(file, folder)| Disk::attach(file, folder));
                self.attached.insert(osd.clone(), disks.collect::<Result<_>>()?);
            }
        }
        Ok(())
    }

    /// The power of all disks goes; nobody uses them any more.
    pub fn power_off(&mut self) {
        self.attached.clear();
    }

    /// Cuts the power of some OSDs that run, process and disks, and gives the disks power again; whoever supervises the
    /// OSDs starts them.
    pub fn cycle(&mut self, cluster: &Cluster, osds: &[String]) -> Result<()> {
        let running = cluster.osds()?;
        let victims = running.iter().filter(|process| osds.contains(&process.name));
        victims.for_each(|process| signal(process.pid, Signal::SIGKILL));
        self.attached.retain(|osd, _| !osds.contains(osd));
        self.power_on()
    }
}

//! The directory of a cluster on one machine.
//!
//! ```text
//! cluster.json    what was chosen when the directory was made; never changes but to grow
//! lock            locked by the supervisor that runs
//! children.json   processes of the running supervisor, or left behind by a killed one
//! running.json    where the running cluster listens
//! mon/  osd-N.img  osd-N.log.img  nbd.sock  log/NAME.log
//! ```
//! Owns: these files but those of the daemons. Invariant: a file is replaced whole or not at all; nothing is written
//! before the lock is held.

use crate::admin::redundancy::Redundancy;
use anyhow::{Context, Result, bail};
use ashlar_core::id::ClusterUuid;
use ashlar_core::map::ImmediateCommit;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Version of `cluster.json`; an older binary refuses a newer one.
const FORMAT: u32 = 1;

/// `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Version of this file.
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterUuid,
    /// Number of OSDs, numbered from 1.
    pub osds: u32,
    /// Bytes of each OSD's file.
    pub osd_bytes: u64,
    /// Bytes of the image `demo`.
    pub image_bytes: u64,
    /// Redundancy of the pool, as written.
    pub pool: String,
    /// Which acknowledged writes are durable at once.
    #[serde(default)]
    pub immediate_commit: ImmediateCommit,
}

/// What the command line asks for; `None`: whatever there is, or the default.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Number of OSDs.
    pub osds: Option<u32>,
    /// Bytes of each OSD's file.
    pub osd_bytes: Option<u64>,
    /// Bytes of the image.
    pub image_bytes: Option<u64>,
    /// Redundancy of the pool.
    pub pool: Option<Redundancy>,
    /// Which acknowledged writes are durable at once.
    pub immediate_commit: Option<ImmediateCommit>,
}

/// `running.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The supervisor's process.
    pub supervisor: i32,
    /// Metadata store.
    pub meta: String,
    /// Where clients get their maps.
    pub maps: String,
    /// NBD by TCP.
    pub nbd: String,
    /// NBD by unix socket.
    pub nbd_socket: PathBuf,
    /// The image.
    pub image: String,
}

/// A locked directory.
pub struct Directory {
    path: PathBuf,
    /// Its contract with the past.
    pub chosen: Chosen,
    /// Whether there was none before.
    pub is_new: bool,
    _lock: File,
}

impl Directory {
    /// Opens or makes the directory and locks it.
    pub fn open(path: &Path, wanted: &Wanted) -> Result<Directory> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot reach {}", path.display()))?;
        refuse_foreign(&path)?;
        let lock = lock(&path)?;
        fs::create_dir_all(path.join("log"))?;
        let before = read::<Chosen>(&path.join("cluster.json"))?;
        let is_new = before.is_none();
        let chosen = match before {
            Some(chosen) => grow(chosen, wanted, &path)?,
            None => choose(wanted)?,
        };
        let directory = Directory { path, chosen, is_new, _lock: lock };
        directory.write("cluster.json", &directory.chosen)?;
        Ok(directory)
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file, whole or not at all.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let (path, new) = (self.join(name), self.join(&format!("{name}.new")));
        let write = || -> std::io::Result<()> {
            fs::write(&new, serde_json::to_vec_pretty(value)?)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}: is the disk full?", path.display()))
    }

    /// Reads a file; `None` if there is none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        read(&self.join(name))
    }

    /// Removes a file if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.join(name).display()))
            }
            _ => Ok(()),
        }
    }
}

/// Where the cluster of a directory listens; `None` if none runs.
pub fn running(path: &Path) -> Option<Running> {
    read(&path.join("running.json")).ok().flatten()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!("{} does not make sense; if the directory holds nothing you need, remove it", path.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A directory with other things in it is somebody's.
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.join("cluster.json").exists() {
        return Ok(());
    }
    let ours = ["lock", "log", "cluster.json.new"];
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        let name = entry?.file_name();
        if !ours.iter().any(|known| name == *known) {
            bail!(
                "{} holds {name:?} and no Ashlar cluster; name an empty directory with --dir, or a cluster's",
                path.display()
            );
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path.join("lock"));
    let file = file.with_context(|| format!("cannot write in {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let who = running(path).map_or_else(String::new, |running| format!(" (process {})", running.supervisor));
            bail!(
                "the cluster in {} runs already{who}; stop it there, or name another directory with --dir",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Choices for a new directory.
fn choose(wanted: &Wanted) -> Result<Chosen> {
    let pool = wanted.pool.unwrap_or(Redundancy::copies(3));
    let osds = wanted.osds.unwrap_or(4.max(pool.members().into()));
    let image_bytes = wanted.image_bytes.unwrap_or(10 << 30);
    refuse_too_few(osds, pool)?;
    // A quarter more than the whole image needs, and a log and superblocks beside it.
    let share = pool.raw_bytes(image_bytes) / u64::from(osds);
    let osd_bytes = wanted.osd_bytes.unwrap_or((share + share / 4 + (1 << 30)).next_multiple_of(1 << 20));
    let cluster = crate::admin::init::random()?;
    let immediate_commit = wanted.immediate_commit.unwrap_or_default();
    Ok(Chosen { format: FORMAT, cluster, osds, osd_bytes, image_bytes, pool: pool.to_string(), immediate_commit })
}

fn refuse_too_few(osds: u32, pool: Redundancy) -> Result<()> {
    let members = pool.members();
    if osds < u32::from(members) {
        bail!("{pool} needs {members} OSDs on different hosts, {osds} are too few; use --osds {members} or more");
    }
    Ok(())
}

/// An old directory keeps its choices, but for more OSDs.
fn grow(chosen: Chosen, wanted: &Wanted, path: &Path) -> Result<Chosen> {
    let path = path.display();
    if chosen.format > FORMAT {
        bail!("{path} was made by a newer Ashlar (format {}, this one knows {FORMAT}); use that one", chosen.format);
    }
    let osds = wanted.osds.unwrap_or(chosen.osds);
    if osds < chosen.osds {
        bail!("the cluster in {path} has {} OSDs; it cannot start with {osds}: leave --osds out", chosen.osds);
    }
    let same = |flag: &str, wanted: Option<u64>, has: u64| match wanted.filter(|wanted| *wanted != has) {
        Some(wanted) => bail!(
            "the cluster in {path} was made with {flag} {has}, not {wanted}; leave {flag} out, or name another --dir"
        ),
        None => Ok(()),
    };
    same("--size", wanted.image_bytes, chosen.image_bytes)?;
    same("--osd-size", wanted.osd_bytes, chosen.osd_bytes)?;
    if let Some(pool) = wanted.pool.map(|pool| pool.to_string()).filter(|pool| *pool != chosen.pool) {
        bail!(
            "the cluster in {path} has a pool that is {}, not {pool}; leave --pool out, or name another --dir",
            chosen.pool
        );
    }
    if let Some(wanted) = wanted.immediate_commit.filter(|wanted| *wanted != chosen.immediate_commit) {
        bail!(
            "the cluster in {path} was made with --immediate-commit {}, not {wanted}; leave it out, or name another --dir",
            chosen.immediate_commit
        );
    }
    Ok(Chosen { osds, ..chosen })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed with its contents.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("ashlar-layout-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refusal(path: &Path, wanted: &Wanted) -> String {
        Directory::open(path, wanted).err().map(|error| format!("{error:#}")).expect("it must be refused")
    }

    #[test]
    fn a_second_opening_finds_the_first_ones_choices() {
        let scratch = Scratch::new("again");
        let first =
            Directory::open(&scratch.0, &Wanted { osds: Some(5), ..Wanted::default() }).expect("new").chosen.clone();
        let second = Directory::open(&scratch.0, &Wanted::default()).expect("old").chosen.clone();
        assert_eq!(first, second);
        let grown =
            Directory::open(&scratch.0, &Wanted { osds: Some(6), ..Wanted::default() }).expect("grown").chosen.clone();
        assert_eq!((grown.osds, grown.cluster), (6, first.cluster));
    }

    #[test]
    fn a_locked_directory_is_refused() {
        let scratch = Scratch::new("locked");
        let _first = Directory::open(&scratch.0, &Wanted::default()).expect("new");
        assert!(refusal(&scratch.0, &Wanted::default()).contains("runs already"));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_untouched() {
        let scratch = Scratch::new("foreign");
        fs::create_dir_all(&scratch.0).expect("scratch");
        fs::write(scratch.0.join("thesis.txt"), "words").expect("scratch");
        assert!(refusal(&scratch.0, &Wanted::default()).contains("thesis.txt"));
        assert_eq!(fs::read_dir(&scratch.0).expect("scratch").count(), 1);
    }

    #[test]
    fn other_choices_than_the_directorys_are_refused() {
        let scratch = Scratch::new("other");
        drop(Directory::open(&scratch.0, &Wanted::default()).expect("new"));
        let cases = [
            (Wanted { osds: Some(1), ..Wanted::default() }, "leave --osds out"),
            (Wanted { image_bytes: Some(1 << 20), ..Wanted::default() }, "leave --size out"),
            (Wanted { osd_bytes: Some(1 << 20), ..Wanted::default() }, "leave --osd-size out"),
            (Wanted { pool: Some(Redundancy::copies(2)), ..Wanted::default() }, "leave --pool out"),
            (Wanted { immediate_commit: Some(ImmediateCommit::None), ..Wanted::default() }, "leave it out"),
        ];
        for (wanted, hint) in cases {
            assert!(refusal(&scratch.0, &wanted).contains(hint), "{wanted:?}");
        }
    }

    #[test]
    fn a_newer_and_a_damaged_directory_are_refused() {
        let scratch = Scratch::new("newer");
        let directory = Directory::open(&scratch.0, &Wanted::default()).expect("new");
        directory.write("cluster.json", &Chosen { format: FORMAT + 1, ..directory.chosen.clone() }).expect("scratch");
        drop(directory);
        assert!(refusal(&scratch.0, &Wanted::default()).contains("newer Ashlar"));
        fs::write(scratch.0.join("cluster.json"), "{").expect("scratch");
        assert!(refusal(&scratch.0, &Wanted::default()).contains("does not make sense"));
    }

    #[test]
    fn too_few_osds_for_the_pool_are_refused() {
        let scratch = Scratch::new("few");
        assert!(refusal(&scratch.0, &Wanted { osds: Some(2), ..Wanted::default() }).contains("--osds 3"));
        let pool = "ec:4+2".parse().ok();
        assert!(refusal(&scratch.0, &Wanted { osds: Some(5), pool, ..Wanted::default() }).contains("--osds 6"));
    }

    #[test]
    fn osds_and_their_sizes_fit_the_pool() {
        let chosen = |pool: &str| {
            let pool = Some(pool.parse().expect("good"));
            choose(&Wanted { pool, image_bytes: Some(12 << 30), ..Wanted::default() }).expect("it fits")
        };
        let (copies, small, wide) = (chosen("replicated:3"), chosen("ec:2+1"), chosen("ec:4+2"));
        assert_eq!((copies.osds, small.osds, wide.osds), (4, 4, 6));
        assert!(small.osd_bytes < copies.osd_bytes && wide.osd_bytes * 6 > 18 << 30);
    }
}

//! A directory for everything that a test writes.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How names of these directories begin; the process's number comes next.
pub const PREFIX: &str = "ashlar-jepsen-";
/// The same, of those that are kept.
const KEPT: &str = "ashlar-kept-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Set to anything, it keeps what a case left behind.
const KEEP: &str = "ASHLAR_KEEP";

/// A temporary directory, removed with its contents.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one, under the system's temporary directory.
    pub fn new(name: &str) -> Result<Scratch> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os(KEEP).is_some() {
            let name = self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let kept = self.0.with_file_name(name.replacen(PREFIX, KEPT, 1));
            // Under its old name the next run would clear it away.
            let _ = std::fs::rename(&self.0, &kept);
            return eprintln!("  kept: {}", kept.display());
        }
        // What cannot be removed is in a temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

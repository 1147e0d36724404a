//! How far a torture run is: a file, so that it goes on after an interruption.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Cycles: power cuts.
    pub cycles: u64,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Sectors that devices lost or mixed.
    pub sectors_lost: u64,
    /// Sessions: clusters that were built for it.
    pub sessions: u64,
    /// Draws everything, together with the session's number.
    pub seed: u64,
    #[serde(skip)]
    path: Option<PathBuf>,
}

impl Progress {
    /// That of a file, or a new one.
    pub fn open(path: Option<&Path>, seed: u64) -> Result<Progress> {
        let text = path.and_then(|path| std::fs::read_to_string(path).ok());
        let mut progress = match text {
            Some(text) => serde_json::from_str(&text).context("the file of progress makes no sense; remove it")?,
            None => Progress { seed, ..Progress::default() },
        };
        progress.path = path.map(Path::to_path_buf);
        Ok(progress)
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let next = path.with_extension("next");
        std::fs::write(&next, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(std::fs::rename(&next, path)?)
    }

    /// The seed of the next session.
    pub fn session_seed(&self) -> u64 {
        self.seed.wrapping_mul(1_000_003).wrapping_add(self.sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_run_goes_on_where_it_was() {
        let scratch = Scratch::new("progress").expect("a directory");
        let path = scratch.join("progress.json");
        let mut progress = Progress::open(Some(&path), 5).expect("new");
        (progress.cycles, progress.sessions) = (7, 2);
        progress.save().expect("written");
        let again = Progress::open(Some(&path), 9).expect("read");
        assert_eq!(again, progress);
        assert_eq!(again.session_seed(), 5_000_017);
    }
}

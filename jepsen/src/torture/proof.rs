//! The proof of a loss: what was acknowledged, what was found, and when.
//!
//! Owns: the times of what a rig did, and the folder (`--out`) that they are put into with the verdict. Times are UTC, of the
//! machine that the rig runs on.

use super::Judgement;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day's seconds.
const DAY_S: u64 = 86_400;

/// What a rig did, moment by moment.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    folder: Option<PathBuf>,
    events: String,
}

impl Proof {
    /// To be kept in a folder, if there is one.
    pub fn new(folder: Option<PathBuf>) -> Proof {
        Proof { folder, events: String::new() }
    }

    /// Something happened; people see it, too.
    pub fn event(&mut self, what: &str) {
        eprintln!("  {what}");
        self.events += &format!("{} {what}\n", stamp(SystemTime::now()));
    }

    /// Keeps a loss: the verdict, the events, and files with names of their own. Nothing is kept of a clean run.
    pub fn keep(&self, head: &str, judgement: &Judgement, files: &[(String, Vec<u8>)]) -> Result<()> {
        let Some(folder) = self.folder.as_ref().filter(|_| *judgement != Judgement::Clean) else { return Ok(()) };
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let words = judgement.words().iter().map(|line| format!("  {line}\n")).collect::<String>();
        let text = format!("{}\n{head}\n\n{}\n{words}", stamp(SystemTime::now()), judgement.title());
        put("judgement.txt", text.as_bytes())?;
        put("events.txt", self.events.as_bytes())?;
        files.iter().try_for_each(|(name, bytes)| put(name, bytes))?;
        eprintln!("the proof is in {}", folder.display());
        Ok(())
    }
}

/// A moment as `2026-01-31T09:05:59.123Z`.
pub fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / DAY_S, since.as_secs() % DAY_S);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Milliseconds since 1970, as a witness notes them.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).expect("fits for ages")
}

/// What such a number is.
pub fn stamp_ms(ms: u64) -> String {
    stamp(UNIX_EPOCH + Duration::from_millis(ms))
}

/// The date of a day since 1970, year by year and month by month.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(stamp_ms(ms), text);
        }
    }

    #[test]
    fn a_loss_is_kept_with_its_times_and_a_clean_run_leaves_nothing() {
        let scratch = Scratch::new("proof").expect("a directory");
        let folder = scratch.join("out");
        let mut proof = Proof::new(Some(folder.clone()));
        proof.event("power cut 3");
        proof.keep("seed 7", &Judgement::Clean, &[]).expect("nothing to do");
        assert!(!folder.exists());
        let files = [("found-5.bin".to_string(), vec![1, 2])];
        proof.keep("seed 7", &Judgement::OurBug(vec!["block 5 is gone".into()]), &files).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
        let judgement = read("judgement.txt");
        assert!(judgement.contains("seed 7") && judgement.contains("a bug\n  block 5 is gone"), "{judgement}");
        assert!(read("events.txt").ends_with("Z power cut 3\n") && read("found-5.bin").len() == 2);
        Proof::new(None).keep("", &Judgement::Missing(Vec::new()), &[]).expect("nowhere to put it");
    }
}

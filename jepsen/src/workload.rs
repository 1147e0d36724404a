//! What clients do while things break: each workload says what its operations are, and how a run of them is judged.
//!
//! | workload | what | judged by |
//! | --- | --- | --- |
//! | [`blocks`] | several clients write, read and discard the same blocks, with FLUSH and FUA | [`crate::check`] |
//! | [`blocks`], of cells | several clients write 64 bytes in the same sectors: a compare-and-swap underneath | the same |
//! | [`bank`] | transfers between accounts in several objects, with a journal and FLUSH as barrier | its sum, its order |
//! | [`names`] | images are created and removed by several administrators | a model for [`crate::check::search`] |

pub mod bank;
pub mod blocks;
pub mod names;

use crate::history::Outcome;
use crate::nbd::{Failure, Nbd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An answer that takes longer ends the connection: longer than any recovery here, shorter than a run.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
/// Answered before anything is done. README.md has the same list.
const REFUSALS: [(u32, &str); 4] = [(1, "EPERM"), (22, "EINVAL"), (75, "EOVERFLOW"), (95, "ENOTSUP")];

/// What a failure says of the operation.
pub fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::Answered(error) if REFUSALS.iter().any(|(refusal, _)| refusal == error) => {
            Outcome::Fail(failure.to_string())
        }
        _ => Outcome::Info(failure.to_string()),
    }
}

/// Connects, again and again until it is told to stop or `patience` is over.
pub fn connect(socket: &Path, export: &str, stop: &AtomicBool, patience: Duration) -> Option<Nbd> {
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) && begin.elapsed() < patience {
        if let Ok(nbd) = Nbd::connect(socket, export, PATIENCE) {
            return Some(nbd);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EIO (no such image), ENOSPC (no space, or a write out of range), ESHUTDOWN (fenced off): something may have been done.
    const UNKNOWN: [(u32, &str); 3] = [(5, "EIO"), (28, "ENOSPC"), (108, "ESHUTDOWN")];

    #[test]
    fn errors_mean_what_the_document_says() {
        let document = include_str!("../README.md");
        let row = |outcome: &str| {
            let begin = format!("| {outcome} | ");
            document.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("no row of {outcome}"))
        };
        for (error, name) in REFUSALS {
            assert!(matches!(outcome_of(&Failure::Answered(error)), Outcome::Fail(_)), "{name}");
            assert!(row("fail").contains(name) && !row("info").contains(name), "{name}");
        }
        for (error, name) in UNKNOWN {
            assert!(matches!(outcome_of(&Failure::Answered(error)), Outcome::Info(_)), "{name}");
            assert!(row("info").contains(name) && !row("fail").contains(name), "{name}");
        }
        assert!(matches!(outcome_of(&Failure::Gone("why".into())), Outcome::Info(_)));
    }
}

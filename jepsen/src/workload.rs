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
/// EPERM, EINVAL, EOVERFLOW, ENOTSUP: answered before anything is done.
const REFUSALS: [u32; 4] = [1, 22, 75, 95];

/// What a failure says of the operation.
pub fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::Answered(error) if REFUSALS.contains(error) => Outcome::Fail(failure.to_string()),
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

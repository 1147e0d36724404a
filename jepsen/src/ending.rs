//! How programs here end, for people and for scripts.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | everything that was asked for was done, and nothing is wrong |
//! | 1 | a promise is broken, or something failed |
//! | 2 | the arguments make no sense (clap's) |
//! | 3 | nothing is wrong, but not everything that was asked for was done: it says what was NOT tried |

use anyhow::Result;
use std::process::ExitCode;

/// The exit status of a run that is clean as far as it went.
pub const NOT_TRIED: u8 = 3;

/// What came of a run in which nothing is wrong, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All was done.
    Done(String),
    /// A part was not tried; the words say which.
    NotTried(String),
}

impl Ending {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Ending::Done(_) => 0,
            Ending::NotTried(_) => NOT_TRIED,
        }
    }
}

/// Says what was seen, or what went wrong.
pub fn tell(outcome: Result<Ending>) -> ExitCode {
    match outcome {
        Ok(ending) => {
            let (Ending::Done(seen) | Ending::NotTried(seen)) = &ending;
            println!("{seen}");
            ExitCode::from(ending.status())
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_has_a_status_of_its_own() {
        assert_eq!(Ending::Done("all".into()).status(), 0);
        let untried = Ending::NotTried("some".into()).status();
        assert!(![0, 1, 2].contains(&untried), "clap ends with 2, failures with 1");
    }
}

//! Faults that a file dictates, for tests of what is above disks and clocks. Not in a production build.
//!
//! `ASHLAR_FAULTS` names a file with [`Faults`] in JSON; without the file, or without the variable, there are none. It is
//! looked at again and again, so that a test changes it at any time, and a process that is started again finds it.
//!
//! Owns: the file, and the clock that runs wrongly. Does not own: what a disk does (`ring::faulty`). Invariant: the clock
//! never goes back, and changes its rate only.

use ashlar_core::time::Time;
use ashlar_faultinject::layer::Faults;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Names the file.
const PLACE: &str = "ASHLAR_FAULTS";
/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(10);

static OF_PROCESS: OnceLock<Option<&'static Watched>> = OnceLock::new();
static CLOCK: Mutex<Clock> = Mutex::new(Clock { real: Time(0), shown: Time(0), ppm: 0, latest: Time(0) });

/// What the file says now.
pub struct Watched {
    path: PathBuf,
    version: AtomicU64,
    faults: Mutex<Faults>,
}

impl Watched {
    /// The process's own, if its environment names a file.
    pub fn of_process() -> Option<&'static Watched> {
        *OF_PROCESS.get_or_init(|| {
            let watched: &'static Watched = Box::leak(Box::new(Watched::new(Path::new(&std::env::var_os(PLACE)?))));
            eprintln!("ashlar: disks and the clock misbehave as {} says", watched.path.display());
            std::thread::spawn(|| watched.watch());
            Some(watched)
        })
    }

    /// Of a file that is looked at once.
    pub fn new(path: &Path) -> Watched {
        let watched =
            Watched { path: path.to_path_buf(), version: AtomicU64::new(0), faults: Mutex::new(Faults::default()) };
        watched.look();
        watched
    }

    fn watch(&self) {
        loop {
            std::thread::sleep(PERIOD);
            self.look();
        }
    }

    /// Looks at the file again.
    pub fn look(&self) {
        let found = match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text),
            Err(_) => Ok(Faults::default()),
        };
        match found {
            Ok(found) if found != *self.now() => self.set(found),
            Ok(_) => {}
            // Whoever wrote it waits for something that would never come.
            Err(error) => panic!("{} makes no sense: {error}", self.path.display()),
        }
    }

    fn set(&self, faults: Faults) {
        *self.now() = faults;
        self.version.fetch_add(1, Ordering::Release);
    }

    fn now(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, if it is not what it was at this version; and the version that it is of.
    pub fn newer(&self, than: u64) -> Option<(u64, Faults)> {
        let version = self.version.load(Ordering::Acquire);
        (version != than).then(|| (version, *self.now()))
    }
}

/// A clock that runs too fast, or too slow, since a moment.
struct Clock {
    real: Time,
    shown: Time,
    ppm: i64,
    /// The latest time that it showed: a thread may have looked at the real clock, and come here after others.
    latest: Time,
}

impl Clock {
    fn show(&mut self, real: Time, ppm: i64) -> Time {
        if self.real == Time(0) {
            (self.real, self.shown) = (real, real);
        }
        let elapsed = real.since(self.real).0;
        let wrong = i128::from(elapsed) * i128::from(self.ppm) / 1_000_000;
        let shown = Time(self.shown.0 + elapsed.saturating_add_signed(i64::try_from(wrong).unwrap_or(0)));
        if ppm != self.ppm {
            (self.real, self.shown, self.ppm) = (real.max(self.real), shown, ppm);
        }
        self.latest = self.latest.max(shown);
        self.latest
    }
}

/// What the process's clock shows.
pub fn shown(real: Time) -> Time {
    let Some(watched) = Watched::of_process() else { return real };
    let ppm = watched.now().clock_ppm;
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner).show(real, ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_changes_its_rate_and_never_goes_back() {
        let mut clock = Clock { real: Time(0), shown: Time(0), ppm: 0, latest: Time(0) };
        let shown = [(1_000, 0), (2_000, 500_000), (4_000, 500_000), (4_000, -500_000), (6_000, -500_000), (5_000, 0)]
            .map(|(real, ppm)| clock.show(Time(real * 1_000), ppm).0 / 1_000);
        // The last is of a thread that looked at the real clock before another one, and came later.
        assert_eq!(shown, [1_000, 2_000, 5_000, 5_000, 6_000, 6_000]);
        assert_eq!(clock.show(Time(7_000_000), 0).0, 7_500_000);
    }

    #[test]
    fn what_the_file_says_is_seen_once() {
        let path = std::env::temp_dir().join(format!("ashlar-faults-{}", std::process::id()));
        let watched = Watched::new(&path);
        assert_eq!(watched.newer(0), None);
        std::fs::write(&path, r#"{"clock_ppm":5}"#).expect("a temporary file");
        watched.look();
        let (version, faults) = watched.newer(0).expect("it changed");
        assert_eq!((faults.clock_ppm, watched.newer(version)), (5, None));
        std::fs::remove_file(&path).expect("it is there");
        watched.look();
        assert_eq!(watched.newer(version).map(|(_, faults)| faults), Some(Faults::default()));
    }
}

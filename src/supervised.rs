//! A daemon that a supervisor started ends with it.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Names the supervisor's process in the environment of its children.
pub const SUPERVISOR: &str = "ASHLAR_SUPERVISOR";

/// Has the kernel end this process when the supervisor that started it dies, however it dies.
pub fn end_with_supervisor() {
    let Some(supervisor) = std::env::var(SUPERVISOR).ok().and_then(|pid| pid.parse::<i32>().ok()) else { return };
    if getppid().as_raw() == supervisor {
        prctl::set_pdeathsig(Signal::SIGTERM).expect("SIGTERM is a signal");
    }
    // It may have died before the line above took effect.
    if getppid().as_raw() != supervisor {
        eprintln!("ashlar: the supervisor (process {supervisor}) is gone already");
        std::process::exit(1);
    }
}

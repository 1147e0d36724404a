//! Small calls to the operating system that the standard library does not offer.
#![allow(unsafe_code)]

use ashlar_core::time::Time;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

/// The clock of nodes: monotonic, and it goes on while the machine is suspended.
pub fn now() -> Time {
    let nanos = clock(libc::CLOCK_BOOTTIME).as_nanos();
    Time(u64::try_from(nanos).expect("nanoseconds since boot fit for 584 years"))
}

/// CPU time used by the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result, for the duration of the call.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    assert!(result == 0, "clock {id} exists on every Linux since 2.6.39");
    let secs = u64::try_from(time.tv_sec).expect("these clocks start at 0");
    Duration::new(secs, u32::try_from(time.tv_nsec).expect("below 10^9"))
}

/// Random bits of the operating system: incarnations, session names, seeds.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on() {
        let (before, cpu_before) = (now(), thread_cpu());
        while thread_cpu() == cpu_before {}
        assert!(now() > before);
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
    }
}

//! Where effects of core's nodes meet the operating system.
//!
//! Owns: the io_uring loop of OSDs (disks and TCP in one ring), the tokio driver of all other nodes, clocks, random
//! seeds, the clients and the embedded server of the metadata store. The only crate with `unsafe`, in `os` and `ring`.
//! Does not own: any protocol decision.

pub mod counters;
pub mod driver;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
pub mod meta;
pub mod metrics;
pub mod net;
pub mod observe;
pub mod os;
pub mod ports;
pub mod ring;

#[cfg(test)]
mod testing;

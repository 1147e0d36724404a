//! The simulated world around Ashlar's core: the same state machines as in production, in one thread, in virtual time,
//! on disks, links and a metadata store that fail in every way that the seed says.
//!
//! Owns: time and the event heap ([`world`]), the checkers ([`check`]). Does not own: any
//! protocol decision (core's), or what a fault does to a device or a link (faultinject's).
//! Invariant: a run is a function of its seed and configuration; nothing here reads a clock or the environment but the
//! command line.
#![forbid(unsafe_code)]

pub mod bench;
pub mod case;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod counts;
pub mod determinism;
pub mod explain;
pub mod marks;
pub mod plan;
#[cfg(feature = "planted")]
pub mod plants;
pub mod run;
pub mod scenarios;
pub mod shrink;

pub mod world;

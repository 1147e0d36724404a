//! Fault models and plans, without I/O and without a clock: what breaks, how, and when.
//!
//! Owns: the simulated block device ([`disk`]), the same faults before a device that keeps its contents itself
//! ([`layer`]), the behaviour of links and of the network between hosts ([`link`]), the drawing of faults from a seed
//! ([`mix`]), lists of faults ([`plan`]). Does not own: time, nodes, or the decision whom a fault hits: the one who executes
//! a plan (the simulator's world, the injectors on real machines) says what the time is, and chooses targets.
//! All randomness comes from the generator that is passed in.
#![forbid(unsafe_code)]

pub mod disk;
pub mod layer;
pub mod link;
pub mod mix;
pub mod plan;

//! Tests of real processes from outside: built binaries, real NBD clients, real signals.
//!
//! Owns: starting and breaking clusters, driving programs that others wrote, judging what came back. Does not own: any
//! of the code under test; it knows the command line and the NBD protocol, nothing else.
//! Invariant: everything is under temporary directories with the process's number, and gone afterwards, processes too; what a
//! killed process leaves, the next one clears away.

pub mod arguments;
pub mod cases;
pub mod check;
pub mod cluster;
pub mod command;
pub mod command_line;
pub mod deployment;
pub mod devices;
pub mod disks;
#[cfg(test)]
mod documents;
pub mod ending;
pub mod fleet;
pub mod history;
pub mod hosts;
pub mod injector;
pub mod leftovers;
pub mod matrix;
pub mod nbd;
pub mod nemesis;
pub mod page;
pub mod planted;
pub mod platters;
pub mod registers;
pub mod relay;
pub mod scratch;
pub mod server;
pub mod soak;
pub mod tools;
pub mod torture;
pub mod untried;
pub mod workload;
pub mod writers;

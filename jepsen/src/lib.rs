//! Tests of real processes from outside: built binaries, real NBD clients, real signals.
//!
//! Owns: starting and breaking clusters, driving programs that others wrote, judging what came back. Does not own: any
//! of the code under test; it knows the command line and the NBD protocol, nothing else.
//! Invariant: everything is under one temporary directory, and gone afterwards, processes too, however a test ends.

pub mod cases;
pub mod check;
pub mod cluster;
pub mod command;
pub mod command_line;
pub mod deployment;
pub mod devices;
pub mod disks;
pub mod fleet;
pub mod history;
pub mod hosts;
pub mod injector;
pub mod nbd;
pub mod nemesis;
pub mod page;
pub mod planted;
pub mod registers;
pub mod relay;
pub mod scratch;
pub mod server;
pub mod soak;
pub mod tools;
pub mod torture;
pub mod workload;
pub mod writers;

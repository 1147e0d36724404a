//! Tests of real processes from outside: built binaries, real NBD clients, real signals.
//!
//! Owns: starting and breaking clusters, driving programs that others wrote, judging what came back. Does not own: any
//! of the code under test; it knows the command line and the NBD protocol, nothing else.
//! Invariant: everything is under one temporary directory, and gone afterwards, processes too, however a test ends.

pub mod cases;
pub mod cluster;
pub mod command;
pub mod disks;
pub mod nbd;
pub mod nemesis;
pub mod registers;
pub mod scratch;
pub mod server;
pub mod tools;
pub mod writers;

//! The NBD server on a disk in memory: a raw client that misbehaves, and real clients that behave.

mod memory;
mod raw;
mod tools;

//! The NBD server on a disk in memory: a raw client that misbehaves, real clients that behave, a network that does not.

mod memory;
mod network;
mod raw;
mod tools;

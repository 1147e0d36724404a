//! Every protocol decision of Ashlar, without I/O.
//!
//! Owns: placement groups, the object store, the metadata store's data model, failure verdicts, placement and the
//! client's retry logic, each as a deterministic state machine behind [`io::Node`].
//! Does not own: clocks, threads, sockets, files, randomness of the operating system. Nothing in this crate blocks,
//! reads a clock or touches the environment; the simulator and the production runtime execute its [`io::Effect`]s.
//!
//! A run is fully described by its seed, its configuration and the sequence of `(time, input)`.
#![forbid(unsafe_code)]
// Tests may print, read the environment and cast: what they do decides nothing.
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::disallowed_macros))]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]

pub mod buf;
pub mod client;
pub mod ec;
pub mod id;
pub mod io;
pub mod limits;
pub mod map;
pub mod meta;
pub mod mon;
pub mod msg;
pub mod osd;
pub mod pg;
pub mod planted;
pub mod rng;
pub mod slab;
pub mod stages;
pub mod store;
pub mod time;
pub mod timer;
pub mod wire;

//! The checkers: what a run must show.
//!
//! - [`register`]: every 4 KiB block is a linearizable register.
//! - [`torn`]: a write within one object is seen whole or not at all.
//! - [`history`]: what clients did and saw, the input of both.
//! - [`intervals`]: what an interval began with stays what later ones build on.
//! - [`contents`]: a version has one content, whoever makes it.
//! - [`records`]: what the metadata store says of a group only goes forward.
//! - [`serving`]: of each group, only the newest active primary answers reads.

pub mod contents;
pub mod history;
pub mod intervals;
pub mod records;
pub mod register;
pub mod serving;
pub mod torn;

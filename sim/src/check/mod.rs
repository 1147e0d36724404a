//! The checkers: what a run must show.
//!
//! - [`register`]: every 4 KiB block is a linearizable register.
//! - [`torn`]: a write within one object is seen whole or not at all.
//! - [`history`]: what clients did and saw, the input of both.
//! - [`serving`]: of each group, only the newest active primary answers reads.

pub mod history;
pub mod register;
pub mod serving;
pub mod torn;

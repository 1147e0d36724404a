//! The `ashlar` binary: reads the command line and hands over. No logic lives here.
#![forbid(unsafe_code)]

fn main() {}

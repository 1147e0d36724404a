//! Placement groups: peering, writes, reads, recovery, deletion.

pub mod msg;

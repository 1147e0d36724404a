//! Every limit in one place, each with its reason.

/// Largest read or write of one client request, in bytes: one object, at most.
pub const OBJECT_MAX_BYTES: u32 = 1 << 20;
/// Smallest object size, in bytes: below, metadata outweighs data.
pub const OBJECT_MIN_BYTES: u32 = 16 << 10;
/// Granularity of client reads and writes, and of the written-sectors bitmap, in bytes: the sector every guest knows.
pub const SECTOR_BYTES: u32 = 512;
/// Requests with unseen answers that a version may include; a primary holds back further writes of the object.
pub const REQUESTS_PER_OBJECT: usize = 64;
/// Operations of one metadata transaction: etcd's default.
pub const TXN_OPS: usize = 128;

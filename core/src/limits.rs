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
/// Largest typed header of a message, in bytes: a full map of 100,000 groups and 10,000 OSDs (about 3 MiB); longer lists
/// go in several messages.
pub const WIRE_HEADER_MAX_BYTES: usize = 4 << 20;
/// Largest body of a message, in bytes: one object.
pub const WIRE_BODY_MAX_BYTES: u32 = OBJECT_MAX_BYTES;
/// Longest text in a message, in bytes: names and addresses; file systems allow 255 for a name, DNS 253.
pub const TEXT_MAX_BYTES: usize = 4096;

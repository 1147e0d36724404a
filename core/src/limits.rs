//! Every limit in one place, each with its reason.

/// Largest copy or chunk of an object, in bytes: recovery moves it whole.
pub const BLOCK_MAX_BYTES: u32 = 1 << 20;
/// Largest object, in bytes, and so the largest read or write of one request: 16 chunks of the usual size.
pub const OBJECT_MAX_BYTES: u32 = 2 << 20;
/// Smallest object size, in bytes: below, metadata outweighs data.
pub const OBJECT_MIN_BYTES: u32 = 16 << 10;
/// Most data chunks of a stripe: wider stripes make each small write and each repair touch more disks than they save space.
pub const DATA_CHUNKS_MAX: u8 = 16;
/// Most parity chunks of a stripe: above, copies of whole pools on other sites serve better.
pub const PARITY_CHUNKS_MAX: u8 = 4;
/// Granularity of client reads and writes, and of the written-sectors bitmap, in bytes: the sector every guest knows.
pub const SECTOR_BYTES: u32 = 512;
/// Requests with unseen answers that a version may include; a primary holds back further writes of the object.
pub const REQUESTS_PER_OBJECT: usize = 64;
/// How many of these may have an older one of their session without an answer: a quarter of the places is left to so many
/// sessions, whose oldest requests would else wait for ever for places that their own younger ones hold.
pub const REQUESTS_OF_YOUNGER: usize = 48;
/// Operations of one metadata transaction: etcd's default.
pub const TXN_OPS: usize = 128;
/// Largest typed header of a message, in bytes: a full map of 100,000 groups and 10,000 OSDs (about 3 MiB); longer lists
/// go in several messages.
pub const WIRE_HEADER_MAX_BYTES: usize = 4 << 20;
/// Largest body of a message, in bytes: one object.
pub const WIRE_BODY_MAX_BYTES: u32 = OBJECT_MAX_BYTES;
/// Longest text in a message, in bytes: names and addresses; file systems allow 255 for a name, DNS 253.
pub const TEXT_MAX_BYTES: usize = 4096;

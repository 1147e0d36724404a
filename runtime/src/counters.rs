//! What a runtime did, for statistics and for counts per operation.

/// Counts since the start; they never go down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that entered the ring.
    pub enters: u64,
    /// Completed sends on connections.
    pub sends: u64,
    /// Completed receives on connections.
    pub receives: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Disk reads.
    pub disk_reads: u64,
    /// Disk writes.
    pub disk_writes: u64,
    /// Disk flushes.
    pub disk_flushes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_written_bytes: u64,
    /// Rounds of the loop.
    pub rounds: u64,
    /// Times that the loop slept.
    pub sleeps: u64,
    /// CPU time of the loop's thread, in nanoseconds.
    pub cpu_ns: u64,
}

impl Counters {
    /// By name, as statistics are published.
    pub fn named(&self) -> [(&'static str, u64); 15] {
        [
            ("enters", self.enters),
            ("sends", self.sends),
            ("receives", self.receives),
            ("messages_out", self.messages_out),
            ("messages_in", self.messages_in),
            ("bytes_out", self.bytes_out),
            ("bytes_in", self.bytes_in),
            ("disk_reads", self.disk_reads),
            ("disk_writes", self.disk_writes),
            ("disk_flushes", self.disk_flushes),
            ("disk_read_bytes", self.disk_read_bytes),
            ("disk_written_bytes", self.disk_written_bytes),
            ("rounds", self.rounds),
            ("sleeps", self.sleeps),
            ("cpu_ns", self.cpu_ns),
        ]
    }
}

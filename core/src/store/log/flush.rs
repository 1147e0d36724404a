//! When a completed write is durable.
//!
//! One [`Flusher`] per device. A flush covers what completed before it was submitted; with power-loss protection a
//! completion is durable by itself and nothing is flushed.

use super::ops::DataWrite;
use super::page::Sequence;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};

/// What a device promises, and what the store promises for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Completion is durable: no volatile cache, or one with power-loss protection.
    Plp,
    /// Volatile cache: acknowledged after a flush.
    Flush,
    /// Volatile cache: acknowledged on completion; durable at a sync, or some time later.
    Lazy,
}

/// A lazy store flushes after so many bytes: what a power loss may take at most, besides by time.
const LAZY_BYTES: u64 = 64 << 20;
/// A lazy store flushes after so long.
const LAZY_TIME: Duration = Duration::secs(1);

/// The flushes of one device.
#[derive(Clone, Debug)]
pub struct Flusher {
    durability: Durability,
    in_flight: bool,
    /// Data writes that completed and no flush covers yet.
    waiting: Vec<DataWrite>,
    /// Those that the flush in flight covers.
    covered: Vec<DataWrite>,
    /// Newest page that completed, and that the flush in flight covers.
    page: Sequence,
    covered_page: Sequence,
    durable_page: Sequence,
    bytes: u64,
    since: Option<Time>,
}

impl Flusher {
    /// Nothing is waiting.
    pub fn new(durability: Durability, page: Sequence) -> Self {
        Flusher {
            durability,
            in_flight: false,
            waiting: Vec::new(),
            covered: Vec::new(),
            page,
            covered_page: page,
            durable_page: page,
            bytes: 0,
            since: None,
        }
    }

    /// Whether a completion is durable by itself.
    pub fn is_durable_at_once(&self) -> bool {
        self.durability == Durability::Plp
    }

    /// Whether what is acknowledged may be lost with the power.
    pub fn is_lazy(&self) -> bool {
        self.durability == Durability::Lazy
    }

    /// Whether a completion is enough to acknowledge.
    pub fn acknowledges_completion(&self) -> bool {
        self.durability != Durability::Flush || planted(Bug::StoreAckBeforeFlush)
    }

    fn note(&mut self, now: Time, bytes: u64) {
        self.bytes += bytes;
        self.since.get_or_insert(now);
    }

    /// A data write completed and waits for a flush.
    pub fn data_completed(&mut self, now: Time, write: DataWrite, bytes: u64) {
        if self.in_flight && planted(Bug::StoreFlushCoversLater) {
            self.covered.push(write);
        } else {
            self.waiting.push(write);
        }
        self.note(now, bytes);
    }

    /// A page completed and waits for a flush.
    pub fn page_completed(&mut self, now: Time, page: Sequence, bytes: u64) {
        self.page = page;
        self.note(now, bytes);
    }

    /// Whether a flush shall be sent now; `pressed`: somebody waits for durability.
    pub fn is_due(&self, now: Time, pressed: bool) -> bool {
        let something = !self.waiting.is_empty() || self.page > self.durable_page;
        let pressed = pressed || self.durability == Durability::Flush || self.bytes >= LAZY_BYTES;
        something && !self.in_flight && (pressed || self.deadline().is_some_and(|at| at <= now))
    }

    /// Whether something is not durable yet.
    pub fn is_busy(&self) -> bool {
        self.in_flight || !self.waiting.is_empty() || self.page > self.durable_page
    }

    /// When a lazy flush is due.
    pub fn deadline(&self) -> Option<Time> {
        if self.in_flight || self.durability != Durability::Lazy {
            return None;
        }
        self.since.map(|since| since + LAZY_TIME)
    }

    /// The flush is sent.
    pub fn begin(&mut self) {
        self.in_flight = true;
        std::mem::swap(&mut self.waiting, &mut self.covered);
        self.covered_page = self.page;
        (self.bytes, self.since) = (0, None);
    }

    /// The flush is done: pages up to the returned one are durable, and the data writes moved to `durable`.
    pub fn end(&mut self, durable: &mut Vec<DataWrite>) -> Sequence {
        self.in_flight = false;
        self.durable_page = self.covered_page;
        durable.append(&mut self.covered);
        self.durable_page
    }
}

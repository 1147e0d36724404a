//! What happened: a rolling hash of every event, and, on demand, the last events as text.

use ashlar_core::time::Time;
use std::collections::VecDeque;
use std::ops::Range;

/// Events from one checkpoint of the hash to the next.
pub const CHECKPOINT_EVENTS: u64 = 1000;

/// Rolling hash; two runs that agree on it had the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash {
    hash: u64,
    events: u64,
}

impl Default for TraceHash {
    fn default() -> Self {
        TraceHash { hash: 0x6a09_e667_f3bc_c908, events: 0 }
    }
}

impl TraceHash {
    /// An event begins.
    pub fn begin(&mut self) {
        self.events += 1;
    }

    /// Takes in what an event was.
    pub fn mix(&mut self, words: &[u64]) {
        for word in words {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash.
    pub fn value(&self) -> u64 {
        self.hash ^ (self.hash >> 29)
    }
}

/// Keeps the last events as text; those that contain one of the words of interest are kept apart, so that they are not
/// crowded out.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    capacity: usize,
    /// Only these events.
    window: Option<Range<u64>>,
    words: Vec<String>,
    last: VecDeque<Line>,
    chosen: VecDeque<Line>,
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub event: u64,
    /// When.
    pub at: Time,
    /// What.
    pub text: String,
}

impl Recorder {
    /// Keeps `capacity` events, and as many that contain one of `words`.
    pub fn new(capacity: usize, words: Vec<String>) -> Self {
        Recorder { capacity, words, ..Recorder::default() }
    }

    /// Keeps everything of these events, and nothing else.
    pub fn of_window(window: Range<u64>) -> Self {
        Recorder { capacity: usize::MAX, window: Some(window), ..Recorder::default() }
    }

    /// Whether it keeps a window.
    pub fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// Whether anything of this event is kept.
    pub fn wants(&self, event: u64) -> bool {
        self.window.as_ref().is_none_or(|window| window.contains(&event))
    }

    /// Adds an event.
    pub fn push(&mut self, event: u64, at: Time, text: String) {
        let line = Line { event, at, text };
        if self.words.iter().any(|word| line.text.contains(word)) {
            keep(&mut self.chosen, line.clone(), self.capacity);
        }
        keep(&mut self.last, line, self.capacity);
    }

    /// The last events.
    pub fn last(&self) -> impl Iterator<Item = &Line> {
        self.last.iter()
    }

    /// The last events of interest.
    pub fn chosen(&self) -> impl Iterator<Item = &Line> {
        self.chosen.iter()
    }
}

fn keep(lines: &mut VecDeque<Line>, line: Line, capacity: usize) {
    if lines.len() == capacity {
        lines.pop_front();
    }
    lines.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_change_the_hash() {
        let hash = |events: &[&[u64]]| {
            let mut trace = TraceHash::default();
            events.iter().for_each(|words| trace.mix(words));
            trace.value()
        };
        assert_eq!(hash(&[&[1], &[2]]), hash(&[&[1], &[2]]));
        assert_ne!(hash(&[&[1], &[2]]), hash(&[&[2], &[1]]));
        assert_ne!(hash(&[&[0]]), hash(&[&[0], &[0]]));
    }

    #[test]
    fn events_of_interest_outlive_the_others() {
        let mut recorder = Recorder::new(2, vec!["object 7".into()]);
        recorder.push(1, Time(1), "write of object 7".into());
        for event in 2..10 {
            recorder.push(event, Time(event), "tick".into());
        }
        assert_eq!(recorder.chosen().map(|line| line.event).collect::<Vec<_>>(), [1]);
        assert_eq!(recorder.last().map(|line| line.event).collect::<Vec<_>>(), [8, 9]);
    }
}

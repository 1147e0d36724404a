//! What nodes tell observers, as log lines and counts.

use ashlar_core::io::{Event, Level};
use std::collections::BTreeMap;

/// Counts marks and passes log lines on.
#[derive(Debug, Default)]
pub struct Observer {
    marks: BTreeMap<&'static str, u64>,
}

impl Observer {
    /// Takes an event.
    pub fn observe(&mut self, event: Event) {
        match event {
            Event::Mark(name) => {
                *self.marks.entry(name).or_default() += 1;
                tracing::trace!(target: "ashlar::mark", "{name}");
            }
            Event::Log(level, text) => log(level, &text),
            Event::Fact(fact) => tracing::debug!(target: "ashlar::fact", "{fact:?}"),
        }
    }

    /// How often each named branch was taken.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        &self.marks
    }
}

fn log(level: Level, text: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "ashlar", "{text}"),
        Level::Info => tracing::info!(target: "ashlar", "{text}"),
        Level::Warn => tracing::warn!(target: "ashlar", "{text}"),
        Level::Error => tracing::error!(target: "ashlar", "{text}"),
    }
}

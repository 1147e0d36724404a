//! The OSD node on the ring.

use crate::figures::Shown;
use ashlar_core::io::{Env, Input, Node};
use ashlar_core::osd::{Config, Osd};
use ashlar_core::store::log::{LogStore, OpenConfig};
use ashlar_core::time::Time;
use ashlar_runtime::ring;

/// See the module.
pub struct Daemon {
    osd: Osd<LogStore>,
    shown: Option<Shown>,
}

impl Daemon {
    /// A node whose store begins to open.
    pub fn new(config: Config, open: OpenConfig, shown: Option<Shown>, env: &mut Env<'_>) -> Daemon {
        let store = LogStore::open(open, env);
        Daemon { osd: Osd::new(config, store, env.now), shown }
    }
}

impl Node for Daemon {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        self.osd.handle(env, input);
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        self.osd.end_of_round(env);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.osd.next_deadline()
    }

    fn check(&self) {
        self.osd.check();
    }
}

impl ring::Daemon for Daemon {
    fn stop(&mut self, env: &mut Env<'_>) {
        self.osd.stop(env);
    }

    fn is_stopped(&self) -> bool {
        self.osd.is_stopped()
    }

    fn set_counters(&mut self, counters: &[(&'static str, u64)]) {
        self.osd.set_counters(counters);
        if let Some(shown) = &self.shown {
            shown.set(self.osd.figures());
        }
    }
}

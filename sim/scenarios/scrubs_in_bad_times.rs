//! Scrubs go round and round while OSDs crash, groups move and clients write.
//! Goal: a scrub repairs what is damaged and nothing else: what it compares changes under it.
//! Method: every group is scrubbed each second, under the load; crashes, pauses, moves, lost connections.
//! Stands for: E16, H6

use super::three;
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.osds, config.scrub_interval_s) = (4, 1);
    let kinds = [(FaultKind::Crash, 2), (FaultKind::Pause, 3), (FaultKind::Reset, 1), (FaultKind::Reweight, 3)];
    config.mix = kinds.into_iter().fold(FaultMix::none(), |mix, (kind, every)| mix.with(kind, Duration::secs(every)));
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    crate::run::mix(c)
}

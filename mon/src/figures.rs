//! The monitor's figures for Prometheus: who is up, and where groups are beside where placement wants them.

use crate::Args;
use anyhow::Context;
use ashlar_core::mon::Mon;
use ashlar_runtime::driver::Driver;
use ashlar_runtime::metrics::{self, Metric, Value};
use std::sync::Arc;

/// Serves figures, if that is wanted.
pub fn serve(args: &Args, driver: &Driver<Mon>) -> anyhow::Result<()> {
    let Some(listen) = args.metrics else { return Ok(()) };
    let driver = driver.clone();
    let address = metrics::serve(listen, Arc::new(move || driver.with(|mon, _| of(mon))))
        .with_context(|| format!("cannot listen at {listen} (--metrics)"))?;
    tracing::info!("figures are at http://{address}/metrics");
    Ok(())
}

/// All there are.
pub fn of(mon: &Mon) -> Vec<Metric> {
    let count = |number: usize| Value::Gauge(number as f64);
    let map = mon.map();
    let (up, known) = (mon.osds_up(), map.osd_records().count());
    let out = map.osd_records().filter(|(_, record)| record.out).count();
    let osds = [("up", up), ("down", known.saturating_sub(up)), ("out", out)];
    let (mut placed, mut moving, mut undersized) = (0, 0, 0);
    for (_, group) in map.groups() {
        let acting: Vec<_> = group.acting.iter().map(|member| member.map(|member| member.osd)).collect();
        let kind = match acting.contains(&None) {
            true => &mut undersized,
            false if group.target.iter().all(|osd| osd.is_none() || acting.contains(osd)) => &mut placed,
            false => &mut moving,
        };
        *kind += 1;
    }
    let groups = [("placed", placed), ("moving", moving), ("undersized", undersized)];
    vec![
        Metric::one("monitor_leads", "Whether this monitor leads.", Value::Gauge(mon.is_leading().into())),
        Metric::by("osds", "OSDs that are known.", "state", osds.map(|(state, number)| (state, count(number)))),
        Metric::by("placement_groups", "Groups by where they are.", "kind", groups.map(|(kind, n)| (kind, count(n)))),
        Metric::one("pools", "Pools.", count(map.pools().count())),
        Metric::one("images", "Images.", count(map.images().count())),
        Metric::one(
            "configuration_errors",
            "Values in the metadata store that make no sense.",
            count(map.errors().count()),
        ),
    ]
}

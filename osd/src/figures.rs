//! The OSD's figures for Prometheus: a copy that its loop renews once a second while it works.

use crate::Args;
use anyhow::Context;
use ashlar_core::osd::{Figures, PoolFigures};
use ashlar_core::stages::Histogram;
use ashlar_runtime::metrics::{self, Metric, Value};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// The copy.
#[derive(Clone, Default)]
pub struct Shown(Arc<Mutex<Figures>>);

impl Shown {
    /// Renews it.
    pub fn set(&self, figures: Figures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    fn get(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves figures, if that is wanted.
pub fn serve(args: &Args) -> anyhow::Result<Option<Shown>> {
    let Some(listen) = args.metrics else { return Ok(None) };
    let (shown, osd) = (Shown::default(), args.id);
    let listen = listen.of(osd)?;
    let source = shown.clone();
    let address = metrics::serve(listen, Arc::new(move || of(osd, &source.get())))
        .with_context(|| format!("cannot listen at {listen} (--metrics)"))?;
    tracing::info!("figures are at http://{address}/metrics");
    Ok(Some(shown))
}

/// Where an OSD serves figures: an address, or one of which the port grows with the OSD's number, so that all OSDs of a host
/// can share a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    address: SocketAddr,
    is_by_id: bool,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let (address, is_by_id) = text.strip_suffix("+id").map_or((text, false), |address| (address, true));
        let address =
            address.parse().map_err(|_| "expected an address and a port, such as 10.0.0.1:9800 or 10.0.0.1:9800+id");
        Ok(Listen { address: address?, is_by_id })
    }
}

impl Listen {
    /// The address of the OSD with this number.
    fn of(self, osd: u32) -> anyhow::Result<SocketAddr> {
        let mut address = self.address;
        if self.is_by_id {
            let port = u16::try_from(osd).ok().and_then(|osd| address.port().checked_add(osd));
            address.set_port(port.with_context(|| format!("{}+{osd} (--metrics) is no port", self.address))?);
        }
        Ok(address)
    }
}

fn gauge(number: u64) -> Value {
    Value::Gauge(number as f64)
}

/// All there are, of an OSD of this number.
pub fn of(osd: u32, figures: &Figures) -> Vec<Metric> {
    let (client, store) = (&figures.client, &figures.store);
    let ops = [("read", Value::Counter(client.read_ops)), ("write", Value::Counter(client.write_ops))];
    let bytes = [("read", Value::Counter(client.read_bytes)), ("write", Value::Counter(client.write_bytes))];
    let objects = [("copies", gauge(store.objects)), ("tombstones", gauge(store.tombstones))];
    let trouble = [("degraded", figures.degraded), ("misplaced", figures.misplaced), ("unfound", figures.unfound)];
    let trouble = trouble.into_iter().map(|(kind, objects)| (kind, gauge(objects)));
    let log = [("used", gauge(store.log_used_bytes)), ("total", gauge(store.log_total_bytes))];
    let used = store.total_bytes.saturating_sub(store.free_bytes).saturating_sub(store.reserved_bytes);
    let data =
        [("free", store.free_bytes), ("reserved", store.reserved_bytes), ("total", store.total_bytes), ("used", used)];
    let data = data.map(|(kind, bytes)| (kind, gauge(bytes)));
    let states = figures.pgs.iter().map(|(state, groups)| (state.clone(), gauge(*groups)));
    let stages = figures.stages.named().map(|(name, histogram)| (name, Value::Latency(histogram.clone())));
    let runtime = figures.runtime.iter().map(|(name, counter)| (*name, Value::Counter(*counter)));
    let written = [("payload", store.written_bytes), ("device", store.device_written_bytes)];
    let by_pool = |name, help, of: fn(&PoolFigures) -> Value| {
        Metric::by(name, help, "pool", figures.pools.iter().map(|(name, pool)| (name.clone(), of(pool))))
    };
    vec![
        pool_seconds(figures),
        by_pool("pool_used_bytes", "Bytes that a pool's copies take.", |pool| gauge(pool.held.used_bytes)),
        by_pool("pool_copies", "A pool's copies.", |pool| gauge(pool.held.copies)),
        by_pool("pool_reads", "Reads of clients, by pool.", |pool| Value::Counter(pool.client.read_ops)),
        by_pool("pool_writes", "Writes of clients, by pool.", |pool| Value::Counter(pool.client.write_ops)),
        by_pool("pool_read_bytes", "Bytes read, by pool.", |pool| Value::Counter(pool.client.read_bytes)),
        by_pool("pool_written_bytes", "Bytes written, by pool.", |pool| Value::Counter(pool.client.write_bytes)),
        Metric::by("osd_info", "Which OSD this is.", "osd", [(osd.to_string(), Value::Gauge(1.0))]),
        Metric::by("client_operations", "Operations of clients that arrived.", "kind", ops),
        Metric::by("client_bytes", "Bytes that clients asked for, or wrote.", "kind", bytes),
        Metric::by("stage_seconds", "Time of operations, by stage.", "stage", stages),
        Metric::one("store_queue", "Operations that wait for the store.", gauge(figures.store_queue as u64)),
        Metric::by("pgs", "Placement groups that this OSD serves, by state.", "state", states),
        Metric::by("objects", "Objects of those groups that need care.", "kind", trouble),
        Metric::by("store_objects", "What the store holds.", "kind", objects),
        Metric::by("store_data_bytes", "Room for data: used, free, reserved for replacing, and all.", "kind", data),
        Metric::by("store_log_bytes", "The store's log; used is live and dead records.", "kind", log),
        Metric::by("store_written_bytes", "Bytes written.", "kind", written.map(|(k, n)| (k, Value::Counter(n)))),
        Metric::one("store_device_writes", "Writes to devices.", Value::Counter(store.device_writes)),
        Metric::one("store_device_flushes", "Flushes of devices.", Value::Counter(store.device_flushes)),
        Metric::one(
            "store_discarded_bytes",
            "Free bytes that devices were told of.",
            Value::Counter(store.discarded_bytes),
        ),
        Metric::one("store_damaged_copies", "Copies known to be damaged.", gauge(store.damaged)),
        Metric::by("runtime", "What the event loop did.", "what", runtime),
    ]
}

fn pool_seconds(figures: &Figures) -> Metric {
    let sample = |pool: &str, kind: &str, times: &Histogram| {
        (vec![("pool", pool.to_string()), ("kind", kind.to_string())], Value::Latency(times.clone()))
    };
    let pools = figures.served.iter();
    let samples = pools.flat_map(|(pool, of)| [sample(pool, "read", &of.read), sample(pool, "write", &of.write)]);
    let help = "Time of clients' operations at primaries, by pool.";
    Metric { name: "pool_seconds", help, samples: samples.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osds_of_a_host_share_a_configuration_and_have_ports_of_their_own() {
        let of = |text: &str, osd| text.parse::<Listen>().map_err(anyhow::Error::msg).and_then(|listen| listen.of(osd));
        assert_eq!(of("10.0.0.1:9800+id", 3).expect("a port").to_string(), "10.0.0.1:9803");
        assert_eq!(of("[::1]:9800", 3).expect("a port").to_string(), "[::1]:9800");
        assert!(of("10.0.0.1:9800+id", 60_000).expect_err("too high").to_string().contains("no port"));
        assert!(of("9800+id", 3).expect_err("no address").to_string().contains("such as 10.0.0.1:9800"));
    }
}

//! What the NBD server knows of its work, for Prometheus: requests by kind and how long they took, as its clients see it.

use super::{Command, NbdArgs};
use crate::Client;
use anyhow::Context;
use ashlar_core::client::ClientStats;
use ashlar_core::stages::{ClientStages, Histogram};
use ashlar_core::time;
use ashlar_runtime::metrics::{self, Metric, Value};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Kinds of requests that are told apart.
const KINDS: [&str; 4] = ["read", "write", "flush", "other"];

/// Requests that were answered. Clones share the count.
#[derive(Clone, Default)]
pub struct Served(Arc<Mutex<[Histogram; KINDS.len()]>>);

impl Served {
    /// Counts one.
    pub fn count(&self, command: Command, took: Duration) {
        let place = match command {
            Command::Read => 0,
            Command::Write => 1,
            Command::Flush => 2,
            _ => 3,
        };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[place].record(time::Duration(nanos));
    }

    fn by_kind(&self) -> Vec<(&'static str, Value)> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        KINDS.into_iter().zip(counted).map(|(kind, histogram)| (kind, Value::Latency(histogram))).collect()
    }
}

/// Serves figures, if that is wanted.
pub fn serve(args: &NbdArgs, client: &Client, served: &Served) -> anyhow::Result<()> {
    let Some(listen) = args.metrics else { return Ok(()) };
    let (client, served) = (client.clone(), served.clone());
    let address = metrics::serve(listen, Arc::new(move || of(&Figures::of(&client), &served)))
        .with_context(|| format!("cannot listen on {listen} (--metrics)"))?;
    tracing::info!("figures are at http://{address}/metrics");
    Ok(())
}

/// What a client knows of its work.
#[derive(Default)]
pub struct Figures {
    stats: ClientStats,
    stages: ClientStages,
    is_fenced: bool,
}

impl Figures {
    fn of(client: &Client) -> Figures {
        Figures { stats: client.stats(), stages: client.stages(), is_fenced: client.is_fenced() }
    }
}

/// All there are.
pub fn of(client: &Figures, served: &Served) -> Vec<Metric> {
    let stats = client.stats;
    let stages = client.stages.named().map(|(name, times)| (name, Value::Latency(times.clone())));
    let requests = [
        ("sent", stats.requests),
        ("retried", stats.retries),
        ("stale_replies", stats.stale_replies),
        ("damaged_replies", stats.damaged_replies),
        ("replayed", stats.replays),
        ("syncs", stats.syncs),
    ];
    let requests = requests.map(|(kind, count)| (kind, Value::Counter(count)));
    vec![
        Metric::by("nbd_request_seconds", "Time of NBD requests, as clients see it.", "kind", served.by_kind()),
        Metric::by("client_stage_seconds", "Time of requests about objects, by stage.", "stage", stages),
        Metric::by("cluster_requests", "Requests to the cluster.", "kind", requests),
        Metric::one(
            "cluster_links_lost",
            "Connections to the cluster that were lost.",
            Value::Counter(stats.links_lost),
        ),
        Metric::one("client_fenced", "Whether this client was fenced off.", Value::Gauge(client.is_fenced.into())),
    ]
}

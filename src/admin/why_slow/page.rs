//! Reading back what an NBD server tells Prometheus of its queue.

use anyhow::{Context, Result, ensure};
use ashlar_core::stages::{ClientStages, Histogram};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For a page of figures, from a daemon that is busy.
const PATIENCE: Duration = Duration::from_secs(3);
/// Microseconds in a second: Prometheus has seconds.
const MICROS: f64 = 1e6;

/// Where the time of requests of the NBD server at this address went since its start.
pub fn client_stages(address: &str) -> Result<ClientStages> {
    let page = get(address).with_context(|| format!("cannot read the figures at {address} (its --metrics)"))?;
    let stages = ClientStages { queue: stage(&page, "queue"), cluster: stage(&page, "cluster") };
    let is_client = page.contains("ashlar_client_stage_seconds_count");
    ensure!(is_client, "{address} serves no figures of a client; name NBD servers");
    Ok(stages)
}

fn get(address: &str) -> Result<String> {
    let address = address.to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ashlar\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// One stage of the page. Prometheus' buckets contain those below them.
fn stage(page: &str, stage: &str) -> Histogram {
    let label = format!("stage=\"{stage}\"");
    let of = |what: &'static str| {
        let prefix = format!("ashlar_client_stage_seconds_{what}{{");
        let lines = page.lines().filter(move |line| line.starts_with(&prefix));
        let label = label.clone();
        lines.filter(move |line| line.contains(&label)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let (count, sum) = (of("count").next().unwrap_or(0.0), of("sum").next().unwrap_or(0.0));
    let mut histogram = Histogram { count: count as u64, sum_us: (sum * MICROS) as u64, ..Histogram::default() };
    let mut below = 0;
    for (bucket, up_to) in histogram.buckets.iter_mut().zip(of("bucket")) {
        *bucket = (up_to as u64).saturating_sub(below);
        below = up_to as u64;
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::time;
    use ashlar_runtime::metrics::{self, Metric, Value};
    use std::net::SocketAddr;
    use std::sync::Arc;

    #[test]
    fn what_a_server_tells_is_read_back() {
        let mut stages = ClientStages::default();
        (0..5).for_each(|_| stages.queue.record(time::Duration::micros(100)));
        stages.cluster.record(time::Duration::millis(3));
        let told = stages.clone();
        let source = move || {
            let named = told.named().map(|(name, times)| (name, Value::Latency(times.clone())));
            vec![Metric::by("client_stage_seconds", "Time.", "stage", named)]
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = metrics::serve(any, Arc::new(source)).expect("a free port").to_string();
        assert_eq!(client_stages(&address).expect("it answers"), stages);
        let other = metrics::serve(any, Arc::new(Vec::new)).expect("a free port").to_string();
        let error = client_stages(&other).expect_err("no figures of a client").to_string();
        assert!(error.contains("name NBD servers"), "{error}");
    }
}

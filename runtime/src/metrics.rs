//! What daemons know of their work, for Prometheus: a page of text over HTTP.
//!
//! Owns the listening thread and the format. Does not own figures: who serves gives them for each request.
//! Invariant: a slow or silent reader holds up other readers for seconds at most, and the daemon not at all.

use ashlar_core::stages::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A reader that takes longer is left.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer requests are not of Prometheus.
const REQUEST_MAX_BYTES: usize = 8 << 10;
/// Microseconds in a second: Prometheus wants seconds.
const MICROS: f64 = 1e6;

/// A figure.
#[derive(Clone, Debug)]
pub enum Value {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(f64),
    /// How long something took.
    Latency(Histogram),
}

/// Figures of one kind, told apart by labels.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name, without `ashlar_`; units last.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Values with their labels.
    pub samples: Vec<(Vec<(&'static str, String)>, Value)>,
}

impl Metric {
    /// One value without labels.
    pub fn one(name: &'static str, help: &'static str, value: Value) -> Metric {
        Metric { name, help, samples: vec![(Vec::new(), value)] }
    }

    /// Values that one label tells apart.
    pub fn by<L: Into<String>>(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (L, Value)>,
    ) -> Metric {
        let sample = |(of, value): (L, Value)| (vec![(label, of.into())], value);
        Metric { name, help, samples: values.into_iter().map(sample).collect() }
    }
}

/// Gives all figures as of now.
pub type Source = Arc<dyn Fn() -> Vec<Metric> + Send + Sync>;

/// Serves figures at an address until the process ends; gives the address (port 0: a free one).
pub fn serve(listen: SocketAddr, source: Source) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    let mut registry = Registry::with_prefix("ashlar");
    registry.register_collector(Box::new(Figures(source)));
    let run = move || {
        for stream in listener.incoming() {
            // A reader that went away, or no descriptor left: the next one may have more luck.
            if stream.and_then(|stream| answer(stream, &registry)).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    std::thread::Builder::new().name("ashlar-metrics".into()).spawn(run)?;
    Ok(address)
}

fn answer(mut stream: TcpStream, registry: &Registry) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&part[..count]),
        }
        if request.len() > REQUEST_MAX_BYTES {
            return Ok(());
        }
    }
    let (status, kind, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ") {
        let mut page = String::new();
        text::encode(&mut page, registry).map_err(io::Error::other)?;
        ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", page)
    } else {
        ("404 Not Found", "text/plain", "figures are at /metrics\n".to_string())
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
}

struct Figures(Source);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for metric in (self.0)() {
            let Some((_, first)) = metric.samples.first() else { continue };
            let kind = match first {
                Value::Counter(_) => MetricType::Counter,
                Value::Gauge(_) => MetricType::Gauge,
                Value::Latency(_) => MetricType::Histogram,
            };
            let mut all = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (labels, value) in &metric.samples {
                match labels.is_empty() {
                    true => encode(&mut all, value)?,
                    false => encode(&mut all.encode_family(labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Counter(count) => encoder.encode_counter::<NoLabelSet, u64, f64>(count, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Latency(histogram) => {
            let last = histogram.buckets.len() - 1;
            let end = |place| if place == last { f64::MAX } else { Histogram::bound_us(place) as f64 / MICROS };
            let buckets: Vec<_> = histogram.buckets.iter().enumerate().map(|(place, n)| (end(place), *n)).collect();
            let sum = histogram.sum_us as f64 / MICROS;
            encoder.encode_histogram::<NoLabelSet>(sum, histogram.count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::time::Duration as Span;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn figures_are_served_as_prometheus_reads_them() {
        let mut latency = Histogram::default();
        latency.record(Span::micros(100));
        latency.record(Span::millis(3));
        let metrics = move || {
            vec![
                Metric::by("ops", "Operations.", "kind", [("read", Value::Counter(3)), ("write", Value::Counter(4))]),
                Metric::one("used_bytes", "Used.", Value::Gauge(1.5)),
                Metric::by("stage_seconds", "Time.", "stage", [("write", Value::Latency(latency.clone()))]),
                Metric::by("nothing", "Nobody.", "kind", [("x", Value::Gauge(0.0)); 0]),
            ]
        };
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(metrics)).expect("a free port");
        // One that says nothing is not waited for.
        let _silent = TcpStream::connect(address).expect("it listens");
        let page = get(address, "/metrics");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        for line in [
            "# TYPE ashlar_ops counter",
            "ashlar_ops_total{kind=\"write\"} 4",
            "ashlar_used_bytes 1.5",
            "ashlar_stage_seconds_bucket{le=\"0.000128\",stage=\"write\"} 1",
            "ashlar_stage_seconds_bucket{le=\"+Inf\",stage=\"write\"} 2",
            "ashlar_stage_seconds_count{stage=\"write\"} 2",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert!(!page.contains("nothing"));
        assert!(get(address, "/other").starts_with("HTTP/1.1 404"));
    }
}

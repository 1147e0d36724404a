//! The dashboard beside the figures: whatever it shows, some daemon serves.

use ashlar_core::id::{ClusterUuid, Incarnation};
use ashlar_core::mon::{Mon, MonConfig};
use ashlar_core::osd::{Figures, PoolFigures};
use ashlar_core::stages::Served;
use ashlar_runtime::metrics::{Metric, Value};
use std::collections::{BTreeMap, BTreeSet};

const DASHBOARD: &str = include_str!("../deploy/grafana.json");

/// What all daemons serve, with its labels: `stage="write"`, or only `stage=` where the value depends on what there is.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    let pool = "vms".to_string();
    let figures = Figures {
        pools: BTreeMap::from([(pool.clone(), PoolFigures::default())]),
        served: BTreeMap::from([(pool, Served::default())]),
        pgs: BTreeMap::from([("active".into(), 1)]),
        runtime: BTreeMap::from([("cpu_ns", 1)]),
        ..Figures::default()
    };
    let (incarnation, cluster) = (Incarnation(1), ClusterUuid(1));
    let mon = Mon::new(MonConfig { incarnation, address: "h:1".into(), cluster, session_ttl_s: 1 });
    let client = (ashlar_client::nbd::figures::Figures::default(), ashlar_client::nbd::figures::Served::default());
    let mut all = ashlar_osd::figures::of(1, &figures);
    all.extend(ashlar_mon::figures::of(&mon));
    all.extend(ashlar_client::nbd::figures::of(&client.0, &client.1));
    all.iter().flat_map(names).collect()
}

/// Names that Prometheus gives a figure, each with all labels.
fn names(metric: &Metric) -> Vec<(String, BTreeSet<String>)> {
    let labels = metric.samples.iter().flat_map(|(labels, _)| labels);
    let labels: BTreeSet<String> = labels.map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let endings: &[&str] = match metric.samples.first() {
        Some((_, Value::Counter(_))) => &["_total"],
        Some((_, Value::Gauge(_))) => &[""],
        Some((_, Value::Latency(_))) => &["_bucket", "_sum", "_count"],
        None => panic!("{} has no sample here", metric.name),
    };
    endings.iter().map(|ending| (format!("ashlar_{}{ending}", metric.name), labels.clone())).collect()
}

/// Each figure that an expression names, with the labels whose values it asks for.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (start, _) in expression.match_indices("ashlar_") {
        let rest = &expression[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let braces = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = braces.map_or("", |(labels, _)| labels).split(',').map(str::trim);
        // Whatever is compared by pattern or excluded depends on what there is.
        let exact = labels.filter(|label| label.contains("=\"") && !label.contains("!="));
        found.push((rest[..end].to_string(), exact.map(str::to_string).collect()));
    }
    found
}

fn expressions() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_string();
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let shown = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("targets").iter();
        targets.map(|target| (text(&panel["title"]), text(&target["expr"])))
    });
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let variables = variables.filter(|variable| variable["type"] == "query");
    shown.chain(variables.map(|variable| (text(&variable["name"]), text(&variable["query"])))).collect()
}

#[test]
fn every_figure_of_the_dashboard_is_served_by_some_daemon() {
    let (served, mut seen) = (served(), 0);
    for (title, expression) in expressions() {
        let figures = named(&expression);
        assert!(!figures.is_empty(), "'{title}' shows nothing: {expression}");
        for (name, labels) in figures {
            let known = served.get(&name).unwrap_or_else(|| panic!("'{title}': nobody serves {name}"));
            for label in labels {
                assert!(known.contains(&label), "'{title}': {name} has no {label}, but {known:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} figures");
}

#[test]
fn names_and_labels_are_found_in_expressions() {
    let found = named("rate(ashlar_a_total{x=\"1\", y=~\"$y\", z!=\"2\"}[5m]) / ashlar_b");
    assert_eq!(found, [("ashlar_a_total".to_string(), vec!["x=\"1\"".to_string()]), ("ashlar_b".into(), vec![])]);
}

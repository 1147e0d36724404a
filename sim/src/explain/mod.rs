//! A run as a page: who told whom what, and when, beside what was broken.
//!
//! The page is one file without references to others, so it opens anywhere, without a network. What it shows is chosen
//! in it: by object, group, node and time; it begins with what the failure is about.

use crate::case::Case;
use crate::run::{Recording, Report, Tale, run_case};
use crate::scenarios::Scenario;
use serde_json::{Value, json};

const PAGE: &str = include_str!("page.html");
/// Where the page takes its data.
const PLACE: &str = "{{DATA}}";
/// Messages and moments of a run that are put into a page: the last ones. More make browsers slow.
const ITEMS_MAX: usize = 60_000;

/// Runs a case and tells it as a page.
pub fn page(case: &Case, scenario: &Scenario) -> (Report, String) {
    let report = run_case(case, scenario, &Recording { tale: true, ..Recording::default() });
    let data = data(case, &report);
    // A script ends at the first end tag, wherever that is.
    let text = data.to_string().replace("</", "<\\/");
    (report, PAGE.replace(PLACE, &text))
}

fn data(case: &Case, report: &Report) -> Value {
    let tale = report.tale.as_ref().expect("it was asked for");
    let failure = report.failure.as_ref();
    let object = failure.and_then(|failure| failure.object.clone());
    json!({
        "title": format!("{}, seed {}", case.scenario, case.config.seed),
        "config": report.config,
        "broken": failure.map(|failure| failure.what.clone()),
        "block": failure.and_then(|failure| failure.block),
        "object": object.as_ref().map(|(object, _)| object),
        "pg": object.as_ref().map(|(_, pg)| pg),
        "ops": failure.map(|failure| failure.ops.clone()).unwrap_or_default(),
        "warnings": failure.map(|failure| failure.warnings.clone()).unwrap_or_default(),
        "nodes": tale.nodes,
        "operations": operations(tale),
        "messages": messages(tale),
        "scenes": scenes(tale),
        "end": report.simulated_ns / 1000,
    })
}

fn operations(tale: &Tale) -> Vec<Value> {
    let told = tale.operations.iter();
    let micros = |at: ashlar_core::time::Time| at.0 as f64 / 1e3;
    told.map(|told| json!([told.op, told.node, micros(told.start), told.end.map(micros), told.failed, told.text]))
        .collect()
}

fn messages(tale: &Tale) -> Vec<Value> {
    let skipped = tale.story.passages.len().saturating_sub(ITEMS_MAX);
    let micros = |at: ashlar_core::time::Time| at.0 as f64 / 1e3;
    let passages = tale.story.passages.iter().skip(skipped);
    passages.map(|p| json!([p.from.0, p.to.0, micros(p.sent), p.arrived.map(micros), p.event, p.text])).collect()
}

fn scenes(tale: &Tale) -> Vec<Value> {
    let skipped = tale.story.scenes.len().saturating_sub(ITEMS_MAX);
    let scenes = tale.story.scenes.iter().skip(skipped);
    let node = |scene: &crate::world::Scene| scene.node.map_or(-1, |node| i64::from(node.0));
    scenes.map(|scene| json!([node(scene), scene.at.0 as f64 / 1e3, scene.event, scene.text])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Choice;

    #[test]
    fn a_page_holds_the_run_and_refers_to_nothing_else() {
        let mix = Scenario::named("mix").expect("the default scenario");
        let (report, page) = page(&Case::drawn(4, mix, Choice::default()), mix);
        let tale = report.tale.expect("it was asked for");
        assert!(tale.story.passages.len() > 100 && !tale.story.scenes.is_empty());
        assert!(tale.story.passages.iter().any(|passage| passage.arrived.is_some()));
        assert!(!page.contains(PLACE) && page.contains("osd.1"));
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}

//! A run as one page: latency over time, faults as bands, the verdict, and what happened to the block it is about.
//!
//! The page is one file without references to others, so it opens anywhere, without a network.

use crate::fleet::Shape;
use crate::history::{Call, Outcome};
use crate::soak::Told;
use ashlar_sim::check::history::{Block, What, tag};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("page.html");
/// Where the page takes its data.
const PLACE: &str = "{{DATA}}";
/// Operations that are drawn: more make browsers slow. Slow ones are never left out.
const DOTS_MAX: usize = 40_000;
/// What counts as slow, in microseconds.
const SLOW_US: u64 = 100_000;
/// Operations of a block that are drawn, around those that show the failure.
const TIMELINE_MAX: usize = 400;

/// The page.
pub fn page(shape: &Shape, told: &Told) -> String {
    // A script ends at the first end tag, wherever that is.
    let text = data(shape, told).to_string().replace("</", "<\\/");
    PAGE.replace(PLACE, &text)
}

fn data(shape: &Shape, told: &Told) -> Value {
    let since = |at: std::time::Instant| at.saturating_duration_since(told.begin).as_secs_f64();
    let bands = told.bands.iter().map(|band| json!([band.kind, band.what, since(band.from), since(band.to)]));
    let block = told.verdict.findings.iter().find_map(|finding| finding.block).unwrap_or_else(|| busiest(told));
    let hot: BTreeSet<u32> = told.verdict.findings.iter().flat_map(|finding| finding.ops.iter().copied()).collect();
    json!({
        "title": format!("{}, immediate_commit {}, {} OSDs", shape.pool, shape.immediate_commit, shape.osds),
        "clean": told.is_clean(),
        "summary": told.to_string(),
        "complaints": told.complaints(),
        "untried": told.untried,
        "bands": bands.collect::<Vec<_>>(),
        "dots": dots(told),
        "block": format!("image {}, block {}", block.image, block.index),
        "timeline": timeline(told, block, &hot),
    })
}

/// Without a failure, the block on which most was done is shown.
fn busiest(told: &Told) -> Block {
    let registers = told.log.registers();
    registers.iter().max_by_key(|(_, ops)| ops.len()).map_or(Block { image: 0, index: 0 }, |(block, _)| *block)
}

fn kind_of(call: &Call) -> u8 {
    match call.what {
        What::Write => 0,
        What::Read(_) => 1,
        What::Discard => 2,
    }
}

fn outcome_of(call: &Call) -> u8 {
    match call.outcome {
        Outcome::Ok => 0,
        Outcome::Fail(_) => 1,
        Outcome::Info(_) | Outcome::Open => 2,
    }
}

fn dots(told: &Told) -> Vec<Value> {
    let calls = &told.log.calls;
    let step = calls.len() / DOTS_MAX + 1;
    let took = |call: &Call| call.ended_us.unwrap_or(call.began_us) - call.began_us;
    let drawn =
        calls.iter().enumerate().filter(|(n, call)| n % step == 0 || took(call) > SLOW_US || outcome_of(call) > 0);
    drawn.map(|(_, call)| json!([call.began_us, took(call), kind_of(call), outcome_of(call)])).collect()
}

fn timeline(told: &Told, block: Block, hot: &BTreeSet<u32>) -> Vec<Value> {
    let covers = |call: &Call| {
        call.first.image == block.image && (call.first.index..call.first.index + call.blocks).contains(&block.index)
    };
    let calls = (0u32..).zip(&told.log.calls).filter(|(_, call)| covers(call));
    let mut rows: Vec<(u32, &Call)> = calls.collect();
    // Those before the last that shows the failure matter most.
    let end =
        rows.iter().rposition(|(number, _)| hot.contains(number)).map_or(rows.len(), |at| (at + 20).min(rows.len()));
    rows = rows[end.saturating_sub(TIMELINE_MAX)..end].to_vec();
    let place = |call: &Call| (block.index - call.first.index) as usize;
    let value = |number: u32, call: &Call| match &call.what {
        What::Write => tag(number, block).to_string(),
        What::Discard => "0".into(),
        What::Read(values) => values.get(place(call)).map_or_else(|| "nothing".into(), u64::to_string),
    };
    let writer = |text: String| match text.parse::<u64>() {
        Ok(0) => "zeroes".into(),
        Ok(value) => format!("what operation {} wrote", (value >> 32).saturating_sub(1)),
        Err(_) => text,
    };
    rows.into_iter()
        .map(|(number, call)| {
            let end = call.ended_us.filter(|_| call.outcome == Outcome::Ok);
            let told = match call.what {
                What::Write => format!("writes operation {number}"),
                What::Discard => "writes zeroes".into(),
                What::Read(_) => format!("reads {}", writer(value(number, call))),
            };
            json!([
                number,
                call.worker,
                call.began_us,
                end,
                kind_of(call),
                outcome_of(call),
                told,
                hot.contains(&number)
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::judge;
    use crate::history::Recorder;
    use crate::writers::Promise;
    use ashlar_faultinject::plan::FaultPlan;
    use std::time::Instant;

    #[test]
    fn a_page_shows_the_block_that_was_lost_and_refers_to_nothing_else() {
        let recorder = Recorder::default();
        let block = Block { image: 1, index: 9 };
        let write = recorder.call(7, 1, block, 1, What::Write);
        recorder.end(write, Outcome::Ok);
        let read = recorder.call(8, 1, block, 1, What::Read(Vec::new()));
        recorder.read(read, &[0; 4096]);
        let log = recorder.take();
        let verdict = judge(&log, Promise::All);
        let told = Told {
            log,
            verdict,
            wrong: vec!["a </script> in words".into()],
            untried: vec!["wipe (its turn never came)".into()],
            bands: Vec::new(),
            faults: FaultPlan::default(),
            others: [0, 0],
            begin: Instant::now(),
        };
        let page = page(&Shape::of("replicated:3", "all"), &told);
        assert!(page.contains("image 1, block 9") && page.contains("reads zeroes") && page.contains("\"clean\":false"));
        assert!(page.contains(r#""untried":["wipe (its turn never came)"]"#) && PAGE.contains("data.untried"));
        assert!(!page.contains(PLACE) && !page.contains("a </script>"));
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}

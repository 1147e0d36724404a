//! What one operation costs is what docs/protocol.md says.

use ashlar_sim::counts::{HEADING, count_all};

#[test]
fn operations_cost_what_the_protocol_promises() {
    let lines = count_all().unwrap_or_else(|finding| panic!("{}", finding.what));
    println!("{HEADING}");
    lines.iter().for_each(|line| println!("{line}"));
    let broken: Vec<String> = lines.iter().filter(|line| !line.is_kept()).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "promised and counted differ:\n{}", broken.join("\n"));
}

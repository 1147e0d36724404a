//! Daemons on hosts that a file names, here through wrappers that enter network namespaces, as ssh would enter hosts.

use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use ashlar_jepsen::hosts::{self, Homes, Hosts};
use ashlar_jepsen::injector::Lines;
use ashlar_jepsen::scratch::Scratch;
use ashlar_jepsen::soak::{self, Plan};

#[test]
fn a_cluster_on_hosts_of_a_file_survives_kills_stops_and_cuts() {
    if !hosts::are_possible() {
        return eprintln!("SKIPPED: needs root, ip and nft");
    }
    let scratch = Scratch::new("remote").expect("a directory");
    let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
    let spaces = Hosts::new(&names).expect("three hosts");
    let line = |name: &String| {
        let address = Homes::address(&spaces, name).expect("it has one");
        format!("{address} ip netns exec {} sh  # in the place of: ssh root@{address} sh\n", spaces.namespace(name))
    };
    let file = scratch.join("hosts");
    std::fs::write(&file, names.iter().map(line).collect::<String>()).expect("scratch");
    let kinds = [FaultKind::Crash, FaultKind::Pause, FaultKind::Partition, FaultKind::OneWay];
    let mix = kinds.iter().fold(FaultMix::none(), |mix, kind| mix.with(*kind, Duration::millis(3000)));
    let mut plan = Plan::new("replicated:3", "all", mix, 8);
    (plan.lines, plan.hosts) = (Lines::Hosts, Some(file));
    let told = soak::run(&plan, &scratch).expect("it runs");
    assert!(told.is_clean(), "seed {}: {}", plan.seed, told.complaints().join("\n"));
    assert!(!told.bands.is_empty(), "nothing broke");
    println!("{told}");
}

//! The torture rig itself, in short: cuts by commands, and a device that lies.

use anyhow::Result;
use ashlar_core::rng::Rng;
use ashlar_jepsen::cluster::{Cluster, binary};
use ashlar_jepsen::devices::Devices;
use ashlar_jepsen::scratch::Scratch;
use ashlar_jepsen::torture::cluster::Rig;
use ashlar_jepsen::torture::hooks::Hooks;
use ashlar_jepsen::torture::progress::Progress;
use ashlar_jepsen::torture::witness::Witness;
use ashlar_jepsen::torture::{Judgement, Victims};
use ashlar_jepsen::writers::Promise;
use std::sync::Mutex;
use std::time::Duration;

static MACHINE: Mutex<()> = Mutex::new(());

/// Two cuts of a whole cluster by shell commands, by a rig that is interrupted between them.
#[test]
fn cuts_by_commands_are_survived_and_an_interrupted_rig_goes_on() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let scratch = Scratch::new("hooks").expect("a directory");
    let cluster = Cluster::start(&scratch, &["--size", "64M"]).expect("it starts");
    let (folder, program) = (scratch.join("cluster"), binary().expect("it is built"));
    let hooks = Hooks {
        socket: cluster.socket(),
        export: "demo".into(),
        cut: format!(
            "for pid in {} $(grep -o '\"pid\": *[0-9]*' {}/children.json | grep -o '[0-9]*'); do kill -9 $pid; done; \
             rm -f {}",
            cluster.running["supervisor"],
            folder.display(),
            cluster.socket().display()
        ),
        restore: format!(
            "{} up --port {} --dir {} > {} 2>&1 & echo started",
            program.display(),
            ashlar_jepsen::cluster::free_port().expect("a port"),
            folder.display(),
            scratch.join("again.log").display()
        ),
        seconds: 1,
        patience: Duration::from_secs(60),
        promise: Promise::All,
        out: None,
    };
    let outcome = survive(&hooks, &scratch);
    // Whoever was started by the commands is nobody's child.
    let end = hooks.cut.replace(&cluster.running["supervisor"].to_string(), &supervisor(&folder));
    let _ = std::process::Command::new("sh").args(["-c", &end]).status();
    outcome.expect("nothing is missing");
}

fn supervisor(folder: &std::path::Path) -> String {
    let running = std::fs::read(folder.join("running.json")).unwrap_or_default();
    let running: serde_json::Value = serde_json::from_slice(&running).unwrap_or_default();
    running["supervisor"].to_string()
}

fn survive(hooks: &Hooks, scratch: &Scratch) -> Result<()> {
    let path = scratch.join("witness");
    let mut rng = Rng::new(3);
    let first = Hooks { cut: hooks.cut.clone(), ..hooks.clone() };
    anyhow::ensure!(first.run(1, &mut Witness::open(&path)?, &mut rng)? == Judgement::Clean, "a loss");
    // The second cut is of other processes, which the first one's command does not know.
    let folder = scratch.join("cluster");
    let again = Hooks {
        cut: format!(
            "kill -9 {}; {}",
            supervisor(&folder),
            hooks.cut.replace("kill -9", "kill -9 2>/dev/null") + "; true"
        ),
        ..hooks.clone()
    };
    let mut witness = Witness::open(&path)?;
    anyhow::ensure!(witness.cuts == 1 && witness.acknowledged > 0, "the witness forgot");
    anyhow::ensure!(again.run(2, &mut witness, &mut rng)? == Judgement::Clean, "a loss");
    Ok(())
}

#[test]
#[ignore = "a minute: power cuts of two clusters"]
fn a_device_that_lies_is_told_apart() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !Devices::are_possible() {
        return eprintln!("SKIPPED: needs root, /dev/fuse, nbdkit and nbdfuse");
    }
    let honest = Rig::store("all", Victims::Everything);
    let liar = Rig { liar: Some(1), ..Rig::store("all", Victims::Everything) };
    let judge = |rig: &Rig| rig.run(3, &mut Progress::open(None, 5).expect("new")).expect("it runs");
    assert_eq!(judge(&honest), Judgement::Clean);
    assert!(matches!(judge(&liar), Judgement::DeviceLies(_)));
}

//! An OSD that comes and goes, on a real cluster: it is held down, everybody is told, and an administrator lets it in.

use super::Deployment;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// For the command line.
pub const NAME: &str = "flapping";
/// What it is.
pub const WHAT: &str = "an OSD dies over and over, is held down, and is let in again by an administrator";
/// The one that does.
const OSD: &str = "osd-6";
/// Its number.
const ID: u64 = 6;
/// Falls that are allowed.
const LIMIT: u32 = 3;
/// How long it is held: so long that nobody but the administrator ends it here.
const HOLD_S: u32 = 600;
/// Whoever is held stays so at least for this time while we look on.
const STAYS: Duration = Duration::from_secs(5);

/// Inflicts it; gives what was seen.
pub fn check(deployment: &mut Deployment) -> Result<String> {
    let (limit, hold) = (format!("osd_flap_limit={LIMIT}"), format!("osd_hold_s={HOLD_S}"));
    deployment.wait_clean()?;
    deployment.admin(&["config", "set", &limit, &hold])?;
    deployment.admin(&["osd", "readmit", "6"])?;
    let seen = fall_and_readmit(deployment);
    deployment.admin(&["config", "reset", "osd_hold_s"])?;
    deployment.admin(&["config", "set", "osd_flap_limit=0"])?;
    seen.with_context(|| format!("{WHAT}\n{}", deployment.logs()))
}

fn fall_and_readmit(deployment: &mut Deployment) -> Result<String> {
    for fall in 1..=LIMIT + 1 {
        deployment.kill(OSD)?;
        deployment.until("the OSD to be down", |d| row(d).is_ok_and(|osd| osd["up"] == false))?;
        deployment.revive(OSD)?;
        deployment.until("the OSD to come back", |d| row(d).is_ok_and(|osd| osd["up"] == true))?;
        if fall <= LIMIT {
            deployment.until("the OSD to be let in", |d| row(d).is_ok_and(|osd| serves(&osd)))?;
        }
    }
    let began = Instant::now();
    deployment.until("the OSD to be held down", |d| row(d).is_ok_and(|osd| osd["held"] == true))?;
    let status = deployment.told(&["status", "--quick"])?;
    let osds = status.lines().find(|line| line.starts_with("osds")).context("a line on OSDs")?.trim().to_string();
    ensure!(osds.contains("5 of 6 up") && osds.contains("HELD DOWN"), "`ashlar status` does not tell: {status}");
    let list = deployment.told(&["osd", "list"])?;
    ensure!(list.contains("held down after 4 falls"), "`ashlar osd list` does not tell: {list}");
    while began.elapsed() < STAYS {
        let osd = row(deployment)?;
        ensure!(osd["held"] == true && !serves(&osd), "it is let in although it was held: {osd}");
        std::thread::sleep(Duration::from_millis(200));
    }
    deployment.admin(&["osd", "readmit", "6"])?;
    let readmitted = Instant::now();
    deployment.until("the OSD to serve", |d| row(d).is_ok_and(|osd| osd["held"] == false && serves(&osd)))?;
    let took = readmitted.elapsed();
    deployment.wait_clean()?;
    Ok(format!("held down after {} falls (`{osds}`), let in {} ms after `osd readmit`", LIMIT + 1, took.as_millis()))
}

fn row(deployment: &Deployment) -> Result<Value> {
    let list = deployment.admin(&["osd", "list"])?;
    let osd = list.as_array().into_iter().flatten().find(|osd| osd["id"] == ID).cloned();
    osd.with_context(|| format!("no OSD {ID} in {list}"))
}

/// Whether it is a member of any group.
fn serves(osd: &Value) -> bool {
    osd["pgs"].as_u64().is_some_and(|groups| groups > 0)
}

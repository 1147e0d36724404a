//! Locks of images and fences of clients: whoever was shut out writes nothing any more, however late it wakes up.

use super::Scale;
use crate::cluster::{Cluster, signal};
use crate::nbd::Nbd;
use crate::registers::BLOCK_BYTES;
use crate::scratch::Scratch;
use crate::server::Server;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Blocks that both clients write.
const BLOCKS: u64 = 256;
/// Connections of the client that is fenced off.
const WRITERS: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// In which late requests would arrive.
const AFTERMATH: Duration = Duration::from_secs(3);

/// See the module.
pub fn run(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("fence")?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "256M"])?;
    locks(&cluster, &scratch)?;
    let client = fenced_while(&cluster, &scratch, 1, |cluster, old| {
        signal(old.pid(), Signal::SIGSTOP);
        let took = break_lock(cluster)?;
        signal(old.pid(), Signal::SIGCONT);
        Ok(took)
    })?;
    let osd = fenced_while(&cluster, &scratch, 2, |cluster, _| {
        let victim = cluster.osds()?.first().context("OSDs run")?.pid;
        signal(victim, Signal::SIGSTOP);
        let took = break_lock(cluster);
        signal(victim, Signal::SIGCONT);
        took
    })?;
    let fenced = cluster.admin(&["client", "list"])?;
    ensure!(fenced.as_array().map(Vec::len) == Some(2), "fenced off are {fenced}");
    cluster.wait_clean(PATIENCE)?;
    Ok(format!(
        "a lock was broken after {client:.1} s while its holder was stopped, after {osd:.1} s while an OSD was; no late \
         write of either"
    ))
}

fn number(server: &Server) -> Result<String> {
    Ok(server.client()?.to_string())
}

/// Only the holder of a lock writes; whoever may not have it is told why.
fn locks(cluster: &Cluster, scratch: &Scratch) -> Result<()> {
    let (first, second) = (Server::start(cluster, scratch, "first")?, Server::start(cluster, scratch, "second")?);
    let (a, b) = (number(&first)?, number(&second)?);
    let mut nbd = (first.connect("demo")?, second.connect("demo")?);
    nbd.0.write(0, &[1; BLOCK_BYTES])?;
    cluster.admin(&["image", "lock", "main/demo", "--client", &b])?;
    ensure!(nbd.0.write(0, &[2; BLOCK_BYTES]).is_err(), "a client without the lock can write");
    ensure!(nbd.0.read(0, BLOCK_BYTES)? == [1; BLOCK_BYTES], "a client without the lock cannot read");
    nbd.1.write(0, &[3; BLOCK_BYTES])?;
    refused(cluster, &["image", "lock", "main/demo", "--client", &a], "break-lock")?;
    refused(cluster, &["image", "unlock", "main/demo", "--client", &a], "not for")?;
    cluster.admin(&["image", "unlock", "main/demo", "--client", &b])?;
    refused(cluster, &["image", "break-lock", "main/demo"], "not locked")?;
    refused(cluster, &["client", "unfence", &a], "not fenced off")?;
    nbd.0.write(0, &[4; BLOCK_BYTES])?;
    cluster.admin(&["client", "fence", &a, "--reason", "a test"])?;
    ensure!(nbd.0.write(0, &[5; BLOCK_BYTES]).is_err(), "a fenced client can write");
    cluster.admin(&["client", "unfence", &a])?;
    ensure!(nbd.1.read(0, BLOCK_BYTES)? == [4; BLOCK_BYTES], "a write that was refused took effect");
    Ok(())
}

fn refused(cluster: &Cluster, arguments: &[&str], reason: &str) -> Result<()> {
    match cluster.admin(arguments) {
        Ok(_) => bail!("`ashlar {}` was not refused", arguments.join(" ")),
        Err(error) => {
            ensure!(error.to_string().contains(reason), "expected `{reason}` in: {error}");
            Ok(())
        }
    }
}

/// Breaks the lock; seconds that it took.
fn break_lock(cluster: &Cluster) -> Result<f64> {
    let start = Instant::now();
    cluster.admin(&["image", "break-lock", "main/demo"])?;
    Ok(start.elapsed().as_secs_f64())
}

/// A client with the lock writes all the time; it is fenced off in some way, another one writes, and that stays.
fn fenced_while(
    cluster: &Cluster,
    scratch: &Scratch,
    round: u8,
    fence: impl FnOnce(&Cluster, &Server) -> Result<f64>,
) -> Result<f64> {
    let name = |role: &str| format!("{role}-{round}");
    let old = Server::start(cluster, scratch, &name("old"))?;
    let new = Server::start(cluster, scratch, &name("new"))?;
    cluster.admin(&["image", "lock", "main/demo", "--client", &number(&old)?])?;
    let writers: Vec<_> = (0..WRITERS).map(|writer| write_for_ever(&old, writer)).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let took = fence(cluster, &old)?;
    let mut nbd = new.connect("demo")?;
    let block = |number: u64| vec![100 + round + u8::try_from(number % 50).expect("small"); BLOCK_BYTES];
    for number in 0..BLOCKS {
        nbd.write(number * BLOCK_BYTES as u64, &block(number))?;
    }
    nbd.flush()?;
    for writer in writers {
        let writes = writer.join().expect("writers do not panic");
        ensure!(writes > 0, "nothing was under way when the client was fenced off");
    }
    std::thread::sleep(AFTERMATH);
    for number in 0..BLOCKS {
        let found = nbd.read(number * BLOCK_BYTES as u64, BLOCK_BYTES)?;
        ensure!(found == block(number), "block {number}: {} came after the fence", found[0]);
    }
    Ok(took)
}

/// Writes until it is not allowed to; how many writes were answered.
fn write_for_ever(server: &Server, writer: u64) -> Result<JoinHandle<u64>> {
    let mut nbd: Nbd = server.connect("demo")?;
    Ok(std::thread::spawn(move || {
        for count in 0.. {
            let place = (count * WRITERS + writer) % BLOCKS * BLOCK_BYTES as u64;
            if nbd.write(place, &[7; BLOCK_BYTES]).is_err() {
                return count;
            }
        }
        unreachable!("the loop ends with an error")
    }))
}

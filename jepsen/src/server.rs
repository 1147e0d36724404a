//! Another NBD server of a cluster: another client of it.

use crate::cluster::{Cluster, binary};
use crate::nbd::Nbd;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For it to serve, and for answers.
const LIMIT: Duration = Duration::from_secs(60);

/// `ashlar nbd` on a socket of its own. Dropping it kills it.
pub struct Server {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts one.
    pub fn start(cluster: &Cluster, scratch: &Scratch, name: &str) -> Result<Server> {
        let (socket, log) = (scratch.join(&format!("{name}.sock")), scratch.join(&format!("{name}.log")));
        let seeds = cluster.running["maps"].as_str().context("`up` tells where the maps are")?;
        let process = Command::new(binary()?)
            .args(["nbd", "--seeds", seeds, "--listen", "none", "--unix"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let server = Server { process, socket, log };
        let deadline = Instant::now() + LIMIT;
        while !server.socket.exists() {
            if Instant::now() > deadline {
                bail!("{name} does not serve:\n{}", std::fs::read_to_string(&server.log)?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("numbers of processes are small")
    }

    /// The number of the client that it is, as it says at its start.
    pub fn client(&self) -> Result<u64> {
        let text = std::fs::read_to_string(&self.log)?;
        let number = text.split("this is client ").nth(1).and_then(|rest| rest.split_whitespace().next());
        number.context("the server says which client it is")?.parse().context("a number")
    }

    /// Connects to an image.
    pub fn connect(&self, image: &str) -> Result<Nbd> {
        Nbd::connect(&self.socket, image, LIMIT)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

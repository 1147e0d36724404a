//! Daemons on other hosts, by a file that says how to be root there.
//!
//! ```text
//!  # address   what starts a root shell there that reads its script from standard input
//!  10.0.0.1    ssh root@10.0.0.1 sh
//!  10.0.0.2    ssh -i key admin@10.0.0.2 sudo sh
//! ```
//! The monitor lives on the first host, OSDs on all in turn, NBD servers and clients here. A daemon is the child of such a
//! shell, which kills it when its standard input ends: whatever becomes of this process or of the path to it, nothing is
//! left running. Cuts are rules of the hosts' own kernels (`nft`) about each other's addresses; ours is never cut off.
//!
//! Invariant: on every host there is one folder, of the same path as the fleet's here, and one table of rules; both go with
//! this.

use super::{Homes, Local, Start};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// For a piece of shell: a binary may have to go over a slow network.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);
/// What a shell says when it has read its script.
const READY: &str = "ashlar-ready";
/// The rules' table, without what a killed rig left in it.
const RULES: &str = "nft 'add table inet ashlar_cut; delete table inet ashlar_cut; add table inet ashlar_cut; \
                     add chain inet ashlar_cut in { type filter hook input priority 0; }'";

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    address: String,
    shell: Vec<String>,
}

/// Hosts out of a file.
pub struct Remote {
    hosts: Vec<Host>,
    folder: OnceLock<PathBuf>,
    /// By daemon: the standard input that keeps it alive.
    leashes: Mutex<BTreeMap<String, ChildStdin>>,
}

fn parse(text: &str) -> Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<String> = line.split('#').next().unwrap_or("").split_whitespace().map(String::from).collect();
        let Some((address, shell)) = words.split_first() else { continue };
        ensure!(
            !shell.is_empty(),
            "line {number}: say after the address what starts a root shell there, as `ssh root@{address} sh`"
        );
        let address = address.parse::<std::net::Ipv4Addr>();
        let address =
            address.with_context(|| format!("line {number} does not begin with an IPv4 address"))?.to_string();
        hosts.push(Host { address, shell: shell.to_vec() });
    }
    let addresses: BTreeSet<&String> = hosts.iter().map(|host| &host.address).collect();
    ensure!(addresses.len() == hosts.len(), "an address is there twice");
    ensure!(!hosts.is_empty(), "there are no hosts in it");
    Ok(hosts)
}

impl Host {
    fn shell(&self) -> Command {
        let mut command = Command::new(&self.shell[0]);
        command.args(&self.shell[1..]).stdin(Stdio::piped());
        command
    }

    fn start(&self, out: File, err: File) -> Result<Child> {
        let child = self.shell().stdout(out).stderr(err).spawn();
        child.with_context(|| format!("host {}: cannot start `{}` on this machine", self.address, self.shell.join(" ")))
    }

    /// Runs a script; `more` follows it on its standard input, when the shell has read all of the script: it may read ahead.
    /// What it wrote to standard output; an error says the host, the script, how it ended and what it complained of.
    fn run(&self, script: &str, more: &mut dyn Read) -> Result<String> {
        let (mut out, mut err) = (tempfile()?, tempfile()?);
        let mut shell = self.start(out.try_clone()?, err.try_clone()?)?;
        let mut stdin = shell.stdin.take().expect("it was piped");
        let whole = format!("{{ echo {READY}\nset -e\n{script}\nexit 0\n}}\n");
        // One that ends early says why.
        let _ = stdin.write_all(whole.as_bytes());
        let (begin, mut stdin) = (Instant::now(), Some(stdin));
        let status = loop {
            if stdin.is_some() && read(&mut out)?.contains(READY) {
                let _ = stdin.take().map(|mut stdin| std::io::copy(more, &mut stdin));
            }
            if let Some(status) = shell.try_wait()? {
                break Some(status);
            }
            if begin.elapsed() > LIMIT {
                shell.kill()?;
                shell.wait()?;
                break None;
            }
            std::thread::sleep(POLL);
        };
        let said = read(&mut out)?.replacen(&format!("{READY}\n"), "", 1);
        if status.is_some_and(|status| status.success()) {
            return Ok(said);
        }
        bail!(self.failure(script, status, &said, &read(&mut err)?))
    }

    fn failure(&self, script: &str, status: Option<ExitStatus>, out: &str, err: &str) -> String {
        let how = match status {
            Some(status) => format!("failed ({status})"),
            None => format!("did not end within {} s, and its shell was killed", LIMIT.as_secs()),
        };
        let indented = |text: &str| match text.trim_end() {
            "" => "    (nothing)\n".to_string(),
            text => text.lines().map(|line| format!("    {line}\n")).collect(),
        };
        format!(
            "host {}, by `{}`: this {how}\n{}  standard error:\n{}  standard output:\n{}",
            self.address,
            self.shell.join(" "),
            indented(script),
            indented(err),
            indented(out)
        )
    }
}

fn read(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file without a name.
fn tempfile() -> Result<File> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ashlar-said-{}-{number}", std::process::id()));
    let file = File::options().create_new(true).read(true).append(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Remote {
    /// The hosts that a file names; each must answer.
    pub fn read(path: &Path) -> Result<Remote> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let hosts = parse(&text).with_context(|| path.display().to_string())?;
        for host in &hosts {
            host.run(RULES, &mut std::io::empty()).context("a host does not do as it is told")?;
        }
        Ok(Remote { hosts, folder: OnceLock::new(), leashes: Mutex::default() })
    }

    /// Where a daemon lives; `None`: here.
    fn host(&self, name: &str) -> Option<&Host> {
        if name.starts_with("mon") {
            return self.hosts.first();
        }
        let number: usize = name.strip_prefix("osd-")?.parse().ok()?;
        self.hosts.get((number - 1) % self.hosts.len())
    }

    fn pid_file(&self, name: &str) -> String {
        let folder = self.folder.get().map(|folder| folder.display().to_string()).unwrap_or_default();
        quoted(&format!("{folder}/{name}.pid"))
    }
}

impl Homes for Remote {
    fn address(&self, name: &str) -> Result<&str> {
        self.host(name).map_or(Ok("127.0.0.1"), |host| Ok(&host.address))
    }

    fn prepare(&self, folder: &Path, program: &Path) -> Result<PathBuf> {
        self.folder.set(folder.to_path_buf()).map_err(|_| anyhow::anyhow!("these hosts have a fleet already"))?;
        let there = folder.join("ashlar");
        for host in &self.hosts {
            let (folder, there) = (quoted(&folder.display().to_string()), quoted(&there.display().to_string()));
            let script = format!("mkdir -p {folder}; cat > {there}.next; mv {there}.next {there}; chmod +x {there}");
            let mut file = File::open(program).with_context(|| format!("cannot read {}", program.display()))?;
            host.run(&script, &mut file).context("a host does not take the program")?;
        }
        Ok(there)
    }

    fn spawn(&self, name: &str, start: &Start<'_>, log: File) -> Result<Child> {
        let Some(host) = self.host(name) else { return Local.spawn(name, start, log) };
        let words: Vec<String> =
            start.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let program = start.program.display().to_string();
        let arguments: Vec<String> = [&program].into_iter().chain(start.arguments).map(|word| quoted(word)).collect();
        let script = format!(
            "{{ exec 3<&0; env {} {} </dev/null 3<&- & pid=$!; echo $pid > {}\n\
             {{ cat <&3 >/dev/null 2>&1; kill -9 $pid; }} >/dev/null 2>&1 & leash=$!\n\
             wait $pid; code=$?; kill $leash; exit $code; }}\n",
            words.join(" "),
            arguments.join(" "),
            self.pid_file(name)
        );
        let mut child = host.start(log.try_clone()?, log)?;
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(script.as_bytes()).with_context(|| {
            format!("host {}: `{}` ended before it read how to start {name}", host.address, host.shell.join(" "))
        })?;
        self.leashes.lock().expect("nothing panics under this lock").insert(name.into(), stdin);
        Ok(child)
    }

    fn signal(&self, name: &str, child: i32, signal: Signal) -> Result<()> {
        let Some(host) = self.host(name) else { return Local.signal(name, child, signal) };
        // It may have ended; it may be so young that nobody knows it yet.
        let (number, file) = (signal as i32, self.pid_file(name));
        let script = format!(
            "for n in 1 2 3 4 5; do test -s {file} && break; sleep 0.1; done; kill -{number} $(cat {file}) || true"
        );
        host.run(&script, &mut std::io::empty()).map(drop)
    }

    fn shell(&self, name: &str, script: &str) -> Result<String> {
        match self.host(name) {
            Some(host) => host.run(script, &mut std::io::empty()),
            None => Local.shell(name, script),
        }
    }

    fn can_be_cut(&self, name: &str) -> bool {
        self.host(name).is_some()
    }

    fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let (Some(from), Some(to)) = (self.host(from), self.host(to)) else {
            bail!("{from} or {to} is on this machine, which is not cut off");
        };
        if from == to {
            return Ok(());
        }
        let rule = format!("nft add rule inet ashlar_cut in ip saddr {} drop", from.address);
        to.run(&rule, &mut std::io::empty()).map(drop)
    }

    fn heal(&self) -> Result<()> {
        self.hosts
            .iter()
            .try_for_each(|host| host.run("nft flush table inet ashlar_cut", &mut std::io::empty()).map(drop))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Daemons end with them.
        self.leashes.lock().map(|mut leashes| leashes.clear()).unwrap_or_default();
        for host in &self.hosts {
            let folder = self.folder.get().map(|folder| format!("rm -rf {}", quoted(&folder.display().to_string())));
            let script = format!("nft delete table inet ashlar_cut; sleep 0.1; {}", folder.unwrap_or_default());
            // A host that is gone has nothing to clear up.
            let _ = host.run(&script, &mut std::io::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_file_says_where_and_how() {
        let hosts =
            parse("# comment\n10.0.0.1 ssh root@one sh # first\n\n10.0.0.2  sudo sh\n").expect("it makes sense");
        assert_eq!(hosts[0].shell, ["ssh", "root@one", "sh"]);
        assert_eq!((hosts.len(), hosts[1].address.as_str()), (2, "10.0.0.2"));
        for (text, reason) in [
            ("", "no hosts"),
            ("10.0.0.1", "what starts a root shell"),
            ("one ssh one sh", "IPv4"),
            ("10.0.0.1 sh\n10.0.0.1 sh", "twice"),
        ] {
            let error = format!("{:#}", parse(text).expect_err("it makes none"));
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn scripts_run_with_what_follows_them() {
        let host = Host { address: "127.0.0.1".into(), shell: vec!["sh".into()] };
        let said = host.run("read line; echo got $line", &mut "something\n".as_bytes()).expect("it runs");
        assert_eq!(said, "got something\n");
        let error = host.run("echo said; echo why >&2; exit 7", &mut std::io::empty()).expect_err("it fails");
        for part in ["host 127.0.0.1", "`sh`", "echo said; echo why", "exit status: 7", "  standard error:\n    why\n"]
        {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let absent = Host { address: "10.0.0.9".into(), shell: vec!["/no/such/ssh".into()] };
        let error = format!("{:#}", absent.run("true", &mut std::io::empty()).expect_err("there is none"));
        assert!(
            error.contains("host 10.0.0.9: cannot start `/no/such/ssh`") && error.contains("os error 2"),
            "{error}"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_daemon_ends_by_signals_and_with_its_leash() {
        let scratch = crate::scratch::Scratch::new("remote").expect("a directory");
        let file = scratch.join("hosts");
        let remote = Remote {
            hosts: vec![Host { address: "127.0.0.1".into(), shell: vec!["sh".into()] }],
            folder: OnceLock::from(scratch.path().to_path_buf()),
            leashes: Mutex::default(),
        };
        let log = || File::create(scratch.join("log")).expect("scratch");
        let said = || std::fs::read_to_string(scratch.join("log")).expect("a log");
        let arguments = ["-c".to_string(), "echo $WORD; exec sleep 600".to_string()];
        let environment = [("WORD".to_string(), "it's said".to_string())];
        let start = Start { program: Path::new("sh"), arguments: &arguments, environment: &environment };
        let mut child = remote.spawn("osd-1", &start, log()).expect("it starts");
        while said().is_empty() {
            std::thread::sleep(POLL);
        }
        remote.signal("osd-1", 0, Signal::SIGKILL).expect("it is there");
        assert!(!child.wait().expect("it ended").success());
        assert_eq!(said().lines().next(), Some("it's said"));
        let mut child = remote.spawn("osd-1", &start, log()).expect("it starts");
        while !scratch.join("osd-1.pid").exists() {
            std::thread::sleep(POLL);
        }
        remote.leashes.lock().expect("ours").clear();
        assert!(!child.wait().expect("it ended").success());
        drop(file);
        // The rules' table was never made here.
        std::mem::forget(remote);
    }
}

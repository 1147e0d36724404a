//! Connections between daemons, led through this process: delayed, cut, reset, clogged, damaged.
//!
//! Every daemon that others connect to has a port here, and tells that one to the others. Who connects is known by the
//! process that owns the other end, so that each pair of daemons is a path of its own, in each direction. Delays are those
//! of the simulator's links ([`LinkModel`]), cuts those of its network ([`Fabric`]): what is sent into a cut waits, as a
//! kernel keeps it and sends it again, and arrives when the path heals, unless the connection was given up before.
//!
//! Owns: ports, threads, bytes under way. Does not own: when something breaks. Two threads carry a connection; they end
//! with it, all of them with [`Relays`].

use anyhow::Result;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration as Span;
use ashlar_faultinject::link::{Fabric, HostId, LinkModel};
use ashlar_runtime::ports;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes that are carried at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a carrier looks whether something has changed.
const POLL: Duration = Duration::from_millis(5);
/// How long a process may take to show its sockets after it connected.
const OWNER_TRIES: u32 = 20;
/// The host with the metadata store.
const META: &str = "mon";
/// A relay without delays.
pub const QUICK: LinkModel = LinkModel {
    base: Span(0),
    tail: Span(0),
    tail_ppm: 0,
    per_kib: Span(0),
    give_up: Span::secs(4),
    connect_timeout: Span::secs(2),
};

/// What the carriers do besides carrying.
#[derive(Clone, Copy, Debug)]
struct Weather {
    model: LinkModel,
    /// Chunks in a million of which a bit flips.
    corrupt_ppm: u64,
    /// Chunks in a million that end their connection in their midst.
    reset_ppm: u64,
}

const CALM: Weather = Weather { model: QUICK, corrupt_ppm: 0, reset_ppm: 0 };

struct State {
    hosts: BTreeMap<String, HostId>,
    owners: BTreeMap<i32, String>,
    fabric: Fabric,
    /// Of all paths that lead to or from a host; without, calm.
    weather: BTreeMap<HostId, Weather>,
    /// Connections whose bytes vanish from now on, in one direction.
    clogged: BTreeMap<u64, bool>,
    /// Live connections: from, to, and how to end them.
    connections: BTreeMap<u64, (HostId, HostId, TcpStream, TcpStream)>,
    rng: Rng,
}

/// All relays of a cluster.
pub struct Relays {
    state: Mutex<State>,
    next: AtomicU64,
    over: AtomicBool,
    carried: AtomicU64,
}

impl Relays {
    /// None yet.
    pub fn new(seed: u64) -> Arc<Relays> {
        let state = State {
            hosts: BTreeMap::new(),
            owners: BTreeMap::new(),
            fabric: Fabric::default(),
            weather: BTreeMap::new(),
            clogged: BTreeMap::new(),
            connections: BTreeMap::new(),
            rng: Rng::new(seed),
        };
        Arc::new(Relays {
            state: Mutex::new(state),
            next: AtomicU64::new(0),
            over: AtomicBool::new(false),
            carried: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// A port that leads to a daemon's.
    pub fn add(self: &Arc<Self>, name: &str, port: u16) -> Result<u16> {
        let listener = ports::reserve()?;
        let ours = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        // `mon-meta` is a second port of the host `mon`.
        let host = name.trim_end_matches("-meta").to_string();
        let relays = Arc::clone(self);
        std::thread::spawn(move || relays.accept(&listener, &host, port));
        Ok(ours)
    }

    /// A daemon's process.
    pub fn belongs(&self, pid: i32, name: &str) {
        self.state().owners.insert(pid, name.to_string());
    }

    /// Bytes carried so far.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    fn host(&self, name: &str) -> HostId {
        let mut state = self.state();
        let next = HostId(u32::try_from(state.hosts.len()).expect("few hosts"));
        *state.hosts.entry(name.to_string()).or_insert(next)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener, name: &str, port: u16) {
        let to = self.host(name);
        while !self.over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let relays = Arc::clone(&self);
                    std::thread::spawn(move || relays.serve(stream, peer, to, port));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn serve(self: Arc<Self>, near: TcpStream, peer: SocketAddr, to: HostId, port: u16) {
        let owners = self.state().owners.clone();
        let owner =
            (0..OWNER_TRIES).find_map(|_| owner_of(peer, &owners).or_else(|| (std::thread::sleep(POLL), None).1));
        let from = self.host(owner.as_deref().unwrap_or("outside"));
        // An attempt into a cut is answered by nobody.
        if !self.wait_open(from, to) || !self.wait_open(to, from) {
            return;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let clones = [&near, &far].map(|stream| (stream.try_clone(), stream.set_nodelay(true)));
        let [(Ok(a), _), (Ok(b), _)] = clones else { return };
        let (Ok(c), Ok(d)) = (near.try_clone(), far.try_clone()) else { return };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.state().connections.insert(number, (from, to, c, d));
        let relays = Arc::clone(&self);
        let back = std::thread::spawn(move || relays.carry(number, to, from, b, a));
        Arc::clone(&self).carry(number, from, to, near, far);
        // It never panics.
        let _ = back.join();
        let mut state = self.state();
        state.connections.remove(&number);
        state.clogged.remove(&number);
    }

    /// Waits until a path is open; false if the connection was given up before.
    fn wait_open(&self, from: HostId, to: HostId) -> bool {
        let begin = Instant::now();
        let mut limit = None;
        loop {
            let mut state = self.state();
            if state.fabric.open(from, to) {
                return true;
            }
            let mut rng = state.rng.fork();
            let limit = *limit.get_or_insert_with(|| QUICK.give_up(&mut rng));
            drop(state);
            if begin.elapsed() > Duration::from_nanos(limit.0) || self.over.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Carries one direction to its end.
    fn carry(self: Arc<Self>, number: u64, from: HostId, to: HostId, mut source: TcpStream, mut target: TcpStream) {
        let mut rng = self.state().rng.fork();
        let mut chunk = vec![0; CHUNK_BYTES];
        let _ = source.set_read_timeout(Some(Duration::from_millis(500)));
        while !self.over.load(Ordering::Relaxed) {
            let count = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            let weather = self.weather(from, to);
            let delay = weather.model.delay(&mut rng, count as u64);
            if delay.0 > 0 {
                std::thread::sleep(Duration::from_nanos(delay.0));
            }
            if !self.wait_open(from, to) {
                break;
            }
            if self.state().clogged.get(&number) == Some(&(from < to)) {
                continue;
            }
            let cut_short = weather.reset_ppm > 0 && rng.chance(weather.reset_ppm, 1_000_000);
            let count = if cut_short { count / 2 } else { count };
            if weather.corrupt_ppm > 0 && count > 0 && rng.chance(weather.corrupt_ppm, 1_000_000) {
                let place = usize::try_from(rng.below(count as u64)).expect("within a chunk");
                chunk[place] ^= 1 << rng.below(8);
            }
            self.carried.fetch_add(count as u64, Ordering::Relaxed);
            if target.write_all(&chunk[..count]).is_err() || cut_short {
                break;
            }
        }
        // Either end may be gone already.
        let _ = source.shutdown(Shutdown::Both);
        let _ = target.shutdown(Shutdown::Both);
    }

    fn weather(&self, from: HostId, to: HostId) -> Weather {
        let state = self.state();
        let mut weather = *[from, to].iter().find_map(|host| state.weather.get(host)).unwrap_or(&CALM);
        if [from, to].iter().any(|host| state.hosts.get(META) == Some(host)) {
            weather.corrupt_ppm = 0;
        }
        weather
    }

    fn set_weather(&self, name: &str, change: impl FnOnce(&mut Weather)) {
        let host = self.host(name);
        change(self.state().weather.entry(host).or_insert(CALM));
    }

    /// Two sides do not reach each other.
    pub fn partition(&self, one: &[String], other: &[String]) {
        let hosts = |names: &[String]| names.iter().map(|name| self.host(name)).collect::<Vec<_>>();
        let (one, other) = (hosts(one), hosts(other));
        self.state().fabric.partition(&one, &other);
    }

    /// What one sends does not reach the other.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let (from, to) = (self.host(from), self.host(to));
        self.state().fabric.cut_one_way(from, to);
    }

    /// All paths are open, and the weather is calm.
    pub fn heal(&self) {
        let mut state = self.state();
        state.fabric.heal();
        state.weather.clear();
    }

    /// Messages from and to a host take their time.
    pub fn delay(&self, name: &str, model: LinkModel) {
        self.set_weather(name, |weather| weather.model = model);
    }

    /// Bits flip on a host's paths, but for those to and from the metadata store, whose protocol has no checksums.
    pub fn corrupt(&self, name: &str, ppm: u64) {
        self.set_weather(name, |weather| weather.corrupt_ppm = ppm);
    }

    /// Connections of a host end in the middle of messages.
    pub fn reset_in_messages(&self, name: &str, ppm: u64) {
        self.set_weather(name, |weather| weather.reset_ppm = ppm);
    }

    /// Ends one connection, or lets one direction of it carry nothing any more; whose it was.
    pub fn hit_connection(&self, rng: &mut Rng, clog: bool) -> Option<String> {
        let mut state = self.state();
        let count = state.connections.len() as u64;
        let chosen = usize::try_from(rng.below(count.max(1))).expect("few");
        let (number, from, to) =
            state.connections.iter().nth(chosen).map(|(number, (from, to, ..))| (*number, *from, *to))?;
        if clog {
            state.clogged.insert(number, rng.chance(1, 2));
        } else {
            let (.., near, far) = &state.connections[&number];
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        }
        let name = |host: HostId| state.hosts.iter().find(|(_, id)| **id == host).map_or("?", |(name, _)| name);
        Some(format!("{} to {}", name(from), name(to)))
    }

    /// Everybody's connections to a host end.
    pub fn reset_all(&self, name: &str) {
        let host = self.host(name);
        let state = self.state();
        for (from, to, near, far) in state.connections.values() {
            if *from == host || *to == host {
                let _ = near.shutdown(Shutdown::Both);
                let _ = far.shutdown(Shutdown::Both);
            }
        }
    }

    /// Ends all connections and ports.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        for (.., near, far) in self.state().connections.values() {
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        }
    }
}

/// Whose end of a connection a port is: the kernel lists sockets with their inodes, and processes with theirs.
fn owner_of(peer: SocketAddr, owners: &BTreeMap<i32, String>) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{:04X}", peer.port());
    let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    let socket = format!("socket:[{}]", row.split_whitespace().nth(9)?);
    let has = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(&socket)))
    };
    owners.iter().find(|(pid, _)| has(**pid)).map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    fn relayed() -> (Arc<Relays>, TcpStream) {
        let relays = Relays::new(1);
        relays.belongs(i32::try_from(std::process::id()).expect("small"), "us");
        let port = relays.add("echo", echo()).expect("a port");
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        (relays, stream)
    }

    #[test]
    fn what_is_sent_into_a_cut_arrives_when_it_heals_and_who_sent_it_is_known() {
        let (relays, mut stream) = relayed();
        assert_eq!(ask(&mut stream, 7).expect("it is carried"), 7);
        relays.cut_one_way("us", "echo");
        assert!(ask(&mut stream, 8).is_err());
        relays.heal();
        let mut late = [0];
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        stream.read_exact(&mut late).expect("it arrives late");
        assert_eq!(late, [8]);
        relays.cut_one_way("others", "echo");
        assert_eq!(ask(&mut stream, 9).expect("not our path"), 9);
        relays.end();
    }

    #[test]
    fn ports_are_not_lost_to_processes_that_start_meanwhile() {
        // Between fork and exec a process holds whatever was open, so a listener that is closed and bound again may not be.
        let (relays, over) = (Relays::new(1), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::process::Command::new("true").status().expect("it is there");
                    }
                });
            }
            let added: Result<Vec<u16>> = (0..300).map(|_| relays.add("echo", 1)).collect();
            over.store(true, Ordering::Relaxed);
            added.expect("a port each time");
        });
        relays.end();
    }

    #[test]
    fn connections_are_reset_clogged_and_damaged() {
        let (relays, mut stream) = relayed();
        assert_eq!(ask(&mut stream, 1).expect("calm"), 1);
        relays.corrupt("echo", 1_000_000);
        let damaged = ask(&mut stream, 0).expect("carried");
        // A bit flips on the way there, and one on the way back: perhaps the same one.
        assert!(damaged.count_ones() == 2 || damaged == 0, "{damaged}");
        relays.heal();
        let (mut rng, mut slow) = (Rng::new(3), QUICK);
        (slow.base, slow.tail) = (Span::millis(40), Span::millis(60));
        relays.delay("echo", slow);
        let begin = Instant::now();
        ask(&mut stream, 2).expect("late, but in time");
        assert!(begin.elapsed() >= Duration::from_millis(80));
        relays.heal();
        assert_eq!(relays.hit_connection(&mut rng, true).as_deref(), Some("us to echo"));
        assert!(ask(&mut stream, 3).is_err(), "one direction is clogged");
        relays.hit_connection(&mut rng, false);
        std::thread::sleep(Duration::from_millis(50));
        assert!(ask(&mut stream, 4).is_err_and(|error| error.kind() != ErrorKind::WouldBlock), "it ended");
        relays.end();
    }
}

//! The thread of the store: does jobs in batches, keeps each batch on disk with one commit, and answers after it.
//!
//! Owns the store, its clock and the waiting watchers. Jobs that queue up during a commit share the next one.

use super::disk::Disk;
use ashlar_core::meta::{Record, Retention, Saved, Store};
use ashlar_core::time::{Duration, Time};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{oneshot, watch};

/// Jobs of one commit at most: bounds the time to the first answer.
const BATCH: usize = 1_024;
/// If a lease's end is noticed later than this, the process was not running: its clients' renewals wait in the sockets.
const STALL: Duration = Duration::millis(500);
/// Time for the service to read them.
const STALL_GRACE: Duration = Duration::secs(2);

/// The store has stopped, by order or by a failure. Whether the job was done is not known.
#[derive(Debug)]
pub(super) struct Stopped;

type Answer = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(&mut Store, Time) -> Answer + Send>;
/// Tries to be satisfied by the store as it is; true when it is done with.
type Waiter = Box<dyn FnMut(&Store) -> bool + Send>;

enum Command {
    Do(Job),
    Wait(Waiter),
}

/// The way to the store.
pub(super) struct Engine {
    commands: Sender<Command>,
}

impl Engine {
    /// Starts the thread. It ends when this is dropped, or when the disk fails, which it reports.
    pub(super) fn start(
        disk: Disk,
        saved: Saved,
        failure: watch::Sender<Option<String>>,
    ) -> Result<(Engine, JoinHandle<()>), String> {
        let started = Instant::now();
        let store = Store::restore(Time(0), Retention::default(), saved)?;
        let (commands, queue) = mpsc::channel();
        let mut worker = Worker { store, disk, queue, started, waiters: Vec::new(), answers: Vec::new() };
        let run = move || {
            if let Err(error) = worker.run() {
                tracing::error!("the metadata store cannot write: {error}");
                failure.send_replace(Some(format!("the metadata store cannot write to its file: {error}")));
            }
        };
        Ok((Engine { commands }, spawn("ashlar-metadata", run)))
    }

    /// Does a job; its result comes when it is durable.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store, Time) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let job = move |store: &mut Store, now: Time| -> Answer {
            let result = job(store, now);
            // Nobody waits any more if the connection is gone.
            Box::new(move || drop(sender.send(result)))
        };
        self.commands.send(Command::Do(Box::new(job))).map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Waits until the store, durable as it is, satisfies a condition.
    pub(super) async fn wait<R: Send + 'static>(
        &self,
        mut condition: impl FnMut(&Store) -> Option<R> + Send + 'static,
    ) -> Result<R, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let waiter = move |store: &Store| {
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return true;
            }
            let Some(result) = condition(store) else { return false };
            drop(sender.take().map(|sender| sender.send(result)));
            true
        };
        self.commands.send(Command::Wait(Box::new(waiter))).map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }
}

/// The other side of an engine without a thread and a disk: whoever has it lets the engine's commands be done.
#[cfg(test)]
pub(super) struct Steps {
    queue: Receiver<Command>,
    waiters: Vec<Waiter>,
}

#[cfg(test)]
impl Steps {
    /// An engine, and its other side.
    pub(super) fn new() -> (Engine, Steps) {
        let (commands, queue) = mpsc::channel();
        (Engine { commands }, Steps { queue, waiters: Vec::new() })
    }

    /// Does all that waits.
    pub(super) fn step(&mut self, store: &mut Store, now: Time) {
        let mut answers = Vec::new();
        while let Ok(command) = self.queue.try_recv() {
            match command {
                Command::Do(job) => answers.push(job(store, now)),
                Command::Wait(waiter) => self.waiters.push(waiter),
            }
        }
        answers.into_iter().for_each(|answer| answer());
        self.waiters.retain_mut(|waiter| !waiter(store));
    }
}

struct Worker {
    store: Store,
    disk: Disk,
    queue: Receiver<Command>,
    started: Instant,
    waiters: Vec<Waiter>,
    answers: Vec<Answer>,
}

impl Worker {
    fn run(&mut self) -> Result<(), redb::Error> {
        loop {
            let first = match self.next() {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.forgive_stall();
            let now = self.now();
            self.store.tick(now);
            let mut command = first;
            for _ in 0..BATCH {
                let Some(one) = command.take().or_else(|| self.queue.try_recv().ok()) else { break };
                self.execute(one, now);
            }
            self.commit()?;
            self.answers.drain(..).for_each(|answer| answer());
            self.waiters.retain_mut(|waiter| !waiter(&self.store));
        }
    }

    fn execute(&mut self, command: Command, now: Time) {
        match command {
            Command::Do(job) => self.answers.push(job(&mut self.store, now)),
            Command::Wait(waiter) => self.waiters.push(waiter),
        }
    }

    fn commit(&mut self) -> Result<(), redb::Error> {
        let journal: Vec<Record> = self.store.take_journal();
        if journal.is_empty() { Ok(()) } else { self.disk.write(&journal) }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).expect("500 years"))
    }

    /// The next command, until the next lease ends.
    fn next(&self) -> Result<Command, RecvTimeoutError> {
        match self.store.next_deadline() {
            None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                let left = deadline.since(self.now());
                // Rounded up, so that the lease has ended when the wait does.
                self.queue.recv_timeout(std::time::Duration::from_nanos(left.0) + std::time::Duration::from_millis(1))
            }
        }
    }

    /// Leases do not end because this process was stopped or starved: their holders could not be heard.
    fn forgive_stall(&mut self) {
        let now = self.now();
        let late = self.store.next_deadline().map_or(Duration::ZERO, |deadline| now.since(deadline));
        if late > STALL {
            tracing::warn!("the metadata store was stalled for {} ms; leases are prolonged", late.as_millis());
            self.store.prolong_leases(Duration(late.0 + STALL_GRACE.0));
        }
    }
}

/// A thread with a name.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.expect("a process that starts can have one more thread")
}

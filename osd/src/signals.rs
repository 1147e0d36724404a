//! SIGTERM and SIGINT: a clean stop; a second one ends at once.

use anyhow::Context;
use ashlar_runtime::ring::Stopper;
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a process that was ended by force.
const FORCED: i32 = 1;

/// Signals are caught from the moment this exists.
pub struct Signals {
    stopper: Arc<Mutex<Option<Stopper>>>,
}

impl Signals {
    /// Catches signals on a thread of its own. Until there is something to stop, a signal just ends the process.
    pub fn catch() -> anyhow::Result<Signals> {
        let stopper = Arc::new(Mutex::new(None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("starting tokio")?;
        let guard = runtime.enter();
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(guard);
        let shared = Arc::clone(&stopper);
        let run = move || runtime.block_on(wait(term, int, &shared));
        std::thread::Builder::new().name("ashlar-signals".into()).spawn(run).context("starting a thread")?;
        Ok(Signals { stopper })
    }

    /// What signals stop from now on.
    pub fn stop_with(&self, stopper: Stopper) {
        *self.stopper.lock().expect("nothing panics under this lock") = Some(stopper);
    }
}

async fn wait(mut term: Signal, mut int: Signal, shared: &Mutex<Option<Stopper>>) {
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    match shared.lock().expect("nothing panics under this lock").as_ref() {
        Some(stopper) => stopper.stop(),
        // No store is open yet: there is nothing to finish.
        None => std::process::exit(0),
    }
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    std::process::exit(FORCED);
}

//! What other threads have for the loop: metadata events, resolved names, calls.

use crate::os;
use ashlar_core::io::{MetaEvent, PeerName};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

/// Something for the loop.
pub enum Letter {
    /// Of the metadata store.
    Meta(MetaEvent),
    /// A host name was looked up.
    Resolved {
        /// For this connection.
        target: PeerName,
        /// The address, if there is one.
        address: Option<SocketAddr>,
    },
    /// End, in good order.
    Stop,
}

struct Shared {
    letters: Mutex<Vec<Letter>>,
    bell: File,
}

/// Puts letters in, from any thread.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> io::Result<Mailbox> {
        let bell: OwnedFd = os::event_counter()?;
        Ok(Mailbox { shared: Arc::new(Shared { letters: Mutex::default(), bell: bell.into() }) })
    }

    /// Puts a letter in and wakes the loop.
    pub fn post(&self, letter: Letter) {
        let mut letters = self.shared.letters.lock().expect("nothing panics under this lock");
        letters.push(letter);
        let first = letters.len() == 1;
        drop(letters);
        if first {
            // It fails only when the counter is full, and then the bell rings already.
            let _ = (&self.shared.bell).write(&1u64.to_ne_bytes());
        }
    }

    /// Takes all letters.
    pub fn take(&self, into: &mut Vec<Letter>) {
        into.append(&mut self.shared.letters.lock().expect("nothing panics under this lock"));
    }

    /// Readable when there are letters.
    pub fn bell(&self) -> RawFd {
        self.shared.bell.as_raw_fd()
    }
}

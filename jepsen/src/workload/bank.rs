//! A bank: accounts in several objects, transfers between them, a journal, and FLUSH as the only barrier.
//!
//! A transfer first writes what it will do into the journal and flushes, then writes both accounts and flushes. After a crash
//! the journal's transfer is done again. So the accounts must be those after the newest transfer that was completed, or
//! after the one that was under way, and their sum is what it always was. A flush that does not order what is in different
//! objects breaks one of both: that is what databases live on.

use super::{connect, outcome_of};
use crate::history::Outcome;
use crate::nbd::{Command, Failure, Nbd};
use ashlar_core::rng::Rng;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Accounts, each in an object of its own.
const ACCOUNTS: u64 = 6;
/// What each begins with.
const BALANCE: u64 = 1000;
/// Bytes from one account to the next.
const STEP_BYTES: u64 = 1 << 20;
const BLOCK_BYTES: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(90);

/// MiB that its image needs: accounts and the journal.
pub const MIB: u64 = ACCOUNTS + 1;
/// Its image's name.
pub const EXPORT: &str = "bank";

/// What is in a block: the number of the transfer that wrote it, and figures.
type Row = [u64; 5];

/// The bank as its only teller knows it.
#[derive(Clone, Debug)]
pub struct Bank {
    /// Balances after the newest completed transfer.
    balances: [u64; ACCOUNTS as usize],
    /// Number of the newest completed transfer.
    pub completed: u64,
    /// The transfer after that, if it was begun: number, from, to, and both new balances.
    begun: Option<Row>,
    opened: bool,
}

impl Default for Bank {
    fn default() -> Self {
        Bank { balances: [BALANCE; ACCOUNTS as usize], completed: 0, begun: None, opened: false }
    }
}

impl Bank {
    /// Transfers until it is told to stop or the server is gone.
    pub fn work(&mut self, socket: &Path, stop: &AtomicBool, rng: &mut Rng) -> Result<(), String> {
        while let Some(mut nbd) = connect(socket, EXPORT, stop, PATIENCE) {
            match self.session(&mut nbd, stop, rng) {
                Ok(()) => return Ok(()),
                Err(Trouble::Broken(what)) => return Err(what),
                Err(Trouble::Gone) => {}
            }
        }
        Ok(())
    }

    fn session(&mut self, nbd: &mut Nbd, stop: &AtomicBool, rng: &mut Rng) -> Result<(), Trouble> {
        self.open(nbd)?;
        while !stop.load(Ordering::Relaxed) {
            let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
            let (a, b) = (usize::try_from(from).expect("few"), usize::try_from(to).expect("few"));
            let amount = rng.between(0, self.balances[a].min(50));
            if a == b {
                continue;
            }
            let row = [self.completed + 1, from, to, self.balances[a] - amount, self.balances[b] + amount];
            self.begun = Some(row);
            put(nbd, ACCOUNTS, row)?;
            flush(nbd)?;
            self.carry_out(nbd, row)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, nbd: &mut Nbd, row: Row) -> Result<(), Trouble> {
        let [number, from, to, a, b] = row;
        put(nbd, from, [number, a, 0, 0, 0])?;
        put(nbd, to, [number, b, 0, 0, 0])?;
        flush(nbd)?;
        self.balances[usize::try_from(from).expect("few")] = a;
        self.balances[usize::try_from(to).expect("few")] = b;
        (self.completed, self.begun) = (number, None);
        Ok(())
    }

    /// What a bank does when it opens: the first time it fills the accounts, later it does the journal's transfer again,
    /// and looks at everything.
    pub fn open(&mut self, nbd: &mut Nbd) -> Result<(), Trouble> {
        if !self.opened {
            for account in 0..ACCOUNTS {
                put(nbd, account, [0, BALANCE, 0, 0, 0])?;
            }
            flush(nbd)?;
            self.opened = true;
        }
        let journal = get(nbd, ACCOUNTS)?;
        let is_known = journal[0] == self.completed || Some(journal) == self.begun;
        if !is_known {
            return Err(broken(format!("the journal has transfer {journal:?}; completed was {}", self.completed)));
        }
        if Some(journal) == self.begun {
            self.carry_out(nbd, journal)?;
        }
        // A transfer whose journal did not arrive never was.
        self.begun = None;
        self.count(nbd)
    }

    fn count(&self, nbd: &mut Nbd) -> Result<(), Trouble> {
        let mut found = [0; ACCOUNTS as usize];
        for (account, place) in (0..).zip(&mut found) {
            *place = get(nbd, account)?[1];
        }
        let sum: u64 = found.iter().sum();
        if found == self.balances {
            return Ok(());
        }
        Err(broken(format!(
            "after {} transfers the accounts have {found:?} (together {sum} of {}), not {:?}",
            self.completed,
            ACCOUNTS * BALANCE,
            self.balances
        )))
    }

    /// Opens it once more, with patience.
    pub fn check(&mut self, socket: &Path) -> Result<(), String> {
        let never = AtomicBool::new(false);
        let mut nbd = connect(socket, EXPORT, &never, PATIENCE).ok_or("the server does not answer")?;
        match self.open(&mut nbd) {
            Ok(()) => Ok(()),
            Err(Trouble::Broken(what)) => Err(what),
            Err(Trouble::Gone) => Err("the bank cannot be read".into()),
        }
    }
}

/// Why the bank does not go on.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The connection ended.
    Gone,
    /// A promise was broken.
    Broken(String),
}

fn broken(what: String) -> Trouble {
    Trouble::Broken(what)
}

fn trouble(failure: Failure) -> Trouble {
    match outcome_of(&failure) {
        Outcome::Fail(why) => Trouble::Broken(format!("the bank was refused: {why}")),
        _ => Trouble::Gone,
    }
}

fn put(nbd: &mut Nbd, place: u64, row: Row) -> Result<(), Trouble> {
    let words: Vec<u8> = row.iter().flat_map(|word| word.to_le_bytes()).collect();
    let block: Vec<u8> = words.iter().copied().cycle().take(BLOCK_BYTES).collect();
    nbd.perform(Command::Write, place * STEP_BYTES, BLOCK_BYTES, &block, false).map(drop).map_err(trouble)
}

fn get(nbd: &mut Nbd, place: u64) -> Result<Row, Trouble> {
    let bytes = nbd.perform(Command::Read, place * STEP_BYTES, BLOCK_BYTES, &[], false).map_err(trouble)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    let row = [0, 1, 2, 3, 4].map(word);
    let whole: Vec<u8> = bytes[..40].iter().copied().cycle().take(BLOCK_BYTES).collect();
    if whole == bytes {
        Ok(row)
    } else {
        Err(broken(format!("block {place} of the bank is a mixture of several writes")))
    }
}

fn flush(nbd: &mut Nbd) -> Result<(), Trouble> {
    nbd.perform(Command::Flush, 0, 0, &[], false).map(drop).map_err(trouble)
}

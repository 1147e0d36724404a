//! Questions before data are lost for good.
//!
//! Invariant: without a person at a terminal, and without `--yes`, nothing is lost.

use anyhow::{Result, bail};
use std::io::{self, BufRead, IsTerminal, Write};

/// Whether to ask.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Confirm {
    /// Do not ask first.
    #[arg(long, short = 'y')]
    yes: bool,
}

/// How something that takes time is removed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Removing {
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until everything is deleted; that goes on without this command.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Confirm {
    /// Asks whether this is to be, by having its name typed; an error unless it is.
    pub fn ask(self, what: &str, name: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            bail!("{what}; nobody is here to be asked, so this needs --yes");
        }
        let mut question = io::stderr();
        write!(question, "{what}. Type '{name}' to go on: ")?;
        question.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != name { bail!("not confirmed: nothing is changed") } else { Ok(()) }
    }
}

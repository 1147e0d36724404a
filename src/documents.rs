//! What shells and `man` know of the commands, made from the commands themselves.

use anyhow::{Context, Result};
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell; put the output where it looks for completions.
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Where to write a page for each command, such as /usr/local/share/man/man1.
    directory: PathBuf,
}

impl Completions {
    /// Prints them.
    pub fn run(&self, mut cli: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli, "ashlar", &mut script);
        crate::output::text(&String::from_utf8(script).context("a script is text")?)
    }
}

impl Man {
    /// Writes them.
    pub fn run(&self, cli: clap::Command) -> Result<()> {
        let directory = self.directory.display();
        std::fs::create_dir_all(&self.directory).with_context(|| format!("creating {directory}"))?;
        clap_mangen::generate_to(cli, &self.directory).with_context(|| format!("writing to {directory}"))?;
        crate::output::text(&format!("wrote man pages to {directory}; `man ashlar` begins\n"))
    }
}

#[cfg(test)]
mod tests;

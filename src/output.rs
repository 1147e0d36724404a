//! What commands print: a table for people, or JSON for programs.

use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// How to print.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// Print JSON, a value on a line.
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Prints a value: as JSON, or as what `text` makes of it.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        self::text(&if self.json { serde_json::to_string(value)? } else { text(value) })
    }
}

/// Prints a text that ends with one end of line.
pub fn text(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // Who reads has seen enough, such as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A table with these headings.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    table_of(&headings)
}

/// The same, of any number.
pub fn table_of(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings.iter().copied());
    table
}

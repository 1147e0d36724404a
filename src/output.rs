//! What commands print: a table for people, or JSON for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

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
        if self.json {
            println!("{}", serde_json::to_string(value)?);
        } else {
            println!("{}", text(value).trim_end());
        }
        Ok(())
    }
}

/// A table with these headings.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings);
    table
}

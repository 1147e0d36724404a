//! The house's own rules, checked on every file that git knows.
//!
//! Owns: the rules and their limits. Does not own: what rustfmt and clippy check already.
//! Invariant: a rule names the file, the line, what is wrong, and what would be right.

mod functions;
mod text;

use crate::commands;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::Path;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path below the workspace's root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.problem)
    }
}

/// A file under check.
pub struct Source<'a> {
    /// Path below the workspace's root, with `/`.
    pub path: &'a str,
    /// Its contents.
    pub text: &'a str,
}

impl Source<'_> {
    /// A finding in this file.
    pub fn finding(&self, line: usize, problem: impl Into<String>) -> Finding {
        Finding { path: self.path.into(), line, problem: problem.into() }
    }

    /// Whether it belongs to a crate (its folder under the root).
    pub fn is_in(&self, krate: &str) -> bool {
        self.path.strip_prefix(krate).is_some_and(|rest| rest.starts_with('/'))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Checks the whole tree.
pub fn run() -> Result<()> {
    let root = commands::root();
    let listing = commands::output(commands::program("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut findings = Vec::new();
    let mut lengths = Vec::new();
    let mut files = 0u32;
    for path in listing.split('\0').filter(|path| !path.is_empty() && root.join(path).is_file()) {
        let Some(text) = read(&root.join(path))? else { continue };
        files += 1;
        findings.extend(check(&Source { path, text: &text }, &root, &mut lengths));
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    println!(
        "tidy: {files} files, {} functions, {}, {} findings",
        lengths.len(),
        summary(&mut lengths),
        findings.len()
    );
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    Ok(())
}

/// A text file's contents; `None` for a binary one.
fn read(path: &Path) -> Result<Option<String>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8(bytes).ok())
}

/// All rules on one file; adds the lengths of its functions.
fn check(source: &Source<'_>, root: &Path, lengths: &mut Vec<usize>) -> Vec<Finding> {
    let mut findings = text::machine_paths(source, root);
    if source.is_rust() {
        findings.extend(text::rust_rules(source));
        findings.extend(functions::check(source, lengths));
    }
    findings
}

/// How long functions are: median, nine in ten, the longest.
fn summary(lengths: &mut [usize]) -> String {
    lengths.sort_unstable();
    let at = |tenths: usize| lengths.get((lengths.len().saturating_sub(1)) * tenths / 10).copied().unwrap_or(0);
    format!("median {} lines, nine in ten up to {}, longest {}", at(5), at(9), at(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_median_and_extremes() {
        assert_eq!(summary(&mut [9, 1, 5]), "median 5 lines, nine in ten up to 5, longest 9");
        assert_eq!(summary(&mut []), "median 0 lines, nine in ten up to 0, longest 0");
    }

    #[test]
    fn a_crate_is_its_folder_and_no_prefix_of_another() {
        let source = Source { path: "core/src/lib.rs", text: "" };
        assert!(source.is_in("core"));
        assert!(!source.is_in("cor"));
    }
}

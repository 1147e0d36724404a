//! Rules that lines of text can be held against.

use super::{Finding, Source};
use std::path::Path;

/// Longest file, in lines before its tests.
const FILE_MAX_LINES: usize = 1_000;
/// The crates whose behaviour is a function of their inputs.
const DETERMINISTIC: &[&str] = &["core", "sim", "faultinject"];
/// What the deterministic crates never name, not even to hand it on, and what they use instead. The simulator's own
/// command line measures its speed and writes files: those modules are in [`EDGES`].
const ENVIRONMENT: &[(&str, &str)] = &[
    ("std::fs", "disks are reached by effects"),
    ("std::net", "peers are reached by effects"),
    ("std::thread", "a node is driven by one thread and starts none"),
    ("std::env", "configuration is an argument"),
    ("std::process", "a node that cannot go on emits `Effect::Die`"),
    ("Instant", "time is an input: `Env::now`"),
    ("SystemTime", "wall-clock time never decides anything"),
];
/// Parts of deterministic crates that talk to people: command lines, drivers of many runs at once, files of runs, clocks
/// that measure them from outside.
const EDGES: &[&str] = &["sim/src/bin/", "sim/src/bench.rs", "sim/src/case.rs", "sim/src/cli"];
/// Words that mean unfinished work. Spelt in pieces, so that this list does not find itself.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("FIX", "ME"), concat!("TO", "DO")];
/// Folders that exist on one person's machine only.
const PERSONAL: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Absolute paths of somebody's machine.
pub fn machine_paths(source: &Source<'_>, root: &Path) -> Vec<Finding> {
    let here = root.to_string_lossy();
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let named = PERSONAL.iter().copied().chain([&*here]).find(|folder| line.contains(folder));
        if let Some(folder) = named {
            let problem = format!("names a folder of one machine ({folder}): make it relative, or an argument");
            findings.push(source.finding(index + 1, problem));
        }
    }
    findings
}

/// Everything else that concerns Rust files.
pub fn rust_rules(source: &Source<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = header(source).into_iter().collect();
    findings.extend(length(source));
    findings.extend(unfinished(source));
    findings.extend(environment(source));
    findings.extend(scenario_header(source));
    findings
}

/// Every module says in its first lines what it owns.
fn header(source: &Source<'_>) -> Option<Finding> {
    let first = source.text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["))?;
    if first.starts_with("//!") || source.path.ends_with("build.rs") && first.starts_with("//") {
        return None;
    }
    Some(
        source.finding(
            1,
            "no module header: begin with `//!` and what the module owns, what it does not, its invariants",
        ),
    )
}

/// Lines before the tests.
fn length(source: &Source<'_>) -> Option<Finding> {
    let lines = code_lines(source).count();
    (lines > FILE_MAX_LINES && !is_test(source))
        .then(|| source.finding(1, format!("{lines} lines; the limit is {FILE_MAX_LINES}: split it by responsibility")))
}

/// Files of tests only.
fn is_test(source: &Source<'_>) -> bool {
    source.path.ends_with("/tests.rs") || source.path.contains("/tests/")
}

/// The lines before `#[cfg(test)] mod ... {`.
fn code_lines<'a>(source: &Source<'a>) -> impl Iterator<Item = &'a str> {
    let text = source.text;
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines()
}

fn unfinished(source: &Source<'_>) -> Vec<Finding> {
    let found = |line: &str| UNFINISHED.iter().find(|word| line.contains(**word));
    let lines = source.text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            found(line).map(|word| source.finding(index + 1, format!("`{word}`: finish it, or leave it out")))
        })
        .collect()
}

/// What a deterministic crate must not name in its code (comments may).
fn environment(source: &Source<'_>) -> Vec<Finding> {
    let tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    if tests
        || !DETERMINISTIC.iter().any(|krate| source.is_in(krate))
        || EDGES.iter().any(|edge| source.path.starts_with(edge))
    {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in code_lines(source).enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (name, instead) in ENVIRONMENT.iter().filter(|(name, _)| names(code, name)) {
            findings.push(source.finding(index + 1, format!("`{name}` in a deterministic crate: {instead}")));
        }
    }
    findings
}

/// Whether code holds `name` as a whole word; grouped imports (`use std::{fs, ...}`) count.
fn names(code: &str, name: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |code: &str, word: &str| {
        code.match_indices(word)
            .any(|(at, _)| !code[..at].ends_with(part_of_word) && !code[at + word.len()..].starts_with(part_of_word))
    };
    let grouped = name.strip_prefix("std::").is_some_and(|module| code.contains("use std::{") && whole(code, module));
    whole(code, name) || grouped
}

/// A scenario reads like a story, and its header says which.
fn scenario_header(source: &Source<'_>) -> Vec<Finding> {
    let scenario = source.path.starts_with("sim/scenarios/") || source.path.starts_with("sim/src/scenarios/");
    if !scenario || source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let header: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    let missing = |part: &&str| !header.to_lowercase().contains(&format!("{part}:"));
    let parts = ["goal", "method", "stands for"];
    parts
        .iter()
        .filter(|part| missing(part))
        .map(|part| source.finding(1, format!("the scenario's header lacks `{part}:`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        rust_rules(&Source { path, text }).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(problems("core/src/a.rs", "//! Owns a.\nuse std::collections::BTreeMap;\n"), [""; 0]);
        assert_eq!(problems("sim/build.rs", "// Generates.\n"), [""; 0]);
    }

    #[test]
    fn a_missing_header_is_found() {
        assert_eq!(problems("core/src/a.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(problems("core/src/a.rs", "#![forbid(unsafe_code)]\n\n//! Owns a.\n"), [""; 0]);
    }

    #[test]
    fn a_long_file_is_found_but_its_tests_do_not_count() {
        let code = "//! A.\n".to_string() + &"const A: u8 = 1;\n".repeat(FILE_MAX_LINES);
        assert_eq!(problems("osd/src/a.rs", &code).len(), 1);
        let tests =
            "//! A.\n#[cfg(test)]\nmod tests {\n".to_string() + &"const A: u8 = 1;\n".repeat(FILE_MAX_LINES) + "}\n";
        assert_eq!(problems("osd/src/a.rs", &tests), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(problems("osd/src/a.rs", &format!("//! A.\nfn f() {{ {word} }}\n")).len(), 1, "{word}");
        }
    }

    #[test]
    fn the_environment_is_found_in_core_only() {
        for line in ["use std::fs::File;", "use std::{fmt, fs};", "let t = Instant::now();", "std::env::var(a)"] {
            let text = format!("//! A.\n{line}\n");
            assert_eq!(problems("core/src/a.rs", &text).len(), 1, "{line}");
            assert_eq!(problems("runtime/src/a.rs", &text), [""; 0], "{line}");
            assert_eq!(problems("sim/src/cli/a.rs", &text), [""; 0], "{line}");
        }
        for line in ["// no Instant here", "struct InstantReplay;", "use std::{fmt, mem};", "let offset = 1;"] {
            assert_eq!(problems("core/src/a.rs", &format!("//! A.\n{line}\n")), [""; 0], "{line}");
        }
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let found = |text: &str| machine_paths(&Source { path: "README.md", text }, Path::new("/srv/checkout")).len();
        assert_eq!(found("see docs/format.md, /proc/self and /usr/bin/fio"), 0);
        assert_eq!(found("cd /srv/checkout"), 1);
        assert_eq!(PERSONAL.iter().map(|folder| found(&format!("cd {folder}me"))).sum::<usize>(), PERSONAL.len());
    }

    #[test]
    fn scenarios_have_their_header() {
        let good = "//! Two sides.\n//!\n//! Goal: a\n//! Method: b\n//! Stands for: A1\n";
        assert_eq!(problems("sim/scenarios/split.rs", good), [""; 0]);
        assert_eq!(problems("sim/scenarios/split.rs", "//! Two sides.\n").len(), 3);
    }
}

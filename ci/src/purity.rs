//! Proof that core needs nothing of an operating system.
//!
//! Two proofs, because each can do what the other cannot:
//! 1. *Symbols*: core and all that it is built from, compiled for this machine, must refer to no symbol of `std` or of
//!    the C library that opens files or sockets, reads clocks or the environment, or starts threads.
//! 2. *Target*: core must compile for `wasm32-unknown-unknown`, where there is no operating system. With rustup:
//!    `rustup target add wasm32-unknown-unknown`. Where that cannot be had, a compiler with the sources of its standard
//!    library is unpacked (not installed) from Debian's packages into `target/purity`, and builds that library too.
//!
//! The second is skipped, in plain words, where neither way is open; the first always runs.

use crate::commands;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Parts of `std` that reach the world, as they stand in symbol names (length, then name).
const REACHES_OUT: &[&str] = &[
    "3std2fs",
    "3std3net",
    "3std6thread7current",
    "3std6thread5spawn",
    "3std6thread9functions",
    "3std6thread5sleep",
    "3std3env",
    "3std4time",
    "3std7process7Command",
    "3std2os",
    "3std2io5stdio6__print",
    "3std4hash6random",
];
/// C symbols that compute and nothing else: memory, arithmetic, unwinding.
const PURE_C: &[&str] = &[
    // Constants of the compiler's own, shared among parts of one crate.
    "anon.",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "bcmp",
    "strlen",
    "_Unwind_",
    "rust_eh_personality",
    "__rust_",
    "__tls_get_addr",
    "__udivti3",
    "__umodti3",
    "__divti3",
    "__modti3",
    "__powidf2",
    "__powisf2",
    "__multi3",
    "ceil",
    "floor",
    "round",
    "trunc",
    "fma",
    "log",
    "exp",
    "pow",
    "sqrt",
    "rint",
    "__rdl_",
    "__rg_",
    "__rustc",
];
/// Dependencies that refer to something on the list, and why it does not matter.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "microlp",
        "3std4time",
        "measures its time limit, and core gives it none: the result does not depend on the clock",
    ),
    (
        "once_cell",
        "3std6thread",
        "belongs to a cache of the crate reed-solomon-erasure, of which core uses nothing but arithmetic",
    ),
];

/// Both proofs.
pub fn run() -> Result<()> {
    symbols()?;
    target()
}

/// A compiled crate of core's tree.
struct Library {
    name: String,
    path: PathBuf,
}

fn symbols() -> Result<()> {
    let mut found = Vec::new();
    let libraries = libraries()?;
    for library in &libraries {
        let listing =
            commands::output(Command::new("nm").args(["--undefined-only", "--format=posix"]).arg(&library.path))?;
        found.extend(offending(&library.name, &listing));
    }
    if !libraries.iter().any(|library| library.name == "ashlar_core") {
        bail!("purity: the build did not report ashlar_core");
    }
    found.iter().for_each(|line| println!("{line}"));
    println!("purity: {} crates, {} references to an operating system", libraries.len(), found.len());
    if !found.is_empty() {
        bail!("purity: core or what it is built from reaches for the operating system");
    }
    Ok(())
}

/// Core and its dependencies, compiled for this machine (what only serves the build is left out).
fn libraries() -> Result<Vec<Library>> {
    let tree = commands::output(commands::cargo().args([
        "tree",
        "-p",
        "ashlar-core",
        "-e",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "-f",
        "{lib}",
    ]))?;
    let wanted: std::collections::BTreeSet<_> = tree.lines().map(|line| line.trim().replace('-', "_")).collect();
    let messages =
        commands::output(commands::cargo().args(["build", "--quiet", "-p", "ashlar-core", "--message-format=json"]))?;
    let mut libraries = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages are JSON")?;
        let name = message["target"]["name"].as_str().unwrap_or_default().to_string();
        if message["reason"] == "compiler-artifact" && wanted.contains(&name) {
            let files = message["filenames"].as_array().into_iter().flatten().filter_map(|file| file.as_str());
            libraries.extend(
                files
                    .filter(|file| file.ends_with(".rlib"))
                    .map(|file| Library { name: name.clone(), path: file.into() }),
            );
        }
    }
    Ok(libraries)
}

/// The undefined symbols of one crate that it must not have.
fn offending(name: &str, listing: &str) -> Vec<String> {
    let ours = name == "ashlar_core";
    let excused = |symbol: &str| EXCUSED.iter().any(|(krate, part, _)| *krate == name && symbol.contains(part));
    let undefined = listing.lines().filter_map(|line| line.split_once(" U").map(|(symbol, _)| symbol));
    undefined
        .filter(|symbol| match symbol.starts_with("_ZN") || symbol.starts_with("_R") {
            true => REACHES_OUT.iter().any(|part| symbol.contains(part)) && !excused(symbol),
            false => ours && !PURE_C.iter().any(|pure| symbol.starts_with(pure)),
        })
        .map(|symbol| format!("{name}: refers to {symbol}"))
        .collect()
}

fn target() -> Result<()> {
    let sysroot = commands::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir() {
        let mut check = commands::cargo();
        return commands::run(
            "core for wasm32, by the installed target",
            check.args(["check", "-q", "-p", "ashlar-core", "--target", TARGET]),
        );
    }
    let folder = commands::root().join("target/purity");
    match unpacked(&folder) {
        Ok(()) => commands::run(
            "core for wasm32, with the standard library built from Debian's sources",
            &mut from_source(&folder),
        ),
        Err(reason) => {
            println!("purity: the check for wasm32 was SKIPPED ({reason:#}); `rustup target add {TARGET}` enables it");
            Ok(())
        }
    }
}

/// Has a compiler and the sources of its standard library under `folder`.
fn unpacked(folder: &Path) -> Result<()> {
    let done = folder.join("unpacked");
    if done.is_file() {
        return Ok(());
    }
    if !commands::answers("apt-get", &["--version"]) {
        bail!("no such target here, and no apt-get to fetch another compiler with");
    }
    std::fs::create_dir_all(folder)?;
    // Lists may be old or missing; without leave to refresh them, what there is must do.
    let _ = commands::answers("apt-get", &["-qq", "update"]);
    let packages = packages()?;
    eprintln!("\n== a compiler that can build its standard library: {}", packages.join(" "));
    commands::output(Command::new("apt-get").current_dir(folder).args(["-qq", "download"]).args(&packages))?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            commands::output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(folder.join("root")))?;
            std::fs::remove_file(&path)?;
        }
    }
    std::fs::write(&done, packages.join("\n"))?;
    Ok(())
}

/// The packages' names: the compiler's library carries its version, and so does LLVM.
fn packages() -> Result<Vec<String>> {
    let depends = |package: &str, prefix: &str| -> Result<String> {
        let listing = commands::output(Command::new("apt-cache").args(["depends", package]))?;
        let names = listing.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = names.map(str::to_string).find(|name| name.starts_with(prefix));
        found.with_context(|| format!("{package} names no package {prefix}..."))
    };
    let library = depends("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = depends(&library, "libllvm")?;
    let fixed = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"].map(str::to_string);
    Ok(fixed.into_iter().chain([library, llvm]).collect())
}

/// Checks core with the unpacked compiler. `-Z build-std` belongs to nightly compilers; the sources match this one.
fn from_source(folder: &Path) -> Command {
    let mut check = commands::cargo();
    check
        .args([
            "check",
            "--quiet",
            "-p",
            "ashlar-core",
            "--target",
            TARGET,
            "-Zbuild-std=std,panic_abort",
            "--target-dir",
        ])
        .arg(folder.join("target"))
        .env("RUSTC", folder.join("root/usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", folder.join("root/usr/lib/x86_64-linux-gnu"));
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_the_system_are_found_in_both_manglings() {
        for symbol in
            ["_ZN3std2fs4read17h0123456789abcdefE", "_RNvNtCs1_3std2fs4read", "_RNvMNtCs1_3std4timeNtB2_7Instant3now"]
        {
            assert_eq!(offending("ashlar_core", &format!("{symbol} U 0\n")).len(), 1, "{symbol}");
            assert_eq!(offending("serde", &format!("{symbol} U 0\n")).len(), 1, "{symbol}");
        }
    }

    #[test]
    fn system_calls_are_found_in_core() {
        assert_eq!(offending("ashlar_core", "clock_gettime U\ngetrandom U\nopen64 U\n").len(), 3);
        assert_eq!(offending("ashlar_core", "memcpy U\n_Unwind_Resume U\n_RNvNtCs1_4core3fmt5write U\n"), [""; 0]);
    }

    #[test]
    fn excuses_hold_for_their_crate_only() {
        let clock = "_RNvMNtCs1_3std4timeNtB2_7Instant3now U\n";
        assert_eq!(offending("microlp", clock), [""; 0]);
        assert_eq!(offending("good_lp", clock).len(), 1);
    }
}

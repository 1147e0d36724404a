//! `bisect`: which commit broke a run.
//!
//! Each commit is built in a working tree of its own and repeats the run from a file, so that its configuration stays the
//! same whatever seeds draw there. A commit that does not build, or cannot read the file, is skipped.

use super::Which;
use clap::Parser;
use std::path::Path;
use std::process::{Command, ExitCode};

#[derive(Parser)]
pub struct BisectArgs {
    #[command(flatten)]
    which: Which,
    /// A commit at which the run passes.
    #[arg(long)]
    good: String,
    /// A commit at which it fails.
    #[arg(long, default_value = "HEAD")]
    bad: String,
}

/// What is done at each commit: 0 it passes, 1 it fails, 125 it cannot say. `repro` itself ends with 2 if it cannot.
const STEP: &str = r#"cargo build --quiet --release -p ashlar-sim $2 || exit 125
"$CARGO_TARGET_DIR"/release/ashlar-sim repro --config "$1" $3
case $? in 0) exit 0;; 1) exit 1;; *) exit 125;; esac"#;

/// Finds the commit.
pub fn bisect(args: &BisectArgs) -> Result<ExitCode, String> {
    let (case, _) = args.which.case()?;
    let folder = std::env::temp_dir().join(format!("ashlar-bisect-{}", std::process::id()));
    let tree = folder.join("tree");
    let file = folder.join("run.json");
    case.write(&file)?;
    git(Path::new("."), &["worktree", "add", "--detach", &text(&tree), &args.bad])?;
    let outcome = search(args, &folder, &tree, &file);
    let _ = git(&tree, &["bisect", "reset"]);
    git(Path::new("."), &["worktree", "remove", "--force", &text(&tree)])?;
    std::fs::remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn search(args: &BisectArgs, folder: &Path, tree: &Path, file: &Path) -> Result<(), String> {
    git(tree, &["bisect", "start", &args.bad, &args.good])?;
    let (features, planted) = match &args.which.planted {
        Some(name) => ("--features planted", format!("--planted {name}")),
        None => ("", String::new()),
    };
    let mut step = Command::new("git");
    step.current_dir(tree).env("CARGO_TARGET_DIR", folder.join("target"));
    step.args(["bisect", "run", "sh", "-c", STEP, "sh", &text(file), features, &planted]);
    run(step)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments);
    run(command)
}

fn run(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

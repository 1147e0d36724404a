//! Running other people's programs, with an end to patience.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(10);
/// For a program that was killed: one that waits for a device may not end before that answers.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// Runs a program to its end and returns what it wrote to standard output; an error if it fails or takes too long.
pub fn run(program: &str, arguments: &[&str], patience: Duration) -> Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}; `cargo ci test` installs what the tests need"))?;
    let out = collect(child.stdout.take().expect("it was piped"));
    let err = collect(child.stderr.take().expect("it was piped"));
    let start = Instant::now();
    let mut killed = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status).filter(|_| killed.is_none());
        }
        match killed {
            None if start.elapsed() > patience => {
                child.kill()?;
                killed = Some(Instant::now());
            }
            Some(at) if at.elapsed() > DEATH_LIMIT => {
                bail!(
                    "{shown}\n  did not end within {} s, and waits for the kernel although killed",
                    patience.as_secs()
                )
            }
            _ => std::thread::sleep(POLL),
        }
    };
    let (out, err) = (out.join().expect("reading does not panic"), err.join().expect("reading does not panic"));
    match status {
        Some(status) if status.success() => Ok(out),
        Some(status) => bail!("{shown}\n  failed ({status})\n{}{}", tail(&out), tail(&err)),
        None => bail!("{shown}\n  did not end within {} s\n{}{}", patience.as_secs(), tail(&out), tail(&err)),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said all that it will.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The end of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_failure_and_impatience_are_told_apart() {
        let limit = Duration::from_secs(20);
        assert_eq!(run("echo", &["a"], limit).expect("echo works"), "a\n");
        let failure = run("sh", &["-c", "echo why >&2; exit 3"], limit).expect_err("it fails").to_string();
        assert!(failure.contains("exit status: 3") && failure.contains("why"), "{failure}");
        let slow = run("sleep", &["60"], Duration::from_millis(50)).expect_err("it is too slow").to_string();
        assert!(slow.contains("did not end"), "{slow}");
    }
}

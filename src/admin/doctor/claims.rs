//! What operators vouch for of devices (`--durability`, `--atomic-bytes`), beside what the kernel knows of them.
//!
//! Owns: finding the claims, of OSDs that run on this machine and of the configuration file; the verdict on them. Does not own
//! what the kernel says ([`super::machine`]).

use super::{Finding, Level};
use crate::size;
use ashlar_osd::Durability;
use clap::ValueEnum;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What somebody says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who: an OSD that runs, or the configuration file.
    pub by: String,
    /// Of this device or file.
    pub path: PathBuf,
    /// What makes a write durable there.
    pub durability: Durability,
    /// What it writes wholly or not at all; `None`: what the kernel states.
    pub atomic_bytes: Option<u64>,
}

/// What the kernel knows of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether it has a volatile cache; `None`: not known.
    pub volatile: Option<bool>,
    /// Bytes that it writes wholly or not at all.
    pub atomic_bytes: u64,
    /// It is a file on one, of which the kernel states nothing.
    pub is_file: bool,
}

/// Claims of the OSDs that run here, by their command lines and the configuration file that they read.
pub fn running(root: &Path) -> Vec<Claim> {
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut claims: Vec<Claim> = processes.flat_map(|process| of_process(&process.path())).collect();
    claims.sort_by(|a, b| (&a.by, &a.path).cmp(&(&b.by, &b.path)));
    claims
}

fn of_process(directory: &Path) -> Vec<Claim> {
    let words = |file: &str| -> Vec<OsString> {
        let bytes = fs::read(directory.join(file)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| OsString::from_vec(word.to_vec())).collect()
    };
    let given = words("cmdline");
    if given.get(1).is_none_or(|word| word != "osd") || given.get(2).is_none_or(|word| word != "run") {
        return Vec::new();
    }
    // One that `up` started reads no file.
    let supervised = format!("{}=", crate::supervised::SUPERVISOR);
    let is_told = words("environ").iter().any(|word| word.to_string_lossy().starts_with(&supervised));
    let given = if is_told { given } else { crate::with_file(given.clone()).unwrap_or(given) };
    let id = value(&given, "id").unwrap_or_else(|| "?".into());
    of_words(&format!("osd.{id}"), &given)
}

/// The claim that the configuration file makes of a device that no OSD uses now.
pub fn configured(device: &Path) -> Option<Claim> {
    let words = ["ashlar", "osd", "run", "--id", "0", "--data"].map(OsString::from).into_iter();
    let words = crate::with_file(words.chain([device.into()]).collect()).ok()?;
    of_words("the configuration file", &words).into_iter().next()
}

fn of_words(by: &str, words: &[OsString]) -> Vec<Claim> {
    let durability = |name| Durability::from_str(&value(words, name)?, false).ok();
    let data = durability("durability").unwrap_or(Durability::Auto);
    let atomic_bytes = value(words, "atomic-bytes").and_then(|text| size::parse(&text).ok());
    let claim = |path: String, durability, atomic_bytes| Claim {
        by: by.to_string(),
        path: path.into(),
        durability,
        atomic_bytes,
    };
    let log = value(words, "log").map(|log| claim(log, durability("log-durability").unwrap_or(data), None));
    value(words, "data").map(|path| claim(path, data, atomic_bytes)).into_iter().chain(log).collect()
}

/// The value of a flag, in either way of writing it.
fn value(words: &[OsString], name: &str) -> Option<String> {
    let flag = format!("--{name}");
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match word.strip_prefix(&flag) {
            Some("") => return words.next().map(Into::into),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_string()),
            _ => {}
        }
    }
    None
}

/// Whether both are one device, by whatever names.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

/// Claims beside what is known: those that go beyond it are somebody's word.
pub fn judge(claim: &Claim, known: Known, about: &str) -> Vec<Finding> {
    let Claim { by, durability, atomic_bytes, .. } = claim;
    let mut found = Vec::new();
    let mut tell = |level, text: String| found.push(Finding::new(level, about, text));
    match (durability, known.volatile) {
        (Durability::Plp, Some(false)) => {
            tell(Level::Good, format!("{by} says --durability plp, and so does the kernel"))
        }
        (Durability::Plp, _) if known.is_file => tell(
            Level::Bad,
            format!("{by} says --durability plp of a file: OSDs refuse that, for its file system needs flushes anyway"),
        ),
        (Durability::Plp, volatile) => {
            let knows = if volatile.is_some() { "knows of a volatile cache" } else { "does not know" };
            tell(
                Level::Warn,
                format!(
                    "{by} says --durability plp, the kernel {knows}: see that the device protects its cache against power \
                     loss, or a power cut takes acknowledged writes; --durability flush is always right"
                ),
            );
        }
        (Durability::Lazy, _) => {
            tell(
                Level::Warn,
                format!("{by} says --durability lazy: a power cut takes the last second, as was asked for"),
            );
        }
        (Durability::Auto | Durability::Flush, _) => {}
    }
    match *atomic_bytes {
        Some(bytes) if bytes > known.atomic_bytes => {
            let Known { atomic_bytes, .. } = known;
            tell(
                Level::Warn,
                format!(
                    "{by} says --atomic-bytes {bytes}, the kernel promises {atomic_bytes}: see that the device's maker does, \
                     or a power cut tears data on all copies at once; without the flag the OSD does what the kernel promises"
                ),
            );
        }
        Some(bytes) if bytes > 0 => {
            tell(Level::Good, format!("{by} says --atomic-bytes {bytes}, and so does the kernel"))
        }
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(durability: Durability, atomic_bytes: Option<u64>) -> Claim {
        Claim { by: "osd.1".into(), path: "/dev/x".into(), durability, atomic_bytes }
    }

    fn levels(claim: &Claim, known: Known) -> Vec<Level> {
        judge(claim, known, "d").iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn claims_beyond_what_the_kernel_knows_are_told() {
        let (safe, atomic) = (Some(false), 16384);
        let strong = Known { volatile: safe, atomic_bytes: atomic, is_file: false };
        let weak = Known { volatile: Some(true), atomic_bytes: 512, is_file: false };
        let both = claim(Durability::Plp, Some(4096));
        assert_eq!(levels(&both, strong), [Level::Good; 2]);
        assert_eq!(levels(&both, weak), [Level::Warn; 2]);
        assert_eq!(levels(&both, Known::default()), [Level::Warn; 2]);
        let file = Known { is_file: true, ..Known::default() };
        assert_eq!(levels(&both, file), [Level::Bad, Level::Warn]);
        assert_eq!(levels(&claim(Durability::Auto, None), weak), []);
        assert_eq!(levels(&claim(Durability::Flush, Some(0)), Known::default()), []);
        assert_eq!(levels(&claim(Durability::Lazy, None), strong), [Level::Warn]);
        assert!(judge(&both, weak, "d")[0].text.contains("knows of a volatile cache"));
    }

    #[test]
    fn running_osds_are_found_by_their_command_lines() {
        let root = std::env::temp_dir().join(format!("ashlar-claims-{}", std::process::id()));
        let processes = [
            (
                "7",
                "/usr/bin/ashlar\0osd\0run\0--id=3\0--data\0/dev/a\0--durability\0plp\0--atomic-bytes=4K\0--log=/dev/l\0",
            ),
            ("8", "ashlar\0osd\0list\0"),
            ("9", "sleep\0"),
        ];
        for (number, words) in processes {
            fs::create_dir_all(root.join("proc").join(number)).expect("scratch");
            fs::write(root.join("proc").join(number).join("cmdline"), words).expect("scratch");
            let environ = format!("{}=1\0", crate::supervised::SUPERVISOR);
            fs::write(root.join("proc").join(number).join("environ"), environ).expect("scratch");
        }
        let of = |path: &str, atomic_bytes| Claim {
            by: "osd.3".into(),
            path: path.into(),
            durability: Durability::Plp,
            atomic_bytes,
        };
        assert_eq!(running(&root), [of("/dev/a", Some(4096)), of("/dev/l", None)]);
        fs::remove_dir_all(&root).expect("scratch");
    }
}

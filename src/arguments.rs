//! The configuration file: flags of commands, written down once.
//!
//! ```toml
//! meta = ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]   # every command that has this flag
//! meta-ca = "/etc/ashlar/ca.pem"
//! [osd.run]                                                    # ashlar osd run
//! host = "node1"
//! [mon]
//! listen = "10.0.0.1:7800"
//! ```
//! Owns the one precedence: command line, environment, the command's table in the file, the file's first lines, default.
//! Does not own flags: what the file may say follows from the commands themselves.
//! Invariants: every name in the file is that of a flag, and every value one that the flag takes; a mistake is an error,
//! whatever command runs. What excludes another flag excludes it from all that counts less: `--dir` on the command line
//! makes `meta` of the environment and of the file void.

use anyhow::{Context, Result, bail};
use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Id};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use toml::{Table, Value};

/// Where the file is, unless the environment says otherwise. It need not be there.
const DEFAULT_FILE: &str = "/etc/ashlar/ashlar.toml";
/// Names the file in the environment.
const FILE_VARIABLE: &str = "ASHLAR_CONFIG";

/// Flags that give up a protection, each time it is meant: a file would do so for good.
const NEVER_IN_FILE: &[&str] = &["yes", "force", "shrink", "with-images", "at-once", "lose-data"];

/// The command line with what the configuration file adds to it, and the commands as they read it: environment variables
/// count for nothing where the command line says something that excludes them.
pub fn complete(given: Vec<OsString>, cli: clap::Command) -> Result<(Vec<OsString>, clap::Command)> {
    let named = std::env::var_os(FILE_VARIABLE).map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let mut built = cli.clone();
    built.build();
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    let words = match std::fs::read_to_string(&path) {
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(given.clone()),
        Err(error) => Err(anyhow::Error::new(error).context(format!("reading {}", path.display()))),
        Ok(text) => merge(given.clone(), &built, &text, is_set).with_context(|| format!("{}", path.display())),
    };
    let words = match words {
        Err(_) if needs_no_file(&given, &cli) => given.clone(),
        words => words?,
    };
    let (command, path) = called_path(&given, &built);
    let silent = silenced(command, &flags(&given, command), is_set);
    Ok((words, silence(cli, &path, &silent)))
}

/// Whether a command only tells what there is: it does so even if the file is broken.
fn needs_no_file(given: &[OsString], cli: &clap::Command) -> bool {
    match cli.clone().try_get_matches_from(given) {
        Ok(matches) => matches!(matches.subcommand_name(), Some("completions" | "man")),
        Err(error) => matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        ),
    }
}

/// Arguments whose environment variables are set, and which the command line excludes.
fn silenced(command: &clap::Command, taken: &BTreeSet<String>, is_set: impl Fn(&str) -> bool) -> Vec<Id> {
    let in_environment = |arg: &&Arg| arg.get_env().and_then(|name| name.to_str()).is_some_and(&is_set);
    let excluded = command.get_arguments().filter(in_environment).filter(|arg| is_excluded(command, arg, taken));
    excluded.map(|arg| arg.get_id().clone()).collect()
}

/// The same commands; in the one at the end of the path, these arguments have no environment variables.
fn silence(command: clap::Command, path: &[String], silent: &[Id]) -> clap::Command {
    match path.split_first() {
        _ if silent.is_empty() => command,
        Some((first, rest)) => command.mut_subcommand(first, |inner| silence(inner, rest, silent)),
        None => silent.iter().fold(command, |command, id| command.mut_arg(id, |arg| arg.env(Resettable::Reset))),
    }
}

/// See [`complete`], with a file of this text, and an environment.
fn merge(
    given: Vec<OsString>,
    cli: &clap::Command,
    text: &str,
    is_set: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>> {
    let file: Table = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    check(&file, cli)?;
    add(given, cli, &file, is_set)
}

/// The command line with what a checked file adds to it.
pub fn add(
    given: Vec<OsString>,
    cli: &clap::Command,
    file: &Table,
    is_set: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>> {
    let (command, tables, place) = called(&given, cli, file);
    let mut taken = flags(&given, command);
    let set = |arg: &&Arg| arg.get_env().and_then(|name| name.to_str()).is_some_and(&is_set);
    let from_environment: Vec<&Arg> =
        command.get_arguments().filter(set).filter(|arg| !is_excluded(command, arg, &taken)).collect();
    taken.extend(from_environment.iter().filter_map(|arg| arg.get_long()).map(str::to_string));
    let mut added = Vec::new();
    for table in tables.iter().rev() {
        let mut own = BTreeSet::new();
        for (name, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            let Some(arg) = flag(command, name) else { continue };
            if is_excluded(command, arg, &own) {
                bail!("'{name}' excludes another flag of the same table; leave one of them out");
            }
            if taken.contains(name.as_str()) || is_excluded(command, arg, &taken) {
                continue;
            }
            added.extend(written(name, arg, value)?);
            own.insert(name.clone());
        }
        taken.extend(own);
    }
    let (front, back) = given.split_at(place);
    Ok(front.iter().cloned().chain(added).chain(back.iter().cloned()).collect())
}

/// The command that is called, and the names of the commands down to it.
fn called_path<'a>(given: &[OsString], cli: &'a clap::Command) -> (&'a clap::Command, Vec<String>) {
    let (mut command, mut path) = (cli, Vec::new());
    for word in given.iter().skip(1) {
        let Some(next) = word.to_str().and_then(|word| command.find_subcommand(word)) else { break };
        command = next;
        path.push(next.get_name().to_string());
    }
    (command, path)
}

/// The command that is called, the tables that apply to it from the outermost, and where its flags begin.
fn called<'a, 'b>(
    given: &[OsString],
    cli: &'a clap::Command,
    file: &'b Table,
) -> (&'a clap::Command, Vec<&'b Table>, usize) {
    let (mut command, mut tables, mut table) = (cli, vec![file], Some(file));
    for (place, word) in given.iter().enumerate().skip(1) {
        let Some(next) = word.to_str().and_then(|word| command.find_subcommand(word)) else {
            return (command, tables, place);
        };
        command = next;
        table = table.and_then(|table| table.get(next.get_name())).and_then(Value::as_table);
        tables.extend(table);
    }
    (command, tables, given.len())
}

/// Names of the flags on the command line; short ones by their long names.
fn flags(given: &[OsString], command: &clap::Command) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for word in given.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--") {
        if let Some(long) = word.strip_prefix("--") {
            found.extend(long.split('=').next().map(str::to_string));
        } else if let Some(letters) = word.strip_prefix('-') {
            let short = |letter| command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            let named = letters.chars().map_while(short);
            found.extend(named.filter_map(Arg::get_long).map(str::to_string));
        }
    }
    found
}

fn flag<'a>(command: &'a clap::Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name) && !matches!(name, "help" | "version"))
}

/// Whether a flag that is there already excludes this one, whichever of the two says so.
fn is_excluded(command: &clap::Command, arg: &Arg, taken: &BTreeSet<String>) -> bool {
    let present = command.get_arguments().filter(|other| other.get_long().is_some_and(|name| taken.contains(name)));
    let conflict = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|conflicting| conflicting.get_id() == other.get_id())
    };
    present.into_iter().any(|other| conflict(arg, other) || conflict(other, arg))
}

/// Flags of a command and all below it.
fn all_flags(command: &clap::Command) -> BTreeSet<&str> {
    let own = command.get_arguments().filter_map(Arg::get_long).filter(|name| !matches!(*name, "help" | "version"));
    own.chain(command.get_subcommands().flat_map(all_flags)).collect()
}

/// An error if a file makes no sense for these commands. Every name must be that of a command, or of a flag of this command or one below it.
pub fn check(table: &Table, command: &clap::Command) -> Result<()> {
    let place = if command.get_subcommands().next().is_some() { "these commands" } else { command.get_name() };
    for (name, value) in table {
        if NEVER_IN_FILE.contains(&name.as_str()) {
            bail!(
                "'{name}' would hold for every command from now on; give --{name} on the command line, when it is meant"
            );
        }
        match (value, command.find_subcommand(name)) {
            (Value::Table(inner), Some(subcommand)) => {
                check(inner, subcommand).with_context(|| format!("[{name}]"))?;
            }
            (Value::Table(_), None) => bail!("there is no command '{name}' that a table could be for"),
            (_, _) if all_flags(command).contains(name.as_str()) => check_value(name, value, command)?,
            (_, _) => {
                let usable = |name: &&str| !NEVER_IN_FILE.contains(name);
                let known: Vec<_> = all_flags(command).into_iter().filter(usable).collect();
                bail!("'{name}' is no flag of {place}; there are: {}", known.join(", "))
            }
        }
    }
    Ok(())
}

/// Every command that has this flag must be able to read its value, whichever command runs.
fn check_value(name: &str, value: &Value, command: &clap::Command) -> Result<()> {
    if let Some(arg) = flag(command, name) {
        let words = written(name, arg, value)?;
        let line = std::iter::once(OsString::from(command.get_name())).chain(words);
        if let Err(error) = command.clone().try_get_matches_from(line)
            && matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
            && error.get(ContextKind::InvalidArg).is_some_and(|arg| arg.to_string().contains(&format!("--{name}")))
        {
            let text = error.to_string();
            bail!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "));
        }
    }
    command.get_subcommands().try_for_each(|inner| check_value(name, value, inner))
}

/// A flag as it would be on the command line.
fn written(name: &str, arg: &Arg, value: &Value) -> Result<Vec<OsString>> {
    let plain = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        other => bail!("'{name}' is {}; write a text, a number, true, false or a list of them", other.type_str()),
    };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    Ok(match value {
        Value::Boolean(true) if is_switch => vec![format!("--{name}").into()],
        Value::Boolean(false) if is_switch => Vec::new(),
        _ if is_switch => bail!("'{name}' is true or false, not {}", value.type_str()),
        Value::Array(values)
            if arg.get_value_delimiter().is_none() && !matches!(arg.get_action(), ArgAction::Append) =>
        {
            // Lists of addresses are one word with commas.
            let values = values.iter().map(plain).collect::<Result<Vec<_>>>()?;
            vec![format!("--{name}={}", values.join(",")).into()]
        }
        Value::Array(values) => {
            let one = |value| Ok(format!("--{name}={}", plain(value)?).into());
            values.iter().map(one).collect::<Result<_>>()?
        }
        value => vec![format!("--{name}={}", plain(value)?).into()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser, Subcommand};

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        #[command(subcommand)]
        Osd(Osd),
        Mon {
            #[arg(long)]
            meta: Option<String>,
            #[arg(long, conflicts_with = "meta")]
            data: Option<String>,
        },
    }

    #[derive(Subcommand)]
    enum Osd {
        Run {
            #[arg(long, env = "TEST_META")]
            meta: String,
            #[arg(long)]
            id: Option<u32>,
            #[arg(long)]
            format: bool,
            #[arg(long)]
            tag: Vec<String>,
        },
        List,
        Remove {
            #[arg(long, env = "TEST_META", conflicts_with = "dir")]
            meta: Option<String>,
            #[arg(long, short, default_value = "here")]
            dir: String,
            #[arg(long, short)]
            yes: bool,
            #[arg(long, short)]
            quick: bool,
        },
    }

    const FILE: &str = "meta = ['http://a:1', 'http://b:1']\n[osd.run]\nid = 7\nformat = true\ntag = ['x', 'y']\n";

    fn merged(line: &str, file: &str, variable: &str) -> Result<String> {
        let mut cli = Cli::command();
        cli.build();
        let given = line.split(' ').map(OsString::from).collect();
        let words = merge(given, &cli, file, |name| name == variable)?;
        Ok(words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_command_line_goes_before_the_environment_before_the_file() {
        let all = "ashlar osd run --format --id=7 --tag=x --tag=y --meta=http://a:1,http://b:1";
        assert_eq!(merged("ashlar osd run", FILE, "").expect("good"), all);
        let given = merged("ashlar osd run --id 8 --meta=c", FILE, "").expect("good");
        assert_eq!(given, "ashlar osd run --format --tag=x --tag=y --id 8 --meta=c");
        let set = merged("ashlar osd run", FILE, "TEST_META").expect("good");
        assert_eq!(set, "ashlar osd run --format --id=7 --tag=x --tag=y");
        assert_eq!(merged("ashlar osd list", FILE, "").expect("good"), "ashlar osd list");
        assert_eq!(merged("ashlar mon --data d", FILE, "").expect("good"), "ashlar mon --data d", "not both");
    }

    #[test]
    fn what_the_command_line_says_excludes_what_the_file_and_the_environment_say() {
        let file = "meta = 'prod'";
        assert_eq!(merged("ashlar osd remove", file, "").expect("good"), "ashlar osd remove --meta=prod");
        for line in ["ashlar osd remove --dir try", "ashlar osd remove --dir=try -y", "ashlar osd remove -yd try"] {
            assert_eq!(merged(line, file, "TEST_META").expect("good"), line);
        }
        let directory = merged("ashlar osd remove", "dir = 'a'\n[osd]\nmeta = 'b'", "").expect("good");
        assert_eq!(directory, "ashlar osd remove --meta=b", "the inner table");
        let set = merged("ashlar osd remove", "dir = 'a'", "TEST_META").expect("good");
        assert_eq!(set, "ashlar osd remove", "the environment goes before the file");
        let both = merged("ashlar osd remove", "dir = 'a'\nmeta = 'b'", "").expect_err("which one?");
        assert!(format!("{both:#}").contains("excludes another"), "{both:#}");
    }

    #[test]
    fn the_environment_is_not_asked_for_what_the_command_line_excludes() {
        let mut cli = Cli::command();
        cli.build();
        let silent = |line: &str| {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (command, path) = called_path(&given, &cli);
            let silent = silenced(command, &flags(&given, command), |_| true);
            let silenced = silence(Cli::command(), &path, &silent);
            let (command, _) = called_path(&given, &silenced);
            command.get_arguments().find(|arg| arg.get_id() == "meta").and_then(Arg::get_env).is_none()
        };
        assert!(silent("ashlar osd remove --dir try") && silent("ashlar osd remove -d try"));
        assert!(!silent("ashlar osd remove") && !silent("ashlar osd run --meta x"));
        let both = Cli::try_parse_from(["ashlar", "osd", "remove", "--dir", "a", "--meta", "b"]);
        assert!(both.is_err_and(|error| error.kind() == ErrorKind::ArgumentConflict));
    }

    #[test]
    fn short_flags_are_flags_too() {
        let merged = merged("ashlar osd remove -q", "quick = true", "").expect("good");
        assert_eq!(merged, "ashlar osd remove -q", "given twice, it would be an error");
    }

    #[test]
    fn help_and_completions_need_no_file() {
        let no_file = |line: &str| {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            needs_no_file(&given, &crate::Cli::command())
        };
        for line in ["ashlar --help", "ashlar osd run --help", "ashlar help osd", "ashlar --version", "ashlar man x"] {
            assert!(no_file(line), "{line}");
        }
        assert!(no_file("ashlar completions bash"));
        assert!(!no_file("ashlar status") && !no_file("ashlar pool list"));
    }

    #[test]
    fn the_inner_table_goes_before_the_outer() {
        let file = "meta = 'a'\n[osd]\nmeta = 'b'\n[osd.run]\nmeta = 'c'";
        assert_eq!(merged("ashlar osd run", file, "").expect("good"), "ashlar osd run --meta=c");
        assert_eq!(merged("ashlar mon", file, "").expect("good"), "ashlar mon --meta=a");
    }

    #[test]
    fn what_makes_no_sense_is_refused_whatever_command_runs() {
        for (file, reason) in [
            ("metta = 'a'", "'metta' is no flag"),
            ("[osd.run]\nhosts = 'a'", "'hosts' is no flag of run; there are: format, id, meta, tag"),
            ("[osdd]\nid = 1", "no command 'osdd'"),
            ("[osd.run]\nformat = 'yes'", "true or false, not string"),
            ("meta = {", "TOML parse error"),
            ("[osd.run]\nid = 1979-05-27", "datetime"),
            ("[osd.run]\nid = 'seven'", "invalid value 'seven' for '--id"),
            ("yes = true", "give --yes on the command line"),
            ("[osd.remove]\nyes = true", "give --yes on the command line"),
        ] {
            for line in ["ashlar osd run", "ashlar osd list"] {
                let refusal = format!("{:#}", merged(line, file, "").expect_err(file));
                assert!(refusal.contains(reason), "{file}: {refusal}");
            }
        }
    }
}

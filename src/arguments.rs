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
//! Invariant: every name in the file is that of a flag; a misspelt one is an error, whatever command runs.

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use toml::{Table, Value};

/// Where the file is, unless the environment says otherwise. It need not be there.
const DEFAULT_FILE: &str = "/etc/ashlar/ashlar.toml";
/// Names the file in the environment.
const FILE_VARIABLE: &str = "ASHLAR_CONFIG";

/// The command line with what the configuration file adds to it.
pub fn complete(given: Vec<OsString>, cli: &clap::Command) -> Result<Vec<OsString>> {
    let named = std::env::var_os(FILE_VARIABLE).map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let text = match std::fs::read_to_string(&path) {
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(given),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let mut cli = cli.clone();
    cli.build();
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    merge(given, &cli, &text, is_set).with_context(|| format!("{}", path.display()))
}

fn merge(
    given: Vec<OsString>,
    cli: &clap::Command,
    text: &str,
    is_set: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>> {
    let file: Table = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    check(&file, cli)?;
    let (command, tables, place) = called(&given, cli, &file);
    let mut taken = flags(&given);
    let mut added = Vec::new();
    for table in tables.iter().rev() {
        for (name, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            let Some(arg) = flag(command, name) else { continue };
            let in_environment = arg.get_env().and_then(|name| name.to_str()).is_some_and(&is_set);
            if in_environment || taken.contains(name.as_str()) || is_excluded(command, arg, &taken) {
                continue;
            }
            added.extend(written(name, arg, value)?);
            taken.insert(name.clone());
        }
    }
    let (front, back) = given.split_at(place);
    Ok(front.iter().cloned().chain(added).chain(back.iter().cloned()).collect())
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

/// Names of the flags on the command line.
fn flags(given: &[OsString]) -> BTreeSet<String> {
    let flag = |word: &OsString| Some(word.to_str()?.strip_prefix("--")?.split('=').next()?.to_string());
    given.iter().filter_map(flag).collect()
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

/// Every name must be that of a command, or of a flag of this command or one below it.
fn check(table: &Table, command: &clap::Command) -> Result<()> {
    let place = if command.get_subcommands().next().is_some() { "these commands" } else { command.get_name() };
    for (name, value) in table {
        match (value, command.find_subcommand(name)) {
            (Value::Table(inner), Some(subcommand)) => {
                check(inner, subcommand).with_context(|| format!("[{name}]"))?;
            }
            (Value::Table(_), None) => bail!("there is no command '{name}' that a table could be for"),
            (_, _) if all_flags(command).contains(name.as_str()) => {}
            (_, _) => {
                let known: Vec<_> = all_flags(command).into_iter().collect();
                bail!("'{name}' is no flag of {place}; there are: {}", known.join(", "))
            }
        }
    }
    Ok(())
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
        ] {
            let refusal = format!("{:#}", merged("ashlar osd run", file, "").expect_err(file));
            assert!(refusal.contains(reason), "{file}: {refusal}");
        }
    }
}

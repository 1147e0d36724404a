//! `ashlar config`: settings that concern the whole cluster.
//!
//! Owns changes of `config/global`. Does not own the settings and their bounds (core's `map`); daemons follow the key, so a
//! change is in force without a restart.

use super::{ATTEMPTS, Connection};
use crate::metadata::Metadata;
use crate::output;
use anyhow::{Context, Result, bail};
use ashlar_core::map::keys;
use ashlar_core::map::parse::{Key, parse_value};
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value};

/// The identity, which no command changes.
const CLUSTER: &str = "cluster";

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show all settings, or some.
    Show(Show),
    /// Change settings, online.
    Set(Set),
    /// Give settings their defaults.
    Reset(Reset),
}

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Only these.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `config set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Such as recovery_objects=8.
    #[arg(required = true, value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Only say what they would be.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `config reset`.
#[derive(Debug, clap::Args)]
pub struct Reset {
    /// Names, as `config show` has them.
    #[arg(required = true)]
    names: Vec<String>,
    /// Only say what they would be.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A setting.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    name: String,
    value: Value,
    default: Value,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Show(show) => {
            refuse_unknown(&show.names)?;
            let (_, stored) = read(&show.connection.open().await?).await?;
            print(&show.connection, &stored, &show.names)
        }
        Command::Set(set) => {
            let settings = set.settings.iter().map(|text| setting(text)).collect::<Result<Vec<_>>>()?;
            let put = |stored: &mut Map<String, Value>| {
                settings.iter().for_each(|(name, value)| drop(stored.insert(name.clone(), (*value).into())));
            };
            change(&set.connection, set.dry_run, put).await
        }
        Command::Reset(reset) => {
            refuse_unknown(&reset.names)?;
            let remove =
                |stored: &mut Map<String, Value>| reset.names.iter().for_each(|name| drop(stored.remove(name)));
            change(&reset.connection, reset.dry_run, remove).await
        }
    }
}

/// Name and value; all settings are numbers.
fn setting(text: &str) -> Result<(String, u64)> {
    let (name, value) = text.split_once('=').with_context(|| format!("'{text}': write NAME=VALUE"))?;
    refuse_unknown(&[name.to_string()])?;
    let value = value.parse().with_context(|| format!("'{text}': '{value}' is not a whole number"))?;
    Ok((name.to_string(), value))
}

fn refuse_unknown(names: &[String]) -> Result<()> {
    let known = settings_of(&Map::new())?;
    match names.iter().find(|name| !known.contains_key(*name)) {
        Some(name) => {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            bail!("there is no setting '{name}'; there are: {}", known.join(", "))
        }
        None => Ok(()),
    }
}

/// All settings, with the defaults of those that are not stored; an error says which value makes no sense.
fn settings_of(stored: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut whole = stored.clone();
    whole.entry(CLUSTER).or_insert_with(|| "00000000-0000-0000-0000-000000000000".into());
    let value = parse_value(Key::Global, &keys::global(), &serde_json::to_vec(&whole)?);
    let value = value.map_err(|error| anyhow::anyhow!(error.reason))?;
    let ashlar_core::map::parse::Value::Global(global) = value else { bail!("{} holds no settings", keys::global()) };
    let Value::Object(mut all) = serde_json::to_value(global)? else { bail!("settings are no JSON object") };
    all.remove(CLUSTER);
    Ok(all)
}

/// The stored settings, and the revision of their key.
async fn read(metadata: &Metadata) -> Result<(u64, Map<String, Value>)> {
    let key = keys::global();
    let stored = metadata.get(&key).await?.context("there is no cluster yet; `ashlar init` makes one")?;
    let settings =
        serde_json::from_slice(&stored.value).with_context(|| format!("{key} is not a JSON object; correct it"))?;
    Ok((stored.mod_revision, settings))
}

async fn change(connection: &Connection, dry_run: bool, apply: impl Fn(&mut Map<String, Value>)) -> Result<()> {
    let metadata = connection.open().await?;
    let key = keys::global();
    for _ in 0..ATTEMPTS {
        let (revision, mut stored) = read(&metadata).await?;
        apply(&mut stored);
        check_together(&settings_of(&stored)?)?;
        if dry_run {
            return print(connection, &stored, &[]);
        }
        let compare = vec![Compare::ModRevision(key.clone(), revision)];
        if metadata.put_if(compare, &key, serde_json::to_vec(&stored)?).await? {
            return print(connection, &stored, &[]);
        }
    }
    bail!("others kept changing {key}; run this again")
}

/// Refuses settings that each make sense, but not together.
fn check_together(settings: &Map<String, Value>) -> Result<()> {
    let value = |name: &str| settings.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (near, full) = (value("near_full_percent"), value("recovery_full_percent"));
    if near > full {
        bail!(
            "near_full_percent ({near}) is above recovery_full_percent ({full}): the warning would come after recovery has \
             stopped; set both, or a near_full_percent of {full} or less"
        );
    }
    Ok(())
}

/// Some settings, or all.
fn print(connection: &Connection, stored: &Map<String, Value>, names: &[String]) -> Result<()> {
    let defaults = settings_of(&Map::new())?;
    let row = |(name, value): (String, Value)| {
        let default = defaults.get(&name).cloned().unwrap_or_default();
        Row { name, value, default }
    };
    let rows: Vec<Row> = settings_of(stored)?
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.contains(name))
        .map(row)
        .collect();
    connection.output().print(&rows, |rows| {
        let mut table = output::table(["SETTING", "VALUE", "DEFAULT"]);
        for row in rows {
            table.add_row([row.name.clone(), row.value.to_string(), row.default.to_string()]);
        }
        table.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_bad_ones_refused_with_the_reason() {
        assert_eq!(setting("recovery_objects=8").expect("good"), ("recovery_objects".into(), 8));
        for (text, reason) in [
            ("recovery_objects", "NAME=VALUE"),
            ("recovery_objects=many", "whole number"),
            ("recovery_object=8", "there are: heartbeat_timeout_ms"),
            ("cluster=1", "no setting 'cluster'"),
        ] {
            let refusal = format!("{:#}", setting(text).expect_err("bad"));
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
        let stored = Map::from_iter([("lease_ms".to_string(), Value::from(5))]);
        let refusal = settings_of(&stored).expect_err("too small").to_string();
        assert!(refusal.contains("lease_ms is 5; use 20 to"), "{refusal}");
        assert_eq!(settings_of(&Map::new()).expect("defaults")["lease_ms"], 300);
        check_together(&settings_of(&Map::new()).expect("defaults")).expect("defaults go together");
        let stored = Map::from_iter([("near_full_percent".to_string(), Value::from(96))]);
        let refusal = check_together(&settings_of(&stored).expect("each is good")).expect_err("too late").to_string();
        assert!(refusal.contains("a near_full_percent of 95 or less"), "{refusal}");
    }
}

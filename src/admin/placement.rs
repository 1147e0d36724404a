//! `ashlar placement`: the tree, why a group is where it is, and what a change would move, before it is made.
//!
//! Owns: the commands that show and change the tree and its levels. `explain` and `what_if` have files of their own.
//! Invariant: a tree or levels that some pool cannot be placed by are refused before they are written.

mod explain;
mod origins;
mod weights;
pub mod what_if;

#[cfg(test)]
mod tests;

use super::{ATTEMPTS, Connection};
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::place::survey::Survey;
use ashlar_core::map::tree::path;
use ashlar_core::map::{ClusterMap, Levels, Tree, TreeNode, keys};
use ashlar_core::meta::{Compare, KeyValue, TxnOp, WatchEvent};
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeMap;

/// Commands about placement.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The placement tree with its OSDs.
    Tree(Connection),
    /// Why a group is where it is: the rules of its pool, part by part.
    Explain(explain::Args),
    /// What would move if OSDs came, went, or were weighed otherwise; nothing is changed.
    WhatIf(what_if::Args),
    /// Put a node into the tree, move it, or take it out.
    Node(NodeArgs),
    /// Show or set the ranks of the tree's levels: lower ones are nearer to the root.
    Levels(LevelsArgs),
}

/// Arguments of `placement node`.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Its name; osd.N for an OSD.
    name: String,
    /// Its level, such as rack or dc; hosts and OSDs need none.
    #[arg(long)]
    level: Option<String>,
    /// The node above it; none: the root.
    #[arg(long)]
    parent: Option<String>,
    /// Take it out.
    #[arg(long, conflicts_with_all = ["level", "parent"])]
    remove: bool,
    /// Only say what groups would move.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `placement levels`.
#[derive(Debug, clap::Args)]
pub struct LevelsArgs {
    /// Ranks to set, such as dc=90 rack=95; host has 100 and osd 101 unless set. All others are dropped. Without any,
    /// the present ones are shown.
    #[arg(value_parser = rank)]
    ranks: Vec<(String, u32)>,
    #[command(flatten)]
    connection: Connection,
}

fn rank(text: &str) -> Result<(String, u32), String> {
    let (name, rank) = text.split_once('=').ok_or_else(|| format!("'{text}' is no LEVEL=RANK, such as dc=90"))?;
    let rank = rank.parse().map_err(|_| format!("'{rank}' is no rank; write a whole number, such as dc=90"))?;
    Ok((name.into(), rank))
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Tree(connection) => show_tree(&connection).await,
        Command::Explain(args) => explain::run(args).await,
        Command::WhatIf(args) => what_if::run(args).await,
        Command::Node(args) => node(args).await,
        Command::Levels(args) => levels(args).await,
    }
}

/// The map as it would be with some keys written.
pub fn with(map: &ClusterMap, puts: &[(String, Vec<u8>)]) -> Result<ClusterMap> {
    let mut changed = map.clone();
    let revision = map.newest_revision().0 + 1;
    let put =
        |(key, value): &(String, Vec<u8>)| WatchEvent::Put(KeyValue::written(key.clone(), value.clone(), revision));
    let events: Vec<WatchEvent> = puts.iter().map(put).collect();
    let changes = changed.apply_events(&events, revision);
    match changes.errors.first() {
        Some(error) => bail!("{error}"),
        None => Ok(changed),
    }
}

/// Refuses a map by which a pool cannot be placed that could be before.
pub fn check_pools(before: &ClusterMap, after: &ClusterMap) -> Result<()> {
    for (id, pool) in after.pools() {
        let was_good = before.pool(id).is_none_or(|old| Survey::of(before, old).is_ok());
        if let (true, Err(reason)) = (was_good, Survey::of(after, pool)) {
            bail!("pool '{}' could not be placed any more: {reason}", pool.name);
        }
    }
    Ok(())
}

/// Changes one key of the configuration by what it is; `change` says what it shall be.
async fn modify(
    metadata: &Metadata,
    key: &str,
    change: impl Fn(&ClusterMap) -> Result<Option<Vec<u8>>>,
) -> Result<ClusterMap> {
    for _ in 0..ATTEMPTS {
        let map = metadata.map().await?;
        let revision = metadata.get(key).await?.map_or(0, |stored| stored.mod_revision);
        let Some(value) = change(&map)? else { return Ok(map) };
        let after = with(&map, &[(key.into(), value.clone())])?;
        check_pools(&map, &after)?;
        let put = TxnOp::Put { key: key.into(), value, lease: 0 };
        if metadata.transact(vec![Compare::ModRevision(key.into(), revision)], vec![put]).await? {
            return Ok(after);
        }
    }
    bail!("others kept changing {key}; run this again")
}

async fn node(args: NodeArgs) -> Result<()> {
    let metadata = args.connection.open().await?;
    if args.dry_run {
        let map = metadata.map().await?;
        let after = with(&map, &[(keys::tree(), args.changed(&map)?)])?;
        check_pools(&map, &after)?;
        return what_if::print(&metadata, &args.connection, &map, &after, None).await;
    }
    let map = modify(&metadata, &keys::tree(), |map| args.changed(map).map(Some)).await?;
    let done = if args.remove { "taken out of the tree" } else { "in the tree" };
    args.connection.output().print(&serde_json::json!({ "node": args.name, "removed": args.remove }), |_| {
        let (name, note) = (&args.name, args.note(&map));
        format!("'{name}' is {done}; `ashlar placement tree` shows it, `ashlar status` how groups follow{note}")
    })
}

impl NodeArgs {
    /// The tree as it shall be.
    fn changed(&self, map: &ClusterMap) -> Result<Vec<u8>> {
        self.refuse_unknown_level(map)?;
        let mut tree = map.tree().cloned().unwrap_or_default();
        if self.remove && tree.0.remove(&self.name).is_none() {
            bail!("there is no node '{}' in the tree; `ashlar placement tree` shows it", self.name);
        }
        if !self.remove {
            let node = TreeNode { level: self.level.clone(), parent: self.parent.clone() };
            tree.0.insert(self.name.clone(), node);
        }
        Ok(serde_json::to_vec(&tree)?)
    }

    /// Daemons take levels without a rank; nobody means to make one by a slip.
    fn refuse_unknown_level(&self, map: &ClusterMap) -> Result<()> {
        let ranks = map.levels();
        match self.level.as_deref().filter(|level| ranks.rank(level).is_none()) {
            Some(level) => {
                let known: Vec<String> = rows(&ranks).into_iter().map(|(level, _)| level).collect();
                bail!(
                    "there is no level '{level}'; there are: {}; `ashlar placement levels` with {level}=RANK and all others \
                     makes it",
                    known.join(", ")
                )
            }
            None => Ok(()),
        }
    }

    /// What is worth a word although it is no mistake.
    fn note(&self, map: &ClusterMap) -> String {
        let osd = self.name.strip_prefix("osd.").and_then(|number| number.parse().ok()).map(OsdId);
        match osd.filter(|osd| !self.remove && map.osd_record(*osd).is_none() && map.osd_state(*osd).is_none()) {
            Some(osd) => format!("; there is no OSD {osd} yet: it will be there when it comes"),
            None => String::new(),
        }
    }
}

async fn levels(args: LevelsArgs) -> Result<()> {
    let metadata = args.connection.open().await?;
    let wanted = Levels(args.ranks.iter().cloned().collect());
    let map = if args.ranks.is_empty() {
        metadata.map().await?
    } else {
        let change = |map: &ClusterMap| {
            refuse_dropped(map, &wanted)?;
            Ok(Some(serde_json::to_vec(&wanted)?))
        };
        modify(&metadata, &keys::levels(), change).await?
    };
    args.connection.output().print(&rows(&map.levels()), |rows| {
        let mut table = output::table(["LEVEL", "RANK"]);
        rows.iter().for_each(|(level, rank)| {
            table.add_row([level.clone(), rank.to_string()]);
        });
        table.to_string()
    })
}

/// All levels with their ranks, from the root.
fn rows(present: &Levels) -> Vec<(String, u32)> {
    let mut ranks: BTreeMap<String, u32> = present.0.clone();
    for level in ["host", "osd"] {
        ranks.extend(present.rank(level).map(|rank| (level.to_string(), rank)));
    }
    let mut rows: Vec<(String, u32)> = ranks.into_iter().collect();
    rows.sort_by_key(|(_, rank)| *rank);
    rows
}

/// Refuses ranks without one that nodes of the tree, or rules of a pool, have a level of.
fn refuse_dropped(map: &ClusterMap, wanted: &Levels) -> Result<()> {
    for level in map.levels().0.keys().filter(|level| wanted.rank(level).is_none()) {
        let nodes = map.tree().into_iter().flat_map(|tree| &tree.0);
        let of_level: Vec<&str> =
            nodes.filter(|(_, node)| node.level.as_ref() == Some(level)).map(|(name, _)| name.as_str()).collect();
        if !of_level.is_empty() {
            bail!(
                "level '{level}' would be dropped, and it is that of {}; name it too, such as {level}=90, or take these \
                 nodes out of the tree first",
                of_level.join(", ")
            );
        }
    }
    Ok(())
}

/// A line of the tree.
#[derive(Debug, Serialize)]
struct Line {
    depth: usize,
    name: String,
    level: Option<String>,
    osd: Option<OsdLine>,
}

/// An OSD in the tree.
#[derive(Debug, Serialize)]
struct OsdLine {
    size_bytes: u64,
    reweight: f64,
    tags: Vec<String>,
    up: bool,
    out: bool,
    /// Groups that placement wants on it.
    groups: usize,
}

async fn show_tree(connection: &Connection) -> Result<()> {
    let map = connection.open().await?.map().await?;
    connection.output().print(&lines(&map), |lines| {
        let mut table = output::table(["NODE", "LEVEL", "SIZE", "REWEIGHT", "STATE", "PGS", "TAGS"]);
        for line in lines {
            let name = format!("{}{}", "  ".repeat(line.depth), line.name);
            let level = line.level.clone().unwrap_or_default();
            let cells = line.osd.as_ref().map_or([const { String::new() }; 5], |osd| {
                let state = format!("{}{}", if osd.up { "up" } else { "down" }, if osd.out { ", out" } else { "" });
                let size = size::human(osd.size_bytes);
                [size, osd.reweight.to_string(), state, osd.groups.to_string(), osd.tags.join(",")]
            });
            table.add_row([name, level].into_iter().chain(cells));
        }
        table.to_string()
    })
}

/// The tree from the root, each node above what is in it.
fn lines(map: &ClusterMap) -> Vec<Line> {
    let mut wanted: BTreeMap<OsdId, usize> = BTreeMap::new();
    for osd in map.groups().flat_map(|(_, pg)| pg.target.iter().flatten()) {
        *wanted.entry(*osd).or_default() += 1;
    }
    // Where each OSD is, from the root; nodes without OSDs too.
    let mut places: Vec<(Vec<String>, Option<OsdId>)> = Vec::new();
    for (osd, record) in map.osd_records() {
        let mut names: Vec<String> = path(map.tree(), osd, &record.host).iter().map(|s| s.name.to_string()).collect();
        names.reverse();
        places.push((names, Some(osd)));
    }
    for name in map.tree().into_iter().flat_map(|tree| tree.0.keys()).filter(|name| !name.starts_with("osd.")) {
        places.push((ancestors(map.tree(), name), None));
    }
    places.sort();
    let mut lines: Vec<Line> = Vec::new();
    let mut above: Vec<String> = Vec::new();
    for (names, osd) in places {
        let same = names.iter().zip(&above).take_while(|(a, b)| a == b).count();
        for (depth, name) in names.iter().enumerate().skip(same) {
            lines.push(Line { depth, name: name.clone(), level: level_of(map, name), osd: None });
        }
        if let Some(osd) = osd {
            let line = osd_line(map, osd, wanted.get(&osd).copied().unwrap_or(0));
            lines.push(Line { depth: names.len(), name: format!("osd.{osd}"), level: Some("osd".into()), osd: line });
        }
        above = names;
    }
    lines
}

/// A node's name after those of the nodes above it.
fn ancestors(tree: Option<&Tree>, name: &str) -> Vec<String> {
    let mut names = vec![name.to_string()];
    while let Some(parent) = tree.and_then(|tree| tree.0.get(names.last()?)?.parent.clone()) {
        names.push(parent);
    }
    names.reverse();
    names
}

/// What is not in the tree is the host of an OSD.
fn level_of(map: &ClusterMap, name: &str) -> Option<String> {
    let node = map.tree().and_then(|tree| tree.0.get(name));
    let is_host = || map.osd_records().any(|(_, record)| record.host == name);
    node.and_then(|node| node.level.clone()).or_else(|| is_host().then(|| "host".into()))
}

fn osd_line(map: &ClusterMap, osd: OsdId, groups: usize) -> Option<OsdLine> {
    let (record, config) = (map.osd_record(osd)?, map.osd_config(osd));
    Some(OsdLine {
        size_bytes: record.size_bytes,
        reweight: config.reweight,
        tags: config.tags.0.into_iter().collect(),
        up: map.osd_state(osd).is_some(),
        out: record.out,
        groups,
    })
}

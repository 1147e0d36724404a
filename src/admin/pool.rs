//! `ashlar pool`: list, show, create, modify, remove.

mod remove;
pub mod show;

use super::placement::{self, what_if};
use super::redundancy::Redundancy;
use super::status::Statistics;
use super::{ATTEMPTS, Connection, room};
use crate::metadata::Metadata;
use crate::output;
use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::id::PoolId;
use ashlar_core::map::{ClusterMap, FormerPools, ImmediateCommit, Pool, Pools, Tags, keys, parse};
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;

/// Commands about pools.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the pools.
    List(Connection),
    /// Show one pool: its parameters, its groups, how much is in it, what clients do to it.
    Show(show::Show),
    /// Create a pool.
    Create(Create),
    /// Change a pool while it is in use.
    #[command(visible_alias = "set")]
    Modify(Modify),
    /// Remove a pool.
    Remove(remove::Remove),
}

/// Arguments of `pool create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name.
    name: String,
    /// Redundancy: replicated:COPIES, ec:DATA+PARITY or xor:DATA+1.
    #[arg(long, default_value = "replicated:3")]
    scheme: Redundancy,
    /// Members of a group that must be there for I/O to go on; by default one more than the data needs, but all but one
    /// at most.
    #[arg(long)]
    pg_minsize: Option<u8>,
    /// Number of placement groups; by the number of OSDs by default.
    #[arg(long)]
    pg_count: Option<u32>,
    /// Bytes of an object; with erasure codes, of each chunk of it.
    #[arg(long, default_value = "128K", value_parser = size::parse)]
    block_size: u64,
    #[command(flatten)]
    placement: PlacementFlags,
    /// Which acknowledged writes are durable at once: all, small or none. The pool uses only OSDs at least as strict.
    #[arg(long, value_name = "WHICH", default_value_t)]
    immediate_commit: ImmediateCommit,
    /// Seconds between two scrubs of a group, in which all copies are read and compared; 0: only when ordered.
    #[arg(long, value_name = "SECONDS", default_value_t = ashlar_core::map::default_scrub_interval_s())]
    scrub_interval: u64,
    /// Even if there are too few OSDs: groups become whole when there are enough.
    #[arg(long)]
    force: bool,
    /// Only say what would be created.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `pool modify`. Some name what cannot change, so that the refusal can say why.
#[derive(Debug, clap::Args)]
pub struct Modify {
    /// Its name.
    name: String,
    /// Another name.
    #[arg(long)]
    rename: Option<String>,
    /// Redundancy. Copies can be added and taken away; to and from erasure codes there is no way.
    #[arg(long)]
    scheme: Option<Redundancy>,
    /// Members of a group that must be there for I/O to go on.
    #[arg(long)]
    pg_minsize: Option<u8>,
    #[command(flatten)]
    placement: PlacementFlags,
    /// Only say what groups would move.
    #[arg(long)]
    dry_run: bool,
    /// Which acknowledged writes are durable at once: all, small or none.
    #[arg(long, value_name = "WHICH")]
    immediate_commit: Option<ImmediateCommit>,
    /// Seconds between two scrubs of a group, in which all copies are read and compared; 0: only when ordered.
    #[arg(long, value_name = "SECONDS")]
    scrub_interval: Option<u64>,
    /// Number of placement groups. Nothing is written anew; groups that are merged move what lies apart.
    #[arg(long)]
    pg_count: Option<u32>,
    /// Bytes of an object or chunk; cannot change.
    #[arg(long, value_parser = size::parse)]
    block_size: Option<u64>,
    /// Even if there are too few OSDs for it: groups become whole when there are enough.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Where a pool's data may be; docs/placement.md explains the rules. An empty value takes a parameter away.
#[derive(Debug, clap::Args)]
struct PlacementFlags {
    /// Level of the tree on which members of a group never share a node; host unless set.
    #[arg(long, value_name = "LEVEL")]
    failure_domain: Option<String>,
    /// Which members share nodes of other levels: a character for each, such as dc=112233.
    #[arg(long, value_name = "LEVEL=CHARACTERS")]
    level_placement: Option<String>,
    /// Rules in place of both, one item for each member, such as 'any, host!=1, host!=(1,2)'.
    #[arg(long, value_name = "RULES")]
    raw_placement: Option<String>,
    /// Sets of OSDs to try for one group before it makes do with fewer members.
    #[arg(long, value_name = "NUMBER")]
    max_osd_combinations: Option<u32>,
    /// Use only OSDs below this node of the tree.
    #[arg(long, value_name = "NODE")]
    root_node: Option<String>,
    /// Use only OSDs that have all these tags, separated by commas.
    #[arg(long, value_name = "TAGS")]
    osd_tags: Option<String>,
    /// Let OSDs that have all these tags be primaries where there is a choice.
    #[arg(long, value_name = "TAGS")]
    primary_affinity_tags: Option<String>,
}

impl PlacementFlags {
    fn apply(&self, pool: &mut Pool) {
        let text = |field: &mut Option<String>, flag: &Option<String>| {
            if let Some(value) = flag {
                *field = Some(value.clone()).filter(|value| !value.trim().is_empty());
            }
        };
        text(&mut pool.level_placement, &self.level_placement);
        text(&mut pool.raw_placement, &self.raw_placement);
        text(&mut pool.root_node, &self.root_node);
        pool.osd_tags = self.osd_tags.as_deref().map_or_else(|| pool.osd_tags.clone(), tags);
        pool.primary_affinity_tags =
            self.primary_affinity_tags.as_deref().map_or_else(|| pool.primary_affinity_tags.clone(), tags);
        pool.max_osd_combinations = self.max_osd_combinations.unwrap_or(pool.max_osd_combinations);
        if let Some(level) = &self.failure_domain {
            pool.failure_domain.clone_from(level);
        }
    }
}

/// Tags as they are written on command lines.
pub fn tags(text: &str) -> Tags {
    Tags(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(Into::into).collect())
}

/// A pool, its number, and how many groups it has at present.
#[derive(Serialize)]
struct Row {
    id: PoolId,
    #[serde(flatten)]
    pool: Pool,
    groups: u32,
    used_bytes: u64,
}

/// A pool that is not there yet.
#[derive(Serialize)]
struct Plan {
    #[serde(flatten)]
    row: Row,
    /// Part of what its OSDs could hold at best that fits before the first is full.
    uniformity: f64,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(connection) => list(&connection).await,
        Command::Show(show) => show.run().await,
        Command::Create(create) => create.run().await,
        Command::Modify(modify) => modify.run().await,
        Command::Remove(remove) => remove.run().await,
    }
}

async fn list(connection: &Connection) -> Result<()> {
    let metadata = connection.open().await?;
    let ((_, pools), map) = (read(&metadata).await?, metadata.map().await?);
    if let Err(reason) = check_all(&pools) {
        eprintln!("{reason:#}; until then the daemons keep to what it was before");
    }
    let statistics = metadata.statistics::<Statistics>().await?;
    let groups = |id: PoolId| map.layout(id).map_or(0, |layout| layout.now.pg_count);
    let used = |id: PoolId| show::figures(&statistics, id).used_bytes;
    let row = |(id, pool)| Row { id, pool, groups: groups(id), used_bytes: used(id) };
    let rows: Vec<_> = pools.0.into_iter().map(row).collect();
    connection.output().print(&rows, |rows| {
        let mut table = output::table(["ID", "NAME", "SCHEME", "SIZE", "MINSIZE", "PGS", "OBJECT", "DOMAIN", "USED"]);
        for Row { id, pool, groups, used_bytes } in rows {
            let scheme = Redundancy::of(pool).to_string();
            let object = size::human(pool.object_bytes().into());
            let [pg_size, pg_minsize] = [pool.pg_size, pool.pg_minsize].map(|number| number.to_string());
            let changing = if *groups == pool.pg_count { String::new() } else { format!("{groups} -> ") };
            let pg_count = format!("{changing}{}", pool.pg_count);
            let going = if pool.removing { " (being removed)" } else { "" };
            let (id, name, domain) = (id.to_string(), format!("{}{going}", pool.name), pool.failure_domain.clone());
            let used = size::human(*used_bytes);
            table.add_row([id, name, scheme, pg_size, pg_minsize, pg_count, object, domain, used]);
        }
        table.to_string()
    })
}

impl Create {
    async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let map = metadata.map().await?;
        let mut pool = self.scheme.pool(&self.name, 0);
        self.placement.apply(&mut pool);
        pool.pg_minsize = self.pg_minsize.unwrap_or(pool.pg_minsize);
        pool.block_size = u32::try_from(self.block_size).context("--block-size is too large")?;
        pool.immediate_commit = self.immediate_commit;
        let osds = room::survey(&map, &pool)?.candidates.len();
        pool.pg_count = self.pg_count.unwrap_or_else(|| self.scheme.usual_groups(osds));
        pool.scrub_interval_s = self.scrub_interval;
        parse::check_pool(&pool).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))?;
        if !self.force {
            room::check(&map, &pool)?;
            room::check_count(&map, &pool)?;
        }
        if self.dry_run {
            return self.say_only(&metadata, &map, pool).await;
        }
        let id = create(&metadata, &pool).await?;
        self.connection.output().print(&Row { id, pool, groups: 0, used_bytes: 0 }, |row| {
            format!("created pool {} '{}'", row.id, row.pool.name)
        })
    }
}

impl Create {
    async fn say_only(&self, metadata: &Metadata, map: &ClusterMap, pool: Pool) -> Result<()> {
        let (_, pools) = read(metadata).await?;
        refuse_taken(&pools, &pool.name)?;
        let (id, _) = next_id(metadata, &pools).await?;
        let figures = room::figures(map, &pool)?;
        let plan = Plan { row: Row { id, pool, groups: 0, used_bytes: 0 }, uniformity: figures.uniformity };
        self.connection.output().print(&plan, |plan| {
            let Pool { name, pg_count, .. } = &plan.row.pool;
            let uniformity = 100.0 * plan.uniformity;
            format!(
                "pool {id} '{name}' would be created, {}, {pg_count} groups, uniformity {uniformity:.2} %",
                self.scheme
            )
        })
    }
}

impl Modify {
    async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        for _ in 0..ATTEMPTS {
            let (revision, mut pools) = read(&metadata).await?;
            let Some((id, old)) = pools.0.iter().find(|(_, pool)| pool.name == self.name) else {
                bail!("there is no pool '{}'; `ashlar pool list` shows those there are", self.name);
            };
            let (id, new) = (*id, self.changed(old)?);
            let unchanged = *old == new;
            let map = metadata.map().await?;
            let layout = map.layout(id);
            if old.pg_count != new.pg_count && layout.is_some_and(|layout| layout.now.generation == u16::MAX) {
                bail!("pool '{}': pg_count has changed {} times, which is all there is", self.name, u16::MAX);
            }
            parse::check_pool_change(old, &new)
                .and_then(|()| parse::check_pool(&new))
                .map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", self.name))?;
            if pools.0.iter().any(|(other, pool)| *other != id && pool.name == new.name) {
                bail!("another pool has the name '{}' already; choose another", new.name);
            }
            if !self.force && places_anew(old, &new) {
                room::check(&map, &new)?;
            }
            if !self.force && new.pg_count > old.pg_count {
                room::check_count(&map, &new)?;
            }
            pools.0.insert(id, new.clone());
            let after = placement::with(&map, &[(keys::pools(), serde_json::to_vec(&pools)?)])?;
            placement::check_pools(&map, &after)?;
            if self.dry_run {
                return what_if::print(&metadata, &self.connection, &map, &after, Some(&self.name)).await;
            }
            let compare = vec![Compare::ModRevision(keys::pools(), revision)];
            if unchanged || metadata.put_if(compare, &keys::pools(), serde_json::to_vec(&pools)?).await? {
                let groups = layout.map_or(0, |layout| layout.now.pg_count);
                return self.connection.output().print(&Row { id, pool: new, groups, used_bytes: 0 }, |row| {
                    let what = if unchanged { "nothing to change in" } else { "changed" };
                    format!("{what} pool {} '{}'; `ashlar status` shows how its groups follow", row.id, row.pool.name)
                });
            }
        }
        bail!("others kept changing the pools; run this again")
    }

    /// The pool as it shall be.
    fn changed(&self, old: &Pool) -> Result<Pool> {
        let mut pool = old.clone();
        if let Some(name) = &self.rename {
            pool.name.clone_from(name);
        }
        if let Some(redundancy) = self.scheme {
            let wanted = redundancy.pool(&old.name, 1);
            (pool.scheme, pool.pg_size, pool.parity_chunks) = (wanted.scheme, wanted.pg_size, wanted.parity_chunks);
            pool.pg_minsize = wanted.pg_minsize;
        }
        pool.pg_minsize = self.pg_minsize.unwrap_or(pool.pg_minsize);
        self.placement.apply(&mut pool);
        pool.immediate_commit = self.immediate_commit.unwrap_or(pool.immediate_commit);
        pool.scrub_interval_s = self.scrub_interval.unwrap_or(pool.scrub_interval_s);
        pool.pg_count = self.pg_count.unwrap_or(pool.pg_count);
        if let Some(bytes) = self.block_size {
            pool.block_size = u32::try_from(bytes).context("--block-size is too large")?;
        }
        Ok(pool)
    }
}

/// Whether a change asks more, or something else, of placement.
fn places_anew(old: &Pool, new: &Pool) -> bool {
    let rules = |pool: &Pool| (pool.failure_domain.clone(), pool.level_placement.clone(), pool.raw_placement.clone());
    let osds = |pool: &Pool| (pool.root_node.clone(), pool.osd_tags.clone());
    let stricter = new.pg_size > old.pg_size || new.immediate_commit > old.immediate_commit;
    stricter || rules(old) != rules(new) || osds(old) != osds(new)
}

/// All pools, and the revision of the key that holds them.
async fn read(metadata: &Metadata) -> Result<(u64, Pools)> {
    let key = keys::pools();
    let Some(stored) = metadata.get(&key).await? else { return Ok((0, Pools::default())) };
    let pools = serde_json::from_slice(&stored.value)
        .with_context(|| format!("{key} does not make sense; correct it with etcdctl"))?;
    Ok((stored.mod_revision, pools))
}

/// What is stored is what people write, by whatever means: an error says what no daemon takes.
fn check_all(pools: &Pools) -> Result<()> {
    let key = keys::pools();
    parse::parse_value(parse::Key::Pools, &key, &serde_json::to_vec(pools)?)
        .map(drop)
        .map_err(|error| anyhow::anyhow!("{error}; correct it with `ashlar pool modify` or etcdctl"))
}

fn refuse_taken(pools: &Pools, name: &str) -> Result<()> {
    check_all(pools)?;
    match pools.0.iter().find(|(_, other)| other.name == name) {
        Some((id, _)) => bail!("pool {id} has the name '{name}' already; choose another"),
        None => Ok(()),
    }
}

/// The number of the next pool, which no pool had before, and the revision of the key that names former ones.
async fn next_id(metadata: &Metadata, pools: &Pools) -> Result<(PoolId, u64)> {
    let key = keys::former_pools();
    let stored = metadata.get(&key).await?;
    let revision = stored.as_ref().map_or(0, |stored| stored.mod_revision);
    let former: FormerPools = match stored {
        Some(stored) => serde_json::from_slice(&stored.value)
            .with_context(|| format!("{key} does not make sense; correct it with etcdctl"))?,
        None => FormerPools::default(),
    };
    let last = pools.0.keys().chain(former.0.keys()).max().map_or(0, |id| id.0);
    Ok((PoolId(last + 1), revision))
}

/// Adds a pool; an error if its name is taken.
pub async fn create(metadata: &Metadata, pool: &Pool) -> Result<PoolId> {
    parse::check_pool(pool).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))?;
    for _ in 0..ATTEMPTS {
        let (revision, mut pools) = read(metadata).await?;
        refuse_taken(&pools, &pool.name)?;
        let (id, former) = next_id(metadata, &pools).await?;
        pools.0.insert(id, pool.clone());
        let compare =
            vec![Compare::ModRevision(keys::pools(), revision), Compare::ModRevision(keys::former_pools(), former)];
        if metadata.put_if(compare, &keys::pools(), serde_json::to_vec(&pools)?).await? {
            return Ok(id);
        }
    }
    bail!("others kept changing the pools; run this again")
}

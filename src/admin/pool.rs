//! `ashlar pool`: list and create.

use super::Connection;
use crate::metadata::Metadata;
use crate::output;
use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::id::PoolId;
use ashlar_core::map::{Pool, Pools, Scheme, keys, parse};
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;
use std::str::FromStr;

/// Placement groups that each OSD should carry: enough for an even spread, few enough to peer quickly.
const GROUPS_PER_OSD: u32 = 64;
/// Attempts to change the list of pools while others change it too.
const ATTEMPTS: u32 = 10;

/// Commands about pools.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the pools.
    List(Connection),
    /// Create a pool.
    Create(Create),
}

/// Arguments of `pool create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name.
    name: String,
    /// Redundancy: replicated:COPIES.
    #[arg(long, default_value = "replicated:3")]
    scheme: Redundancy,
    /// Copies that must be there for I/O to go on; one less than there are by default.
    #[arg(long)]
    pg_minsize: Option<u8>,
    /// Number of placement groups; by the number of OSDs by default.
    #[arg(long)]
    pg_count: Option<u32>,
    /// Bytes of an object.
    #[arg(long, default_value = "128K", value_parser = size::parse)]
    block_size: u64,
    /// Level of the tree on which copies never share a node.
    #[arg(long, default_value = parse::LEVEL_HOST)]
    failure_domain: String,
    #[command(flatten)]
    connection: Connection,
}

/// A pool's redundancy as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redundancy {
    /// Equal copies.
    pub copies: u8,
}

impl FromStr for Redundancy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let copies = text.strip_prefix("replicated:").and_then(|copies| copies.parse().ok());
        match copies {
            Some(copies) if copies > 0 => Ok(Redundancy { copies }),
            _ => Err(format!(
                "'{text}' is not a redundancy that this version knows; write replicated:COPIES, such as replicated:3"
            )),
        }
    }
}

impl std::fmt::Display for Redundancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "replicated:{}", self.copies)
    }
}

impl Redundancy {
    /// A pool of this redundancy, with everything else as usual.
    pub fn pool(self, name: &str, osds: u32) -> Pool {
        let groups = (osds * GROUPS_PER_OSD / u32::from(self.copies)).max(1).next_power_of_two();
        Pool {
            name: name.into(),
            scheme: Scheme::Replicated,
            pg_size: self.copies,
            pg_minsize: self.copies.saturating_sub(1).max(1),
            pg_count: groups,
            parity_chunks: 0,
            block_size: 128 << 10,
            failure_domain: parse::LEVEL_HOST.into(),
        }
    }
}

/// A pool and its number.
#[derive(Serialize)]
struct Row {
    id: PoolId,
    #[serde(flatten)]
    pool: Pool,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(connection) => list(&connection).await,
        Command::Create(create) => create.run().await,
    }
}

async fn list(connection: &Connection) -> Result<()> {
    let (_, pools) = read(&connection.open().await?).await?;
    let rows: Vec<_> = pools.0.into_iter().map(|(id, pool)| Row { id, pool }).collect();
    connection.output().print(&rows, |rows| {
        let mut table = output::table(["ID", "NAME", "SCHEME", "SIZE", "MINSIZE", "PGS", "OBJECT", "DOMAIN"]);
        for Row { id, pool } in rows {
            let scheme = format!("{:?}", pool.scheme).to_lowercase();
            let object = size::human(pool.object_bytes().into());
            let numbers = [pool.pg_size.to_string(), pool.pg_minsize.to_string(), pool.pg_count.to_string()];
            let [pg_size, pg_minsize, pg_count] = numbers;
            let id = id.to_string();
            table.add_row([&id, &pool.name, &scheme, &pg_size, &pg_minsize, &pg_count, &object, &pool.failure_domain]);
        }
        table.to_string()
    })
}

impl Create {
    async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let osds = metadata.map().await?.osd_states().count();
        let mut pool = self.scheme.pool(&self.name, u32::try_from(osds)?);
        pool.pg_minsize = self.pg_minsize.unwrap_or(pool.pg_minsize);
        pool.pg_count = self.pg_count.unwrap_or(pool.pg_count);
        pool.block_size = u32::try_from(self.block_size).context("--block-size is too large")?;
        pool.failure_domain = self.failure_domain.clone();
        let id = create(&metadata, &pool).await?;
        self.connection.output().print(&Row { id, pool }, |row| format!("created pool {} '{}'", row.id, row.pool.name))
    }
}

/// All pools, and the revision of the key that holds them.
async fn read(metadata: &Metadata) -> Result<(u64, Pools)> {
    let key = keys::pools();
    let Some(stored) = metadata.get(&key).await? else { return Ok((0, Pools::default())) };
    let pools = serde_json::from_slice(&stored.value)
        .with_context(|| format!("{key} does not make sense; correct it with etcdctl"))?;
    Ok((stored.mod_revision, pools))
}

/// Adds a pool; an error if its name is taken.
pub async fn create(metadata: &Metadata, pool: &Pool) -> Result<PoolId> {
    parse::check_pool(pool).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))?;
    for _ in 0..ATTEMPTS {
        let (revision, mut pools) = read(metadata).await?;
        if let Some((id, _)) = pools.0.iter().find(|(_, other)| other.name == pool.name) {
            bail!("pool {id} has the name '{}' already; choose another", pool.name);
        }
        let id = PoolId(pools.0.keys().last().map_or(1, |id| id.0 + 1));
        pools.0.insert(id, pool.clone());
        let compare = vec![Compare::ModRevision(keys::pools(), revision)];
        if metadata.put_if(compare, &keys::pools(), serde_json::to_vec(&pools)?).await? {
            return Ok(id);
        }
    }
    bail!("others kept changing the pools; run this again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_is_read_or_refused_with_a_hint() {
        assert_eq!("replicated:3".parse(), Ok(Redundancy { copies: 3 }));
        for text in ["replicated", "replicated:0", "replicated:x", "mirror:2"] {
            assert!(Redundancy::from_str(text).is_err_and(|error| error.contains("such as replicated:3")), "{text}");
        }
    }

    #[test]
    fn pools_made_from_defaults_pass_the_check() {
        for copies in 1..=5 {
            for osds in [1, 4, 100] {
                assert_eq!(parse::check_pool(&Redundancy { copies }.pool("a", osds)), Ok(()));
            }
        }
    }
}

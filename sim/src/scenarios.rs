//! The scenarios: one file each in `sim/scenarios/`, with a header that says what it is about.

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::map::Scheme;
use ashlar_core::time::Duration;

/// A scenario: the cluster it wants, and what happens.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on command lines: the file's.
    pub name: &'static str,
    /// The file's text, whose header says what it is about.
    pub text: &'static str,
    /// Makes what was drawn from the seed fit.
    pub configure: fn(Config) -> Config,
    /// What happens before everything is healed and read back.
    pub run: fn(&mut Cluster) -> Result<(), Finding>,
}

macro_rules! scenarios {
    ($($name:ident = $path:literal,)*) => {
        $(
            #[path = $path]
            mod $name;
        )*

        /// All of them.
        pub const ALL: &[Scenario] = &[
            $(Scenario {
                name: stringify!($name),
                text: include_str!($path),
                configure: $name::configure,
                run: $name::run,
            },)*
        ];
    };
}

scenarios! {
    mix = "../scenarios/mix.rs",
    calm = "../scenarios/calm.rs",
    version_split = "../scenarios/version_split.rs",
    stale_member_alone = "../scenarios/stale_member_alone.rs",
    paused_primary = "../scenarios/paused_primary.rs",
    one_way_primary = "../scenarios/one_way_primary.rs",
    member_missed_writes = "../scenarios/member_missed_writes.rs",
    interrupted_moves = "../scenarios/interrupted_moves.rs",
    mass_restarts = "../scenarios/mass_restarts.rs",
    total_power_loss = "../scenarios/total_power_loss.rs",
    unsynced_writes = "../scenarios/unsynced_writes.rs",
    retried_writes = "../scenarios/retried_writes.rs",
    reads_while_moving = "../scenarios/reads_while_moving.rs",
    discarded_stays_discarded = "../scenarios/discarded_stays_discarded.rs",
    metadata_store_stutters = "../scenarios/metadata_store_stutters.rs",
    client_dies = "../scenarios/client_dies.rs",
    fenced_client = "../scenarios/fenced_client.rs",
    reconnect_storm = "../scenarios/reconnect_storm.rs",
    forgotten_write = "../scenarios/forgotten_write.rs",
    lagging_member_alone = "../scenarios/lagging_member_alone.rs",
    deposed_primary = "../scenarios/deposed_primary.rs",
    long_and_busy = "../scenarios/long_and_busy.rs",
    power_cycles = "../scenarios/power_cycles.rs",
    pg_count_change = "../scenarios/pg_count_change.rs",
}

fn ms(n: u64) -> Duration {
    Duration::millis(n)
}

fn us(n: u64) -> Duration {
    Duration::micros(n)
}

/// What scripts ask for: three copies on so many OSDs at least, one per host, two clients, and nothing that happens by
/// itself. The rest stays as drawn: each seed is another timing.
fn scripted(mut config: Config, osds: u32) -> Config {
    config = config.calm();
    (config.scheme, config.parity_chunks, config.pg_size, config.pg_minsize) = (Scheme::Replicated, 0, 3, 2);
    (config.osds, config.osds_per_host) = (config.osds.max(osds), 1);
    config.object_blocks = config.object_blocks.max(8);
    config.image_objects = config.image_objects.max(4);
    config.load.clients = 2;
    config
}

fn three(config: Config) -> Config {
    let mut config = scripted(config, 3);
    config.osds = 3;
    config
}

fn four(config: Config) -> Config {
    scripted(config, 4)
}

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Whether each seed has a kind of pool of its own.
    pub fn draws_pool(&self) -> bool {
        self.name == "mix"
    }

    /// The first line of its header.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or(self.name)
    }
}

//! The scenarios: one file each in `sim/scenarios/`, with a header that says what it is about.

use crate::check::history::Finding;
use crate::cluster::pool::Redundancy;
use crate::cluster::{Cluster, Config, StoreKind, broken};
use ashlar_core::id::{Epoch, PgId};
use ashlar_core::map::{ImmediateCommit, Scheme};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;

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
    cells_meet = "../scenarios/cells_meet.rs",
    cells_after_power_loss = "../scenarios/cells_after_power_loss.rs",
    removed_image = "../scenarios/removed_image.rs",
    removed_image_leaves_nothing = "../scenarios/removed_image_leaves_nothing.rs",
    deletions_add_up = "../scenarios/deletions_add_up.rs",
    full_disks = "../scenarios/full_disks.rs",
    full_disks_lose_power = "../scenarios/full_disks_lose_power.rs",
    full_disks_of_chunks = "../scenarios/full_disks_of_chunks.rs",
    rot_found_by_scrub = "../scenarios/rot_found_by_scrub.rs",
    rot_is_never_read = "../scenarios/rot_is_never_read.rs",
    rot_under_writes = "../scenarios/rot_under_writes.rs",
    unreadable_pages = "../scenarios/unreadable_pages.rs",
    writes_go_astray = "../scenarios/writes_go_astray.rs",
    lost_copy = "../scenarios/lost_copy.rs",
    differing_copies = "../scenarios/differing_copies.rs",
    scrubs_in_bad_times = "../scenarios/scrubs_in_bad_times.rs",
    all_copies_rot = "../scenarios/all_copies_rot.rs",
    beyond_the_promise = "../scenarios/beyond_the_promise.rs",
    chunks_written_degraded = "../scenarios/chunks_written_degraded.rs",
    chunks_half_prepared = "../scenarios/chunks_half_prepared.rs",
    chunks_move = "../scenarios/chunks_move.rs",
    chunks_power_cycles = "../scenarios/chunks_power_cycles.rs",
    chunks_with_few = "../scenarios/chunks_with_few.rs",
    old_disk_returns = "../scenarios/old_disk_returns.rs",
    exchanged_disks = "../scenarios/exchanged_disks.rs",
    replaced_in_turn = "../scenarios/replaced_in_turn.rs",
    rack_power = "../scenarios/rack_power.rs",
    start_up_interrupted = "../scenarios/start_up_interrupted.rs",
    damaged_links = "../scenarios/damaged_links.rs",
    monitor_sleeps = "../scenarios/monitor_sleeps.rs",
    cut_from_metadata = "../scenarios/cut_from_metadata.rs",
    map_servers_die = "../scenarios/map_servers_die.rs",
    epochs_fly = "../scenarios/epochs_fly.rs",
    member_sleeps = "../scenarios/member_sleeps.rs",
    leader_goes_with_its_host = "../scenarios/leader_goes_with_its_host.rs",
    leases_of_the_restarted = "../scenarios/leases_of_the_restarted.rs",
    flush_meets_writes = "../scenarios/flush_meets_writes.rs",
    flush_without_member = "../scenarios/flush_without_member.rs",
    moves_of_unsynced = "../scenarios/moves_of_unsynced.rs",
    slow_member = "../scenarios/slow_member.rs",
    deletes_meet_writes = "../scenarios/deletes_meet_writes.rs",
    retried_deletes = "../scenarios/retried_deletes.rs",
    deep_queues = "../scenarios/deep_queues.rs",
    flush_meets_replay = "../scenarios/flush_meets_replay.rs",
    nobody_has_everything = "../scenarios/nobody_has_everything.rs",
    removed_while_moving = "../scenarios/removed_while_moving.rs",
    removal_cut_short = "../scenarios/removal_cut_short.rs",
    grants_come_late = "../scenarios/grants_come_late.rs",
    retries_after_a_move = "../scenarios/retries_after_a_move.rs",
    retries_after_a_patch = "../scenarios/retries_after_a_patch.rs",
    flush_covers_the_past = "../scenarios/flush_covers_the_past.rs",
    one_holder_left = "../scenarios/one_holder_left.rs",
    kept_by_one = "../scenarios/kept_by_one.rs",
    restart_unnoticed = "../scenarios/restart_unnoticed.rs",
    reads_of_the_forgotten = "../scenarios/reads_of_the_forgotten.rs",
    stated_then_lost = "../scenarios/stated_then_lost.rs",
    empty_disk_stands_in = "../scenarios/empty_disk_stands_in.rs",
    chunks_resolved_in_vain = "../scenarios/chunks_resolved_in_vain.rs",
    chunks_half_purged = "../scenarios/chunks_half_purged.rs",
    images_come_and_go = "../scenarios/images_come_and_go.rs",
    discards_of_nothing = "../scenarios/discards_of_nothing.rs",
    hurt_copy_alone = "../scenarios/hurt_copy_alone.rs",
    client_with_an_old_map = "../scenarios/client_with_an_old_map.rs",
    records_of_the_sleeping = "../scenarios/records_of_the_sleeping.rs",
    deposed_by_a_split = "../scenarios/deposed_by_a_split.rs",
    split_unheard_of = "../scenarios/split_unheard_of.rs",
    missed_parts = "../scenarios/missed_parts.rs",
    chunks_rebuilt_over_bad_links = "../scenarios/chunks_rebuilt_over_bad_links.rs",
    over_budget = "../scenarios/over_budget.rs",
    rolling_upgrade = "../scenarios/rolling_upgrade.rs",
    operators_at_work = "../scenarios/operators_at_work.rs",
    removed_pool = "../scenarios/removed_pool.rs",
    flapping = "../scenarios/flapping.rs",
    silent_host = "../scenarios/silent_host.rs",
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

/// Three OSDs, and one group on them.
fn one_group(config: Config) -> Config {
    Config { pg_count: 1, ..three(config) }
}

fn four(config: Config) -> Config {
    scripted(config, 4)
}

/// Chunks, on so many OSDs.
fn chunks(config: Config, data: u8, parity: u8, osds: u32) -> Config {
    let mut config = Redundancy { scheme: Scheme::Ec, data, parity }.applied(scripted(config, osds));
    config.osds = osds;
    config
}

/// The real store, on disks that take so many microseconds for a write.
fn on_disks(mut config: Config, write_us: u64) -> Config {
    let power_loss_protection = config.seed.is_multiple_of(2);
    config.store = StoreKind::Log { power_loss_protection, atomic_bytes: 4096, write: us(write_us) };
    config
}

/// A pool that keeps nothing without a flush.
fn lazy(mut config: Config) -> Config {
    config.make_lazy(ImmediateCommit::None);
    config
}

/// A fast cluster, for loads of many small operations: disks that take so long for a write, a short network, few checks.
fn busy(config: Config, write: Duration) -> Config {
    let mut config = on_disks(config, write.0 / 1000);
    (config.mons, config.pg_count) = (1, 8);
    (config.wire, config.gather, config.check_every) = (false, write, 100);
    (config.net_base, config.net_tail_ppm) = (us(20), 0);
    config
}

/// Waits until a group has a newer map than this epoch, to the fifth of a millisecond; two seconds at most.
fn new_epoch(c: &mut Cluster, pg: PgId, before: Option<Epoch>) -> Result<(), Finding> {
    for _ in 0..10_000 {
        if epoch_of(c, pg) != before {
            break;
        }
        c.run_for(us(200))?;
    }
    Ok(())
}

/// The epoch of a group's map.
fn epoch_of(c: &mut Cluster, pg: PgId) -> Option<Epoch> {
    c.pg_map(pg).map(|map| map.epoch)
}

/// Everything that stores or decides loses its power, with all that is in volatile caches, and starts again.
fn power_cycle(c: &mut Cluster) -> Result<(), Finding> {
    c.power_off_everything(Outcome::LoseAll);
    c.run_for(ms(200))?;
    c.start_everything();
    Ok(())
}

/// So many times, at a random moment: every OSD dies, by its process or (every other time) its power; then they start at
/// different moments, and all groups must serve again.
fn cycle_power(c: &mut Cluster, cycles: u32) -> Result<(), Finding> {
    for cycle in 0..cycles {
        let moment = c.world.draw(ms(1), ms(150));
        c.run_for(moment)?;
        let power = cycle % 2 == 1;
        for osd in c.osds().to_vec() {
            if power {
                let outcome = Outcome::draw(c.world.rng());
                let host = c.world.host_of(osd);
                c.power_off(host, outcome);
                c.world.power_on(host);
            } else {
                c.kill(osd);
            }
        }
        for osd in c.osds().to_vec() {
            let pause = c.world.draw(ms(1), ms(200));
            c.run_for(pause)?;
            c.start(osd);
        }
        if !c.run_until(Duration::secs(60), |c| c.all_active())? {
            return Err(broken(format!("not active after cycle {cycle}: {}", c.describe_stuck())));
        }
    }
    Ok(())
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

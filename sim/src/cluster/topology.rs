//! The shape of a cluster: how many OSDs, how many levels of failure domains, how much room on the disks.

use super::profile::MOVES;
use super::{Config, StoreKind};
use ashlar_core::map::ImmediateCommit;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use std::fmt;
use std::str::FromStr;

/// Bytes of a small disk.
const SMALL_DISK_BYTES: u64 = 8 << 20;
/// Bytes of a chunk on nearly full disks: a small disk has room for fewer than 64 of these.
const LARGE_CHUNK_BYTES: u32 = 128 << 10;
/// Objects of an image that does not fit on small disks, of such chunks.
const TOO_MANY_OBJECTS: u32 = 80;
/// Racks of a room.
const RACKS_PER_ROOM: u32 = 2;

/// How much room disks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For the image several times over.
    Plenty,
    /// For less than what clients would write: as many OSDs as members, since what one cannot take none can.
    Full,
}

/// See the module. Written as `12:3`: OSDs, then levels; `3:1:full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// OSDs, one to a host; more if the pool needs them.
    pub osds: u32,
    /// 1: hosts; 2: hosts in racks; 3: racks in rooms, too.
    pub levels: u8,
    /// Of the disks.
    pub room: Room,
}

/// What campaigns are made of.
pub const ALL: [Topology; 8] = {
    const fn of(osds: u32, levels: u8, room: Room) -> Topology {
        Topology { osds, levels, room }
    }
    [
        of(3, 1, Room::Plenty),
        of(3, 1, Room::Full),
        of(5, 1, Room::Plenty),
        of(5, 2, Room::Plenty),
        of(5, 3, Room::Plenty),
        of(12, 1, Room::Plenty),
        of(12, 2, Room::Plenty),
        of(12, 3, Room::Plenty),
    ]
};

impl Topology {
    /// Draws one; none: as the configuration was drawn otherwise.
    pub fn draw(seed: u64) -> Option<Topology> {
        let mut rng = Rng::new(seed ^ 0x00c0_ffee_0000_0006);
        let place = match rng.below(100) {
            0..6 => 0,
            6..14 => 1,
            14..20 => 2,
            20..26 => 3,
            26..30 => 4,
            30..33 => 5,
            33..36 => 6,
            36..40 => 7,
            _ => return None,
        };
        Some(ALL[place])
    }

    /// The configuration with such a cluster, for the pool that it has.
    #[must_use]
    pub fn applied(self, mut config: Config) -> Config {
        config.osds_per_host = 1;
        config.osds = self.osds.max(config.pg_size.into());
        (config.racks, config.rooms) = (self.levels >= 2, self.levels >= 3);
        if self.room == Room::Full {
            config.fill_disks();
        }
        config
    }
}

impl Config {
    /// Makes disks so small that clients run out of space.
    fn fill_disks(&mut self) {
        self.osds = self.pg_size.into();
        self.disk_bytes = SMALL_DISK_BYTES;
        let blocks = LARGE_CHUNK_BYTES / 4096 * u32::from(self.data_chunks());
        (self.object_blocks, self.image_objects) = (blocks, TOO_MANY_OBJECTS);
        for kind in MOVES {
            self.mix = std::mem::take(&mut self.mix).without(kind);
        }
        // Members of a lazy pool that are all full cannot always make certain what none of them had synced.
        self.immediate_commit = ImmediateCommit::All;
        self.load.operations = self.load.operations.max(400);
        self.load.discard_percent = self.load.discard_percent.max(10);
        if self.store == StoreKind::Model {
            let write = Duration::micros(100);
            self.store = StoreKind::Log { power_loss_protection: true, atomic_bytes: 4096, write };
        }
    }

    /// Whether clients may run out of space.
    pub fn may_be_full(&self) -> bool {
        self.disk_bytes <= SMALL_DISK_BYTES
    }

    fn hosts_per_rack(&self) -> u32 {
        // Racks of two, as long as they are enough for the members of a group.
        if self.osds / self.osds_per_host / 2 >= self.pg_size.into() { 2 } else { 1 }
    }

    /// The rack of a host and its room, by numbers.
    pub(super) fn place_of_host(&self, host: u32) -> (u32, u32) {
        let rack = host / self.hosts_per_rack();
        (rack, rack / RACKS_PER_ROOM)
    }

    /// OSDs that share a rack.
    pub fn osds_per_rack(&self) -> usize {
        (self.hosts_per_rack() * self.osds_per_host) as usize
    }

    /// The level of which no two members of a group share a node, and how many OSDs such a node has.
    fn domain(&self) -> (&'static str, u32) {
        let (host, rack) = (self.osds_per_host, self.hosts_per_rack() * self.osds_per_host);
        let room = rack * RACKS_PER_ROOM;
        match (self.racks, self.rooms) {
            (_, true) if self.osds / room >= self.pg_size.into() => ("room", room),
            (true, _) | (_, true) => ("rack", rack),
            _ => ("host", host),
        }
    }

    /// The failure domain.
    pub fn failure_domain(&self) -> &'static str {
        self.domain().0
    }

    /// OSDs that share a failure domain.
    pub fn osds_per_domain(&self) -> u32 {
        self.domain().1
    }

    /// OSDs that an operator adds while the load runs: not more than are to spare.
    pub fn late_osds(&self) -> u32 {
        let spare = if self.osds_per_domain() == 1 { self.osds.saturating_sub(self.pg_size.into()) } else { 0 };
        self.late.min(spare)
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.osds, self.levels, if self.room == Room::Full { ":full" } else { "" })
    }
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Topology, String> {
        let known = ALL.iter().find(|topology| topology.to_string() == text);
        let names: Vec<String> = ALL.iter().map(ToString::to_string).collect();
        let complaint = || format!("there is no topology '{text}' (OSDs:levels); use one of {}", names.join(", "));
        known.copied().ok_or_else(complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::pool;

    #[test]
    fn names_are_read_back_and_every_pool_has_domains_enough() {
        for topology in ALL {
            assert_eq!(topology.to_string().parse(), Ok(topology));
            for pool in pool::ALL {
                let config = topology.applied(pool.applied(Config::draw(7)));
                assert!(config.osds / config.osds_per_domain() >= u32::from(config.pg_size), "{topology} {pool}");
                assert_eq!(config.redundancy(), pool);
                assert!(!config.may_be_full() || config.osds == u32::from(config.pg_size));
            }
        }
        assert!("4:1".parse::<Topology>().is_err());
    }

    #[test]
    fn every_shape_is_drawn_and_many_are_none() {
        let drawn: Vec<Option<Topology>> = (1..1000).map(Topology::draw).collect();
        assert!(ALL.iter().all(|topology| drawn.contains(&Some(*topology))));
        assert!(drawn.iter().filter(|topology| topology.is_none()).count() > 400);
    }

    #[test]
    fn three_copies_on_twelve_hosts_are_in_three_rooms() {
        let config =
            |text: &str| text.parse::<Topology>().expect("known").applied(pool::ALL[1].applied(Config::draw(7)));
        assert_eq!((config("12:3").failure_domain(), config("12:3").osds_per_domain()), ("room", 4));
        assert_eq!((config("12:2").failure_domain(), config("12:2").osds_per_domain()), ("rack", 2));
        assert_eq!((config("5:3").failure_domain(), config("5:1").failure_domain()), ("rack", "host"));
    }
}

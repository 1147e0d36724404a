//! Names of things: newtypes, so that no number of one kind is taken for another.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// An OSD's number, given by the administrator, kept for life.
    OsdId(u32), "osd."
);
number!(
    /// A pool's number; never reused.
    PoolId(u32), "pool "
);
number!(
    /// An image's number within its pool; never reused.
    InodeId(u64), "inode "
);
number!(
    /// Number of a placement group within its pool: the generation of its layout in the upper 16 bits, its place in the
    /// order of hashes in the lower 16. Groups of another `pg_count` are other groups.
    PgNumber(u32), "pg "
);
number!(
    /// Place of a copy within its group: always 0 in replicated pools, the chunk number in erasure-coded ones.
    Role(u8), "role "
);
number!(
    /// Number of a PG's map; rises with every change of acting members, primary or their incarnations. 0: none yet.
    Epoch(u64), "e"
);
number!(
    /// Revision of the metadata store.
    Revision(u64), "rev "
);
number!(
    /// One start of a daemon; drawn at random, so two starts never share one.
    Incarnation(u64), "inc "
);
number!(
    /// A client, for as long as it holds unanswered requests (across reconnects); drawn at random.
    ClientId(u64), "client "
);
number!(
    /// One connection, never reused within a process.
    LinkId(u64), "link "
);

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = format!("{:032x}", self.0);
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let hex: String = text.chars().filter(|c| *c != '-').collect();
                let well_formed = hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit());
                let value = u128::from_str_radix(&hex, 16).ok().filter(|_| well_formed);
                value.map($name).ok_or_else(|| format!("'{text}' is not a UUID"))
            }
        }
    };
}

uuid!(
    /// Names a store's contents: re-creating a store, or clearing untrustworthy metadata, gives a new one.
    StoreUuid
);
uuid!(
    /// Names a cluster; everything that belongs to another one is refused.
    ClusterUuid
);

/// A placement group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PgId {
    /// Its pool.
    pub pool: PoolId,
    /// Its number.
    pub number: PgNumber,
}

impl fmt::Debug for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pg {self}")
    }
}
impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool.0, self.number.0)
    }
}

impl PgNumber {
    /// The group of a generation at a place, which is below 65,536.
    pub fn new(generation: u16, place: u32) -> Self {
        assert!(place < 1 << 16, "place {place} of a group");
        PgNumber(u32::from(generation) << 16 | place)
    }

    /// The generation of its layout.
    pub fn generation(self) -> u16 {
        u16::try_from(self.0 >> 16).expect("16 bits")
    }

    /// Its place among the groups of its layout.
    pub fn place(self) -> u32 {
        self.0 & 0xffff
    }
}

/// An object: one fixed-size stripe of an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId {
    /// Its pool.
    pub pool: PoolId,
    /// Its image.
    pub inode: InodeId,
    /// Its index within the image: byte offset / object size.
    pub stripe: u64,
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pool.0, self.inode.0, self.stripe)
    }
}

impl ObjectId {
    /// The 64-bit hash that places the object. A placement group owns a contiguous range of it, so that an index
    /// ordered by hash lists any group of any `pg_count` in one pass. (Finaliser of MurmurHash3, chained; fixed for
    /// ever: changing it moves all data.)
    pub fn hash(&self) -> u64 {
        let mix = |mut x: u64| {
            x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            x ^ (x >> 33)
        };
        mix(mix(mix(u64::from(self.pool.0).wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ self.inode.0) ^ self.stripe)
    }

    /// The placement group in a pool's first layout, given its `pg_count` (at least 1).
    pub fn pg(&self, pg_count: u32) -> PgId {
        let number = (u128::from(self.hash()) * u128::from(pg_count)) >> 64;
        PgId { pool: self.pool, number: PgNumber(u32::try_from(number).expect("below pg_count")) }
    }
}

/// A range of object hashes, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct HashRange {
    /// Lowest hash.
    pub first: u64,
    /// Highest hash.
    pub last: u64,
}

impl HashRange {
    /// Every hash.
    pub const ALL: HashRange = HashRange { first: 0, last: u64::MAX };

    /// The hashes of the objects of the group at a place, of `pg_count` groups.
    pub fn of_pg(place: u32, pg_count: u32) -> HashRange {
        let bound = |n: u32| (u128::from(n) << 64).div_ceil(u128::from(pg_count));
        let fit = |x: u128| u64::try_from(x).expect("bounds of a group below pg_count fit");
        HashRange { first: fit(bound(place)), last: fit(bound(place + 1) - 1) }
    }

    /// Whether `hash` lies inside.
    pub fn contains(&self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }

    /// Splits into `1 << bits` ranges of (about) equal width and returns number `index`.
    pub fn part(&self, index: u32, bits: u32) -> HashRange {
        let width = u128::from(self.last - self.first) + 1;
        let bound = |n: u32| u128::from(self.first) + ((width * u128::from(n)) >> bits);
        let fit = |x: u128| u64::try_from(x).expect("inside a range of u64");
        HashRange { first: fit(bound(index)), last: fit(bound(index + 1) - 1) }
    }
}

/// A copy of an object in one role: what a store holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CopyId {
    /// The object.
    pub object: ObjectId,
    /// The role; a copy in one role is not a copy in another.
    pub role: Role,
}

impl fmt::Debug for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.object, self.role.0)
    }
}

/// An object's version: given by the primary of `epoch`, never twice, ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Epoch of the interval in which it was written.
    pub epoch: Epoch,
    /// Counts the object's versions of that epoch (and continues its predecessor's count), from 1.
    pub seq: u64,
}

impl Version {
    /// "No version": the predecessor of an object's first.
    pub const NONE: Version = Version { epoch: Epoch(0), seq: 0 };

    /// Whether this is [`Version::NONE`].
    pub fn is_none(self) -> bool {
        self == Version::NONE
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.seq)
    }
}
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A member of a placement group: the store, not just the OSD's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The OSD.
    pub osd: OsdId,
    /// Its store; a re-created store is another member.
    pub store: StoreUuid,
    /// The role that it plays.
    pub role: Role,
}

/// One try of a primary to peer; every message of the interval carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attempt {
    /// The interval.
    pub epoch: Epoch,
    /// The primary's start.
    pub incarnation: Incarnation,
    /// Counts the tries of this primary in this epoch, from 1.
    pub counter: u64,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {}.{}.{:x}", self.epoch.0, self.counter, self.incarnation.0 & 0xffff)
    }
}

/// One session of a client: requests of an older session are never executed after a newer one's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Session {
    /// The client.
    pub client: ClientId,
    /// Counts its sessions.
    pub number: u64,
}

/// A client's request: numbered within its session, without gaps; a retry carries the number of the first try.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RequestId {
    /// The session.
    pub session: Session,
    /// Its number, from 1. Requests that change nothing are numbered apart, with bit 63 set and in no order.
    pub number: u64,
}

/// Requests that a version includes and that could still be retried; stored with the version.
pub type Requests = SmallVec<[RequestId; 2]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_partition_the_hashes() {
        for pg_count in [1, 2, 3, 7, 64, 1000] {
            let mut next = 0u128;
            for place in 0..pg_count {
                let range = HashRange::of_pg(place, pg_count);
                assert_eq!(u128::from(range.first), next);
                next = u128::from(range.last) + 1;
            }
            assert_eq!(next, 1 << 64);
        }
    }

    #[test]
    fn an_object_lies_in_the_range_of_its_group() {
        for stripe in 0..1000 {
            let object = ObjectId { pool: PoolId(3), inode: InodeId(9), stripe };
            for pg_count in [1, 5, 32, 333] {
                let pg = object.pg(pg_count);
                assert!(HashRange::of_pg(pg.number.place(), pg_count).contains(object.hash()));
            }
        }
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        let object = ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: 0 };
        assert_eq!(format!("{:016x}", object.hash()), "183b545e635e1505");
    }

    #[test]
    fn parts_cover_a_range() {
        let range = HashRange::of_pg(1, 3);
        let parts: Vec<_> = (0..16).map(|index| range.part(index, 4)).collect();
        assert_eq!(parts[0].first, range.first);
        assert_eq!(parts[15].last, range.last);
        assert!(parts.windows(2).all(|w| w[0].last + 1 == w[1].first));
    }

    #[test]
    fn uuids_round_trip_and_refuse_nonsense() {
        let uuid = StoreUuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(StoreUuid::try_from(uuid.to_string()), Ok(uuid));
        assert!(StoreUuid::try_from("x".to_string()).is_err());
        assert!(StoreUuid::try_from("+1234567-89ab-cdef-0123-456789abcdef".to_string()).is_err());
    }
}

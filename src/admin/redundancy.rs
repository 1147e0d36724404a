//! A pool's redundancy as people write it: `replicated:3`, `ec:4+2`, `xor:2+1`.

use ashlar_core::map::{Pool, Scheme, parse};
use std::fmt;
use std::str::FromStr;

/// Placement groups that each OSD should carry: enough for an even spread, few enough to peer quickly.
const GROUPS_PER_OSD: u32 = 64;
/// Most groups of a pool unless somebody asks for more; as many as a pool may have.
const GROUPS_MAX: u32 = 65_536;
/// Bytes of an object, or of a chunk: the measured knee of throughput against metadata.
const BLOCK_BYTES: u32 = 128 << 10;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redundancy {
    scheme: Scheme,
    members: u8,
    parity: u8,
}

impl FromStr for Redundancy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.split_once(':') {
            Some(("replicated", copies)) => copies.parse().ok().map(Redundancy::copies),
            Some(("ec", chunks)) => chunks_of(chunks, Scheme::Ec),
            Some(("xor", chunks)) => chunks_of(chunks, Scheme::Xor),
            _ => None,
        };
        let redundancy = parsed.ok_or_else(|| {
            format!(
                "'{text}' is not a redundancy; write replicated:COPIES, ec:DATA+PARITY or xor:DATA+1, such as \
                 replicated:3, ec:4+2, xor:2+1"
            )
        })?;
        // The name is made up; everything else is as it will be.
        parse::check_pool(&redundancy.pool("pool", 1)).map_err(|reason| format!("'{text}': {reason}"))?;
        Ok(redundancy)
    }
}

fn chunks_of(text: &str, scheme: Scheme) -> Option<Redundancy> {
    let (data, parity) = text.split_once('+')?;
    let (data, parity): (u8, u8) = (data.parse().ok()?, parity.parse().ok()?);
    Some(Redundancy { scheme, members: data.checked_add(parity)?, parity })
}

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.members - self.parity;
        match self.scheme {
            Scheme::Replicated => write!(f, "replicated:{}", self.members),
            Scheme::Ec => write!(f, "ec:{data}+{}", self.parity),
            Scheme::Xor => write!(f, "xor:{data}+{}", self.parity),
        }
    }
}

impl Redundancy {
    /// Equal copies.
    pub fn copies(copies: u8) -> Redundancy {
        Redundancy { scheme: Scheme::Replicated, members: copies, parity: 0 }
    }

    /// That of a pool.
    pub fn of(pool: &Pool) -> Redundancy {
        Redundancy { scheme: pool.scheme, members: pool.pg_size, parity: pool.parity_chunks }
    }

    /// Members of a group, each in a failure domain of its own.
    pub fn members(self) -> u8 {
        self.members
    }

    /// Bytes on all OSDs together for so many bytes of images, written in full.
    pub fn raw_bytes(self, bytes: u64) -> u64 {
        let data = u64::from(self.data());
        bytes.div_ceil(data) * u64::from(self.members)
    }

    /// Data chunks of a stripe; 1 for copies.
    fn data(self) -> u8 {
        if self.scheme == Scheme::Replicated { 1 } else { self.members.saturating_sub(self.parity).max(1) }
    }

    /// A pool of this redundancy, with everything else as usual.
    pub fn pool(self, name: &str, osds: u32) -> Pool {
        let pool = Pool {
            name: name.into(),
            scheme: self.scheme,
            pg_size: self.members,
            pg_minsize: 0,
            pg_count: self.usual_groups(usize::try_from(osds).unwrap_or(usize::MAX)),
            parity_chunks: self.parity,
            block_size: BLOCK_BYTES,
            ..Pool::default()
        };
        Pool { pg_minsize: self.minsize(&pool), ..pool }
    }

    /// Groups for a pool on so many OSDs: about [`GROUPS_PER_OSD`] for each, a power of two.
    pub fn usual_groups(self, osds: usize) -> u32 {
        let osds = u32::try_from(osds).unwrap_or(u32::MAX);
        let groups = osds.saturating_mul(GROUPS_PER_OSD) / u32::from(self.members.max(1));
        groups.clamp(1, GROUPS_MAX).next_power_of_two()
    }

    /// Of what makes no sense, anything: it is refused.
    fn minsize(self, pool: &Pool) -> u8 {
        if self.members > self.parity { pool.usual_minsize() } else { self.members }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_is_read_and_written_alike() {
        for text in ["replicated:1", "replicated:3", "ec:2+1", "ec:4+2", "ec:16+4", "xor:2+1", "xor:16+1"] {
            assert_eq!(Redundancy::from_str(text).map(|redundancy| redundancy.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_hint() {
        for text in ["replicated", "replicated:x", "mirror:2", "ec:4", "ec:4+", "ec:200+100", "3"] {
            assert!(Redundancy::from_str(text).is_err_and(|error| error.contains("such as replicated:3")), "{text}");
        }
    }

    #[test]
    fn what_no_pool_can_be_is_refused_with_the_reason() {
        let cases = [
            ("replicated:0", "pg_size is 0"),
            ("ec:1+1", "use 2"),
            ("ec:17+1", "to 16"),
            ("ec:4+5", "parity_chunks is 5"),
            ("ec:0+0", "pg_size is 0"),
            ("ec:4+0", "parity_chunks is 0"),
            ("xor:4+2", "has 1"),
        ];
        for (text, reason) in cases {
            let refusal = Redundancy::from_str(text).expect_err("no pool can be so");
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }

    #[test]
    fn pools_made_from_defaults_pass_the_check_and_can_lose_a_member() {
        for text in
            ["replicated:2", "replicated:3", "replicated:5", "ec:2+1", "ec:4+2", "ec:16+4", "xor:2+1", "xor:5+1"]
        {
            for osds in [1, 4, 100] {
                let pool = Redundancy::from_str(text).expect("good").pool("a", osds);
                assert_eq!(parse::check_pool(&pool), Ok(()), "{text}");
                assert!(pool.pg_minsize < pool.pg_size, "{text}");
            }
        }
    }

    #[test]
    fn the_number_of_groups_follows_the_number_of_osds() {
        let groups = |text: &str, osds: usize| Redundancy::from_str(text).expect("good").usual_groups(osds);
        assert_eq!((groups("replicated:3", 0), groups("replicated:3", 3), groups("replicated:3", 12)), (1, 64, 256));
        assert_eq!((groups("ec:4+2", 12), groups("replicated:2", 1_000_000)), (128, 65_536));
    }

    #[test]
    fn the_space_that_images_take_counts_parity() {
        let raw = |text: &str| Redundancy::from_str(text).expect("good").raw_bytes(4 << 20);
        assert_eq!((raw("replicated:3"), raw("ec:4+2"), raw("xor:2+1")), (12 << 20, 6 << 20, 6 << 20));
    }
}

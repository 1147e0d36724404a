//! The redundancy of the simulated pool: copies or chunks.

use super::Config;
use crate::check::history::BLOCK;
use ashlar_core::limits::OBJECT_MIN_BYTES;
use ashlar_core::map::Scheme;
use std::fmt;
use std::str::FromStr;

/// How a pool keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redundancy {
    /// The scheme.
    pub scheme: Scheme,
    /// Copies, or data chunks.
    pub data: u8,
    /// Parity chunks.
    pub parity: u8,
}

/// What campaigns are made of.
pub const ALL: [Redundancy; 6] = [
    Redundancy { scheme: Scheme::Replicated, data: 2, parity: 0 },
    Redundancy { scheme: Scheme::Replicated, data: 3, parity: 0 },
    Redundancy { scheme: Scheme::Ec, data: 2, parity: 1 },
    Redundancy { scheme: Scheme::Ec, data: 2, parity: 2 },
    Redundancy { scheme: Scheme::Ec, data: 4, parity: 2 },
    Redundancy { scheme: Scheme::Xor, data: 2, parity: 1 },
];

impl Redundancy {
    /// Members of a group.
    pub fn size(self) -> u8 {
        self.data + self.parity
    }

    /// The configuration with such a pool, and with OSDs enough for it.
    #[must_use]
    pub fn applied(self, mut config: Config) -> Config {
        let Redundancy { scheme, data, parity } = self;
        (config.scheme, config.parity_chunks, config.pg_size) = (scheme, parity, self.size());
        // Each seed has a minsize of its own; at least two members more than can be lost are never asked for.
        let spare = u8::try_from(config.seed % 2).expect("a bit");
        config.pg_minsize = match scheme {
            Scheme::Replicated => (data - 1).max(1),
            Scheme::Ec | Scheme::Xor => data + if parity > 1 { spare } else { 0 },
        };
        let hosts = (config.osds / config.osds_per_host).max(self.size().into());
        config.osds = hosts * config.osds_per_host;
        if scheme != Scheme::Replicated {
            let least = u32::from(data) * OBJECT_MIN_BYTES / BLOCK;
            config.object_blocks = config.object_blocks.next_power_of_two().max(least);
        }
        config
    }
}

impl Config {
    /// Data chunks of an object; 1 for copies.
    pub fn data_chunks(&self) -> u8 {
        if self.scheme == Scheme::Replicated { 1 } else { self.pg_size - self.parity_chunks }
    }

    /// Members that can be lost without losing data.
    pub fn spare_members(&self) -> u8 {
        self.pg_size - self.data_chunks()
    }

    /// Bytes of a copy or chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.object_blocks * BLOCK / u32::from(self.data_chunks())
    }

    /// How the pool keeps its objects, in words.
    pub fn redundancy(&self) -> Redundancy {
        let data = self.pg_size - self.parity_chunks;
        Redundancy { scheme: self.scheme, data, parity: self.parity_chunks }
    }
}

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Replicated => write!(f, "replicated:{}", self.data),
            Scheme::Ec => write!(f, "ec:{}+{}", self.data, self.parity),
            Scheme::Xor => write!(f, "xor:{}+{}", self.data, self.parity),
        }
    }
}

impl FromStr for Redundancy {
    type Err = String;

    fn from_str(text: &str) -> Result<Redundancy, String> {
        let known = ALL.iter().find(|redundancy| redundancy.to_string() == text);
        let names: Vec<String> = ALL.iter().map(ToString::to_string).collect();
        known.copied().ok_or_else(|| format!("there is no pool '{text}' here; use one of {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_configurations_are_large_enough() {
        for redundancy in ALL {
            assert_eq!(redundancy.to_string().parse(), Ok(redundancy));
            let config = redundancy.applied(Config::draw(7));
            assert_eq!(config.redundancy(), redundancy);
            assert!(config.osds / config.osds_per_host >= u32::from(config.pg_size));
            assert!(config.chunk_bytes() >= OBJECT_MIN_BYTES && config.chunk_bytes().is_power_of_two());
        }
        assert!("ec:1+1".parse::<Redundancy>().is_err());
    }
}

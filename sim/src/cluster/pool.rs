//! The simulated pool: copies or chunks, and which of its writes are durable when they are acknowledged.

use super::Config;
use crate::check::history::BLOCK;
use ashlar_core::limits::OBJECT_MIN_BYTES;
use ashlar_core::map::{ImmediateCommit, Scheme};
use ashlar_core::rng::Rng;
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

/// What is said of a run's pool, in place of what was drawn: `copies` (nothing), `ec:2+1`, `replicated:3,lazy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolChoice {
    /// How it keeps its objects; none: in as many copies as were drawn.
    pub redundancy: Option<Redundancy>,
    /// Whether it is lazy; none: as drawn.
    pub lazy: Option<bool>,
}

impl PoolChoice {
    /// Draws one: of each kind some, most of those that differ most.
    pub fn draw(seed: u64) -> PoolChoice {
        let mut rng = Rng::new(seed ^ 0x00c0_ffee_0000_0005);
        let place = match rng.below(100) {
            0..20 => Some(2),
            20..36 => Some(3),
            36..44 => Some(4),
            44..54 => Some(5),
            _ => None,
        };
        PoolChoice { redundancy: place.map(|place: usize| ALL[place]), lazy: None }
    }

    /// The configuration with such a pool.
    #[must_use]
    pub fn applied(self, config: Config) -> Config {
        let mut config = match self.redundancy {
            Some(redundancy) => redundancy.applied(config),
            None => config,
        };
        match self.lazy {
            Some(true) if !config.is_lazy() => config.make_lazy(ImmediateCommit::None),
            Some(false) => config.immediate_commit = ImmediateCommit::All,
            _ => {}
        }
        config
    }
}

impl Config {
    /// Makes the pool lazy; each client has objects of its own then.
    pub fn make_lazy(&mut self, promise: ImmediateCommit) {
        self.immediate_commit = promise;
        self.image_objects = self.image_objects.max(2 * self.load.clients);
        if self.load.cell_objects > 0 {
            self.load.cell_objects = self.load.clients;
        }
    }

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
        known
            .copied()
            .ok_or_else(|| format!("there is no pool '{text}' here; use one of {COPIES}, {}", names.join(", ")))
    }
}

const LAZY: &str = "lazy";
const IMMEDIATE: &str = "immediate";
const COPIES: &str = "copies";

impl fmt::Display for PoolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.redundancy {
            Some(redundancy) => write!(f, "{redundancy}")?,
            None => f.write_str(COPIES)?,
        }
        match self.lazy {
            Some(lazy) => write!(f, ",{}", if lazy { LAZY } else { IMMEDIATE }),
            None => Ok(()),
        }
    }
}

impl FromStr for PoolChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<PoolChoice, String> {
        let (pool, promise) = text.split_once(',').map_or((text, None), |(pool, promise)| (pool, Some(promise)));
        let redundancy = if pool == COPIES { None } else { Some(pool.parse()?) };
        let lazy = match promise {
            None => None,
            Some(LAZY) => Some(true),
            Some(IMMEDIATE) => Some(false),
            Some(other) => return Err(format!("after the comma comes {LAZY} or {IMMEDIATE}, not '{other}'")),
        };
        Ok(PoolChoice { redundancy, lazy })
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

    #[test]
    fn choices_are_read_back_and_obeyed() {
        for text in ["copies", "copies,lazy", "ec:2+1", "replicated:3,lazy", "xor:2+1,immediate"] {
            let choice: PoolChoice = text.parse().expect("a choice");
            assert_eq!(choice.to_string(), text);
            let config = choice.applied(Config::draw(7).sometimes_lazy());
            assert_eq!(choice.lazy.unwrap_or(config.is_lazy()), config.is_lazy());
            assert!(!config.is_lazy() || config.image_objects >= 2 * config.load.clients);
        }
        for text in ["", "ec:2+1,", "ec:2+1,later", ",lazy"] {
            assert!(text.parse::<PoolChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_kind_is_drawn() {
        let drawn: Vec<PoolChoice> = (1..200).map(PoolChoice::draw).collect();
        let count = |kind| drawn.iter().filter(|choice| choice.redundancy == kind).count();
        assert!(count(None) > 60);
        assert!(ALL[2..].iter().all(|kind| count(Some(*kind)) > 6));
    }
}

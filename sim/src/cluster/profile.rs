//! How hard a run is: which faults it has, and whether they stay within what pools promise to survive.

use super::{Config, StoreKind};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use std::fmt;
use std::str::FromStr;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// No faults.
    Calm,
    /// The faults that the seed draws, of each kind as much as pools promise to survive.
    #[default]
    Default,
    /// Every kind of fault, twice as often as usual.
    Harsh,
    /// More is lost than any pool promises to survive: it may be refused, and never come back, but what is answered is
    /// right.
    OverBudget,
}

const ALL: [(&str, Profile); 4] = [
    ("calm", Profile::Calm),
    ("default", Profile::Default),
    ("harsh", Profile::Harsh),
    ("over-budget", Profile::OverBudget),
];

/// What takes data away: over budget, there is a lot of it.
const LOSSES: [FaultKind; 9] = [
    FaultKind::Wipe,
    FaultKind::DeadDisk,
    FaultKind::OldDisk,
    FaultKind::SwappedDisks,
    FaultKind::LatentError,
    FaultKind::BitRot,
    FaultKind::ReadError,
    FaultKind::Astray,
    FaultKind::LyingFlush,
];
/// What makes other OSDs members. Not where disks are full: what fits on two members need not fit on a third, which has
/// other objects.
pub(super) const MOVES: [FaultKind; 3] = [FaultKind::PoolChange, FaultKind::Reweight, FaultKind::Membership];
/// Mean interval of each kind of loss.
const LOSS_MEAN: Duration = Duration::secs(3);

impl Profile {
    /// The configuration as this profile has it.
    #[must_use]
    pub fn applied(self, mut config: Config) -> Config {
        match self {
            Profile::Calm => config.calm(),
            Profile::Default => config,
            Profile::Harsh => {
                let usual = |kind: FaultKind| Duration::millis(kind.usual_mean_ms() / 2);
                let kinds = config.kinds().filter(|kind| !kind.is_beyond_promises());
                config.mix = kinds.fold(FaultMix::none(), |mix, kind| mix.with(kind, usual(kind)));
                config
            }
            Profile::OverBudget => config.over_budget(),
        }
    }
}

impl Config {
    /// The kinds of fault that these stores can have.
    pub fn kinds(&self) -> impl Iterator<Item = FaultKind> + use<> {
        let (disks, full) = (self.store != StoreKind::Model, self.may_be_full());
        let fits = move |kind: &FaultKind| (disks || !kind.needs_disks()) && !(full && MOVES.contains(kind));
        FaultKind::ALL.iter().copied().filter(fits)
    }

    /// The same with losses that no pool promises to survive.
    #[must_use]
    fn over_budget(mut self) -> Config {
        let mut rng = Rng::new(self.seed ^ 0x00c0_ffee_0000_0007);
        self.over_budget = true;
        if self.store == StoreKind::Model {
            let power_loss_protection = rng.chance(1, 2);
            self.store = StoreKind::Log { power_loss_protection, atomic_bytes: 512, write: Duration::micros(100) };
        }
        for kind in LOSSES {
            // Each is absent from some runs, so that what is found is not always the same; what nobody can notice from half
            // of them, since less can be checked where it happens.
            let silent = matches!(kind, FaultKind::OldDisk | FaultKind::LyingFlush);
            self.mix = if rng.chance(if silent { 2 } else { 1 }, 4) {
                self.mix.without(kind)
            } else {
                self.mix.with(kind, LOSS_MEAN)
            };
        }
        self
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ALL.iter().find(|(_, profile)| profile == self).expect("all are listed").0;
        f.write_str(name)
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        let names = ALL.map(|(name, _)| name).join(", ");
        let found = ALL.iter().find(|(name, _)| *name == text).map(|(_, profile)| *profile);
        found.ok_or_else(|| format!("there is no profile '{text}'; use one of {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_back_and_differ_in_their_faults() {
        for (name, profile) in ALL {
            assert_eq!((profile.to_string().as_str(), name.parse()), (name, Ok(profile)));
        }
        assert!("hard".parse::<Profile>().is_err());
        for seed in 1..50 {
            let of = |profile: Profile| profile.applied(Config::draw(seed));
            assert_eq!(of(Profile::Calm).mix, FaultMix::none());
            let harsh = of(Profile::Harsh);
            assert!(harsh.kinds().all(|kind| harsh.mix.has(kind) != kind.is_beyond_promises()));
            let over = of(Profile::OverBudget);
            assert!(over.over_budget && over.store != StoreKind::Model && !of(Profile::Default).over_budget);
            assert!(LOSSES.iter().filter(|kind| over.mix.has(**kind)).count() > 2);
        }
    }
}

//! The torture rig: power goes again and again, and nothing that was acknowledged may be missing afterwards.
//!
//! ```text
//!  write ─▶ cut (one OSD, some, all, everything) ─▶ power comes back ─▶ start ─▶ canaries ─▶ look at everything ─┐
//!    ▲                                                                                                            │
//!    └────────────────────────────────────── next cycle ◀── nothing missing ◀─────────────────────────────────────┘
//! ```
//! | rig | what is cut | what is on top |
//! | --- | --- | --- |
//! | [`cluster`] | devices of ours under the OSDs of a cluster, or of one OSD alone (`store`) | clients that share blocks |
//! | [`file_system`] | the same, and the client | ext4 or xfs with files that were synced, and a database |
//! | [`hooks`] | whatever your commands cut: relays, IPMI, PDUs | one writer, with a witness file |
//!
//! The witness (what was acknowledged) is always outside of what loses its power: in this process, or in a file of the
//! machine that it runs on. A device that lies is told apart from a bug of ours by canaries: pages that the rig itself
//! wrote and flushed on the same device. Where the rig does not have the devices ([`hooks`]), canaries are pages of the
//! export, and tell less: see [`Judgement::FlushLost`].

pub mod arguments;
pub mod cluster;
pub mod file_system;
pub mod hooks;
pub mod progress;
pub mod proof;
pub mod witness;

use ashlar_core::rng::Rng;

/// Who loses the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victims {
    /// One OSD.
    One,
    /// Several, not all.
    Several,
    /// All OSDs; clients live.
    All,
    /// All OSDs and the clients.
    Everything,
    /// Drawn for each cut.
    Mixed,
}

impl Victims {
    /// What is drawn, if it is.
    pub fn draw(self, rng: &mut Rng) -> Victims {
        let kinds = [Victims::One, Victims::Several, Victims::All, Victims::Everything];
        match self {
            Victims::Mixed => kinds[usize::try_from(rng.below(4)).expect("below 4")],
            chosen => chosen,
        }
    }

    /// Which of so many OSDs.
    pub fn of(self, osds: u32, rng: &mut Rng) -> Vec<u32> {
        let mut all: Vec<u32> = (1..=osds).collect();
        let count = match self {
            Victims::One => 1,
            Victims::Several => rng.between(2, u64::from(osds.max(3)) - 1).min(osds.into()),
            _ => osds.into(),
        };
        while (all.len() as u64) > count {
            all.swap_remove(usize::try_from(rng.below(all.len() as u64)).expect("few"));
        }
        all
    }
}

/// Why cycles ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing is missing.
    Clean,
    /// Something is missing although every device kept what it said it had.
    OurBug(Vec<String>),
    /// A device did not keep what it said it had; what else is missing may be its doing.
    DeviceLies(Vec<String>),
    /// Something is missing, of devices that nobody looked at; what was flushed long before is there.
    Missing(Vec<String>),
    /// What an export was told to write durably, and to flush, is gone, although nothing was written there any more: a device
    /// lies, or there is a bug. What the pool promises before a flush plays no part.
    FlushLost(Vec<String>),
}

impl Judgement {
    /// From what is missing, and what canaries say.
    pub fn of(missing: Vec<String>, canaries: Vec<String>) -> Judgement {
        match (missing.is_empty(), canaries.is_empty()) {
            (_, false) => Judgement::DeviceLies(canaries.into_iter().chain(missing).collect()),
            (false, true) => Judgement::OurBug(missing),
            (true, true) => Judgement::Clean,
        }
    }

    /// The same, of an export whose devices are not ours.
    pub fn of_export(missing: Vec<String>, canaries: Vec<String>) -> Judgement {
        match Judgement::of(missing, canaries) {
            Judgement::OurBug(missing) => Judgement::Missing(missing),
            Judgement::DeviceLies(all) => Judgement::FlushLost(all),
            other => other,
        }
    }

    /// In a line.
    pub fn title(&self) -> &'static str {
        match self {
            Judgement::Clean => "nothing missing",
            Judgement::OurBug(_) => "MISSING, and every device kept what it said: a bug",
            Judgement::DeviceLies(_) => "A DEVICE LIES",
            Judgement::Missing(_) => {
                "MISSING, and the canaries live: a bug, or a device that lies about the newest writes"
            }
            Judgement::FlushLost(_) => "A FLUSH WAS NOT KEPT, canaries are dead: a device that lies, or a bug",
        }
    }

    /// What was found, line by line.
    pub fn words(&self) -> &[String] {
        match self {
            Judgement::Clean => &[],
            Judgement::OurBug(words)
            | Judgement::DeviceLies(words)
            | Judgement::Missing(words)
            | Judgement::FlushLost(words) => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_as_many_as_they_say() {
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            assert_eq!(Victims::One.of(4, &mut rng).len(), 1);
            assert!((2..4).contains(&Victims::Several.of(4, &mut rng).len()));
            assert_eq!(Victims::All.of(4, &mut rng), [1, 2, 3, 4]);
            assert_eq!(Victims::Everything.of(1, &mut rng), [1]);
            assert_eq!(Victims::Several.of(1, &mut rng), [1]);
            assert_ne!(Victims::Mixed.draw(&mut rng), Victims::Mixed);
        }
    }

    #[test]
    fn a_dead_canary_accuses_the_device() {
        let lost = || vec!["lost".to_string()];
        assert_eq!(Judgement::of(Vec::new(), Vec::new()), Judgement::Clean);
        assert_eq!(Judgement::of(lost(), Vec::new()), Judgement::OurBug(lost()));
        assert!(matches!(Judgement::of(lost(), lost()), Judgement::DeviceLies(all) if all.len() == 2));
        assert!(matches!(Judgement::of(Vec::new(), lost()), Judgement::DeviceLies(_)));
        assert_eq!(Judgement::of_export(Vec::new(), Vec::new()), Judgement::Clean);
        assert_eq!(Judgement::of_export(lost(), Vec::new()), Judgement::Missing(lost()));
        assert!(matches!(Judgement::of_export(Vec::new(), lost()), Judgement::FlushLost(_)));
    }
}

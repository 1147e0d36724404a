//! Mistakes that can be switched on, to test the tests.
//!
//! Each is a real slip at the place where it would be made: `if planted(Bug::SkipFence) || attempt == self.joined`.
//! Without the feature `planted` (never on in daemons) [`planted`] is the constant `false` and nothing is left of it.

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A planted mistake.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$variant,)*];

            /// Its name on command lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$variant => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// The primary acknowledges a write before all acting members have it durable.
    AcknowledgeBeforeDurable = "acknowledge-before-durable",
    /// A member carries out messages of attempts that it did not join, or of epochs below its fence.
    SkipFence = "skip-fence",
    /// Uncertain versions are not installed on all acting members, void ones not deleted, before serving.
    SkipResolve = "skip-resolve",
    /// Versions of the last interval count as valid whoever holds them.
    IgnoreWitnesses = "ignore-witnesses",
    /// Reads are answered without looking at the lease.
    ReadWithoutLease = "read-without-lease",
    /// A new primary does not wait for the leases that members granted to older ones.
    ActivateWithoutLeaseWait = "activate-without-lease-wait",
    /// The history is trimmed before every object is durable on every acting member.
    TrimTooEarly = "trim-too-early",
    /// Request numbers that a version includes are ignored, so a retry runs again.
    DropRequestNumbers = "drop-request-numbers",
}

impl Bug {
    /// The bug of that name.
    pub fn from_name(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        // Per thread, so that tests which run side by side do not see each other's bugs.
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on (or all off) for this thread.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    /// Whether this bug is switched on.
    pub fn planted(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Whether this bug is switched on: never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(*bug));
        }
    }
}

//! The scenarios: one file each in `sim/scenarios/`, with a header that says what it is about.

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

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
}

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// The first line of its header.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or(self.name)
    }
}

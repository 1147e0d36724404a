//! The cases in their short form, one at a time: each wants the machine to itself.

use ashlar_jepsen::cases::{ALL, Scale};
use std::sync::Mutex;

static MACHINE: Mutex<()> = Mutex::new(());

fn case(name: &str) {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let case = ALL.iter().find(|case| case.name == name).expect("a case of this name");
    match (case.run)(Scale::SHORT) {
        Ok(seen) => println!("{name}: {seen}"),
        Err(error) => panic!("{name}: {error:#}"),
    }
}

macro_rules! cases {
    ($($(#[$attribute:meta])* $name:ident),*) => {
        $(#[test] $(#[$attribute])* fn $name() { case(stringify!($name)); })*

        #[test]
        fn every_case_is_tested() {
            let mut tested = [$(stringify!($name)),*].to_vec();
            let mut all: Vec<_> = ALL.iter().map(|case| case.name).collect();
            tested.sort_unstable();
            all.sort_unstable();
            assert_eq!(tested, all);
        }
    };
}

cases!(
    start,
    refusals,
    convert,
    fio,
    #[ignore = "`mix` kills, on four pools: `cargo ci torture -- kills`"]
    kills,
    #[ignore = "`mix` stops, on four pools: `cargo ci torture -- pause`"]
    pause,
    power,
    #[ignore = "`mix` has coded pools: `cargo ci torture -- coded`"]
    coded,
    remove,
    map,
    regroup,
    #[ignore = "minutes: `cargo ci torture -- blackout`"]
    blackout,
    #[ignore = "minutes: `cargo ci torture -- lazy`"]
    lazy,
    fence,
    #[ignore = "minutes: `cargo ci torture -- rot`"]
    rot,
    settings,
    #[ignore = "nine OSDs: `cargo ci torture -- placement`"]
    placement,
    modify,
    mix,
    orphans
);

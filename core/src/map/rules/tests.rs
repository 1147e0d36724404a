//! What is understood, what is refused and how, and what follows from rules.

use super::*;
use crate::map::{ImmediateCommit, Scheme};
use crate::rng::Rng;
use std::collections::BTreeMap;

fn levels() -> Levels {
    Levels(BTreeMap::from([("dc".into(), 90), ("rack".into(), 95)]))
}

fn part(numbers: &[usize]) -> Vec<Argument> {
    numbers.iter().map(|number| Argument::Part(number - 1)).collect()
}

fn rule(level: &str, operator: Operator, arguments: Vec<Argument>) -> Rule {
    Rule { level: level.into(), operator, arguments }
}

#[test]
fn the_documented_examples_are_understood() {
    use Operator::*;
    let three = Rules::parse("any, host!=1, host!=(1,2)", 3).expect("good");
    assert_eq!(three, Rules::different("host", 3));
    let sites = Rules::parse("any, dc=1 host!=1, dc!=1, dc=3 host!=3, dc!=(1,3), dc=5 host!=5", 6).expect("good");
    assert_eq!(sites.parts[3], [rule("dc", Equal, part(&[3])), rule("host", Different, part(&[3]))]);
    assert_eq!(sites.parts[4], [rule("dc", Different, part(&[1, 3]))]);
    let preferred = Rules::parse("dc?=\"meow\"\ndc!=1\ndc!=(1,2)\n", 3).expect("good");
    assert_eq!(preferred.parts[0], [rule("dc", Preferred, vec![Argument::Node("meow".into())])]);
    let mixed = Rules::parse("any, host>1 dc=(1, \"b\")", 2).expect("good");
    assert_eq!(mixed.parts[1][0], rule("host", Later, part(&[1])));
    assert_eq!(mixed.parts[1][1].arguments, [Argument::Part(0), Argument::Node("b".into())]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        ("", 1, "part 1, column 1: any or the name of a level expected, but the text ends"),
        ("any, host!1", 2, "column 10: '!' is not expected"),
        ("any, host 1", 2, "part 2, column 11: one of = != > ?= after the level \"host\" expected, found \"1\""),
        ("any, host!=2", 2, "part 2, column 12: a part from 1 to 1 (rules of part 2 refer to earlier parts) expected"),
        ("any, host!=0", 2, "a part from 1 to 1"),
        ("host!=1, any", 2, "part 1, column 7: a node's name in quotation marks (no part comes before the first)"),
        ("any, host!=(1", 2, "\",\" or \")\" expected, but the text ends"),
        ("any, dc=meow", 2, "or \"meow\" in quotation marks if it is a node, expected"),
        ("any, dc=\"meow", 2, "column 9: the quotation mark is not closed"),
        ("any, dc=\"\"", 2, "a node without a name"),
        ("any any", 2, "\",\" after any expected, found \"any\""),
        ("any,", 2, "part 2 expected, but the text ends"),
        (", any", 2, "part 1, column 1: any or the name of a level expected, found \",\""),
        ("any, any", 3, "there are 2 parts; write 3"),
        ("any, host!=1 =", 2, "found \"=\""),
    ];
    for (text, size, wanted) in cases {
        let error = Rules::parse(text, size).expect_err(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

fn pool(change: impl FnOnce(&mut Pool)) -> Pool {
    let mut pool = Pool { scheme: Scheme::Ec, pg_size: 6, parity_chunks: 2, pg_minsize: 5, ..Pool::default() };
    pool.immediate_commit = ImmediateCommit::All;
    change(&mut pool);
    pool
}

#[test]
fn a_pools_parameters_become_rules() {
    let of = |change: &dyn Fn(&mut Pool)| Rules::of_pool(&pool(change), &levels()).map(|rules| rules.to_string());
    assert_eq!(of(&|p| p.pg_size = 3).as_deref(), Ok("any, host!=1, host!=(1,2)"));
    assert_eq!(of(&|p| p.failure_domain = "osd".into()).as_deref(), Ok("any, any, any, any, any, any"));
    let text = of(&|p| p.level_placement = Some("dc=112233".into())).expect("good");
    assert!(text.starts_with("any, host!=1 dc=1, host!=(1,2) dc!=(1,2), host!=(1,2,3) dc=3 dc!=(1,2)"), "{text}");
    let three = of(&|p| p.level_placement = Some("dc=111222".into())).expect("good");
    assert!(three.contains("host!=(1,2) dc=1 dc=2, host!=(1,2,3) dc!=(1,2,3), "), "{three}");
    let both = of(&|p| {
        p.level_placement = Some("dc=112233".into());
        p.raw_placement = Some("any, any, any, any, any, any".into());
    });
    assert!(both.is_err_and(|text| text.contains("leave one of them out")));
}

#[test]
fn bad_patterns_are_refused() {
    let of = |text: &str| Rules::of_pool(&pool(|p| p.level_placement = Some(text.into())), &levels()).expect_err(text);
    assert!(of("dc").contains("level_placement: \"dc\" has no \"=\""));
    assert!(of("dc=11223").contains("write 6 letters or digits"));
    assert!(of("dc=11-233").contains("write 6 letters or digits"));
    assert!(of("dc=112233 dc=111222").contains("level \"dc\" comes twice"));
    assert!(of("=112233").contains("is not the name of a level"));
}

#[test]
fn contradictions_are_found_across_levels_and_chains() {
    let check = |text: &str, size: usize| {
        let raw = pool(|p| {
            (p.pg_size, p.raw_placement) = (u8::try_from(size).expect("small"), Some(text.into()));
        });
        Rules::of_pool(&raw, &levels())
    };
    let refused = |text: &str, size: usize, wanted: &str| {
        let error = check(text, size).expect_err(text);
        assert!(error.contains(wanted), "{text}: {error}");
    };
    refused("any, dc=1 dc!=1", 2, "part 2 of a group cannot be on the same node of level dc as part 1");
    refused("any, host=1 dc!=1", 2, "part 2 of a group cannot be on the same node of level dc as part 1");
    refused("any, dc=1, dc=2 dc!=1", 3, "part 3 of a group cannot be on the same node of level dc as part 1");
    refused("dc=\"a\" dc!=\"a\"", 1, "as node \"a\"");
    refused("dc=\"a\" dc=\"b\"", 1, "part 1 of a group cannot be on two nodes of level dc");
    refused("any, osd=1", 2, "part 2 of a group cannot share its OSD");
    refused("dc=\"a\", dc=\"b\" dc=1", 2, "cannot be on two nodes of level dc");
    assert!(check("any, dc=1 host!=1", 2).is_ok());
    assert!(check("dc=\"a\", dc=\"a\" host!=1", 2).is_ok());
    let domains = pool(|p| (p.level_placement, p.failure_domain) = (Some("rack=112233".into()), "dc".into()));
    assert!(
        Rules::of_pool(&domains, &levels()).is_err_and(|text| text.contains("the same node of level dc as part 1"))
    );
}

#[test]
fn levels_on_which_no_two_parts_meet() {
    let level =
        |text: &str, size: usize| Rules::parse(text, size).expect("good").separating_level(&levels()).to_string();
    assert_eq!(level("any, host!=1, host!=(1,2)", 3), "host");
    assert_eq!(level("any, dc!=1, dc!=(1,2)", 3), "dc");
    assert_eq!(level("any, dc=1 host!=1, dc!=1, dc=3 host!=3, dc!=(1,3), dc=5 host!=5", 6), "host");
    assert_eq!(level("any, host!=1, host!=1", 3), "osd");
    assert_eq!(level("dc=\"a\", dc=\"b\"", 2), "dc");
    assert_eq!(level("any, host>1, host>2", 3), "osd", "what follows from order alone is not looked for");
    assert_eq!(level("any, any", 2), "osd");
    assert_eq!(Rules::different("host", 3).only_level(), Some("host"));
    assert_eq!(Rules::different("osd", 3).only_level(), Some("osd"));
    assert_eq!(Rules::parse("any, host!=1, host!=1", 3).expect("good").only_level(), None);
}

#[test]
fn what_is_written_is_read_back() {
    let mut rng = Rng::new(5);
    for _ in 0..500 {
        let size = usize::try_from(rng.between(1, 6)).expect("small");
        let rules = Rules { parts: (0..size).map(|part| random_part(&mut rng, part)).collect() };
        assert_eq!(Rules::parse(&rules.to_string(), size), Ok(rules));
    }
}

fn random_part(rng: &mut Rng, part: usize) -> Vec<Rule> {
    let operators = [Operator::Equal, Operator::Different, Operator::Later, Operator::Preferred];
    let pick = |rng: &mut Rng, bound: usize| usize::try_from(rng.below(bound as u64)).expect("small");
    let argument = |rng: &mut Rng| match pick(rng, part + 1) {
        0 => Argument::Node(["a", "rack 7", "h.1"][pick(rng, 3)].into()),
        earlier => Argument::Part(earlier - 1),
    };
    (0..pick(rng, 3))
        .map(|_| Rule {
            level: ["host", "dc", "rack"][pick(rng, 3)].into(),
            operator: operators[pick(rng, 4)],
            arguments: (0..=pick(rng, 3)).map(|_| argument(rng)).collect(),
        })
        .collect()
}

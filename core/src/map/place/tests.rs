//! Placement on random trees.

#![allow(clippy::disallowed_macros)] // Figures for people.

use super::*;
use crate::map::place::shares::{Share, shares};
use crate::rng::Rng;
use std::collections::BTreeSet;

fn candidate(osd: u32, weight: u32, domain: u64) -> Candidate {
    Candidate { osd: OsdId(osd), weight: f64::from(weight), nodes: vec![format!("h{domain}")] }
}

/// All parts on different hosts.
fn on_hosts<T>(
    candidates: &[Candidate],
    size: usize,
    present: &[Vec<Option<OsdId>>],
    run: impl FnOnce(&Problem<'_>) -> T,
) -> T {
    let (rules, levels) = (Rules::different("host", size), ["host".to_string()]);
    run(&Problem { candidates, levels: &levels, rules: &rules, present, max_combinations: 10_000, seed: 3 })
}

/// Up to 40 OSDs on up to 12 hosts, some much larger than others.
fn random_candidates(rng: &mut Rng) -> Vec<Candidate> {
    let hosts = rng.between(1, 12);
    let osds = u32::try_from(rng.between(1, 40)).unwrap();
    let weight = |rng: &mut Rng| u32::try_from(if rng.chance(1, 5) { rng.between(1, 400) } else { 100 }).unwrap();
    (0..osds).map(|osd| candidate(osd, weight(rng), rng.below(hosts))).collect()
}

fn solve(candidates: &[Candidate], size: usize, present: &[Vec<Option<OsdId>>]) -> Placement {
    let placement = on_hosts(candidates, size, present, place);
    check_rules(candidates, size, &placement.groups);
    placement
}

/// Members are candidates of different domains, as many as there are domains.
fn check_rules(candidates: &[Candidate], size: usize, groups: &[Vec<Option<OsdId>>]) {
    let domain_of: BTreeMap<OsdId, &str> = candidates.iter().map(|c| (c.osd, c.nodes[0].as_str())).collect();
    let domains: BTreeSet<&str> = domain_of.values().copied().collect();
    for group in groups {
        let used: Vec<&str> = group.iter().flatten().map(|osd| domain_of[osd]).collect();
        let distinct: BTreeSet<&str> = used.iter().copied().collect();
        assert_eq!(distinct.len(), used.len(), "a domain is shared: {used:?}");
        assert_eq!(used.len(), size.min(domains.len()), "too few members of {} domains", domains.len());
        assert_eq!(group.len(), size);
    }
}

fn share_of(candidates: &[Candidate], size: usize, groups: usize) -> Vec<Share> {
    on_hosts(candidates, size, &[], |problem| {
        let candidates = problem.candidates();
        let weights: Vec<f64> = candidates.iter().map(|c| c.weight).collect();
        shares(problem.rules, &problem.terms(&candidates), &weights, groups, 0)
    })
}

fn counts(candidates: &[Candidate], groups: &[Vec<Option<OsdId>>]) -> Vec<u32> {
    let of = |osd: OsdId| groups.iter().flatten().filter(|member| **member == Some(osd)).count();
    candidates.iter().map(|c| u32::try_from(of(c.osd)).unwrap()).collect()
}

/// By how many groups OSDs miss their shares, rounded as is best for each.
fn misses(candidates: &[Candidate], size: usize, groups: &[Vec<Option<OsdId>>]) -> u32 {
    let shares = share_of(candidates, size, groups.len());
    let miss = |(count, share): (&u32, &Share)| count.saturating_sub(share.high) + share.low.saturating_sub(*count);
    counts(candidates, groups).iter().zip(&shares).map(miss).sum()
}

#[test]
fn rules_hold_and_weights_are_honoured_on_random_trees() {
    let mut rng = Rng::new(11);
    let (mut off, mut groups) = (0, 0);
    for _ in 0..150 {
        let candidates = random_candidates(&mut rng);
        let size = usize::try_from(rng.between(1, 5)).unwrap();
        let count = usize::try_from(rng.between(1, 256)).unwrap();
        let placement = solve(&candidates, size, &vec![Vec::new(); count]);
        assert_eq!(placement.moves, 0);
        let missed = misses(&candidates, size, &placement.groups);
        off += missed;
        groups += count;
        let shares = share_of(&candidates, size, count);
        let counts = counts(&candidates, &placement.groups);
        let seen: Vec<_> = candidates.iter().zip(counts).zip(shares).map(|((c, n), s)| (&c.nodes[0], n, s)).collect();
        assert_eq!(missed, 0, "{missed} of {count} groups of {size} off: {seen:?}");
    }
    println!("{groups} groups placed, {off} members off their OSD's share");
}

#[test]
fn a_right_placement_is_not_touched() {
    let mut rng = Rng::new(12);
    for _ in 0..60 {
        let candidates = random_candidates(&mut rng);
        let size = usize::try_from(rng.between(1, 4)).unwrap();
        let first = solve(&candidates, size, &vec![Vec::new(); 64]);
        let second = solve(&candidates, size, &first.groups);
        if misses(&candidates, size, &first.groups) == 0 {
            assert_eq!((second.moves, second.filled), (0, 0));
            assert_eq!(second.groups, first.groups);
        }
    }
}

#[test]
fn removal_moves_little_but_what_was_there() {
    let mut rng = Rng::new(13);
    let (mut moved, mut unavoidable) = (0, 0);
    for _ in 0..80 {
        let mut candidates = random_candidates(&mut rng);
        let first = solve(&candidates, 3, &vec![Vec::new(); 128]);
        let gone = usize::try_from(rng.below(u64::try_from(candidates.len()).unwrap())).unwrap();
        let lost = counts(&candidates, &first.groups)[gone];
        candidates.remove(gone);
        if candidates.is_empty() {
            continue;
        }
        let second = solve(&candidates, 3, &first.groups);
        moved += second.moves;
        unavoidable += lost;
        assert_eq!(misses(&candidates, 3, &second.groups), 0);
    }
    println!("removal: {unavoidable} members lost, {moved} others moved");
    assert!(moved < usize::try_from(unavoidable).unwrap() / 20, "{moved} moves for {unavoidable} lost members");
}

#[test]
fn addition_moves_the_share_of_the_new_one() {
    let mut rng = Rng::new(14);
    let (mut moved, mut needed) = (0, 0);
    for _ in 0..80 {
        let mut candidates = random_candidates(&mut rng);
        let first = solve(&candidates, 3, &vec![Vec::new(); 128]);
        candidates.push(candidate(99, 100, rng.below(12)));
        let second = solve(&candidates, 3, &first.groups);
        moved += second.moves + second.filled;
        needed += unavoidable_moves(&candidates, &first.groups);
        assert_eq!(misses(&candidates, 3, &second.groups), 0);
    }
    println!("addition: {moved} members moved or filled, at least {needed} needed");
    assert!(moved * 10 <= needed * 12, "{moved} moved, {needed} needed");
}

/// What OSDs lack up to their shares rounded down, and what others have above theirs rounded up: the larger of the two.
fn unavoidable_moves(candidates: &[Candidate], groups: &[Vec<Option<OsdId>>]) -> usize {
    let shares = share_of(candidates, 3, groups.len());
    let counts = counts(candidates, groups);
    let lack: u32 = counts.iter().zip(&shares).map(|(n, share)| share.low.saturating_sub(*n)).sum();
    let excess: u32 = counts.iter().zip(&shares).map(|(n, share)| n.saturating_sub(share.high)).sum();
    usize::try_from(lack.max(excess)).unwrap()
}

#[test]
fn members_that_stay_keep_their_slots() {
    let candidates: Vec<_> = (0..6).map(|n| candidate(n, 100, u64::from(n))).collect();
    let first = solve(&candidates, 3, &vec![Vec::new(); 32]);
    let second = solve(&candidates[..5], 3, &first.groups);
    let pairs = first.groups.iter().flatten().zip(second.groups.iter().flatten());
    let changed = pairs.filter(|(old, new)| old != new).count();
    assert_eq!(changed, second.moves + second.filled);
}

#[test]
fn too_few_domains_leave_holes_and_more_fill_them() {
    let candidates: Vec<_> = (0..4).map(|n| candidate(n, 100, u64::from(n / 2))).collect();
    let first = solve(&candidates, 3, &vec![Vec::new(); 16]);
    assert!(first.groups.iter().all(|group| group.iter().flatten().count() == 2));
    let more: Vec<_> = (0..6).map(|n| candidate(n, 100, u64::from(n / 2))).collect();
    let second = solve(&more, 3, &first.groups);
    assert_eq!((second.moves, second.filled), (0, 16));
}

#[test]
fn a_weight_of_nothing_and_nobody_at_all() {
    let none = on_hosts(&[], 3, &vec![Vec::new(); 4], place);
    assert_eq!(none.groups, vec![vec![None; 3]; 4]);
    let zero = [candidate(1, 0, 1), candidate(2, 100, 2)];
    let placement = on_hosts(&zero, 2, &vec![Vec::new(); 4], place);
    assert!(placement.groups.iter().all(|group| *group == [Some(OsdId(2)), None]));
}

#[test]
fn a_changed_size_keeps_the_members() {
    let candidates: Vec<_> = (0..6).map(|n| candidate(n, 100, u64::from(n))).collect();
    let three = solve(&candidates, 3, &vec![Vec::new(); 16]);
    let four = solve(&candidates, 4, &three.groups);
    assert_eq!((four.moves, four.filled), (0, 16));
    let two = solve(&candidates, 2, &three.groups);
    assert!(two.moves <= 4);
}

#[test]
fn members_that_stay_keep_their_places() {
    let osds =
        |numbers: &[u32]| -> Vec<Option<OsdId>> { numbers.iter().map(|n| (*n != 0).then_some(OsdId(*n))).collect() };
    let kept = |members: &[u32], homes: &[u32]| {
        let mut members = osds(members);
        keep_places(&mut members, &osds(homes));
        members
    };
    assert_eq!(kept(&[2, 1, 3], &[1, 2, 3]), osds(&[1, 2, 3]));
    assert_eq!(kept(&[4, 1, 3], &[1, 2, 3]), osds(&[1, 4, 3]));
    assert_eq!(kept(&[2, 3, 1, 5], &[1, 2, 3, 4]), osds(&[1, 2, 3, 5]));
    assert_eq!(kept(&[0, 1, 4], &[1, 0, 3]), osds(&[1, 0, 4]));
    assert_eq!(kept(&[1, 2, 3], &[]), osds(&[1, 2, 3]));
    assert_eq!(kept(&[3, 1], &[1, 2, 3]), osds(&[1, 3]), "a group that became smaller");
}

#[test]
fn a_new_member_takes_the_place_of_one_in_its_domain() {
    let osds =
        |numbers: &[u32]| -> Vec<Option<OsdId>> { numbers.iter().map(|n| (*n != 0).then_some(OsdId(*n))).collect() };
    // Two OSDs in each domain: 1 and 2, 3 and 4, ...
    let kept = |members: &[u32], homes: &[u32]| {
        let mut members = osds(members);
        keep_domains(&mut members, &osds(homes), |osd| Some(osd.0.div_ceil(2)));
        members
    };
    assert_eq!(kept(&[1, 6, 4], &[1, 3, 5]), osds(&[1, 4, 6]));
    assert_eq!(kept(&[6, 2, 4], &[1, 3, 5]), osds(&[2, 4, 6]));
    assert_eq!(kept(&[1, 4, 8], &[1, 3, 5]), osds(&[1, 4, 8]), "another domain stays where it is");
    assert_eq!(kept(&[3, 1, 5], &[3, 1, 6]), osds(&[3, 1, 5]));
    assert_eq!(kept(&[1, 0, 4], &[1, 3, 0]), osds(&[1, 4, 0]));
    assert_eq!(kept(&[1, 2], &[]), osds(&[1, 2]));
}

//! Which members a group gets.

use super::*;
use crate::id::{Incarnation, Member, Role, StoreUuid};
use crate::map::Scheme;

fn pool(size: u8, minsize: u8) -> Pool {
    Pool { name: "p".into(), pg_size: size, pg_minsize: minsize, pg_count: 8, scrub_interval_s: 0, ..Pool::default() }
}

fn usable(osds: &[u32]) -> UsableOsds {
    let one = |n: &u32| {
        let member = ActingMember { osd: OsdId(*n), store: StoreUuid(u128::from(*n)), incarnation: Incarnation(1) };
        (OsdId(*n), Usable { member, domain: format!("h{n}"), affine: false })
    };
    osds.iter().map(one).collect()
}

fn history(sets: &[&[u32]]) -> History {
    let members = |set: &&[u32]| -> Vec<Member> {
        set.iter().map(|n| Member { osd: OsdId(*n), store: StoreUuid(u128::from(*n)), role: Role(0) }).collect()
    };
    let base_set = members(&sets[0]);
    let sets: Vec<(Epoch, Vec<Member>)> = (1..).map(Epoch).zip(sets.iter().map(members)).collect();
    History {
        base_epoch: Epoch(1),
        base_set,
        last: sets[sets.len() - 1].0,
        witnesses: Vec::new(),
        sets,
        ancestors: Vec::new(),
    }
}

fn targets(osds: &[u32]) -> Vec<Option<OsdId>> {
    osds.iter().map(|n| Some(OsdId(*n))).collect()
}

fn acting(map: &PgMap) -> Vec<u32> {
    map.acting.iter().map(|m| m.map_or(0, |m| m.osd.0)).collect()
}

struct Case {
    pool: Pool,
    map: Option<PgMap>,
    target: Vec<Option<OsdId>>,
    history: Option<History>,
}

impl Case {
    fn next(&self, usable: &UsableOsds) -> PgMap {
        let (map, history) = (self.map.as_ref(), self.history.as_ref());
        let group = Group { pool: &self.pool, map, target: &self.target, history, wish: None, floor: Epoch(0) };
        let next = group.next_map(usable, &mut Load::default());
        let again = Group { map: Some(&next), ..group };
        assert_eq!(again.next_map(usable, &mut Load::default()), next, "nothing changes twice");
        next
    }
}

#[test]
fn a_new_group_acts_on_its_target() {
    let case = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None };
    let map = case.next(&usable(&[1, 2, 3]));
    assert_eq!((map.epoch, acting(&map), map.primary), (Epoch(1), vec![1, 2, 3], Some(OsdId(1))));
}

#[test]
fn a_group_whose_map_was_lost_goes_on_above_its_history() {
    let old = history(&[&[1, 2, 3], &[1, 2]]);
    let case = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: Some(old) };
    assert_eq!(case.next(&usable(&[1, 2, 3])).epoch, Epoch(3));
}

#[test]
fn a_move_goes_in_steps_until_the_target_is_reached() {
    let all = usable(&[1, 2, 3, 4, 5, 6]);
    let first = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None }.next(&all);
    let (mut map, mut steps) = (first, Vec::new());
    let mut members: Vec<u32> = vec![1, 2, 3];
    for _ in 0..4 {
        let (target, history) = (targets(&[4, 5, 6]), Some(history(&[&members])));
        map = Case { pool: pool(3, 2), map: Some(map), target, history }.next(&all);
        let kept = acting(&map).iter().filter(|n| members.contains(n)).count();
        assert!(kept >= 2, "{map:?} after {members:?}");
        members = acting(&map);
        steps.push(map.epoch.0);
    }
    let mut last = members.clone();
    last.sort_unstable();
    assert_eq!(last, [4, 5, 6]);
    assert_eq!(steps[3], steps[2], "and then nothing moves");
}

#[test]
fn holders_fill_holes_and_give_way_again() {
    let old =
        Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None }.next(&usable(&[1, 2, 3]));
    let case =
        Case { pool: pool(3, 2), map: Some(old), target: targets(&[1, 2, 4]), history: Some(history(&[&[1, 2, 3]])) };
    assert_eq!(acting(&case.next(&usable(&[1, 2, 3]))), [1, 2, 3], "4 is down");
    assert_eq!(acting(&case.next(&usable(&[1, 2, 3, 4]))), [1, 2, 4]);
}

#[test]
fn single_copies_move_too() {
    let old = Case { pool: pool(1, 1), map: None, target: targets(&[1]), history: None }.next(&usable(&[1, 2]));
    let case = Case { pool: pool(1, 1), map: Some(old), target: targets(&[2]), history: Some(history(&[&[1]])) };
    assert_eq!(acting(&case.next(&usable(&[1, 2]))), [2]);
}

#[test]
fn a_created_anew_store_holds_nothing() {
    let mut osds = usable(&[1, 2, 3]);
    let old = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None }.next(&osds);
    osds.get_mut(&OsdId(1)).expect("it is there").member.store = StoreUuid(99);
    let case =
        Case { pool: pool(3, 2), map: Some(old), target: targets(&[1, 2, 3]), history: Some(history(&[&[1, 2, 3]])) };
    let map = case.next(&osds);
    assert_eq!(acting(&map), [1, 2, 3]);
    assert_ne!(map.primary, Some(OsdId(1)), "the primary holds the data");
}

#[test]
fn a_holder_in_the_domain_of_a_new_member_takes_its_place() {
    let mut osds = usable(&[1, 2, 3, 4, 5]);
    osds.get_mut(&OsdId(4)).expect("it is there").domain = "h1".into();
    let old = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None }.next(&osds);
    let case =
        Case { pool: pool(3, 2), map: Some(old), target: targets(&[4, 5, 3]), history: Some(history(&[&[1, 2, 3]])) };
    let mut members = acting(&case.next(&osds));
    members.sort_unstable();
    assert_eq!(members, [1, 3, 5]);
}

/// Random groups: whoever is up, whatever was recorded.
#[test]
fn members_keep_the_rules_whatever_happens() {
    let mut rng = crate::rng::Rng::new(21);
    for _ in 0..3000 {
        let osds: Vec<u32> = (1..=8).filter(|_| rng.chance(3, 4)).collect();
        let mut up = usable(&osds);
        up.values_mut().for_each(|usable| usable.domain = format!("h{}", usable.member.osd.0 % 5));
        let case = random_case(&mut rng);
        let next = case.next(&up);
        let members: Vec<OsdId> = next.acting.iter().flatten().map(|m| m.osd).collect();
        let domains: BTreeSet<&str> = members.iter().map(|osd| up[osd].domain.as_str()).collect();
        assert_eq!(domains.len(), members.len(), "a domain is shared: {next:?}");
        let group = Group {
            pool: &case.pool,
            map: case.map.as_ref(),
            target: &case.target,
            history: case.history.as_ref(),
            wish: None,
            floor: Epoch(0),
        };
        let holders = group.holders(&up);
        let holder_domains: BTreeSet<&str> = holders.iter().map(|osd| up[osd].domain.as_str()).collect();
        let kept = members.iter().filter(|osd| holders.contains(osd)).count();
        let wanted = usize::from(case.pool.pg_minsize.min(case.pool.pg_size - 1)).min(holder_domains.len());
        assert!(kept >= wanted, "{kept} of {holders:?} in {next:?}, wanted {wanted}");
        assert_eq!(next.primary.is_some(), !members.is_empty());
        let whole = case.target.iter().flatten().all(|osd| up.contains_key(osd));
        assert!(!whole || members.len() >= case.target.len().min(usize::from(case.pool.pg_size)), "{next:?}");
    }
}

fn random_case(rng: &mut crate::rng::Rng) -> Case {
    let size = u8::try_from(rng.between(1, 4)).expect("small");
    let minsize = u8::try_from(rng.between(1, u64::from(size))).expect("small");
    let some = |rng: &mut crate::rng::Rng| -> Vec<u32> {
        let mut all: Vec<u32> = (1..=8).collect();
        let mut picked: Vec<u32> = Vec::new();
        while picked.len() < usize::from(size) {
            let next = all.remove(usize::try_from(rng.below(u64::try_from(all.len()).expect("small"))).expect("small"));
            if picked.iter().all(|n| n % 5 != next % 5) {
                picked.push(next);
            }
        }
        picked
    };
    let target = targets(&some(rng));
    let mut sets: Vec<Vec<u32>> = vec![some(rng)];
    while rng.chance(1, 2) {
        let last = sets[sets.len() - 1].clone();
        let next = if rng.chance(1, 2) { some(rng) } else { last.into_iter().filter(|_| rng.chance(2, 3)).collect() };
        sets.push(next);
    }
    let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
    let history = rng.chance(3, 4).then(|| history(&sets));
    let everybody = usable(&(1..=8).collect::<Vec<_>>());
    let mut everywhere = everybody.clone();
    everywhere.values_mut().for_each(|usable| usable.domain = format!("h{}", usable.member.osd.0 % 5));
    let before = Case { pool: pool(size, minsize), map: None, target: targets(&some(rng)), history: None };
    let map = rng.chance(3, 4).then(|| before.next(&everywhere));
    Case { pool: pool(size, minsize), map, target, history }
}

/// 4+2 chunks.
fn coded_pool() -> Pool {
    Pool { scheme: Scheme::Ec, parity_chunks: 2, ..pool(6, 5) }
}

/// Sets by role; 0: nobody.
fn roles_history(sets: &[&[u32]]) -> History {
    let member = |(n, role): (&u32, u8)| Member { osd: OsdId(*n), store: StoreUuid(u128::from(*n)), role: Role(role) };
    let members = |set: &&[u32]| set.iter().zip(0u8..).filter(|(n, _)| **n != 0).map(member).collect();
    let sets: Vec<(Epoch, Vec<Member>)> = (1..).map(Epoch).zip(sets.iter().map(members)).collect();
    let base_set = sets[0].1.clone();
    History {
        base_epoch: Epoch(1),
        base_set,
        last: sets[sets.len() - 1].0,
        witnesses: Vec::new(),
        sets,
        ancestors: Vec::new(),
    }
}

#[test]
fn a_member_keeps_its_role_and_a_hole_stays_in_its_place() {
    let case = |map| Case { pool: coded_pool(), map, target: targets(&[1, 2, 3, 4, 5, 6]), history: None };
    let all = case(None).next(&usable(&[1, 2, 3, 4, 5, 6]));
    let history = Some(roles_history(&[&[1, 2, 3, 4, 5, 6]]));
    let degraded = Case { history, ..case(Some(all)) }.next(&usable(&[1, 2, 4, 5, 6]));
    assert_eq!((acting(&degraded), degraded.epoch), (vec![1, 2, 0, 4, 5, 6], Epoch(2)));
}

#[test]
fn roles_move_one_after_the_other() {
    let all = usable(&(1..=12).collect::<Vec<_>>());
    let first = Case { pool: coded_pool(), map: None, target: targets(&[1, 2, 3, 4, 5, 6]), history: None };
    let (mut map, mut members) = (first.next(&all), vec![1, 2, 3, 4, 5, 6]);
    let wanted = [7, 8, 9, 10, 11, 12];
    for step in 0.. {
        assert!(step < 8, "it ends");
        let history = Some(roles_history(&[&members]));
        map = Case { pool: coded_pool(), map: Some(map), target: targets(&wanted), history }.next(&all);
        let now = acting(&map);
        let kept = now.iter().zip(&members).filter(|(now, before)| now == before).count();
        assert!(kept >= 5, "{now:?} after {members:?}");
        if std::mem::replace(&mut members, now) == wanted {
            break;
        }
    }
}

#[test]
fn a_member_that_is_wanted_in_another_role_keeps_its_own() {
    let all = usable(&[1, 2, 3, 4]);
    let pool = || Pool { parity_chunks: 1, ..Pool { scheme: Scheme::Xor, ..pool(3, 2) } };
    let old = Case { pool: pool(), map: None, target: targets(&[1, 2, 3]), history: None }.next(&all);
    let history = Some(roles_history(&[&[1, 2, 3]]));
    let next = Case { pool: pool(), map: Some(old), target: targets(&[4, 1, 3]), history }.next(&all);
    assert_eq!((acting(&next), next.target), (vec![1, 4, 3], targets(&[1, 4, 3])));
}

#[test]
fn a_gap_is_filled_by_who_is_left_of_the_target() {
    let all = usable(&[1, 2, 3, 4]);
    let pool = || Pool { parity_chunks: 1, ..Pool { scheme: Scheme::Ec, ..pool(3, 2) } };
    let first = Case { pool: pool(), map: None, target: targets(&[1, 3, 4]), history: None };
    let history = || Some(roles_history(&[&[0, 3, 4]]));
    let degraded = Case { map: Some(first.next(&all)), history: history(), ..first }.next(&usable(&[3, 4]));
    assert_eq!(acting(&degraded), [0, 3, 4]);
    let case = Case { pool: pool(), map: Some(degraded), target: targets(&[3, 2, 4]), history: history() };
    assert_eq!(acting(&case.next(&all)), [2, 3, 4]);
}

/// 2+1 chunks on OSDs of which each two share a domain: 1 and 2, 3 and 4, ...
fn steps_of_pairs(target: &[u32], holders: &[u32]) -> Vec<Vec<u32>> {
    let mut all = usable(&[1, 2, 3, 4, 5, 6, 7, 8]);
    all.values_mut().for_each(|usable| usable.domain = format!("h{}", usable.member.osd.0.div_ceil(2)));
    let pool = || Pool { parity_chunks: 1, ..Pool { scheme: Scheme::Ec, ..pool(3, 2) } };
    let (mut map, mut steps, mut holders) = (None, Vec::new(), holders.to_vec());
    loop {
        let history = Some(roles_history(&[&holders]));
        let next = Case { pool: pool(), map, target: targets(target), history }.next(&all);
        holders = acting(&next);
        if steps.last() == Some(&holders) {
            return steps;
        }
        steps.push(holders.clone());
        map = Some(next);
    }
}

#[test]
fn a_gap_is_filled_although_the_new_member_shares_the_domain_of_one_that_is_to_go() {
    assert_eq!(steps_of_pairs(&[1, 6, 4], &[1, 3, 0]), [[1, 3, 4], [1, 6, 4]]);
}

#[test]
fn a_holder_stays_for_which_nobody_else_must_wait() {
    assert_eq!(steps_of_pairs(&[1, 7, 4], &[1, 3, 5]), [[1, 7, 5], [1, 7, 4]]);
}

#[test]
fn members_stay_when_the_failure_domains_change_under_them() {
    let mut osds = usable(&[1, 2, 3, 4, 5, 6]);
    for pool in [pool(3, 2), Pool { parity_chunks: 1, ..Pool { scheme: Scheme::Ec, ..pool(3, 2) } }] {
        let old = Case { pool: pool.clone(), map: None, target: targets(&[1, 2, 3]), history: None }.next(&osds);
        osds.values_mut().for_each(|usable| usable.domain = format!("r{}", usable.member.osd.0 % 2));
        osds.get_mut(&OsdId(5)).expect("it is there").domain = "r2".into();
        osds.get_mut(&OsdId(3)).expect("it is there").domain = "r0".into();
        osds.get_mut(&OsdId(1)).expect("it is there").domain = "r0".into();
        let history =
            || Some(roles_history(&[&[1, 2, 3]])).filter(|_| pool.has_roles()).or(Some(history(&[&[1, 2, 3]])));
        let same = Case { pool: pool.clone(), map: Some(old.clone()), target: targets(&[1, 2, 3]), history: history() };
        assert_eq!(same.next(&osds), PgMap { target: targets(&[1, 2, 3]), ..old.clone() });
        let moved = Case { pool: pool.clone(), map: Some(old), target: targets(&[1, 4, 5]), history: history() };
        let kept = acting(&moved.next(&osds)).iter().filter(|osd| **osd <= 3 && **osd > 0).count();
        assert_eq!(kept, 2, "enough of those that hold the data");
        osds = usable(&[1, 2, 3, 4, 5, 6]);
    }
}

/// Random erasure-coded groups: whoever is up, whatever was recorded.
#[test]
fn roles_keep_the_rules_whatever_happens() {
    let mut rng = crate::rng::Rng::new(22);
    for _ in 0..3000 {
        let pick = |rng: &mut crate::rng::Rng| -> Vec<u32> {
            let mut left: Vec<u32> = (1..=9).collect();
            let draw = |rng: &mut crate::rng::Rng, left: &mut Vec<u32>| {
                let place = rng.below(u64::try_from(left.len()).expect("small"));
                left.remove(usize::try_from(place).expect("small"))
            };
            let mut one = || {
                let n = draw(rng, &mut left);
                if rng.chance(1, 8) { 0 } else { n }
            };
            (0..6).map(|_| one()).collect()
        };
        let mut sets: Vec<Vec<u32>> = vec![pick(&mut rng)];
        while rng.chance(1, 2) {
            let last = sets[sets.len() - 1].clone();
            let next = last.into_iter().map(|n| if rng.chance(1, 4) { 0 } else { n }).collect();
            sets.push(next);
        }
        let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
        let history = rng.chance(3, 4).then(|| roles_history(&sets));
        let up: Vec<u32> = (1..=9).filter(|_| rng.chance(4, 5)).collect();
        let up = usable(&up);
        let target = pick(&mut rng).iter().map(|n| (*n != 0).then_some(OsdId(*n))).collect();
        let map = Case { pool: coded_pool(), map: None, target: targets(&[1, 2, 3, 4, 5, 6]), history: None };
        let map = rng.chance(3, 4).then(|| map.next(&usable(&(1..=9).collect::<Vec<_>>())));
        let case = Case { pool: coded_pool(), map, target, history };
        let next = case.next(&up);
        let members: Vec<OsdId> = next.acting.iter().flatten().map(|m| m.osd).collect();
        assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), members.len(), "one role each: {next:?}");
        assert_eq!(next.acting.len(), 6);
        let (map, history) = (case.map.as_ref(), case.history.as_ref());
        let group = Group { pool: &case.pool, map, target: &case.target, history, wish: None, floor: Epoch(0) };
        let holding = group.holding(&up);
        let in_role = |(osd, role): &&(OsdId, Role)| next.acting[usize::from(role.0)].is_some_and(|m| m.osd == *osd);
        let kept = holding.iter().filter(in_role).count();
        assert!(kept >= holding.len().min(5), "{kept} of {holding:?} in {next:?}");
        let primary_holds = holding.iter().filter(in_role).any(|(osd, _)| next.primary == Some(*osd));
        let unchanged = case.map.as_ref().is_some_and(|map| map.acting == next.acting);
        assert!(kept == 0 || primary_holds || unchanged, "{next:?}");
    }
}

#[test]
fn a_wish_from_before_another_primary_binds_no_more() {
    let everybody = usable(&[1, 2, 3]);
    let first = Case { pool: pool(3, 2), map: None, target: targets(&[1, 2, 3]), history: None }.next(&everybody);
    let by = first.primary.expect("somebody serves");
    let incarnation = everybody[&by].member.incarnation;
    let wish = Wish { by, incarnation, epoch: first.epoch, without: vec![OsdId(3)], reason: String::new() };
    assert!(wish_in_force(&wish, Some(&first), &everybody));
    let next = |map: PgMap, usable: &UsableOsds| {
        Case { pool: pool(3, 2), map: Some(map), target: targets(&[1, 2, 3]), history: None }.next(usable)
    };
    let without_another = usable(&[1, 2]);
    let still = next(first.clone(), &without_another);
    assert_eq!(still.primary, Some(by));
    assert!(wish_in_force(&wish, Some(&still), &without_another), "its author went on");
    let mut without_it = everybody.clone();
    without_it.remove(&by);
    let mut again = next(still, &without_it);
    assert_ne!(again.primary, Some(by));
    for _ in 0..2 {
        let other = again.primary.expect("somebody serves");
        let mut without_other = everybody.clone();
        without_other.remove(&other);
        again = next(again, &without_other);
        if again.primary == Some(by) {
            break;
        }
    }
    assert_eq!(again.primary, Some(by), "back again, in the same start");
    assert!(!wish_in_force(&wish, Some(&again), &everybody));
}

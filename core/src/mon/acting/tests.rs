//! Which members a group gets.

use super::*;
use crate::id::{Incarnation, Member, Role};
use crate::map::Scheme;

fn pool(size: u8, minsize: u8) -> Pool {
    Pool {
        name: "p".into(),
        scheme: Scheme::Replicated,
        pg_size: size,
        pg_minsize: minsize,
        pg_count: 8,
        parity_chunks: 0,
        block_size: 1 << 17,
        failure_domain: "host".into(),
    }
}

fn usable(osds: &[u32]) -> UsableOsds {
    let one = |n: &u32| {
        let member = ActingMember { osd: OsdId(*n), store: StoreUuid(u128::from(*n)), incarnation: Incarnation(1) };
        (OsdId(*n), Usable { member, domain: format!("h{n}") })
    };
    osds.iter().map(one).collect()
}

fn history(sets: &[&[u32]]) -> History {
    let members = |set: &&[u32]| -> Vec<Member> {
        set.iter().map(|n| Member { osd: OsdId(*n), store: StoreUuid(u128::from(*n)), role: Role(0) }).collect()
    };
    let base_set = members(&sets[0]);
    let sets: Vec<(Epoch, Vec<Member>)> = (1..).map(Epoch).zip(sets.iter().map(members)).collect();
    History { base_epoch: Epoch(1), base_set, last: sets[sets.len() - 1].0, witnesses: Vec::new(), sets }
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
        let group = Group { pool: &self.pool, map, target: &self.target, history, wish: None };
        let next = group.next_map(usable, &mut Load::new());
        let again = Group { map: Some(&next), ..group };
        assert_eq!(again.next_map(usable, &mut Load::new()), next, "nothing changes twice");
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

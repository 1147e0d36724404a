//! How many groups each OSD should carry.
//!
//! Exact shares are in proportion to weight as far as the rules let it. Whole numbers of groups come as near as that can
//! be: an OSD with few groups is the fuller for one more, so it is rounded down where others can carry what it leaves.

use super::choose::Search;
use super::terms::Terms;
use crate::map::rules::Rules;

/// Shares this near to a whole number are that number: far above the rounding errors of the sums, far below a group.
const NEARLY: f64 = 1e-6;
/// OSDs may carry so much more than their share if others need not: three quarters of a hundredth, so that an OSD more
/// or less does not push others out of their bounds.
const TOLERANCE: f64 = 1.0075;
/// A node is full if so much of what it may carry at all is in its share.
const SATURATED: f64 = 1.0 - 1e-6;
/// Halvings in the search for a factor: as exact as floats are.
const HALVINGS: u32 = 50;
/// Steps for shares under rules of several levels: an error of a ten-thousandth of all groups.
const STEPS_MAX: usize = 20_000;
/// Fewest steps.
const STEPS_MIN: usize = 1_000;
/// OSDs looked at in all steps together: some seconds.
const STEP_WORK: usize = 100_000_000;
/// The power of fillings that is minimised is 2 to this one: at 128, two OSDs that are tied to one another are not filled
/// above others by more than a hundredth.
const DOUBLINGS: u32 = 7;
/// Part of the first power in prices.
const EVENNESS: f64 = 0.02;
/// OSDs tried for one group.
const STEP_TRIES: u32 = 10_000;

/// An OSD's share, and the whole numbers of groups that are right for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Exact.
    pub exact: f64,
    /// At least.
    pub low: u32,
    /// At most.
    pub high: u32,
}

impl Share {
    fn new(exact: f64, error: f64, factor: f64) -> Self {
        let low = near(exact - error).max(0.0).floor();
        Share { exact, low: whole(low), high: whole(most(exact, error, factor)) }
    }
}

/// A number, or the whole one that it must have been.
fn near(number: f64) -> f64 {
    if (number - number.round()).abs() < NEARLY { number.round() } else { number }
}

/// What an OSD may carry at most.
fn most(exact: f64, error: f64, factor: f64) -> f64 {
    near(exact * factor + error).floor().max(near(exact).floor())
}

/// The least factor by which OSDs with these shares may exceed them so that there is enough room.
fn factor(exact: &[f64], enough: impl Fn(f64) -> bool) -> f64 {
    // With this one every share may be rounded up.
    let largest = exact.iter().copied().filter(|exact| *exact > NEARLY).map(|exact| 1.0 + 1.0 / exact);
    let (mut low, mut high) = (TOLERANCE, largest.fold(TOLERANCE, f64::max));
    if enough(low) {
        return low;
    }
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if enough(middle) { high = middle } else { low = middle }
    }
    high
}

/// Whole numbers for exact shares that are known but for an error.
fn round(terms: &Terms, exact: &[f64], error: f64, groups: usize) -> Vec<Share> {
    let nodes = nodes_of(terms, groups);
    let mut own = vec![TOLERANCE; exact.len()];
    for (limit, osds) in nodes.iter().flatten() {
        let share: f64 = osds.iter().map(|osd| exact[*osd]).sum();
        if share >= limit * SATURATED {
            let of_node: Vec<f64> = osds.iter().map(|osd| exact[*osd]).collect();
            let room = |factor: f64| of_node.iter().map(|exact| most(*exact, error, factor)).sum::<f64>();
            let least = factor(&of_node, |factor| room(factor) >= share - NEARLY);
            osds.iter().for_each(|osd| own[*osd] = own[*osd].max(least));
        }
    }
    let total: f64 = exact.iter().sum();
    let of_osd = |osd: usize, factor: f64| most(exact[osd], error, own[osd].max(factor)).min(float(groups));
    let of_node =
        |(limit, osds): &(f64, Vec<usize>), factor: f64| limit.min(osds.iter().map(|osd| of_osd(*osd, factor)).sum());
    // What an OSD may carry does not help beyond what its nodes may.
    let common = factor(exact, |factor| {
        let room = |level: &Vec<(f64, Vec<usize>)>| level.iter().map(|node| of_node(node, factor)).sum::<f64>();
        let all: f64 = (0..exact.len()).map(|osd| of_osd(osd, factor)).sum();
        all >= total - NEARLY && nodes.iter().all(|level| room(level) >= total - NEARLY)
    });
    let factors = own.into_iter().map(|own| own.max(common));
    exact.iter().zip(factors).map(|(exact, factor)| Share::new(*exact, error, factor)).collect()
}

/// By level, for each node: the groups that it may carry members of, and its OSDs.
fn nodes_of(terms: &Terms, groups: usize) -> Vec<Vec<(f64, Vec<usize>)>> {
    let of_level = |level: usize| {
        let limit = float(groups) * float(terms.capacity(level));
        let mut nodes = vec![(limit, Vec::new()); terms.node_count(level)];
        (0..terms.osds()).for_each(|osd| nodes[terms.node(level, osd)].1.push(osd));
        nodes
    };
    (0..terms.levels()).map(of_level).collect()
}

/// A non-negative whole number of groups; a float holds every one that a pool can have.
fn whole(number: f64) -> u32 {
    assert!((0.0..=f64::from(u32::MAX)).contains(&number), "placement: share {number}");
    // The only way from float to integer; exact, by the line above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let result = number as u32;
    result
}

/// What each OSD should carry of so many groups under the rules, each with so many holes.
pub fn shares(rules: &Rules, terms: &Terms, weights: &[f64], groups: usize, holes: usize) -> Vec<Share> {
    if rules.only_level().is_none() {
        return by_choice(terms, weights, groups, holes);
    }
    let domain_of: Vec<usize> =
        (0..terms.osds()).map(|osd| if terms.levels() > 0 { terms.node(0, osd) } else { osd }).collect();
    let domains = domain_of.iter().max().map_or(0, |last| last + 1);
    let exact = by_domain(weights, &domain_of, domains, groups, terms.size());
    round(terms, &exact, 0.0, groups)
}

/// Exact shares in proportion to weight, no domain above `groups`: what a domain cannot carry goes to the others.
fn by_domain(weights: &[f64], domain_of: &[usize], domains: usize, groups: usize, size: usize) -> Vec<f64> {
    let mut domain_weight = vec![0.0; domains];
    for (osd, weight) in weights.iter().enumerate() {
        domain_weight[domain_of[osd]] += weight;
    }
    let limit = float(groups);
    let used = domain_weight.iter().filter(|weight| **weight > 0.0).count();
    let domain_share = fill_up(&domain_weight, limit, limit * float(size.min(used)));
    let exact = |(osd, weight): (usize, &f64)| domain_share[domain_of[osd]] * weight / domain_weight[domain_of[osd]];
    weights.iter().enumerate().map(exact).collect()
}

/// Shares under any rules: many groups, one after the other, each on the OSDs that are the least full for their weight.
///
/// That is Frank and Wolfe's method, one step for each group, for the loads whose fillings have the least sum of a high
/// power: near the least filling of the fullest OSD, which is what linear programming would find. A little of the first
/// power evens out those that are far from full.
fn by_choice(terms: &Terms, weights: &[f64], groups: usize, holes: usize) -> Vec<Share> {
    let open: Vec<usize> = (0..terms.size()).collect();
    let work = terms.osds() * terms.size();
    let steps = STEPS_MAX.min(STEP_WORK / work.max(1)).max(STEPS_MIN);
    let mut load = vec![0.0; terms.osds()];
    let mut done = 0;
    while done < steps {
        let mut members = vec![None; terms.size()];
        let filling = |osd: usize| (load[osd] + 0.5) / weights[osd];
        let fullest = (0..terms.osds()).map(filling).fold(f64::MIN_POSITIVE, f64::max);
        let prices: Vec<f64> = (0..terms.osds()).map(|osd| steep(filling(osd) / fullest)).collect();
        let price = |_: usize, osd: usize| prices[osd];
        let mut search = Search { terms, price, tries: STEP_TRIES };
        if !search.complete(&mut members, &open, holes) {
            break;
        }
        members.into_iter().flatten().for_each(|osd| load[osd] += 1.0);
        done += 1;
    }
    // Where the search finds nothing, it fills nothing either, and all shares are as good.
    let unit = float(groups) / float(done.max(1));
    let exact: Vec<f64> = load.into_iter().map(|load| load * unit).collect();
    round(terms, &exact, unit, groups)
}

/// The price of an OSD by how full it is beside the fullest.
fn steep(filling: f64) -> f64 {
    let mut power = filling;
    (0..DOUBLINGS).for_each(|_| power *= power);
    power + EVENNESS * filling
}

/// Divides `total` in proportion to the weights, no part above `limit`.
fn fill_up(weights: &[f64], limit: f64, total: f64) -> Vec<f64> {
    let mut parts = vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut rest = total;
    while !open.is_empty() {
        let open_weight: f64 = open.iter().map(|i| weights[*i]).sum();
        let full: Vec<usize> = open.iter().copied().filter(|i| rest * weights[*i] > limit * open_weight).collect();
        if full.is_empty() {
            open.iter().for_each(|i| parts[*i] = rest * weights[*i] / open_weight);
            break;
        }
        for i in full {
            parts[i] = limit;
            rest -= limit;
            open.retain(|other| *other != i);
        }
    }
    parts
}

/// A count as a float; counts here are far below 2^53.
pub fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("placement: more than 2^32 of something"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follow_the_weights() {
        assert_eq!(by_domain(&[1.0, 2.0, 1.0], &[0, 1, 2], 3, 100, 1), [25.0, 50.0, 25.0]);
    }

    #[test]
    fn no_domain_above_one_member_of_each_group() {
        assert_eq!(by_domain(&[10.0, 1.0, 1.0, 2.0], &[0, 1, 2, 3], 4, 100, 2), [100.0, 25.0, 25.0, 50.0]);
    }

    #[test]
    fn osds_of_a_domain_share_its_part() {
        assert_eq!(by_domain(&[3.0, 1.0, 1.0], &[0, 0, 1], 2, 10, 2), [7.5, 2.5, 10.0]);
    }

    #[test]
    fn fewer_domains_than_members() {
        assert_eq!(by_domain(&[1.0, 1.0], &[0, 1], 2, 10, 3), [10.0, 10.0]);
    }

    #[test]
    fn those_with_few_groups_are_rounded_down_where_others_can_carry_the_rest() {
        let exact = [200.4, 200.4, 200.4, 200.4, 5.6, 5.6, 5.6, 5.6];
        let room = |factor: f64, exact: &[f64]| exact.iter().map(|exact| most(*exact, 0.0, factor)).sum::<f64>();
        let least = factor(&exact, |factor| room(factor, &exact) >= 824.0);
        assert!(exact.iter().map(|exact| most(*exact, 0.0, least)).eq([201.0; 4].into_iter().chain([5.0; 4])));
        assert!(least < 1.01);
        let even = [16.5; 12];
        assert!((factor(&even, |factor| room(factor, &even) >= 198.0) - 17.0 / 16.5).abs() < 1e-6);
        assert_eq!((Share::new(16.0, 0.0, 1.0).low, Share::new(16.0, 0.0, 1.0).high), (16, 16));
    }
}

//! How good a placement is.
//!
//! A pool is full when the first of its OSDs is. *Uniformity* is the part of what the OSDs could hold under the rules, in
//! any placement, that fits before that happens.

use super::bound;
use super::shares::{float, shares};
use super::{Candidate, Problem};
use crate::id::OsdId;
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// From 0 to 1.
    pub uniformity: f64,
    /// The OSD that is full first.
    pub fullest: Option<OsdId>,
    /// Of each OSD.
    pub osds: Vec<OsdFigures>,
    /// Places of groups without a member.
    pub holes: usize,
    /// Most and least groups of an OSD, in percent of its share.
    pub spread_percent: (f64, f64),
}

/// What one OSD carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OsdFigures {
    /// Which.
    pub osd: OsdId,
    /// Its weight.
    pub weight: f64,
    /// Groups that it should carry.
    pub share: f64,
    /// Groups that it carries.
    pub groups: u32,
}

/// The figures of groups, which need not be those of the problem. `exactly`: what could be held at best comes from a
/// linear programme over sets of OSDs, otherwise from the shares; under rules of several levels the programme is the more
/// exact and takes time with the number of OSDs.
pub fn figures(problem: &Problem<'_>, groups: &[Vec<Option<OsdId>>], exactly: bool) -> Figures {
    let candidates = problem.candidates();
    let mut count: BTreeMap<OsdId, u32> = BTreeMap::new();
    groups.iter().flatten().flatten().for_each(|osd| *count.entry(*osd).or_default() += 1);
    let holes = groups.iter().flatten().filter(|member| member.is_none()).count();
    let shares = exact_shares(problem, &candidates, groups.len());
    let osds: Vec<OsdFigures> = candidates
        .iter()
        .zip(shares)
        .map(|(candidate, share)| {
            let groups = count.get(&candidate.osd).copied().unwrap_or(0);
            OsdFigures { osd: candidate.osd, weight: candidate.weight, share, groups }
        })
        .collect();
    let by_shares = room(&osds, |osd| osd.share);
    let best = if exactly { bound::most(problem).max(by_shares) } else { by_shares };
    let fits = room(&osds, |osd| f64::from(osd.groups));
    let uniformity =
        if best > 0.0 { (fits * float(groups.len()) / (best * float(groups.len()))).min(1.0) } else { 1.0 };
    Figures { uniformity, fullest: fullest(&osds), spread_percent: spread(&osds), osds, holes }
}

fn exact_shares(problem: &Problem<'_>, candidates: &[&Candidate], groups: usize) -> Vec<f64> {
    let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
    let holes = problem.possible().holes;
    let shares = shares(problem.rules, &problem.terms(candidates), &weights, groups, holes);
    shares.into_iter().map(|share| share.exact).collect()
}

/// Weight that a group may have before the first OSD is full, if OSDs carry so many of them.
fn room(osds: &[OsdFigures], carries: impl Fn(&OsdFigures) -> f64) -> f64 {
    let room = osds.iter().filter(|osd| carries(osd) > 0.0).map(|osd| osd.weight / carries(osd));
    let least = room.fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 0.0 }
}

fn fullest(osds: &[OsdFigures]) -> Option<OsdId> {
    let filling = |osd: &OsdFigures| f64::from(osd.groups) / osd.weight;
    osds.iter().max_by(|a, b| filling(a).total_cmp(&filling(b))).map(|osd| osd.osd)
}

fn spread(osds: &[OsdFigures]) -> (f64, f64) {
    let parts = || osds.iter().filter(|osd| osd.share > 0.0).map(|osd| 100.0 * f64::from(osd.groups) / osd.share);
    (parts().fold(0.0, f64::max), parts().fold(f64::INFINITY, f64::min))
}

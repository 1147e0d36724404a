//! Fills empty places.
//!
//! A group draws a failure domain among those that it does not use yet, with a probability in proportion to what the
//! domain's OSDs still lack, then an OSD in it in the same way. So groups are spread over many different sets of OSDs,
//! and a failed OSD's data is recovered from many others. A domain that must be in every group that is still to come is
//! taken first.

use super::board::Board;
use super::shares::{Share, float};
use crate::rng::Rng;

/// See the module.
pub fn fill(board: &mut Board, shares: &[Share], seed: u64) {
    let mut lacks = Lacks::new(board, shares);
    let open: Vec<usize> =
        (0..board.group_count()).filter(|g| board.group(*g).iter().any(|s| s.osd.is_none())).collect();
    let mut rng = Rng::new(seed);
    for (done, group) in open.iter().enumerate() {
        fill_group(board, *group, &mut lacks, float(open.len() - done), &mut rng);
    }
}

/// What OSDs and failure domains lack up to their shares.
struct Lacks {
    osd: Vec<f64>,
    domain: Vec<f64>,
    osds_of: Vec<Vec<usize>>,
}

impl Lacks {
    fn new(board: &Board, shares: &[Share]) -> Self {
        let osd: Vec<f64> = shares.iter().zip(&board.count).map(|(share, n)| share.exact - f64::from(*n)).collect();
        let mut domain = vec![0.0; board.domains];
        let mut osds_of = vec![Vec::new(); board.domains];
        for (index, lack) in osd.iter().enumerate() {
            domain[board.domain_of[index]] += lack;
            osds_of[board.domain_of[index]].push(index);
        }
        Lacks { osd, domain, osds_of }
    }

    fn take(&mut self, board: &Board, osd: usize) {
        self.osd[osd] -= 1.0;
        self.domain[board.domain_of[osd]] -= 1.0;
    }
}

fn fill_group(board: &mut Board, group: usize, lacks: &mut Lacks, groups_left: f64, rng: &mut Rng) {
    for slot in 0..board.size {
        if board.group(group)[slot].osd.is_some() {
            continue;
        }
        let free: Vec<usize> = (0..board.domains).filter(|d| !board.uses_domain(group, *d)).collect();
        if free.is_empty() {
            return;
        }
        let urgent = free.iter().copied().find(|domain| lacks.domain[*domain] > groups_left - 0.5);
        let domain = urgent.unwrap_or_else(|| draw(&free, &lacks.domain, rng));
        let osd = draw(&lacks.osds_of[domain], &lacks.osd, rng);
        board.set(group, slot, osd);
        lacks.take(board, osd);
    }
}

/// Draws one of `choices` in proportion to what it lacks; if none lacks anything, the one that has least too much.
fn draw(choices: &[usize], lacks: &[f64], rng: &mut Rng) -> usize {
    let total: f64 = choices.iter().map(|i| lacks[*i].max(0.0)).sum();
    let mut point = total * unit(rng);
    for index in choices {
        point -= lacks[*index].max(0.0);
        if point < 0.0 {
            return *index;
        }
    }
    let most = choices.iter().copied().max_by(|a, b| lacks[*a].total_cmp(&lacks[*b]));
    most.expect("placement: nothing to choose from")
}

/// A number from 0 to below 1.
fn unit(rng: &mut Rng) -> f64 {
    let bits = u32::try_from(rng.next_u64() >> 32).expect("the upper half");
    f64::from(bits) / 4_294_967_296.0
}

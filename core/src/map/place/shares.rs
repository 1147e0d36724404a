//! How many groups each OSD should carry.

/// Shares this near to a whole number are that number: far above the rounding errors of the sums, far below a group.
const NEARLY: f64 = 1e-6;

/// An OSD's share, and the whole numbers of groups that are right for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Exact.
    pub exact: f64,
    /// Rounded down.
    pub low: u32,
    /// Rounded up.
    pub high: u32,
}

impl Share {
    fn new(exact: f64) -> Self {
        let nearest = exact.round();
        let (low, high) =
            if (exact - nearest).abs() < NEARLY { (nearest, nearest) } else { (exact.floor(), exact.ceil()) };
        Share { exact, low: whole(low), high: whole(high) }
    }
}

/// A non-negative whole number of groups; a float holds every one that a pool can have.
fn whole(number: f64) -> u32 {
    assert!((0.0..=f64::from(u32::MAX)).contains(&number), "placement: share {number}");
    // The only way from float to integer; exact, by the line above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let result = number as u32;
    result
}

/// Shares in proportion to weight, no domain above `groups`: what a domain cannot carry goes to the others.
pub fn shares(weights: &[f64], domain_of: &[usize], domains: usize, groups: usize, size: usize) -> Vec<Share> {
    let mut domain_weight = vec![0.0; domains];
    for (osd, weight) in weights.iter().enumerate() {
        domain_weight[domain_of[osd]] += weight;
    }
    let limit = float(groups);
    let domain_share = fill_up(&domain_weight, limit, limit * float(size.min(domains)));
    let exact = |(osd, weight): (usize, &f64)| domain_share[domain_of[osd]] * weight / domain_weight[domain_of[osd]];
    weights.iter().enumerate().map(exact).map(Share::new).collect()
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
        let exact: Vec<f64> = shares(&[1.0, 2.0, 1.0], &[0, 1, 2], 3, 100, 1).iter().map(|s| s.exact).collect();
        assert_eq!(exact, [25.0, 50.0, 25.0]);
    }

    #[test]
    fn no_domain_above_one_member_of_each_group() {
        let parts = shares(&[10.0, 1.0, 1.0, 2.0], &[0, 1, 2, 3], 4, 100, 2);
        assert_eq!(parts.iter().map(|s| s.exact).collect::<Vec<_>>(), [100.0, 25.0, 25.0, 50.0]);
    }

    #[test]
    fn osds_of_a_domain_share_its_part() {
        let parts = shares(&[3.0, 1.0, 1.0], &[0, 0, 1], 2, 10, 2);
        assert_eq!(parts.iter().map(|s| (s.low, s.high)).collect::<Vec<_>>(), [(7, 8), (2, 3), (10, 10)]);
    }

    #[test]
    fn fewer_domains_than_members() {
        let parts = shares(&[1.0, 1.0], &[0, 1], 2, 10, 3);
        assert_eq!(parts.iter().map(|s| s.exact).collect::<Vec<_>>(), [10.0, 10.0]);
    }
}

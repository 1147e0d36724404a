//! The cheapest members for the open parts of one group, under the rules.
//!
//! A search in depth, part after part, the cheapest OSD first; of OSDs that the rules cannot tell apart only the cheapest
//! is tried. Where later parts must follow into the same node, what they will cost there counts too. For rules that keep
//! all parts on different nodes of a level, and for classes of parts that share nodes, what is found first is the
//! cheapest or close to it; where rules lead into a dead end, the search turns back. It gives up after a number of tries.

use super::terms::{Lead, Terms};

/// A price above any that callers make: never if there is another way.
pub const DEAR: f64 = 1e12;

/// What to choose.
pub struct Search<'a, P: Fn(usize, usize) -> f64> {
    /// The rules.
    pub terms: &'a Terms,
    /// Price of an OSD in a part; infinite: not to be used.
    pub price: P,
    /// OSDs that may be tried.
    pub tries: u32,
}

/// What a part may become.
#[derive(Clone, Copy)]
struct Choice {
    unmet: usize,
    price: f64,
    osd: usize,
}

impl<P: Fn(usize, usize) -> f64> Search<'_, P> {
    /// Fills the open parts (in order) but for so many holes; whether it could. `members` is as before if not.
    pub fn complete(&mut self, members: &mut [Option<usize>], open: &[usize], holes: usize) -> bool {
        let Some((part, rest)) = open.split_first() else { return true };
        let mut options = self.options(*part, members, rest);
        while let Some(best) = take_best(&mut options) {
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            members[*part] = Some(best.osd);
            if self.complete(members, rest, holes) {
                return true;
            }
            members[*part] = None;
        }
        holes > 0 && self.complete(members, rest, holes - 1)
    }

    /// The cheapest OSD of each kind that may be in a part.
    fn options(&self, part: usize, members: &[Option<usize>], rest: &[usize]) -> Vec<Choice> {
        let terms = self.terms;
        let ahead = terms.lead(part).and_then(|lead| Ahead::new(self, lead, rest));
        let mut of_kind: Vec<Option<Choice>> = vec![None; terms.kind_count()];
        let mut barred = vec![false; terms.kind_count()];
        for osd in 0..terms.osds() {
            let kind = terms.kind(osd);
            let own = (self.price)(part, osd);
            if barred[kind] || !own.is_finite() {
                continue;
            }
            let price = own + ahead.as_ref().map_or(0.0, |ahead| ahead.price(terms, osd));
            if of_kind[kind].is_some_and(|kept| kept.price <= price) || members.contains(&Some(osd)) {
                continue;
            }
            // What bars one OSD of a kind bars all.
            barred[kind] = !terms.admits(part, osd, |other| members[other]);
            if !barred[kind] {
                let unmet = if terms.has_wishes() { terms.unmet(part, osd, |other| members[other]) } else { 0 };
                of_kind[kind] = Some(Choice { unmet, price, osd });
            }
        }
        of_kind.into_iter().flatten().collect()
    }
}

fn take_best(options: &mut Vec<Choice>) -> Option<Choice> {
    let order = |a: &Choice, b: &Choice| a.unmet.cmp(&b.unmet).then(a.price.total_cmp(&b.price));
    let best = (0..options.len()).min_by(|a, b| order(&options[*a], &options[*b]))?;
    Some(options.swap_remove(best))
}

/// What the followers of a part will cost on each node.
struct Ahead {
    level: usize,
    spread: Option<usize>,
    number: usize,
    /// By node: the cheapest of each node of the spread level (or OSD), in order of price.
    cheapest: Vec<Vec<(f64, usize)>>,
}

impl Ahead {
    fn new<P: Fn(usize, usize) -> f64>(search: &Search<'_, P>, lead: &Lead, rest: &[usize]) -> Option<Ahead> {
        let followers: Vec<usize> = lead.followers.iter().copied().filter(|part| rest.contains(part)).collect();
        let (first, number) = (*followers.first()?, followers.len());
        let terms = search.terms;
        let places = lead.spread.map_or(terms.osds(), |spread| terms.node_count(spread));
        let mut of_place = vec![(f64::INFINITY, 0); places];
        for osd in 0..terms.osds() {
            let place = lead.spread.map_or(osd, |spread| terms.node(spread, osd));
            let price = (search.price)(first, osd);
            if price < of_place[place].0 {
                of_place[place] = (price, terms.node(lead.level, osd));
            }
        }
        let mut cheapest = vec![Vec::new(); terms.node_count(lead.level)];
        for (place, (price, node)) in of_place.into_iter().enumerate().filter(|(_, (price, _))| price.is_finite()) {
            insert(&mut cheapest[node], (price, place), number + 1);
        }
        Some(Ahead { level: lead.level, spread: lead.spread, number, cheapest })
    }

    fn price(&self, terms: &Terms, osd: usize) -> f64 {
        let own = self.spread.map_or(osd, |spread| terms.node(spread, osd));
        let others = || self.cheapest[terms.node(self.level, osd)].iter().filter(|(_, place)| *place != own);
        let sum: f64 = others().take(self.number).map(|(price, _)| price).sum();
        if others().count() < self.number { sum + DEAR } else { sum }
    }
}

/// Keeps a short list in order.
fn insert(list: &mut Vec<(f64, usize)>, entry: (f64, usize), most: usize) {
    let place = list.partition_point(|(price, _)| *price <= entry.0);
    if place < most {
        list.insert(place, entry);
        list.truncate(most);
    }
}

//! A general checker of linearizability: for any model, without knowledge of what its values mean.
//!
//! It looks for an order of the operations, depth first (J. Wing and C. Gong: Testing and Verifying Concurrent Objects,
//! 1993): the next one in the order may be any whose call comes before every return that is not yet explained. What was
//! tried is remembered as the set of operations that are in the order together with the state that they led to (G. Lowe,
//! 2017), so that no situation is looked at twice.
//!
//! An operation without a return may be in the order or not, which would double the situations with each of them. Two things
//! that change no answer keep them few: of equal ones the order takes the one that was called first (it fits wherever a later
//! one does), and a situation is not looked at if another one had all of it with fewer of them (what that could not explain,
//! more of them cannot either).
//!
//! It shares nothing with the simulator's checkers, so that a mistake in one of them shows as a disagreement.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// What a sequential object does.
pub trait Model {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// An operation together with its answer.
    type Op: PartialEq;
    /// The state after an operation; `None`: in this state it has no such answer.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;
}

/// An operation and its two instants; no two instants are equal.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// When it was called.
    pub call: u64,
    /// When it returned; `None`: nobody knows whether it happened.
    pub ret: Option<u64>,
    /// What it was.
    pub op: O,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An order explains everything.
    Linearizable,
    /// None does.
    Not,
    /// So many situations were looked at that it gave up.
    Unknown,
}

/// A call or return, in a list from which operations in the order are taken out.
#[derive(Clone, Copy)]
struct Node {
    op: usize,
    is_call: bool,
    next: usize,
    previous: usize,
}

/// The list's end, and its beginning.
const END: usize = 0;

struct List {
    nodes: Vec<Node>,
    calls: Vec<usize>,
    returns: Vec<Option<usize>>,
}

impl List {
    fn new<O>(ops: &[Timed<O>]) -> List {
        let mut events: Vec<(u64, usize, bool)> = Vec::new();
        for (index, timed) in ops.iter().enumerate() {
            events.push((timed.call, index, true));
            events.extend(timed.ret.map(|ret| (ret, index, false)));
        }
        events.sort_unstable();
        let count = events.len();
        let mut list = List {
            nodes: vec![Node { op: 0, is_call: false, next: 1 % (count + 1), previous: count }],
            calls: vec![0; ops.len()],
            returns: vec![None; ops.len()],
        };
        for (place, (_, op, is_call)) in (1..).zip(events) {
            list.nodes.push(Node { op, is_call, next: (place + 1) % (count + 1), previous: place - 1 });
            if is_call { list.calls[op] = place } else { list.returns[op] = Some(place) }
        }
        list
    }

    fn unlink(&mut self, place: usize) {
        let Node { next, previous, .. } = self.nodes[place];
        self.nodes[previous].next = next;
        self.nodes[next].previous = previous;
    }

    fn relink(&mut self, place: usize) {
        let Node { next, previous, .. } = self.nodes[place];
        self.nodes[previous].next = place;
        self.nodes[next].previous = place;
    }

    fn lift(&mut self, op: usize) {
        self.unlink(self.calls[op]);
        if let Some(place) = self.returns[op] {
            self.unlink(place);
        }
    }

    fn put_back(&mut self, op: usize) {
        if let Some(place) = self.returns[op] {
            self.relink(place);
        }
        self.relink(self.calls[op]);
    }
}

/// Operations that nobody knows to have happened, by what they are.
struct Unreturned {
    /// Of each operation without a return: its class, and its place there by the time of its call.
    places: Vec<Option<(usize, usize)>>,
    classes: usize,
}

impl Unreturned {
    fn new<O: PartialEq>(ops: &[Timed<O>]) -> Unreturned {
        let mut unknown: Vec<usize> = (0..ops.len()).filter(|&op| ops[op].ret.is_none()).collect();
        unknown.sort_unstable_by_key(|&op| ops[op].call);
        let (mut places, mut classes) = (vec![None; ops.len()], Vec::<(usize, usize)>::new());
        for op in unknown {
            let known = classes.iter().position(|&(first, _)| ops[first].op == ops[op].op);
            let class = known.unwrap_or_else(|| {
                classes.push((op, 0));
                classes.len() - 1
            });
            places[op] = Some((class, classes[class].1));
            classes[class].1 += 1;
        }
        Unreturned { places, classes: classes.len() }
    }
}

/// Which operations are in the order, and what they led to.
struct Situation<S> {
    /// Those that returned, by the time of their call.
    known: BTreeSet<usize>,
    /// Of the others, how many of each class.
    used: Vec<usize>,
    state: S,
}

/// The operations in the order that returned: all that were called before the first that is not, and these. With the state.
type Core<S> = (usize, Vec<usize>, S);

impl<S: Clone> Situation<S> {
    fn core(&self, first_missing: usize) -> Core<S> {
        (first_missing, self.known.range(first_missing..).copied().collect(), self.state.clone())
    }
}

/// Situations that were looked at.
struct Tried<S> {
    /// What each was used with; none of them covers another.
    by_core: HashMap<Core<S>, Vec<Vec<usize>>>,
    count: usize,
}

impl<S: Eq + Hash> Tried<S> {
    /// Whether none had all of it already.
    fn is_new(&mut self, core: Core<S>, used: &[usize]) -> bool {
        let covers = |less: &[usize], more: &[usize]| less.iter().zip(more).all(|(less, more)| less <= more);
        let with = self.by_core.entry(core).or_default();
        if with.iter().any(|less| covers(less, used)) {
            return false;
        }
        with.retain(|more| !covers(used, more));
        with.push(used.to_vec());
        self.count += 1;
        true
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [Timed<M::Op>],
    unreturned: Unreturned,
    /// By operation: how many calls came before its own.
    ranks: Vec<usize>,
    list: List,
    now: Situation<M::State>,
    tried: Tried<M::State>,
}

impl<M: Model> Search<'_, M> {
    /// Puts an operation next in the order; the state before, or `None`: it does not go there, or that leads nowhere new.
    fn take(&mut self, op: usize) -> Option<M::State> {
        if self.unreturned.places[op].is_some_and(|(class, place)| place != self.now.used[class]) {
            return None;
        }
        let next = self.model.step(&self.now.state, &self.ops[op].op)?;
        let before = std::mem::replace(&mut self.now.state, next);
        self.mark(op, true);
        self.list.lift(op);
        if self.tried.is_new(self.now.core(self.first_missing()), &self.now.used) {
            return Some(before);
        }
        self.put_back(op, before);
        None
    }

    fn put_back(&mut self, op: usize, before: M::State) {
        self.list.put_back(op);
        self.mark(op, false);
        self.now.state = before;
    }

    fn mark(&mut self, op: usize, is_in: bool) {
        match self.unreturned.places[op] {
            Some((class, place)) => self.now.used[class] = place + usize::from(is_in),
            None if is_in => drop(self.now.known.insert(self.ranks[op])),
            None => drop(self.now.known.remove(&self.ranks[op])),
        }
    }

    /// The rank of the first operation that returned and is not in the order.
    fn first_missing(&self) -> usize {
        let mut at = self.list.nodes[END].next;
        while at != END && self.ops[self.list.nodes[at].op].ret.is_none() {
            at = self.list.nodes[at].next;
        }
        if at == END { self.ops.len() } else { self.ranks[self.list.nodes[at].op] }
    }
}

/// Looks for an order, through `budget` situations at most.
pub fn search<M: Model>(model: &M, initial: M::State, ops: &[Timed<M::Op>], budget: usize) -> Answer {
    let mut by_call: Vec<usize> = (0..ops.len()).collect();
    by_call.sort_unstable_by_key(|&op| ops[op].call);
    let mut ranks = vec![0; ops.len()];
    by_call.into_iter().enumerate().for_each(|(rank, op)| ranks[op] = rank);
    let unreturned = Unreturned::new(ops);
    let now = Situation { known: BTreeSet::new(), used: vec![0; unreturned.classes], state: initial };
    let tried = Tried { by_core: HashMap::new(), count: 0 };
    let mut search = Search { model, ops, unreturned, ranks, list: List::new(ops), now, tried };
    let mut missing = ops.iter().filter(|timed| timed.ret.is_some()).count();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut at = search.list.nodes[END].next;
    while missing > 0 {
        let node = search.list.nodes[at];
        // A return whose call is not in the order yet, or the end: nothing more can come next here.
        if at == END || !node.is_call {
            let Some((op, before)) = path.pop() else { return Answer::Not };
            search.put_back(op, before);
            missing += usize::from(ops[op].ret.is_some());
            at = search.list.nodes[search.list.calls[op]].next;
            continue;
        }
        match search.take(node.op) {
            None => at = node.next,
            Some(_) if search.tried.count > budget => return Answer::Unknown,
            Some(before) => {
                path.push((node.op, before));
                missing -= usize::from(ops[node.op].ret.is_some());
                at = search.list.nodes[END].next;
            }
        }
    }
    Answer::Linearizable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that tells what it was: add returns the value before.
    struct Counter;

    impl Model for Counter {
        type State = u64;
        type Op = (u64, u64);
        fn step(&self, state: &u64, (add, before): &(u64, u64)) -> Option<u64> {
            (state == before).then(|| state + add)
        }
    }

    fn timed(call: u64, ret: u64, op: (u64, u64)) -> Timed<(u64, u64)> {
        Timed { call, ret: (ret > 0).then_some(ret), op }
    }

    #[test]
    fn orders_are_found_where_there_are_any() {
        let overlapping = [timed(1, 4, (5, 3)), timed(2, 3, (3, 0))];
        assert_eq!(search(&Counter, 0, &overlapping, 100), Answer::Linearizable);
        let one_after_the_other = [timed(1, 2, (5, 3)), timed(3, 4, (3, 0))];
        assert_eq!(search(&Counter, 0, &one_after_the_other, 100), Answer::Not);
    }

    #[test]
    fn what_did_not_return_is_used_where_it_helps() {
        let helps = [timed(1, 0, (3, 0)), timed(5, 6, (1, 3))];
        assert_eq!(search(&Counter, 0, &helps, 100), Answer::Linearizable);
        let not_needed = [timed(1, 0, (3, 0)), timed(5, 6, (1, 0))];
        assert_eq!(search(&Counter, 0, &not_needed, 100), Answer::Linearizable);
        let too_late = [timed(7, 0, (3, 0)), timed(5, 6, (1, 3))];
        assert_eq!(search(&Counter, 0, &too_late, 100), Answer::Not);
    }

    /// A switch that is on or off.
    struct Switch;

    impl Model for Switch {
        type State = bool;
        type Op = bool;
        fn step(&self, state: &bool, to: &bool) -> Option<bool> {
            (state != to).then_some(*to)
        }
    }

    #[test]
    fn many_that_did_not_return_are_judged() {
        // Each time it is switched on but the first, one of those that nobody knows of must have switched it off.
        let off = (0..100).map(|n| Timed { call: n, ret: None, op: false });
        let never = (100..200).map(|n| Timed { call: n, ret: None, op: true });
        let on = |count: u64| (0..count).map(|n| Timed { call: 1000 + 2 * n, ret: Some(1001 + 2 * n), op: true });
        let with = |count| off.clone().chain(never.clone()).chain(on(count)).collect::<Vec<_>>();
        assert_eq!(search(&Switch, false, &with(101), 100_000), Answer::Linearizable);
        assert_eq!(search(&Switch, false, &with(102), 100_000), Answer::Not);
    }

    #[test]
    fn a_search_that_takes_too_long_says_so() {
        let ops: Vec<_> = (0..20).map(|n| timed(n + 1, 100 + n, (1, 40))).collect();
        assert_eq!(search(&Counter, 0, &ops, 10), Answer::Not, "nothing can come first");
        let ops: Vec<_> = (0..20).map(|n| timed(n + 1, 100 + n, (0, u64::from(n == 19) * 7))).collect();
        assert_eq!(search(&Counter, 0, &ops, 50), Answer::Unknown);
        assert_eq!(search(&Counter, 0, &[], 1), Answer::Linearizable);
    }
}

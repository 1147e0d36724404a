//! A general checker of linearizability: for any model, without knowledge of what its values mean.
//!
//! It looks for an order of the operations, depth first (J. Wing and C. Gong: Testing and Verifying Concurrent Objects,
//! 1993): the next one in the order may be any whose call comes before every return that is not yet explained. What was
//! tried is remembered as the set of operations that are in the order together with the state that they led to (G. Lowe,
//! 2017), so that no situation is looked at twice. An operation without a return may be in the order or not.
//!
//! It shares nothing with the simulator's checkers, so that a mistake in one of them shows as a disagreement.

use std::collections::HashSet;
use std::hash::Hash;

/// What a sequential object does.
pub trait Model {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// An operation together with its answer.
    type Op;
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

/// Looks for an order, through `budget` situations at most.
pub fn search<M: Model>(model: &M, initial: M::State, ops: &[Timed<M::Op>], budget: usize) -> Answer {
    let mut list = List::new(ops);
    let mut missing = ops.iter().filter(|timed| timed.ret.is_some()).count();
    let mut ordered = vec![0u64; ops.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut state = initial;
    let mut at = list.nodes[END].next;
    while missing > 0 {
        let node = list.nodes[at];
        // A return whose call is not in the order yet, or the end: nothing more can come next here.
        if at == END || !node.is_call {
            let Some((op, before)) = path.pop() else { return Answer::Not };
            state = before;
            ordered[op / 64] &= !(1 << (op % 64));
            missing += usize::from(ops[op].ret.is_some());
            list.put_back(op);
            at = list.nodes[list.calls[op]].next;
            continue;
        }
        let next = model.step(&state, &ops[node.op].op);
        let is_new = next.filter(|next| {
            let mut with = ordered.clone();
            with[node.op / 64] |= 1 << (node.op % 64);
            tried.insert((with, next.clone()))
        });
        match is_new {
            None => at = node.next,
            Some(_) if tried.len() > budget => return Answer::Unknown,
            Some(next) => {
                path.push((node.op, std::mem::replace(&mut state, next)));
                ordered[node.op / 64] |= 1 << (node.op % 64);
                missing -= usize::from(ops[node.op].ret.is_some());
                list.lift(node.op);
                at = list.nodes[END].next;
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

    #[test]
    fn a_search_that_takes_too_long_says_so() {
        let ops: Vec<_> = (0..20).map(|n| timed(n + 1, 100 + n, (1, 40))).collect();
        assert_eq!(search(&Counter, 0, &ops, 10), Answer::Not, "nothing can come first");
        let ops: Vec<_> = (0..20).map(|n| timed(n + 1, 100 + n, (0, u64::from(n == 19) * 7))).collect();
        assert_eq!(search(&Counter, 0, &ops, 50), Answer::Unknown);
        assert_eq!(search(&Counter, 0, &[], 1), Answer::Linearizable);
    }
}

//! Luck: from where delays, losses and identities are drawn.
//!
//! Usually each part of the world has a generator of its own, and one draw more or less changes all that follow. In a
//! *steady* world each draw follows from the seed, from who draws, and from the time: what does not meet the consequences
//! of a change goes on as it was. Failures are reduced in steady worlds: leaving out one operation leaves the others be.

use super::{Machine, NodeId, World};
use ashlar_core::rng::Rng;
use ashlar_core::time::Time;

/// Who draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawer {
    /// A process.
    Node(NodeId),
    /// The disks of a process, and its end.
    Disk(NodeId),
    /// The path from one process to another.
    Path(NodeId, NodeId),
    /// The metadata store, about a process.
    Meta(NodeId),
    /// The metadata store, about nobody.
    MetaAlone,
}

impl Drawer {
    fn words(self) -> [u64; 2] {
        let word = |node: NodeId| u64::from(node.0);
        match self {
            Drawer::Node(node) => [1, word(node)],
            Drawer::Disk(node) => [2, word(node)],
            Drawer::Path(from, to) => [3, word(from) << 32 | word(to)],
            Drawer::Meta(node) => [4, word(node)],
            Drawer::MetaAlone => [5, 0],
        }
    }
}

/// The luck of a steady world.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    key: u64,
    /// When the last draw was, and how many were at that time: two at one time differ.
    last: (Time, u64),
    /// Of whoever drives the world: its draws depend on nothing but their order.
    pub(super) driver: Rng,
}

impl Steady {
    fn new(key: u64) -> Self {
        Steady { key, last: (Time(0), 0), driver: Rng::new(key) }
    }

    /// A generator for a drawer at a time.
    fn generator(&mut self, drawer: Drawer, now: Time) -> Rng {
        self.last = if self.last.0 == now { (now, self.last.1 + 1) } else { (now, 0) };
        let [kind, who] = drawer.words();
        let words = [kind, who, now.0, self.last.1];
        // The generator's seed is spread well; here it is enough that different words give different numbers.
        let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Rng::new(words.into_iter().fold(self.key, mix))
    }
}

impl<M: Machine> World<M> {
    /// Makes the world steady, before anything happened in it; each key is another luck.
    pub fn hold_still(&mut self, key: u64) {
        self.steady = Some(Steady::new(key));
    }

    /// Before something is drawn: a steady world draws it from nothing but who and when.
    pub(super) fn drawn_by(&mut self, drawer: Drawer) {
        let Some(steady) = &mut self.steady else { return };
        let generator = steady.generator(drawer, self.now);
        match drawer {
            Drawer::Node(node) => self.nodes[node.index()].rng = generator,
            Drawer::Disk(_) => self.rng = generator,
            Drawer::Path(..) => self.net.set_rng(generator),
            Drawer::Meta(_) | Drawer::MetaAlone => self.meta.set_rng(generator),
        }
    }

    /// The generator of whoever drives the world.
    pub fn rng(&mut self) -> &mut Rng {
        match &mut self.steady {
            Some(steady) => &mut steady.driver,
            None => &mut self.rng,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_from_who_and_when() {
        let drawer = Drawer::Path(NodeId(1), NodeId(2));
        let draw = |steady: &mut Steady, drawer, at| steady.generator(drawer, Time(at)).next_u64();
        let (mut one, mut other) = (Steady::new(5), Steady::new(5));
        draw(&mut one, Drawer::Disk(NodeId(1)), 7);
        assert_eq!(draw(&mut one, drawer, 9), draw(&mut other, drawer, 9), "what was drawn before does not matter");
        let more = [draw(&mut one, drawer, 9), draw(&mut one, Drawer::Path(NodeId(2), NodeId(1)), 10)];
        let (again, elsewhere) = (draw(&mut other, drawer, 10), draw(&mut Steady::new(6), drawer, 9));
        let all = std::collections::BTreeSet::from([more[0], more[1], again, elsewhere]);
        assert_eq!(all.len(), 4, "but everything else does");
    }
}

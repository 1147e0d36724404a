//! Whether a history of one register is linearizable.

use std::collections::BTreeSet;

/// What a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The register held this; 0: nothing.
    Read(u64),
    /// It was set to this.
    Write(u64),
}

/// An operation's begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Operation `n` was called.
    Call(usize),
    /// Operation `n` returned, having done this.
    Return(usize, Action),
    /// The client of operation `n`, which would do this, gave up: it takes effect some time, or never.
    Abandon(usize, Action),
}

/// Looks for an order that explains the history; gives the index of the moment that none explains. Every operation that
/// is called must return or be abandoned.
pub fn linearizable(moments: &[Moment]) -> Result<(), usize> {
    let action = |op: usize| {
        let returned = moments.iter().find_map(|moment| match moment {
            Moment::Return(other, action) | Moment::Abandon(other, action) if *other == op => Some(*action),
            _ => None,
        });
        returned.expect("every operation returns or is abandoned")
    };
    let mut open: Vec<(usize, Action)> = Vec::new();
    // The register's value, and which open operations took effect.
    let mut worlds: BTreeSet<(u64, BTreeSet<usize>)> = BTreeSet::from([(0, BTreeSet::new())]);
    for (index, moment) in moments.iter().enumerate() {
        match moment {
            Moment::Call(op) => open.push((*op, action(*op))),
            Moment::Abandon(..) => {}
            Moment::Return(op, _) => {
                worlds = closure(worlds, &open);
                worlds.retain(|(_, done)| done.contains(op));
                worlds = worlds
                    .into_iter()
                    .map(|(value, mut done)| {
                        done.remove(op);
                        (value, done)
                    })
                    .collect();
                open.retain(|(other, _)| other != op);
            }
        }
        if worlds.is_empty() {
            return Err(index);
        }
    }
    Ok(())
}

/// All worlds that come about when open operations take effect.
fn closure(worlds: BTreeSet<(u64, BTreeSet<usize>)>, open: &[(usize, Action)]) -> BTreeSet<(u64, BTreeSet<usize>)> {
    let mut all = worlds.clone();
    let mut fresh: Vec<_> = worlds.into_iter().collect();
    while let Some((value, done)) = fresh.pop() {
        for (op, action) in open.iter().filter(|(op, _)| !done.contains(op)) {
            let next = match action {
                Action::Read(seen) if *seen != value => continue,
                Action::Read(_) => value,
                Action::Write(written) => *written,
            };
            let mut done = done.clone();
            done.insert(*op);
            if all.insert((next, done.clone())) {
                fresh.push((next, done));
            }
        }
    }
    all
}

#[test]
fn finds_stale_reads_and_allows_concurrency() {
    use Action::*;
    use Moment::*;
    let fine = [Call(0), Call(1), Return(1, Read(0)), Call(2), Return(0, Write(5)), Return(2, Read(5))];
    assert_eq!(linearizable(&fine), Ok(()));
    let stale = [Call(0), Return(0, Write(5)), Call(1), Return(1, Read(0))];
    assert_eq!(linearizable(&stale), Err(3));
    let flicker = [Call(0), Call(1), Return(1, Read(5)), Call(2), Return(2, Read(0)), Return(0, Write(5))];
    assert_eq!(linearizable(&flicker), Err(4));
    let late = [Call(0), Abandon(0, Write(5)), Call(1), Return(1, Read(0)), Call(2), Return(2, Read(5))];
    assert_eq!(linearizable(&late), Ok(()));
}

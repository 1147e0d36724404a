//! What the metadata store says of groups' intervals only goes forward, and ends with their layout.
//!
//! Fed with every history that is written, in the order of the revisions.
//!
//! - A group's last interval is never below one that was recorded before: who records looks at what is replaced.
//! - In groups of a layout that is over, nothing is recorded: the groups that take over their objects have read how they
//!   ended.

use ashlar_core::id::{Epoch, PgId};
use ashlar_core::map::Layout;
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Records {
    newest: BTreeMap<PgId, Epoch>,
}

impl Records {
    /// At this revision a history was written, whose last interval is `last`; the layout in force is given with the
    /// revision of its last change.
    pub fn written(
        &mut self,
        pg: PgId,
        last: Epoch,
        revision: u64,
        layout: Option<(Layout, u64)>,
    ) -> Result<(), String> {
        let newest = self.newest.entry(pg).or_default();
        if last < *newest {
            return Err(format!("{pg:?}: interval {last} is recorded in place of {newest}"));
        }
        *newest = last;
        match layout {
            Some((layout, since)) if layout.generation > pg.number.generation() && revision > since => {
                Err(format!("{pg:?}: interval {last} is recorded after layout {}", layout.generation))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::id::{PgNumber, PoolId};

    #[test]
    fn a_history_that_goes_back_or_outlives_its_layout_is_found() {
        let pg = |generation| PgId { pool: PoolId(1), number: PgNumber::new(generation, 0) };
        let layout = |generation| Some((Layout { generation, pg_count: 1 }, 50));
        let mut records = Records::default();
        records.written(pg(0), Epoch(5), 40, None).expect("the first");
        records.written(pg(0), Epoch(7), 41, layout(0)).expect("the next");
        records.written(pg(0), Epoch(7), 42, layout(1)).expect("trimmed, just before the new layout");
        assert!(records.written(pg(0), Epoch(6), 43, layout(0)).is_err(), "it goes back");
        assert!(records.written(pg(0), Epoch(8), 51, layout(1)).is_err(), "after the layout");
        records.written(pg(1), Epoch(9), 52, layout(1)).expect("of the new layout");
    }
}

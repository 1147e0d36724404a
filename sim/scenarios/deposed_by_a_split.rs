//! The number of groups changes while a primary that nobody else reaches still holds a read lease.
//! Goal: the groups that take over its objects wait for its lease, as its successor in the group would.
//! Method: as in `deposed_primary`; meanwhile an administrator asks for another number of groups.
//! Stands for: A16, G7, J9

use super::deposed_primary::depose;
use crate::check::history::Finding;
use crate::cluster::Cluster;

pub(super) use super::deposed_primary::configure;

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    depose(c, |c, _| {
        let groups = c.groups().len() as u32;
        c.set_pg_count(groups % 3 + 1);
    })
}

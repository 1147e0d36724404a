//! Members restart at once after they granted a read lease, and their primary is deposed.
//! Goal: who grants after a start assumes that it granted before: the old primary's reads are never stale.
//! Method: a primary that reaches one client only goes on reading, and answers slowly; the others restart, elect another
//! one, and write.
//! Stands for: A16, J9

use super::deposed_primary::depose;
use crate::check::history::Finding;
use crate::cluster::Cluster;

pub(super) use super::deposed_primary::configure;

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    depose(c, |c, others| {
        c.kill_all(others);
        others.iter().for_each(|other| c.start(*other));
    })
}

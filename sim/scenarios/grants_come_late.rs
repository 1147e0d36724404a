//! A primary hears nothing from its members, who hear it: they grant it lease after lease, and all that arrives at once,
//! long after another primary took its place.
//! Goal: a lease counts from when it was asked for, so that old grants are worth nothing.
//! Method: paths to the primary are cut in one direction, its session ends, another one writes; a client on its side reads;
//! then everything arrives.
//! Stands for: A16, B23, J9

use super::ms;
use crate::check::history::Finding;
use crate::cluster::Cluster;
use crate::world::NodeId;

pub(super) use super::deposed_primary::configure;

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..5 {
        c.write(0, 0, 4)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        let far: Vec<NodeId> = others.iter().chain(c.mons()).copied().collect();
        let client = c.client_node(0);
        c.partition(&[client], &far);
        c.deafen(*primary, &far);
        let deaf = c.world.draw(ms(20), ms(300));
        c.run_for(deaf)?;
        c.end_session(*primary);
        let write = c.start_write(1, 0, 4);
        for _ in 0..6 {
            c.start_read(0, 0, 4);
            let pause = c.world.draw(ms(1), ms(90));
            c.run_for(pause)?;
        }
        // (Without a session, the primary may register anew by a way that was not cut; then nobody takes its place.)
        c.run_until(ms(4_000), |c| c.is_done(write))?;
        c.heal();
        c.wait(write)?;
        c.read(0, 0, 4)?;
        c.run_until(ms(20_000), Cluster::all_whole)?;
    }
    Ok(())
}

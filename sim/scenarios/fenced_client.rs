//! A client is fenced off while its primary does not hear of it; then its successor locks the image.
//! Goal: once the fence is complete, nothing of the client is carried out any more, whoever serves; a locked image is
//! written by one client only; what the fence waits for ends by itself.
//! Method: a client writes one object without pause; the object's primary is cut off from the metadata store, or a member
//! loses its power; the client is fenced; when that is complete, the successor reads, and reads again after the fenced one
//! had time to write. Then the successor locks the image, and another client tries to write.
//! Stands for: J10, C23

use super::{ms, three, us};
use crate::check::history::{Finding, What};
use crate::cluster::{Cluster, Config, broken};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.expect_refusals();
    c.settle_down()?;
    for turn in 0..3u32 {
        c.write(0, 0, 2)?;
        let primary = c.primary(c.pg_of_block(0)).expect("somebody is primary");
        match turn {
            0 => c.cut_from_meta(primary),
            1 => c.power_off(c.world.host_of(primary), Outcome::LoseAll),
            _ => {}
        }
        let moment = c.world.draw(us(10), ms(30));
        c.run_for(moment)?;
        fence(c)?;
        let before = values(c)?;
        for _ in 0..10 {
            c.start_write(0, 0, 2);
            c.run_for(ms(100))?;
        }
        if before != values(c)? {
            return Err(broken("a fenced client has written"));
        }
        c.heal();
        c.start_everything();
        replace_client(c)?;
    }
    lock(c)
}

/// Fences the first client off, which goes on writing until that is complete.
fn fence(c: &mut Cluster) -> Result<(), Finding> {
    let revision = c.fence(0);
    for _ in 0..1000 {
        if c.access_waits_for(revision).is_empty() {
            return Ok(());
        }
        c.start_write(0, 0, 2);
        c.run_for(ms(30))?;
    }
    Err(broken(format!("a fence waits for {:?}", c.access_waits_for(revision))))
}

fn values(c: &mut Cluster) -> Result<What, Finding> {
    let op = c.read(1, 0, 2)?;
    Ok(c.history().records()[op as usize].what.clone())
}

fn replace_client(c: &mut Cluster) -> Result<(), Finding> {
    let client = c.client_node(0);
    c.kill(client);
    c.start(client);
    if c.run_until(ms(20_000), |c| c.is_ready(0))? {
        return Ok(());
    }
    Err(broken("the client does not open its image again"))
}

fn lock(c: &mut Cluster) -> Result<(), Finding> {
    let revision = c.lock_image(Some(1));
    if !c.run_until(ms(20_000), |c| c.access_waits_for(revision).is_empty())? {
        return Err(broken(format!("a lock waits for {:?}", c.access_waits_for(revision))));
    }
    let op = c.start_write(0, 0, 2);
    c.run_for(ms(2_000))?;
    if !c.history().records()[op as usize].failed {
        return Err(broken("a client wrote an image that is locked for another"));
    }
    c.write(1, 0, 2)?;
    c.read(0, 0, 2)?;
    c.lock_image(None);
    c.run_for(ms(2_000))?;
    c.write(0, 0, 2).map(drop)
}

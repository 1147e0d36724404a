//! What an OSD's future depends on, as one number.
//!
//! Owns the list of what counts: taken apart field by field, so that a new field of a group must be considered here.

use super::canon::{hash_of, mix};
use super::world::{PG, object};
use crate::id::{CopyId, Role};
use crate::osd::groups::Groups;
use crate::pg::Pg;
use crate::pg::primary::Primary;
use crate::store::ObjectStore;
use crate::store::model::ModelStore;
use crate::time::Time;

/// An OSD that runs. With operations that are not durable, everything counts; else what is stored, and the group.
pub fn hash_groups(groups: &Groups<ModelStore>, roles: u8, now: Time) -> u64 {
    if groups.store().is_busy() {
        return hash_of(groups, now);
    }
    let pg = groups.get(PG).expect("made at the start");
    mix(hash_pg(pg, now), hash_store(groups.store(), roles))
}

/// What a store holds, all of it durable.
pub fn hash_store(store: &ModelStore, roles: u8) -> u64 {
    (0..roles).fold(17, |hash, role| {
        let copy = CopyId { object: object(), role: Role(role) };
        let Some(info) = store.lookup(copy) else { return mix(hash, 1) };
        let prints = store.contents(copy).map(|(_, print)| print);
        prints.fold(mix(hash, hash_of(&(info.committed, info.prepared), Time(0))), mix)
    })
}

fn hash_pg(pg: &Pg, now: Time) -> u64 {
    // Not counted: the group's rules, which are the same for all; the map, which follows from its revision; what is used
    // up within a call; scrubs, of which there are none here.
    let Pg {
        id: _,
        rules: _,
        code: _,
        map: _,
        map_revision,
        member,
        primary,
        attempts,
        post: _,
        wishes,
        cramped,
        scrub: _,
        held,
        heartbeat_members,
        stray_at: _,
    } = pg;
    let common = (map_revision, member, attempts, wishes, cramped.state(), held.len(), heartbeat_members);
    mix(hash_of(&common, now), primary.as_ref().map_or(2, |primary| hash_primary(primary, now)))
}

fn hash_primary(primary: &Primary, now: Time) -> u64 {
    // Not counted: what follows from the map, or from the revision of the history; removals of images and scrubs, of
    // which there are none here.
    let Primary {
        pg: _,
        attempt,
        rules: _,
        acting: _,
        target: _,
        absent,
        acting_members: _,
        stage,
        attempt_started,
        stage_deadline,
        meta_token,
        history: _,
        revisions,
        heir_of: _,
        roster,
        calls,
        comparison,
        full,
        unclean,
        old_leases,
        lease,
        ops,
        parked,
        seq_floor,
        sessions,
        syncs,
        trim,
        stripes,
        removal: _,
        scrubbing: _,
    } = primary;
    let when = (attempt, stage, attempt_started, stage_deadline, old_leases, lease, absent);
    let what = (meta_token.is_some(), revisions, full, seq_floor, calls, comparison, unclean);
    let whom = (ops, parked, sessions, syncs, trim, stripes);
    let seats = roster.seats().iter().map(|seat| {
        let said = seat.statement.map_or((2, 0), |said| (u64::from(said.trusted), said.digest.sum));
        mix(said.0, mix(said.1, u64::from(seat.member.osd.0)))
    });
    let rest = [hash_of(&when, now), hash_of(&what, now), hash_of(&whom, now)];
    seats.chain(rest).fold(19, mix)
}

//! What an operation does to the versions of a copy: which are allowed, and what comes after.
//!
//! Pure. Decides for the operation that is carried out, and foretells for those that still wait.

use crate::id::{Requests, Version};
use crate::store::{Content, CopyInfo, Mode, StoreError, StoreOp, VersionInfo};

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It changes the copy.
    Changes,
    /// There is nothing to do.
    Nothing,
}

fn newest(info: &CopyInfo) -> Option<&VersionInfo> {
    info.prepared.as_ref().or(info.committed.as_ref())
}

fn at(info: &CopyInfo, version: Version) -> Result<(), StoreError> {
    let is = newest(info).map_or(Version::NONE, |newest| newest.version);
    if is == version { Ok(()) } else { Err(StoreError::WrongPredecessor(is)) }
}

fn is(place: Option<&VersionInfo>, version: Version) -> bool {
    place.is_some_and(|info| info.version == version)
}

/// A next version on top of what is there.
fn put(info: &mut CopyInfo, next: VersionInfo, mode: Mode, commits: bool) -> Result<Effect, StoreError> {
    if info.prepared.is_some() {
        if mode == Mode::Prepare && !commits {
            return Err(StoreError::BadRequest("a version is prepared already"));
        }
        info.committed = info.prepared.take();
    }
    match mode {
        Mode::Plain => info.committed = Some(next),
        Mode::Prepare => info.prepared = Some(next),
    }
    Ok(Effect::Changes)
}

fn next(version: Version, predecessor: Version, tombstone: bool, damaged: bool, requests: &Requests) -> VersionInfo {
    VersionInfo { version, predecessor, tombstone, damaged, requests: requests.clone() }
}

/// Carries out `op` on the versions; an error leaves them as they are.
pub fn apply(info: &mut CopyInfo, op: &StoreOp) -> Result<Effect, StoreError> {
    let damaged = newest(info).is_some_and(|info| info.damaged);
    match op {
        StoreOp::Write { version, predecessor, mode, commits_predecessor, requests, .. } => {
            at(info, *predecessor)?;
            put(info, next(*version, *predecessor, false, damaged, requests), *mode, *commits_predecessor)
        }
        StoreOp::Zero { version, predecessor, mode, requests, .. } => {
            at(info, *predecessor)?;
            put(info, next(*version, *predecessor, false, damaged, requests), *mode, true)
        }
        StoreOp::Tombstone { version, predecessor, mode, requests, .. } => {
            at(info, *predecessor)?;
            put(info, next(*version, *predecessor, true, false, requests), *mode, true)
        }
        StoreOp::Replace { version, predecessor, content, mode, requests, .. } => {
            let tombstone = matches!(content, Content::Tombstone);
            let state = next(*version, *predecessor, tombstone, false, requests);
            info.prepared = None;
            put(info, state, *mode, false)
        }
        StoreOp::Patch { base, version, predecessor, requests, .. } => {
            at(info, *base)?;
            if newest(info).is_none_or(|base| base.tombstone) {
                return Err(StoreError::NoSuchVersion);
            }
            if damaged {
                return Err(StoreError::Damaged { offset: 0, len: 0 });
            }
            put(info, next(*version, *predecessor, false, false, requests), Mode::Plain, true)
        }
        StoreOp::Commit { version, .. } => commit(info, *version),
        StoreOp::Rollback { version, .. } => Ok(drop_if(&mut info.prepared, |info| info.version == *version)),
        StoreOp::Purge { version, .. } => {
            Ok(drop_if(&mut info.committed, |info| info.version == *version && info.tombstone))
        }
        StoreOp::Remove { version, .. } => {
            let place = if info.prepared.is_some() { &mut info.prepared } else { &mut info.committed };
            Ok(drop_if(place, |info| info.version == *version))
        }
        StoreOp::Read { .. } | StoreOp::ReadAll { .. } | StoreOp::Sync { .. } => Ok(Effect::Nothing),
    }
}

fn commit(info: &mut CopyInfo, version: Version) -> Result<Effect, StoreError> {
    if is(info.prepared.as_ref(), version) {
        info.committed = info.prepared.take();
        return Ok(Effect::Changes);
    }
    if is(info.committed.as_ref(), version) {
        return Ok(Effect::Nothing);
    }
    at(info, version).map(|()| Effect::Nothing)
}

fn drop_if(place: &mut Option<VersionInfo>, condition: impl Fn(&VersionInfo) -> bool) -> Effect {
    if place.as_ref().is_some_and(condition) {
        *place = None;
        return Effect::Changes;
    }
    Effect::Nothing
}

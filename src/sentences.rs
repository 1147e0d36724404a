//! What stores answer, as sentences for people.

use ashlar_core::store::{StoreError, StoreState};

/// Why an operation of a store was not carried out.
pub fn of_error(error: &StoreError) -> String {
    match error {
        StoreError::WrongPredecessor(version) => format!("the copy is at another version, {version}"),
        StoreError::NoSuchVersion => "it is not there".into(),
        StoreError::NoSpace => "there is no room for a new object".into(),
        StoreError::BadChecksum => "the data do not match their checksum: damaged on the way to the store".into(),
        StoreError::Mismatch => "the result would not be what it should".into(),
        StoreError::Damaged { offset, len } => format!("damaged: {len} bytes from byte {offset} on"),
        StoreError::WriteFailed => "the device refused the write".into(),
        StoreError::Stopped => "the store has stopped, or is read-only".into(),
        StoreError::BadRequest(why) => format!("the request makes no sense: {why}"),
    }
}

/// What a store is about.
pub fn of_state(state: &StoreState) -> String {
    match state {
        StoreState::Opening => "it is being opened".into(),
        StoreState::Open { trusted: true } => "it is open".into(),
        StoreState::Open { trusted: false } => "it can be read only, for a part of its metadata is lost".into(),
        StoreState::Failed(reason) => reason.clone(),
    }
}

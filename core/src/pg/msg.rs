//! Messages between the OSDs of a placement group.

/// A message between OSDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PgMessage {}

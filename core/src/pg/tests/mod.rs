//! Scenarios over several groups.

//! The OSD node.

pub mod peers;
pub mod publish;
pub mod session;

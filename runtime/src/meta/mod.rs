//! The metadata store: clients that speak to etcd or to the embedded store alike, and the embedded store itself.
//!
//! Owns: connections to the store, the meaning of their failures, watches that survive them; the embedded store's file and
//! its service. Does not own the data model, which is [`ashlar_core::meta`].

mod client;
mod convert;
mod driver;
mod embedded;
mod endpoints;
mod watch;

pub use client::{Client, RequestError};
pub use driver::Driver;
pub use embedded::{EmbeddedServer, StartError};
pub use endpoints::{Access, EndpointError, Endpoints};

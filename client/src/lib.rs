//! The client library and its front ends.
//!
//! Owns: the async face of core's client machine ([`Client`], [`Image`]), the NBD server ([`nbd`]), the load generator
//! ([`bench`]). Does not own: retries, maps, order of writes (core), sockets to the cluster (runtime).
//!
//! ```no_run
//! # async fn example() -> Result<(), ashlar_client::Error> {
//! let client = ashlar_client::Client::connect(vec!["127.0.0.1:7800".into()])?;
//! let image = client.open("demo").await?;
//! image.write_bytes(4096, b"hello").await?;
//! let pieces = image.read(4096, 5).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod bench;
mod endpoint;
mod image;
pub mod nbd;

pub use ashlar_core::client::{Extent, ImageOp, OpError, Outcome, Pieces, READ_MAX_BYTES};
pub use endpoint::{Client, Error};
pub use image::Image;
pub use nbd::{NbdArgs, run as run_nbd};

//! The metadata store from outside: the embedded one beside a real etcd and beside the state machine in core.
//!
//! Needs etcd and its command-line client (Debian: `etcd-server`, `etcd-client`). Where they are missing, the tests that
//! need them say so and are skipped; with `CI` in the environment they fail instead.

mod cluster;
mod crash;
mod embedded;
mod equivalence;
mod operations;
mod support;

//! What goes wrong around Cove, at moments that nobody chose: each run ends as it was promised, leaves nothing, and
//! touches nothing that is somebody else's.
//!
//! A run is made from its seed alone. `COVE_FAULT_RUNS` says how many there are, `COVE_FAULT_SEED` which is the first:
//! with that and `COVE_FAULT_RUNS=1`, a run that is told as broken comes again.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

mod app_killed;
mod bystanders;
mod connection;
mod disk;
mod outside;
mod phases;
mod registry;
mod support;
mod two_engines;
mod workspace;

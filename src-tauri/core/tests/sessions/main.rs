//! Sessions as their user meets them: on a real engine and real registries, and, for failures that no
//! real engine shows on demand, as transcripts over an engine that is made up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

mod cancelling;
mod container;
mod creating;
mod failing;
mod files;
mod lifecycle;
mod limits;
mod support;
mod terminals;
mod transcripts;
mod users;

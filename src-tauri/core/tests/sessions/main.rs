//! Sessions as their user meets them: on a real engine and real registries, and, for failures that no
//! real engine shows on demand, as transcripts over an engine that is made up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]
#![cfg_attr(
    not(unix),
    expect(dead_code, reason = "some need an engine on a Unix socket")
)]

mod belongings;
#[cfg(unix)]
mod cancelling;
#[cfg(unix)]
mod connections;
mod container;
mod creating;
mod crossing;
#[cfg(unix)]
mod engines;
mod environment;
#[cfg(unix)]
mod failing;
#[cfg(unix)]
mod figures;
mod files;
mod following;
mod lifecycle;
mod limits;
mod live;
mod many;
mod names;
mod network;
mod podman;
mod ports;
mod pulls;
mod recovering;
mod searching;
mod support;
mod terminals;
mod tools;
mod transcripts;
mod transferring;
mod users;
mod walks;

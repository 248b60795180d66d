//! The app in its real window, on a real engine and registry; `cargo xtask test` hands both over.
//!
//! Each test opens a window of its own, with a new home folder, and does what a user would do there. What the page
//! heard, asked and showed meanwhile is noted in the page itself (`record.js`), so that nothing falls between two
//! looks. Only waiting for conditions, with limits: a test that needs the engine or the registry to be slow makes
//! them slow.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

mod accessibility;
mod app;
#[cfg(target_os = "linux")]
mod attention;
mod cancel;
mod contract;
mod create;
#[cfg(unix)]
mod day;
mod editor;
mod failure;
mod false_agent;
mod figures;
mod files;
mod gate;
mod held;
mod hostile;
mod images;
mod interrupted;
mod keys;
#[cfg(target_os = "linux")]
mod leaving;
mod lifecycle;
mod live;
mod many;
mod offline;
mod outliving;
mod outside;
#[cfg(unix)]
mod own_files;
mod panes;
#[cfg(unix)]
mod ports;
#[cfg(target_os = "linux")]
mod programs;
mod pull;
mod reload;
mod search;
#[cfg(target_os = "linux")]
mod starting;
mod strangers;
mod terminal;
mod transfers;

//! The Cove agent: process 1 of a session's container, and the protocol to talk to it.
//!
//! [`streams`], [`protocol`], [`terminal`], [`watch`], [`path`] and [`tree`] are pure and compile everywhere: the app uses
//! them on every system. The rest is what the agent itself does and exists on Linux only. Nothing here knows about container
//! engines: how the agent gets into a container and how its streams reach the app is the app's part.

pub mod path;
pub mod protocol;
pub mod search;
pub mod streams;
pub mod terminal;
pub mod tree;
pub mod watch;

#[cfg(target_os = "linux")]
mod accounts;
#[cfg(target_os = "linux")]
pub mod connect;
#[cfg(target_os = "linux")]
pub mod daemon;
#[cfg(target_os = "linux")]
pub mod hand_over;
#[cfg(target_os = "linux")]
pub mod init;
#[cfg(target_os = "linux")]
mod listening;
#[cfg(target_os = "linux")]
pub mod pack;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod readiness;
#[cfg(target_os = "linux")]
mod resolve;
#[cfg(target_os = "linux")]
pub mod shell;
#[cfg(target_os = "linux")]
pub mod unpack;
#[cfg(target_os = "linux")]
mod workspace;

/// Where the agent's binary lies in a container; the app puts it there before the first start.
pub const AGENT_PATH: &str = "/.cove/agent";

/// The directory of the agent in a container. It belongs to root and only `agent init` writes to it.
pub const AGENT_DIRECTORY: &str = "/.cove";

/// Where the session's volume is mounted.
pub const WORKSPACE: &str = path::ROOT;

/// The version of the agent, which is the version of the app that carries it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Closes this process to the others of the same user: its memory, its descriptors and its environment in
/// `/proc`, and tracing. What travels over the agent's streams is between it and the app.
#[cfg(target_os = "linux")]
pub fn conceal() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    // It fails on no kernel that runs containers; without it the agent works all the same.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

//! The engine: what Cove asks of a container engine, and the plain types to ask it in.

use serde::{Deserialize, Serialize};

use crate::error::EngineReason;

/// The engines that were looked for, best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct EngineView {
    /// What it calls itself, as `Docker`; where it was looked for, when it does not answer.
    pub name: String,
    /// The socket, pipe or address.
    pub address: String,
    /// Why this place was looked at, as `DOCKER_HOST` or `context colima`.
    pub source: String,
    /// Its version; `null` when it does not answer.
    pub version: Option<String>,
    /// Whether sessions are made on this one.
    pub selected: bool,
    /// Why it cannot be used; `null` when it can.
    pub problem: Option<EngineProblem>,
}

/// Why an engine cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct EngineProblem {
    /// The kind.
    pub reason: EngineReason,
    /// What happened.
    pub message: String,
}

/// An image that is on the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ImageView {
    /// The reference in its short form.
    pub image_name: String,
    /// Its size on the engine in bytes.
    pub size_bytes: u64,
}

//! What engines are known by. How an engine comes to its id, and what makes two engines the same, is decided in
//! `engines.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Tells one engine from another. What makes two engines the same is decided in `engines.rs`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export, type = "string"))]
#[serde(transparent)]
pub struct EngineId(String);

impl EngineId {
    /// Characters that no id comes near; an engine that says more is cut short.
    const MOST: usize = 512;

    /// Returns the id that consists of these facts.
    #[must_use]
    pub fn of(facts: &[&str]) -> Self {
        let printable = |c: &char| !c.is_control();
        Self(
            facts
                .join(" ")
                .chars()
                .filter(printable)
                .take(Self::MOST)
                .collect(),
        )
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is remembered of an engine: enough to name it and to look for it while it does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    /// Tells it from all others.
    pub id: EngineId,
    /// What it calls itself, `Docker`.
    pub name: String,
    /// Where it was last reached: its socket, pipe or address.
    pub address: String,
}

/// What is remembered of the engines from one start of the app to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedEngines {
    /// The one that new sessions are made on.
    pub chosen: Option<EngineId>,
    /// That one, and those that have sessions.
    pub known: Vec<EngineIdentity>,
}

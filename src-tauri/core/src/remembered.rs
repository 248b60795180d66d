//! What is remembered of sessions from one start of the app to the next, so that those on an engine that does not
//! answer then are shown as away and not forgotten. It is never the truth: an engine that answers is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine_id::EngineId;
use crate::labels;
use crate::session::{CreateSession, SessionId};

/// Sessions that are remembered; nobody has as many.
pub(crate) const MOST_REMEMBERED: usize = 4_000;

/// One session on one engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedSession {
    /// The engine that it is on.
    pub(crate) engine: EngineId,
    /// The session, as its labels say it.
    labels: BTreeMap<String, String>,
}

impl RememberedSession {
    pub(crate) fn new(
        engine: EngineId,
        id: SessionId,
        request: &CreateSession,
        created: &str,
    ) -> Self {
        let labels = labels::of(id, request, created).into_iter().collect();
        Self { engine, labels }
    }

    /// Returns its id, what was asked for, and when it was created; `None` for what no version of Cove has written.
    pub(crate) fn session(&self) -> Option<(SessionId, CreateSession, String)> {
        labels::read(&self.labels.clone().into_iter().collect())
    }
}

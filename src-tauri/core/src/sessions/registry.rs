//! What is known of the sessions: the entries, their lock, and the views of them that leave the crate.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::{Entry, Sessions, Shared};
use crate::error::Error;
use crate::session::{Session, SessionId, SessionStatus};

impl Sessions {
    /// Returns the snapshot of a session. Asks the engine only about a session it has not heard of.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn status(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        self.with_entry(id, |entry| entry.status(id))
    }

    /// Returns all sessions, by workspace and age. What the engine cannot tell while it is away is
    /// left as it was.
    pub async fn list(&self) -> Vec<Session> {
        // While the engine's events are followed, the list is current already.
        if !self.shared.following.load(Ordering::SeqCst) {
            self.look_again().await;
        }
        let mut sessions = self.shared.views();
        sessions.sort_by(|a, b| {
            (&a.workspace_id, &a.created, a.session_id).cmp(&(
                &b.workspace_id,
                &b.created,
                b.session_id,
            ))
        });
        sessions
    }

    /// Makes sure that a session is known, by asking the engine if it is not.
    pub(super) async fn know(&self, id: SessionId) -> Result<(), Error> {
        let is_known = || self.shared.entries().contains_key(&id);
        if !is_known() {
            self.reconcile().await?;
        }
        if is_known() {
            Ok(())
        } else {
            Err(Error::SessionNotFound(id.to_string()))
        }
    }

    pub(super) fn with_entry<T>(
        &self,
        id: SessionId,
        read: impl FnOnce(&Entry) -> T,
    ) -> Result<T, Error> {
        let entries = self.shared.entries();
        let entry = entries.get(&id);
        entry
            .map(read)
            .ok_or_else(|| Error::SessionNotFound(id.to_string()))
    }
}

/// Returns a session that is not about to be gone.
pub(super) fn lasting(
    entries: &mut BTreeMap<SessionId, Entry>,
    id: SessionId,
) -> Result<&mut Entry, Error> {
    let entry = entries.get_mut(&id).filter(|entry| entry.deletions == 0);
    entry.ok_or_else(|| Error::SessionNotFound(id.to_string()))
}

impl Shared {
    pub(super) fn entries(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        self.entries.lock()
    }

    /// Returns all sessions as the list shows them, by id.
    pub(super) fn views(&self) -> Vec<Session> {
        let entries = self.entries();
        entries
            .iter()
            .map(|(id, entry)| entry.session(*id))
            .collect()
    }
}

//! Text of a session's files that its user has not saved: kept, read and dropped, whether the session is ready or not.

use std::sync::Arc;

use super::Sessions;
use crate::drafts::{Draft, Drafts};
use crate::error::Error;
use crate::session::SessionId;

impl Sessions {
    /// Keeps the unsaved text of a file in place of what was kept of it last. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::DraftNotKept`].
    pub async fn keep_draft(&self, id: SessionId, draft: Draft) -> Result<(), Error> {
        self.know(id).await?;
        let sessions = self.clone();
        self.on_drafts(move |drafts| {
            drafts.keep(id, &draft, |other| {
                sessions.shared.entries().contains_key(&other)
            })
        })
        .await?
    }

    /// Returns the texts of a session that were not saved, the oldest first.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn drafts(&self, id: SessionId) -> Result<Vec<Draft>, Error> {
        self.know(id).await?;
        self.on_drafts(move |drafts| drafts.of(id)).await
    }

    /// Drops the unsaved text of a file, if there is any.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::DraftNotKept`] when it cannot be removed.
    pub async fn drop_draft(&self, id: SessionId, path: String) -> Result<(), Error> {
        self.know(id).await?;
        self.on_drafts(move |drafts| drafts.drop_one(id, &path))
            .await?
    }

    /// Drops all drafts of a session that was deleted with its files.
    pub(super) async fn forget_drafts(&self, id: SessionId) {
        if let Err(error) = self.on_drafts(move |drafts| drafts.forget(id)).await {
            log::warn!("failed to remove the drafts of session {id}: {error}");
        }
    }

    async fn on_drafts<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Drafts) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let drafts = Arc::clone(&self.shared.drafts);
        let done = tokio::task::spawn_blocking(move || work(&drafts)).await;
        done.map_err(|error| Error::Internal(format!("failed to reach the drafts: {error}")))
    }
}

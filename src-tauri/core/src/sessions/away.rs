//! Sessions on engines that do not answer: remembered from one start of the app to the next, and forgotten when the
//! user says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::entry::{Activity, Entry, OnEngine};
use super::{Names, Sessions, Shared};
use crate::engines::Engines;
use crate::error::Error;
use crate::remembered::{MOST_REMEMBERED, RememberedSession};
use crate::session::{SessionId, SessionState};

/// Returns the sessions that are remembered on engines that are remembered too.
pub(super) fn remembered(
    engines: &Engines,
    sessions: &[RememberedSession],
    names: &Names,
) -> BTreeMap<SessionId, Entry> {
    let known = engines.all();
    let entry = |session: &RememberedSession| {
        let engine = known.iter().find(|known| *known.id() == session.engine)?;
        let (id, mut request, created) = session.session()?;
        if let Some(name) = names.get(&id) {
            request.project_name = Some(name.clone());
        }
        let mut entry = Entry::new(
            Some(Arc::clone(engine)),
            request,
            created,
            Activity::stopped(),
        );
        entry.on_engine.volume = true;
        entry.is_remembered = true;
        Some((id, entry))
    };
    let sessions = sessions.iter().take(MOST_REMEMBERED);
    sessions.filter_map(entry).collect()
}

impl Sessions {
    /// Forgets a session whose engine does not answer, and changes nothing on that engine: should it come back, the
    /// session is there again. Does nothing to one that is not away.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn forget(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
        let _turn = turn.lock().await;
        if self.with_entry(id, Entry::state)? != SessionState::Away {
            return Ok(());
        }
        self.close(id);
        self.shared.journal.forget(id).await;
        let engine = {
            let mut entries = self.shared.entries();
            let engine = entries.remove(&id).and_then(|entry| entry.engine);
            engine.filter(|engine| !entries.values().any(|entry| entry.is_on(engine)))
        };
        self.shared.deleted.fetch_add(1, Ordering::SeqCst);
        if let Some(engine) = engine {
            self.shared.engines.note_sessions(&engine, false);
        }
        self.shared.keep_sessions();
        Ok(())
    }
}

impl Shared {
    /// Keeps which sessions there are, if that has changed.
    pub(super) fn keep_sessions(&self) {
        if !self.engines.are_remembered() {
            return;
        }
        let now: Vec<_> = {
            let entries = self.entries();
            let remembered = |(id, entry): (&SessionId, &Entry)| {
                let engine = entry.engine.as_ref()?;
                let is_there = entry.on_engine != OnEngine::default();
                is_there.then(|| {
                    let engine = engine.id().clone();
                    RememberedSession::new(engine, *id, &entry.request, &entry.created)
                })
            };
            let sessions = entries.iter().filter_map(remembered);
            sessions.take(MOST_REMEMBERED).collect()
        };
        let mut last = self.remembered.lock();
        if *last != now {
            self.keep.sessions(&now);
            *last = now;
        }
    }
}

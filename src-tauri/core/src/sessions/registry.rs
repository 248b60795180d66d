//! What is known of the sessions: the entries behind their one lock, the order of everything that is told
//! of them, and the views that leave the crate.
//!
//! Whoever changes an entry need not say so: when the lock is given back, each session that looks another
//! than it was last told is told, with the next `seq`. There is one count for all sessions, so that it
//! rises across a deletion too, and so that a list says by its `seq` which sessions it cannot know.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Entry, Sessions, Shared};
use crate::engine::{ContainerFacts, Engine, EngineProblem, in_time};
use crate::engines::KnownEngine;
use crate::error::{EngineReason, Error};
use crate::event::{ChangedEvent, Reporter, SessionEvent};
use crate::provision::container_of;
use crate::session::{Listing, Seen, Session, SessionId, SessionStatus};

/// All sessions that are known, and what was last told of each.
pub(super) struct Registry {
    entries: BTreeMap<SessionId, Entry>,
    told: BTreeMap<SessionId, Session>,
    /// The place of the last event in the order of all.
    seq: u64,
}

/// The entries, while their lock is held. Changes are told when it is given back.
pub(super) struct Entries<'a> {
    registry: MutexGuard<'a, Registry>,
    reporter: &'a dyn Reporter,
    may_differ: bool,
}

impl Sessions {
    /// Returns the snapshot of a session. Asks the engine only about a session it has not heard of.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn status(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        self.with_entry(id, |entry| entry.status(id))
    }

    /// Returns all sessions, by workspace and age. What an engine cannot tell while it is away is
    /// left as it was.
    pub async fn list(&self) -> Vec<Session> {
        self.listing().await.sessions
    }

    /// Returns what [`Self::list`] does, and its place in the order of events.
    pub async fn listing(&self) -> Listing {
        if let Err(error) = self.shared.engines.for_new().await {
            log::warn!("the list may be out of date: {error}");
        }
        for engine in self.shared.engines.all() {
            // While an engine's events are followed, the list is current already.
            if !self.is_current(&engine) {
                self.look_again_at(&engine).await;
            }
        }
        let mut listing = self.shared.entries().listing();
        listing.sessions.sort_by(|a, b| {
            (&a.workspace_id, &a.created, a.session_id).cmp(&(
                &b.workspace_id,
                &b.created,
                b.session_id,
            ))
        });
        listing
    }

    /// Returns a session as it is known now, without asking the engine: what an answer to a command says.
    #[must_use]
    pub fn seen(&self, id: SessionId) -> Seen {
        let entries = self.shared.entries();
        let session = entries.get(&id).map(|entry| entry.session(id));
        Seen {
            seq: session
                .as_ref()
                .map_or(entries.registry.seq, |session| session.seq),
            session,
        }
    }

    /// Makes sure that a session is known, by asking the engine if it is not, and whether it is still there if it is
    /// only remembered.
    pub(super) async fn know(&self, id: SessionId) -> Result<(), Error> {
        let is_known = || self.shared.entries().contains_key(&id);
        let home = |entry: &Entry| entry.engine.clone().filter(|_| entry.is_remembered);
        if !is_known() {
            self.reconcile_all().await?;
        } else if let Some(engine) = self.with_entry(id, home)? {
            self.look_again_at(&engine).await;
        }
        if is_known() {
            Ok(())
        } else {
            Err(Error::SessionNotFound(id.to_string()))
        }
    }

    /// Returns the way to the engine that a session is on.
    ///
    /// # Errors
    /// [`Error::EngineAway`]; [`Error::SessionNotReady`] for one of which nothing is on any engine.
    pub(super) async fn engine_of(&self, id: SessionId) -> Result<Arc<dyn Engine>, Error> {
        match self.home_of(id).await? {
            Some(engine) => self.shared.engines.reach(&engine).await,
            None => Err(Error::SessionNotReady("on no engine yet")),
        }
    }

    /// Returns the container that a session's files can be read from, and the way to its engine. That it has none is taken
    /// note of: its end may not have been heard of.
    ///
    /// # Errors
    /// Those of [`Self::engine_of`]; [`Error::SessionNotReady`] when it has none.
    pub(super) async fn container_of(
        &self,
        id: SessionId,
    ) -> Result<(Arc<dyn Engine>, ContainerFacts), Error> {
        self.know(id).await?;
        let engine = self.engine_of(id).await?;
        let look = in_time(
            "look for the session's container",
            container_of(&*engine, id),
        );
        match look.await {
            Ok(container) => Ok((engine, container)),
            Err(error) => {
                if let (Error::SessionNotReady(_), Some(home)) = (&error, self.home_of(id).await?) {
                    self.look_again_at(&home).await;
                }
                Err(error)
            }
        }
    }

    /// Returns the engine that a session is on, or `None` when nothing of it is on any.
    ///
    /// # Errors
    /// [`Error::EngineUnavailable`] when it may be on an engine that does not answer and of which nothing more
    /// is known.
    pub(super) async fn home_of(&self, id: SessionId) -> Result<Option<Arc<KnownEngine>>, Error> {
        let own = || self.with_entry(id, |entry| entry.engine.clone());
        let left_something = self.with_entry(id, |entry| !entry.leftovers.is_empty())?;
        if let Some(engine) = own()? {
            return Ok(Some(engine));
        }
        if !left_something {
            return Ok(None);
        }
        // An older version has written down what to take back, and not where: whichever engine knows of the
        // session is the one.
        let views = self.shared.engines.survey().await;
        for engine in self.shared.engines.all() {
            self.look_again_at(&engine).await;
        }
        if let Some(engine) = own()? {
            return Ok(Some(engine));
        }
        let is_silent = |problem: &EngineProblem| problem.reason != EngineReason::NotInstalled;
        let silent = views.into_iter().find_map(|view| {
            let problem = view.problem.filter(is_silent)?;
            Some(Error::EngineUnavailable {
                reason: problem.reason,
                message: format!(
                    "what the session has left may be on {}: {}",
                    view.address, problem.message
                ),
            })
        });
        silent.map_or(Ok(None), Err)
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
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries {
            registry: self.registry.lock(),
            reporter: &*self.reporter,
            may_differ: false,
        }
    }
}

impl Registry {
    pub(super) const fn new(entries: BTreeMap<SessionId, Entry>) -> Self {
        Self {
            entries,
            told: BTreeMap::new(),
            seq: 0,
        }
    }
}

impl Entries<'_> {
    /// Tells what is not part of what a session is. The lock is held while the reporter hears it: a
    /// snapshot that says `seq` 7 includes what event 7 said.
    pub(super) fn tell(&mut self, id: SessionId, event: impl FnOnce(u64) -> SessionEvent) {
        let registry = &mut *self.registry;
        let Some(entry) = registry.entries.get_mut(&id) else {
            return;
        };
        registry.seq += 1;
        entry.seq = registry.seq;
        self.reporter.report(&event(entry.seq));
    }

    /// Tells an event that says what the session is now.
    pub(super) fn tell_session(
        &mut self,
        id: SessionId,
        event: impl FnOnce(Session) -> SessionEvent,
    ) {
        let registry = &mut *self.registry;
        let Some(entry) = registry.entries.get_mut(&id) else {
            return;
        };
        registry.seq += 1;
        entry.seq = registry.seq;
        let session = entry.session(id);
        registry.told.insert(id, session.clone());
        self.reporter.report(&event(session));
    }

    fn listing(&self) -> Listing {
        let entries = self.registry.entries.iter();
        Listing {
            seq: self.registry.seq,
            sessions: entries.map(|(id, entry)| entry.session(*id)).collect(),
        }
    }

    /// Tells each session that is another than was told of it, and each that is gone.
    fn tell_differences(&mut self) {
        let Registry { entries, told, seq } = &mut *self.registry;
        for (id, entry) in entries.iter_mut() {
            let mut session = entry.session(*id);
            let before = told.get(id);
            if before.is_some_and(|before| {
                session.seq = before.seq;
                session == *before
            }) {
                continue;
            }
            *seq += 1;
            entry.seq = *seq;
            session.seq = *seq;
            told.insert(*id, session.clone());
            self.reporter
                .report(&SessionEvent::Changed(Box::new(ChangedEvent {
                    session_id: *id,
                    seq: *seq,
                    session: Some(session),
                })));
        }
        told.retain(|id, _| {
            let is_there = entries.contains_key(id);
            if !is_there {
                *seq += 1;
                self.reporter
                    .report(&SessionEvent::Changed(Box::new(ChangedEvent {
                        session_id: *id,
                        seq: *seq,
                        session: None,
                    })));
            }
            is_there
        });
    }
}

impl Deref for Entries<'_> {
    type Target = BTreeMap<SessionId, Entry>;

    fn deref(&self) -> &Self::Target {
        &self.registry.entries
    }
}

impl DerefMut for Entries<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.may_differ = true;
        &mut self.registry.entries
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        if self.may_differ {
            self.tell_differences();
        }
    }
}

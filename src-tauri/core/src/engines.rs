//! Which engines there are, which one is meant, and whether it answers. Everything that lasts (a session, a
//! run, a record of the journal) holds the engine that it is on; nothing else picks one.
//!
//! **What makes two engines the same.** An engine is its store of containers and volumes, not the way to it. Docker says
//! an id of its own, which stays through restarts, updates and another address; before version 23 all engines of one machine
//! say the same, so that the place of the data belongs to the id. So a context and a socket that lead to one daemon are
//! one engine, one that is reached again elsewhere is the same, and one that was put in its place behind the
//! same socket is another. Podman says a different id at every question, and a proxy may forbid the question: there the
//! address, with links followed, has to do, and a machine that is replaced behind it is not noticed. A mark of our own on
//! the engine would tell them apart, but nothing may be written on an engine that nobody has chosen. Clones of a
//! virtual machine that say the same id count as one engine.
//!
//! **What is chosen.** New sessions are made on one engine: the first that answered when none was ever chosen, or the
//! one that the user has chosen since. It is remembered, with the others that have sessions. While it does not answer it is away, and no other is taken in its
//! place. `DOCKER_HOST` is an explicit wish for this start of the app, and is not remembered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::{
    Connected, Engine, EngineId, EngineIdentity, EngineProblem, EngineView, Found, Places,
    RememberedEngines,
};
use crate::error::{EngineReason, Error};

/// Engines that are remembered; nobody has as many.
const MOST_REMEMBERED: usize = 64;

/// The engines that are known, and the one that new sessions are made on.
pub(crate) struct Engines {
    places: Box<dyn Places>,
    state: Mutex<State>,
    /// Hears what is to be remembered.
    keep: Box<dyn Fn(&RememberedEngines) + Send + Sync>,
}

#[derive(Default)]
struct State {
    chosen: Option<Arc<KnownEngine>>,
    known: BTreeMap<EngineId, Arc<KnownEngine>>,
}

/// One engine, whether or not it answers now.
pub(crate) struct KnownEngine {
    id: EngineId,
    state: Mutex<Reached>,
}

struct Reached {
    identity: EngineIdentity,
    /// The last connection to it.
    connection: Option<Arc<dyn Engine>>,
    /// Whether it was looked for and did not answer.
    is_away: bool,
    /// Whether it had sessions when it was last seen.
    has_sessions: bool,
}

impl fmt::Debug for KnownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownEngine").field(&self.id).finish()
    }
}

impl KnownEngine {
    fn new(identity: EngineIdentity) -> Self {
        Self {
            id: identity.id.clone(),
            state: Mutex::new(Reached {
                identity,
                connection: None,
                is_away: false,
                has_sessions: false,
            }),
        }
    }

    pub(crate) const fn id(&self) -> &EngineId {
        &self.id
    }

    /// Returns what is remembered of it.
    pub(crate) fn identity(&self) -> EngineIdentity {
        self.state.lock().identity.clone()
    }

    /// Returns whether it was looked for last and did not answer.
    pub(crate) fn is_away(&self) -> bool {
        self.state.lock().is_away
    }

    /// Notes that it does not answer; returns whether that is news.
    pub(crate) fn set_away(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_away, true)
    }

    fn take(&self, engine: Arc<dyn Engine>) {
        let mut state = self.state.lock();
        state.identity = engine.identity().clone();
        state.connection = Some(engine);
        state.is_away = false;
    }

    /// Returns the connection to it, unless it did not answer last.
    pub(crate) fn connection(&self) -> Option<Arc<dyn Engine>> {
        let state = self.state.lock();
        state.connection.clone().filter(|_| !state.is_away)
    }

    fn away(&self, EngineProblem { reason, message }: EngineProblem) -> Error {
        let EngineIdentity { name, address, .. } = self.identity();
        Error::EngineAway {
            name,
            address,
            reason,
            message,
        }
    }
}

impl Engines {
    /// Returns the engines that may be found at these places, with what is remembered from earlier.
    pub(crate) fn new(
        places: Box<dyn Places>,
        remembered: RememberedEngines,
        keep: Box<dyn Fn(&RememberedEngines) + Send + Sync>,
    ) -> Self {
        let engines = Self {
            places,
            state: Mutex::default(),
            keep,
        };
        if !engines.are_remembered() {
            return engines;
        }
        for identity in remembered.known.into_iter().take(MOST_REMEMBERED) {
            let is_chosen = remembered.chosen.as_ref() == Some(&identity.id);
            let known = engines.remember(identity);
            known.state.lock().has_sessions = true;
            if is_chosen {
                engines.state.lock().chosen = Some(known);
            }
        }
        engines
    }

    /// Returns whether what is known of engines and of their sessions is for the next start too.
    pub(crate) fn are_remembered(&self) -> bool {
        !self.places.is_named()
    }

    /// Returns the engine of this identity. It need not have answered yet.
    pub(crate) fn remember(&self, identity: EngineIdentity) -> Arc<KnownEngine> {
        let mut state = self.state.lock();
        let known = state.known.entry(identity.id.clone());
        let known = known.or_insert_with(|| Arc::new(KnownEngine::new(identity)));
        Arc::clone(known)
    }

    /// Returns every engine that is known.
    pub(crate) fn all(&self) -> Vec<Arc<KnownEngine>> {
        self.state.lock().known.values().cloned().collect()
    }

    /// Returns the engine that new sessions are made on, if one was chosen.
    pub(crate) fn chosen(&self) -> Option<Arc<KnownEngine>> {
        self.state.lock().chosen.clone()
    }

    /// Returns the engine that new sessions are made on: the first that answers, when none was chosen.
    ///
    /// # Errors
    /// [`Error::EngineUnavailable`] when none was chosen and none answers.
    pub(crate) async fn for_new(&self) -> Result<Arc<KnownEngine>, Error> {
        if let Some(chosen) = self.chosen() {
            return Ok(chosen);
        }
        let first = self.take(self.places.first().await?);
        let mut state = self.state.lock();
        let is_news = state.chosen.is_none();
        let chosen = Arc::clone(state.chosen.get_or_insert(first));
        drop(state);
        if is_news {
            self.keep();
        }
        Ok(chosen)
    }

    /// Makes new sessions on this engine from now on.
    ///
    /// # Errors
    /// [`Error::Validation`] for one that is not known.
    pub(crate) fn choose(&self, id: &EngineId) -> Result<Arc<KnownEngine>, Error> {
        let mut state = self.state.lock();
        let known = state.known.get(id).cloned();
        let known = known.ok_or_else(|| {
            Error::field("engine_id", "is not one of the engines that were found")
        })?;
        state.chosen = Some(Arc::clone(&known));
        drop(state);
        self.keep();
        Ok(known)
    }

    /// Takes note whether an engine has sessions: one that has is looked for after the next start too.
    pub(crate) fn note_sessions(&self, known: &KnownEngine, has_sessions: bool) {
        let before = std::mem::replace(&mut known.state.lock().has_sessions, has_sessions);
        if before != has_sessions {
            self.keep();
        }
    }

    fn keep(&self) {
        if !self.are_remembered() {
            return;
        }
        let chosen = self.chosen().map(|chosen| chosen.id().clone());
        let all = self.all().into_iter();
        let known = all.filter_map(|known| {
            let is_chosen = chosen.as_ref() == Some(known.id());
            let has_sessions = known.state.lock().has_sessions;
            (is_chosen || has_sessions).then(|| known.identity())
        });
        let known = known.collect();
        (self.keep)(&RememberedEngines { chosen, known });
    }

    /// Returns the connection to an engine, looking for it if it did not answer last.
    ///
    /// # Errors
    /// [`Error::EngineAway`].
    pub(crate) async fn reach(&self, known: &KnownEngine) -> Result<Arc<dyn Engine>, Error> {
        match known.connection() {
            Some(engine) => Ok(engine),
            None => self.connect(known).await,
        }
    }

    /// Connects to an engine anew, wherever it listens now.
    ///
    /// # Errors
    /// [`Error::EngineAway`].
    pub(crate) async fn connect(&self, known: &KnownEngine) -> Result<Arc<dyn Engine>, Error> {
        match self.places.find(&known.identity()).await {
            Ok(Connected { engine, .. }) => {
                known.take(Arc::clone(&engine));
                Ok(engine)
            }
            Err(problem) => Err(known.away(problem)),
        }
    }

    /// Looks at every place where an engine may be, and says what is there: each engine once.
    pub(crate) async fn survey(&self) -> Vec<EngineView> {
        let found = self.places.survey().await;
        let mut views: Vec<EngineView> = Vec::new();
        for Found {
            address,
            source,
            outcome,
        } in found
        {
            match outcome {
                Ok(connected) => {
                    let version = connected.facts.version.clone();
                    let known = self.take(connected);
                    let same = |view: &&mut EngineView| view.engine_id.as_ref() == Some(known.id());
                    if let Some(view) = views.iter_mut().find(same) {
                        view.source = format!("{}, {source}", view.source);
                        continue;
                    }
                    views.push(EngineView {
                        engine_id: Some(known.id().clone()),
                        name: known.identity().name,
                        address,
                        source,
                        version,
                        selected: false,
                        problem: None,
                    });
                }
                Err(problem) => views.push(EngineView {
                    engine_id: None,
                    name: source.clone(),
                    address,
                    source,
                    version: None,
                    selected: false,
                    problem: Some(problem),
                }),
            }
        }
        self.add_silent(&mut views);
        let chosen = self.chosen();
        let first = || views.iter().find(|view| view.problem.is_none());
        let selected = match &chosen {
            Some(chosen) => Some(chosen.id().clone()),
            None => first().and_then(|view| view.engine_id.clone()),
        };
        for view in &mut views {
            view.selected = selected.is_some() && view.engine_id == selected;
        }
        views
    }

    /// Adds the engines that are known and did not answer.
    fn add_silent(&self, views: &mut Vec<EngineView>) {
        for known in self.all() {
            if views
                .iter()
                .any(|view| view.engine_id.as_ref() == Some(known.id()))
            {
                continue;
            }
            let EngineIdentity { id, name, address } = known.identity();
            let silent = |view: &&mut EngineView| {
                view.address == address && view.engine_id.is_none() && view.problem.is_some()
            };
            if let Some(view) = views.iter_mut().find(silent) {
                view.engine_id = Some(id);
                view.name = name;
                continue;
            }
            views.push(EngineView {
                engine_id: Some(id),
                name,
                address,
                source: "used before".to_owned(),
                version: None,
                selected: false,
                problem: Some(EngineProblem {
                    reason: EngineReason::NotRunning,
                    message: "it does not answer there any more".to_owned(),
                }),
            });
        }
    }

    fn take(&self, Connected { engine, .. }: Connected) -> Arc<KnownEngine> {
        let known = self.remember(engine.identity().clone());
        known.take(engine);
        known
    }
}

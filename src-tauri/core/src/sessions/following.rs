//! Following the engines: their labels say which sessions there are, their events say when to look again, and
//! an engine that went away is waited for. Sessions that stopped because it went are opened again. Events that
//! break off, and an engine that does not answer, end no session: only a container that has stopped does. What one
//! engine says or suffers concerns the sessions on it and no others.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::entry::{Activity, Entry, OnEngine, OpenSession, Reach};
use super::{Sessions, Shared};
use crate::engine::{Change, ContainerState, Engine, Owned, in_time};
use crate::engines::KnownEngine;
use crate::error::Error;
use crate::journal::Record;
use crate::labels;
use crate::provision::{IfAbsent, name_aside, remove_unused, take_back};
use crate::session::{CreateSession, SessionId};

/// How long after a change the engine is asked, so that a burst of changes is one question.
const GATHER: Duration = Duration::from_millis(50);
/// How often an engine that is away is looked for, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// How often undos that failed are tried again while the engine answers.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// When what a run has left is looked for again after its end, each time after the one before.
const LOOKS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// An engine that takes longer than this to accept a connection was away.
const SLOW_CONNECT: Duration = Duration::from_secs(1);
/// An engine that shuts down ends containers before it ends itself: connections that were lost this
/// shortly before it went were lost because of it.
const LAST_MOMENTS: Duration = Duration::from_secs(15);

/// What the engine says of one session.
struct Found {
    request: CreateSession,
    created: String,
    on_engine: OnEngine,
    /// The id of its container.
    container: Option<String>,
}

/// What became of the entries of an engine that has said what it has.
#[derive(Debug, Default)]
struct TakenOver {
    /// Those of which nobody knew before on which engine they are.
    settled: Vec<SessionId>,
    /// Those that somebody has removed.
    gone: Vec<SessionId>,
}

/// What an engine has told in a burst.
#[derive(Debug, Default)]
struct Gathered {
    objects_changed: bool,
    /// The ids of the containers of which programs were ended for want of memory.
    out_of_memory: BTreeSet<String>,
}

impl Gathered {
    fn take(&mut self, change: Change) {
        match change {
            Change::Objects => self.objects_changed = true,
            Change::OutOfMemory { container } => {
                self.out_of_memory.insert(container);
            }
        }
    }
}

impl Sessions {
    /// Keeps the list current until the app shuts down: by the events of the engine that new sessions are made on, and
    /// of every other that has sessions. Must be called within a Tokio runtime, once.
    pub fn follow_engines(&self) {
        self.shared.following.store(true, Ordering::SeqCst);
        let sessions = self.clone();
        let closing = self.shared.closing.clone();
        self.shared.tracker.spawn(async move {
            closing.run_until_cancelled(sessions.find_engines()).await;
        });
    }

    /// Follows what is known from earlier, waits until there is an engine at all, and looks for those that have
    /// sessions from earlier.
    async fn find_engines(&self) {
        for engine in self.shared.engines.all() {
            self.follow(engine);
        }
        let (mut pause, mut is_first) = (RECONNECT.0, true);
        let chosen = loop {
            let error = match self.shared.engines.for_new().await {
                Ok(chosen) => break chosen,
                Err(error) => error,
            };
            if is_first {
                log::warn!("there is no engine: {error}");
                self.tell_engines().await;
            }
            is_first = false;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
        };
        self.follow(chosen);
        self.tell_engines().await;
    }

    /// Follows this engine from now on, if engines are to be followed.
    pub(super) fn follow(&self, engine: Arc<KnownEngine>) {
        if !self.shared.following.load(Ordering::SeqCst) {
            return;
        }
        match self.shared.followed.lock().entry(engine.id().clone()) {
            btree_map::Entry::Occupied(_) => return,
            btree_map::Entry::Vacant(place) => {
                place.insert(false);
            }
        }
        let sessions = self.clone();
        let closing = self.shared.closing.clone();
        self.shared.tracker.spawn(async move {
            closing
                .run_until_cancelled(sessions.follow_one(&engine))
                .await;
        });
    }

    /// Follows the engines that were found, are not followed yet, and have sessions.
    pub(super) async fn follow_those_with_sessions(&self) {
        if !self.shared.following.load(Ordering::SeqCst) {
            return;
        }
        for known in self.shared.engines.all() {
            if self.shared.followed.lock().contains_key(known.id()) {
                continue;
            }
            let Some(engine) = known.connection() else {
                continue;
            };
            match in_time("look for sessions", engine.owned(None)).await {
                Ok(owned) if found(&owned).is_empty() => {}
                Ok(_) => self.follow(known),
                Err(error) => log::warn!("engine {} was not looked at: {error}", known.id()),
            }
        }
    }

    async fn follow_one(&self, known: &Arc<KnownEngine>) {
        let (mut pause, mut is_away) = (RECONNECT.0, false);
        loop {
            let followed = self.follow_once(known, &mut pause, &mut is_away).await;
            let error = match followed {
                Ok(()) => "its events ended".to_owned(),
                Err(error) => error.to_string(),
            };
            // Events alone may break. Sessions and their connections have nothing to do with that.
            if self.shared.set_current(known, false) {
                log::warn!("engine {} is not heard any more: {error}", known.id());
            } else if known.set_away() || !is_away {
                log::warn!("engine {} is away: {error}", known.id());
                self.left(known, &mut is_away);
                self.tell_engines().await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    /// Follows one connection to its end.
    async fn follow_once(
        &self,
        known: &Arc<KnownEngine>,
        pause: &mut Duration,
        is_away: &mut bool,
    ) -> Result<(), Error> {
        let begin = Instant::now();
        let engine = self.shared.engines.connect(known).await?;
        // A socket that somebody else holds open for the engine lets those wait who come too early.
        if begin.elapsed() > SLOW_CONNECT && !*is_away {
            self.left(known, is_away);
        }
        // Changes are heard before the first look: what happens in between is not missed.
        let mut changes = engine.changes().await?;
        self.reconcile(known, &*engine).await?;
        *pause = RECONNECT.0;
        self.shared.set_current(known, true);
        self.tell_engines().await;
        let was_away = mem::take(is_away);
        if was_away {
            self.reopen_lost(known);
        }
        let back = Instant::now();
        self.clean_up(known).await;
        let mut again = tokio::time::interval_at(Instant::now() + TRY_AGAIN, TRY_AGAIN);
        loop {
            let mut heard = Gathered::default();
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => heard.take(change?),
                    None => return Ok(()),
                },
                _ = again.tick() => {
                    self.clean_up(known).await;
                    continue;
                }
            }
            let gathered_by = Instant::now() + GATHER;
            while let Ok(change) = tokio::time::timeout_at(gathered_by, changes.next()).await {
                match change {
                    Some(change) => heard.take(change?),
                    None => return Ok(()),
                }
            }
            // Before the session is closed whose first process it was.
            let out_of_memory = &heard.out_of_memory;
            self.note_out_of_memory(known, &*engine, out_of_memory)
                .await;
            if heard.objects_changed {
                self.reconcile(known, &*engine).await?;
            }
            // Some engines show only after their return what had ended with them.
            if was_away && back.elapsed() < LAST_MOMENTS {
                self.reopen_lost(known);
            }
        }
    }

    async fn tell_engines(&self) {
        let engines = self.engines().await;
        self.shared.reporter.engines_changed(&engines);
    }

    /// Takes over what every engine knows of sessions.
    ///
    /// # Errors
    /// What the first engine answered that could not be asked.
    pub(super) async fn reconcile_all(&self) -> Result<(), Error> {
        self.shared.engines.for_new().await?;
        // It may be on an engine that was not there when it was last looked for.
        self.shared.engines.survey().await;
        let mut outcome = Ok(());
        for known in self.shared.engines.all() {
            let looked = match self.shared.engines.reach(&known).await {
                Ok(engine) => self.reconcile(&known, &*engine).await,
                Err(error) => Err(error),
            };
            outcome = outcome.and(looked);
        }
        outcome
    }

    /// Takes over what an engine knows of its sessions, and says so when that is news.
    pub(super) async fn reconcile(
        &self,
        known: &Arc<KnownEngine>,
        engine: &dyn Engine,
    ) -> Result<(), Error> {
        let (TakenOver { settled, gone }, has_sessions) = loop {
            let deleted = self.shared.deleted.load(Ordering::SeqCst);
            // What becomes ready while the engine answers is newer than the answer.
            let ready = self.shared.connected(known);
            let at_rest = self.shared.at_rest();
            let owned = in_time("look for sessions", engine.owned(None)).await?;
            let found = found(&owned);
            if self.shared.misses_one(known, &found) {
                // Nothing is forgotten on the word of an engine that was put in the place of this one.
                in_time("look for sessions", engine.facts()).await?;
            }
            let mut entries = self.shared.entries();
            // What was deleted meanwhile may be in the answer still: the engine is asked again.
            if self.shared.deleted.load(Ordering::SeqCst) == deleted {
                let taken_over = self.shared.take_over(&mut entries, known, &found, &at_rest);
                stop_lost(&mut entries, &found, ready);
                break (taken_over, !found.is_empty());
            }
        };
        self.shared.engines.note_sessions(known, has_sessions);
        self.shared.keep_sessions();
        for id in settled {
            self.write_down_engine(id).await;
        }
        // Whoever has removed a session leaves its network, of which they know nothing.
        for id in gone {
            let removed = remove_unused(engine, id, None);
            if let Err(error) = in_time("remove the network of a session", removed).await {
                log::warn!("the network of session {id} may be there still: {error}");
            }
        }
        Ok(())
    }

    /// Writes down on which engine the session was found whose record did not say.
    async fn write_down_engine(&self, id: SessionId) {
        let Ok(turn) = self.with_entry(id, |entry| Arc::clone(&entry.turn)) else {
            return;
        };
        // Whatever has the turn writes a record of its own.
        let Ok(_turn) = turn.try_lock() else { return };
        if let Ok(record) = self.with_entry(id, |entry| entry.record(id)) {
            self.shared.journal.write(id, record).await;
        }
    }

    /// Looks at an engine, whose events may come later or not at all. The list is left as it was when the
    /// engine does not answer.
    pub(super) async fn look_again_at(&self, known: &Arc<KnownEngine>) {
        let looked = match self.shared.engines.reach(known).await {
            Ok(engine) => self.reconcile(known, &*engine).await,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            log::warn!("the list may be out of date: {error}");
        }
    }

    /// Returns whether the list need not be refreshed: it is kept current by the engine's events, or the engine is
    /// known to be away and looked for.
    pub(super) fn is_current(&self, known: &KnownEngine) -> bool {
        match self.shared.followed.lock().get(known.id()) {
            Some(is_current) => *is_current || known.is_away(),
            None => false,
        }
    }

    /// Notes that an engine went away: what was lost long before was not lost because of it.
    fn left(&self, engine: &KnownEngine, is_away: &mut bool) {
        *is_away = true;
        let mut entries = self.shared.entries();
        for entry in entries.values_mut().filter(|entry| entry.is_on(engine)) {
            if let Activity::Stopped { lost } = &mut entry.activity {
                *lost = lost.filter(|lost| lost.elapsed() < LAST_MOMENTS);
            }
        }
    }

    /// Opens the sessions again that were lost with their engine.
    fn reopen_lost(&self, engine: &KnownEngine) {
        let mut entries = self.shared.entries();
        for (id, entry) in entries.iter_mut().filter(|(_, entry)| entry.is_on(engine)) {
            let Activity::Stopped { lost } = &mut entry.activity else {
                continue;
            };
            let may_open = entry.deletions == 0
                && match entry.on_engine.container {
                    Some(ContainerState::Paused) | None => false,
                    Some(
                        ContainerState::Created
                        | ContainerState::Running
                        | ContainerState::Exited
                        | ContainerState::Unusable,
                    ) => true,
                };
            if lost.take().is_some() && may_open {
                self.start_run(*id, entry, false);
            }
        }
    }

    /// Tries again to take back what runs on this engine that have ended could not.
    async fn clean_up(&self, engine: &Arc<KnownEngine>) {
        let untidy: Vec<_> = {
            let entries = self.shared.entries();
            let untidy = |entry: &Entry| {
                entry.is_on(engine)
                    && !entry.leftovers.is_empty()
                    && !matches!(entry.activity, Activity::Interrupted)
            };
            let untidy = entries.iter().filter(|(_, entry)| untidy(entry));
            untidy.map(|(id, _)| *id).collect()
        };
        let is_tidy = untidy.is_empty();
        for id in untidy {
            self.take_back_leftovers(id, IfAbsent::Done).await;
        }
        if !is_tidy {
            self.look_again_at(engine).await;
        }
    }

    /// Tries a few times to take back what a run has left. An engine that was cut off in the middle of a
    /// call may still make what nobody finds now.
    pub(super) fn look_after_leftovers(&self, id: SessionId) {
        let has_some = |entry: &Entry| !entry.leftovers.is_empty();
        if !self.with_entry(id, has_some).unwrap_or(false) {
            return;
        }
        let (sessions, closing) = (self.clone(), self.shared.closing.clone());
        self.shared.tracker.spawn(async move {
            let looks = async {
                for (index, pause) in LOOKS.iter().enumerate() {
                    tokio::time::sleep(*pause).await;
                    let if_absent = if index + 1 == LOOKS.len() {
                        IfAbsent::Done
                    } else {
                        IfAbsent::MayAppear
                    };
                    sessions.take_back_leftovers(id, if_absent).await;
                }
            };
            closing.run_until_cancelled(looks).await;
        });
    }

    async fn take_back_leftovers(&self, id: SessionId, if_absent: IfAbsent) {
        let Ok(turn) = self.with_entry(id, |entry| Arc::clone(&entry.turn)) else {
            return;
        };
        // Whatever has the turn takes them over.
        let Ok(_turn) = turn.try_lock() else { return };
        let Ok(Some(record)) = self.with_entry(id, |entry| entry.leftover_record(id)) else {
            return;
        };
        // What cannot be taken back is told with the list.
        let _ = self.take_back(id, record, if_absent).await;
    }

    /// Takes back what a record holds, and notes what came of it. Whoever calls has the session's turn.
    ///
    /// # Errors
    /// What the engine answered first; what is left is tried again by itself.
    pub(super) async fn take_back(
        &self,
        id: SessionId,
        record: Record,
        if_absent: IfAbsent,
    ) -> Result<(), Error> {
        let (engine, journal) = (self.engine_of(id).await?, &self.shared.journal);
        let mut attempted = take_back(&*engine, journal, id, record, if_absent).await;
        let failure = attempted.failure.take();
        self.note_undo_attempt(id, attempted);
        failure.map_or(Ok(()), Err)
    }
}

impl Shared {
    /// Returns the connections to sessions on this engine.
    fn connected(&self, engine: &KnownEngine) -> Vec<(SessionId, Arc<OpenSession>)> {
        let entries = self.entries();
        let connected = |entry: &Entry| entry.activity.connected().cloned();
        entries
            .iter()
            .filter(|(_, entry)| entry.is_on(engine))
            .filter_map(|(id, entry)| Some((*id, connected(entry)?)))
            .collect()
    }

    /// Returns whether the engine does not know of a session that is on it.
    fn misses_one(&self, engine: &KnownEngine, found: &BTreeMap<SessionId, Found>) -> bool {
        let entries = self.entries();
        let missed =
            |(id, entry): (&SessionId, &Entry)| entry.is_on(engine) && !found.contains_key(id);
        entries.iter().any(missed)
    }

    /// Returns the sessions of which no run is under way.
    fn at_rest(&self) -> BTreeSet<SessionId> {
        let entries = self.entries();
        let at_rest = entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.activity, Activity::Provisioning { .. }));
        at_rest.map(|(id, _)| *id).collect()
    }

    /// Makes the entries of an engine say what it has; `at_rest` were so before it was asked. What is on another engine is
    /// left alone.
    fn take_over(
        &self,
        entries: &mut BTreeMap<SessionId, Entry>,
        engine: &Arc<KnownEngine>,
        found: &BTreeMap<SessionId, Found>,
        at_rest: &BTreeSet<SessionId>,
    ) -> TakenOver {
        let names = self.names();
        let mut taken_over = TakenOver::default();
        // A session that was on the engine once and is no longer has been removed from outside. One that
        // is in the journal has not, even when it had not come as far as the engine.
        entries.retain(|id, entry| {
            let is_gone = entry.is_on(engine)
                && !found.contains_key(id)
                && entry.leftovers.is_empty()
                // One that was made since the engine was asked is not in its answer yet.
                && at_rest.contains(id)
                && match entry.activity {
                    Activity::Stopped { .. } | Activity::Ready { .. } => true,
                    Activity::Interrupted => entry.on_engine != OnEngine::default(),
                    Activity::Provisioning { .. }
                    | Activity::Failed { .. }
                    | Activity::Cancelled { .. } => false,
                };
            if is_gone {
                taken_over.gone.push(*id);
            }
            !is_gone
        });
        for (id, entry) in entries.iter_mut() {
            if entry.is_on(engine) && !found.contains_key(id) {
                entry.on_engine = OnEngine::default();
            }
        }
        for (id, found) in found {
            let is_news = entries.get(id).is_none_or(|entry| entry.is_remembered);
            let entry = entries.entry(*id).or_insert_with(|| {
                Entry::new(
                    Some(Arc::clone(engine)),
                    found.request.clone(),
                    found.created.clone(),
                    Activity::stopped(),
                )
            });
            if is_news {
                entry.is_remembered = false;
                // One that never started was being made by a process whose journal is lost.
                if found.on_engine.container == Some(ContainerState::Created) {
                    entry.activity = Activity::Interrupted;
                }
                entry.timing = self.history().report(&id.to_string()).cloned();
            }
            match &entry.engine {
                None => {
                    entry.engine = Some(Arc::clone(engine));
                    taken_over.settled.push(*id);
                }
                Some(own) if own.id() == engine.id() => {}
                Some(own) if has_taken_the_place(engine, own, entry) => {
                    log::warn!(
                        "session {id} is on {} now, no longer on {}",
                        engine.id(),
                        own.id()
                    );
                    entry.engine = Some(Arc::clone(engine));
                    taken_over.settled.push(*id);
                }
                Some(own) => {
                    log::warn!("session {id} of {} is on {} too", own.id(), engine.id());
                    continue;
                }
            }
            entry.on_engine = found.on_engine.clone();
            if let Activity::Stopped { .. } = entry.activity {
                entry.request = found.request.clone();
            }
            if let Some(name) = names.get(id) {
                entry.request.project_name = Some(name.clone());
            }
        }
        taken_over
    }

    /// Notes whether the list is kept current by the engine's events; returns whether it was.
    fn set_current(&self, engine: &KnownEngine, is_current: bool) -> bool {
        let mut followed = self.followed.lock();
        followed.insert(engine.id().clone(), is_current) == Some(true)
    }
}

/// Returns whether a session that was on one engine is on another because that is the same store by another id, after
/// its data were moved for instance: the other listens where the first does no more, and has the session.
fn has_taken_the_place(engine: &KnownEngine, own: &KnownEngine, entry: &Entry) -> bool {
    own.is_away()
        && own.identity().address == engine.identity().address
        && !matches!(entry.activity, Activity::Provisioning { .. })
}

/// Notes which of these sessions have no running container any more, and which are held up.
fn stop_lost(
    entries: &mut BTreeMap<SessionId, Entry>,
    found: &BTreeMap<SessionId, Found>,
    ready: Vec<(SessionId, Arc<OpenSession>)>,
) {
    for (id, open) in ready {
        let found = found.get(&id);
        let same = found.filter(|found| found.container.as_ref() == Some(&open.container));
        let container = same.and_then(|found| found.on_engine.container);
        let Some(entry) = entries.get_mut(&id) else {
            open.close();
            continue;
        };
        let current = entry.activity.connected();
        if !current.is_some_and(|current| Arc::ptr_eq(current, &open)) {
            continue;
        }
        match container {
            Some(ContainerState::Running) if open.is_paused() => open.go_on(),
            Some(ContainerState::Running) => {}
            Some(ContainerState::Paused) => open.set_reach(Reach::Paused),
            Some(ContainerState::Created | ContainerState::Exited | ContainerState::Unusable)
            | None => {
                open.close();
                // One that was held up was not in use.
                let lost = (!open.is_paused()).then(Instant::now);
                entry.activity = Activity::Stopped { lost };
            }
        }
    }
}

/// Sorts what the engine has by session. What a container says of its session is newer than what the
/// volume says.
fn found(owned: &Owned) -> BTreeMap<SessionId, Found> {
    let mut sessions = BTreeMap::new();
    let mut with_container = BTreeSet::new();
    for (name, labels) in &owned.volumes {
        let Some((id, request, created)) = labels::read(labels) else {
            continue;
        };
        // The volume of that name is the session's; another with its label is a copy that somebody made.
        if *name != id.resource_name() {
            continue;
        }
        let on_engine = OnEngine {
            volume: true,
            ..OnEngine::default()
        };
        sessions.insert(
            id,
            Found {
                request,
                created,
                on_engine,
                container: None,
            },
        );
    }
    for container in &owned.containers {
        let Some((id, request, created)) = labels::read(&container.labels) else {
            continue;
        };
        let found = sessions.entry(id).or_insert_with(|| Found {
            request: request.clone(),
            created: created.clone(),
            on_engine: OnEngine::default(),
            container: None,
        });
        if container.name == name_aside(id) {
            found.on_engine.replaced = true;
        } else if with_container.insert(id) {
            found.on_engine.container = Some(container.state);
            found.container = Some(container.id.clone());
            (found.request, found.created) = (request, created);
        }
    }
    sessions
}

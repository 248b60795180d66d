//! The sessions of this app: what each one is, and what may be done with it when.
//!
//! The engine's labels are the truth about what exists; this registry adds what only a running
//! process can know: runs under way, connections to agents, terminals, and how the last run ended.
//! How a session comes to be is `provision.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::assets::Assets;
use crate::engine::{ContainerState, Engine, EngineView, ImageView, Labels};
use crate::error::{Error, ErrorReport};
use crate::estimate::{History, Lesson, RunKind};
use crate::event::{
    CancelledEvent, FailedEvent, ProgressEvent, ReadyEvent, Reporter, SessionEvent,
};
use crate::files::{self, DirContent, Encoding, FileContent};
use crate::labels;
use crate::progress::{Phase, Progress, Undone};
use crate::provision::{Monitor, Outcome, Pulls, Run};
use crate::session::{CreateSession, Session, SessionId, SessionState, SessionStatus};
use crate::settings::Settings;
use crate::terminal::{Sink, Size, Terminal};
use crate::timing::{RunOutcome, TimingReport};

/// How long a shutdown waits for what is under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Keeps what runs have taught, across restarts. Called at the end of a run; must not block.
pub type KeepHistory = Box<dyn Fn(&History) + Send + Sync>;

/// All sessions. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    assets: Arc<Assets>,
    reporter: Box<dyn Reporter>,
    keep_history: KeepHistory,
    tracker: TaskTracker,
    pulls: Arc<Pulls>,
    entries: Mutex<BTreeMap<SessionId, Entry>>,
    settings: Mutex<Settings>,
    history: Mutex<History>,
}

struct Entry {
    request: CreateSession,
    created: String,
    /// The `seq` of the last event.
    seq: u64,
    activity: Activity,
    /// Where the time of the last run went.
    timing: Option<TimingReport>,
    /// Held by whatever changes the session on the engine, so that this is one thing at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What a session is doing.
enum Activity {
    Provisioning {
        monitor: Arc<Monitor>,
        cancel: CancellationToken,
        ended: CancellationToken,
    },
    Ready {
        open: Arc<OpenSession>,
        progress: Progress,
    },
    Stopped,
    Interrupted,
    Failed {
        phase: Phase,
        progress: Progress,
        error: ErrorReport,
        undone: Vec<Undone>,
    },
    Cancelled {
        phase: Phase,
        progress: Progress,
        undone: Vec<Undone>,
    },
}

/// A ready session: the way to its files and terminals.
struct OpenSession {
    agent: Agent,
    user: String,
    terminals: Mutex<BTreeMap<String, Arc<Terminal>>>,
}

impl Sessions {
    /// Returns a registry that knows of no session yet.
    #[must_use]
    pub fn new(
        engine: Arc<dyn Engine>,
        assets: Assets,
        reporter: Box<dyn Reporter>,
        settings: Settings,
        history: History,
        keep_history: KeepHistory,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                assets: Arc::new(assets),
                reporter,
                keep_history,
                tracker: TaskTracker::new(),
                pulls: Arc::default(),
                entries: Mutex::default(),
                settings: Mutex::new(settings),
                history: Mutex::new(history),
            }),
        }
    }

    /// Checks a request and starts provisioning. Returns before the engine is asked anything.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn create(&self, request: &Value) -> Result<SessionId, Error> {
        let request = CreateSession::from_json(request)?;
        let id = SessionId::random();
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let entry = Entry {
            request,
            created: now.format(&Rfc3339).unwrap_or_default(),
            seq: 0,
            activity: Activity::Stopped,
            timing: None,
            turn: Arc::default(),
        };
        let mut entries = self.shared.entries();
        let entry = entries.entry(id).or_insert(entry);
        self.start_run(id, entry);
        Ok(id)
    }

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
        if let Err(error) = self.reconcile().await {
            log::warn!("the list may be out of date: {error}");
        }
        let mut sessions: Vec<_> = {
            let entries = self.shared.entries();
            entries
                .iter()
                .map(|(id, entry)| entry.session(*id))
                .collect()
        };
        sessions.sort_by(|a, b| {
            (&a.workspace_id, &a.created, a.session_id).cmp(&(
                &b.workspace_id,
                &b.created,
                b.session_id,
            ))
        });
        sessions
    }

    /// Ends the run that is under way, and waits until what it made is gone. Does nothing to a
    /// session that has no run.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn cancel(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        self.cancel_run(id).await?;
        self.with_entry(id, |entry| entry.status(id))
    }

    /// Makes a session ready: opens a stopped one, retries a failed or cancelled one, resumes an
    /// interrupted one. Does nothing to one that is ready or on the way.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn open(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        let mut entries = self.shared.entries();
        let entry = entries
            .get_mut(&id)
            .ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
        match entry.activity {
            Activity::Provisioning { .. } | Activity::Ready { .. } => {}
            Activity::Stopped
            | Activity::Interrupted
            | Activity::Failed { .. }
            | Activity::Cancelled { .. } => self.start_run(id, entry),
        }
        Ok(entry.status(id))
    }

    /// Stops the session's container; its files stay. Ends a run that is under way.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], and what the engine answers.
    pub async fn stop(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        self.cancel_run(id).await?;
        let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
        let _turn = turn.lock().await;
        self.close(id);
        let name = id.resource_name();
        if self
            .shared
            .engine
            .container(&name)
            .await?
            .is_some_and(|c| labels::belong_to(&c.labels, id))
        {
            self.shared.engine.stop_container(&name).await?;
        }
        Ok(())
    }

    /// Deletes a session with its container and its volume. Succeeds for what is gone already; never
    /// touches what is not this session's.
    ///
    /// # Errors
    /// What the engine answers; the session is still there then.
    pub async fn delete(&self, id: SessionId) -> Result<(), Error> {
        let known = self.with_entry(id, |entry| Arc::clone(&entry.turn));
        if known.is_ok() {
            self.cancel_run(id).await?;
        }
        let turn = known.unwrap_or_default();
        let _turn = turn.lock().await;
        self.close(id);
        let (engine, name) = (&self.shared.engine, id.resource_name());
        let is_ours = |labels: &Labels| labels::belong_to(labels, id);
        if engine
            .container(&name)
            .await?
            .is_some_and(|container| is_ours(&container.labels))
        {
            engine.remove_container(&name).await?;
        }
        if engine
            .volume(&name)
            .await?
            .is_some_and(|labels| is_ours(&labels))
        {
            engine.remove_volume(&name).await?;
        }
        self.shared.entries().remove(&id);
        let mut history = self.shared.history();
        if history.forget_report(&id.to_string()) {
            (self.shared.keep_history)(&history);
        }
        Ok(())
    }

    /// Ends all runs, waits for what is under way, at most 5 s, and closes all connections.
    /// Containers go on running.
    pub async fn shutdown(&self) {
        let ids: Vec<_> = {
            let entries = self.shared.entries();
            for entry in entries.values() {
                if let Activity::Provisioning { cancel, .. } = &entry.activity {
                    cancel.cancel();
                }
            }
            entries.keys().copied().collect()
        };
        for id in ids {
            self.close(id);
        }
        self.shared.tracker.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.shared.tracker.wait())
            .await
            .is_err()
        {
            log::warn!("{} tasks did not end in time", self.shared.tracker.len());
        }
    }

    /// Looks for engines.
    pub async fn engines(&self) -> Vec<EngineView> {
        self.shared.engine.survey().await
    }

    /// Returns the images that are on the engine.
    ///
    /// # Errors
    /// What the engine answers.
    pub async fn images(&self) -> Result<Vec<ImageView>, Error> {
        self.shared.engine.images().await
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *self
            .shared
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the settings; what is under way goes on with those it began with.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn set_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let settings = settings.check()?;
        *self
            .shared
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(settings)
    }

    /// See [`files::list_dir`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn list_dir(&self, id: SessionId, path: &str) -> Result<DirContent, Error> {
        files::list_dir(&self.ready(id).await?.agent, path).await
    }

    /// See [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file(&self, id: SessionId, path: &str) -> Result<FileContent, Error> {
        files::read_file(&self.ready(id).await?.agent, path).await
    }

    /// See [`files::write_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn write_file(
        &self,
        id: SessionId,
        path: &str,
        content: String,
        encoding: Encoding,
        revision: Option<String>,
    ) -> Result<String, Error> {
        files::write_file(
            &self.ready(id).await?.agent,
            path,
            content,
            encoding,
            revision,
        )
        .await
    }

    /// Opens a terminal and returns its id.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], and what the engine answers.
    pub async fn open_terminal(
        &self,
        id: SessionId,
        size: Size,
        sink: Sink,
    ) -> Result<String, Error> {
        let open = self.ready(id).await?;
        let (engine, tracker) = (&*self.shared.engine, &self.shared.tracker);
        let terminal =
            Terminal::open(engine, &id.resource_name(), &open.user, size, sink, tracker).await?;
        let terminal_id = terminal.id().to_owned();
        open.terminals()
            .insert(terminal_id.clone(), Arc::new(terminal));
        Ok(terminal_id)
    }

    /// Returns an open terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::TerminalNotFound`].
    pub async fn terminal(&self, id: SessionId, terminal_id: &str) -> Result<Arc<Terminal>, Error> {
        let open = self.ready(id).await?;
        let terminal = open.terminals().get(terminal_id).cloned();
        terminal.ok_or_else(|| Error::TerminalNotFound(terminal_id.to_owned()))
    }

    /// Hangs up a terminal. Succeeds when it is gone already.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`].
    pub async fn close_terminal(&self, id: SessionId, terminal_id: &str) -> Result<(), Error> {
        self.ready(id).await?.terminals().remove(terminal_id);
        Ok(())
    }

    /// The gate: returns the way into a session, if it is ready.
    async fn ready(&self, id: SessionId) -> Result<Arc<OpenSession>, Error> {
        self.know(id).await?;
        self.with_entry(id, |entry| {
            let open = entry.activity.ready().cloned();
            open.ok_or_else(|| Error::SessionNotReady(entry.state().as_str()))
        })?
    }

    /// Makes sure that a session is known, by asking the engine if it is not.
    async fn know(&self, id: SessionId) -> Result<(), Error> {
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

    /// Takes over what the engine knows of sessions without a run or a connection here.
    async fn reconcile(&self) -> Result<(), Error> {
        let owned = self.shared.engine.owned().await?;
        let mut found = BTreeMap::new();
        for volume in &owned.volumes {
            // A volume alone: the run that made it came no further, or its container was removed.
            if let Some((id, request, created)) = labels::read(volume) {
                found.insert(id, (request, created, Activity::Interrupted));
            }
        }
        for container in &owned.containers {
            if let Some((id, request, created)) = labels::read(&container.labels) {
                let activity = match container.state {
                    ContainerState::Created => Activity::Interrupted,
                    ContainerState::Running | ContainerState::Exited | ContainerState::Unusable => {
                        Activity::Stopped
                    }
                };
                found.insert(id, (request, created, activity));
            }
        }
        let mut entries = self.shared.entries();
        // A session that was on the engine once and is no longer has been removed from outside.
        entries.retain(|id, entry| !entry.activity.is_on_engine_only() || found.contains_key(id));
        for (id, (request, created, activity)) in found {
            match entries.get_mut(&id) {
                None => {
                    let entry = Entry {
                        request,
                        created,
                        seq: 0,
                        activity,
                        timing: self.shared.history().report(&id.to_string()).cloned(),
                        turn: Arc::default(),
                    };
                    entries.insert(id, entry);
                }
                Some(entry) if entry.activity.is_on_engine_only() => entry.activity = activity,
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn start_run(&self, id: SessionId, entry: &mut Entry) {
        let monitor = Arc::new(Monitor::new());
        let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
        entry.activity = Activity::Provisioning {
            monitor: Arc::clone(&monitor),
            cancel: cancel.clone(),
            ended: ended.clone(),
        };
        let tell = {
            let shared = Arc::clone(&self.shared);
            Box::new(move |phase, progress, message| shared.tell(id, phase, progress, message))
        };
        let run = Run {
            engine: Arc::clone(&self.shared.engine),
            assets: Arc::clone(&self.shared.assets),
            pulls: Arc::clone(&self.shared.pulls),
            tracker: self.shared.tracker.clone(),
            settings: self.settings(),
            history: self.shared.history().clone(),
            id,
            request: entry.request.clone(),
            created: entry.created.clone(),
            monitor: Arc::clone(&monitor),
            cancel: cancel.clone(),
            tell,
        };
        let (sessions, turn) = (self.clone(), Arc::clone(&entry.turn));
        self.shared.tracker.spawn(async move {
            // Whoever waits for the end of the run hears of it even if it ends badly.
            let ended = ended.drop_guard();
            let _turn = if let Ok(turn) = turn.try_lock() {
                turn
            } else {
                run.await_turn();
                let Some(turn) = cancel.run_until_cancelled(turn.lock()).await else {
                    let undone = Vec::new();
                    return sessions.settle(id, &monitor, Outcome::Cancelled { undone });
                };
                turn
            };
            // The session may have been deleted while this run waited for its turn.
            if sessions.with_entry(id, |_| ()).is_err() {
                return;
            }
            let (outcome, late) = run.drive().await;
            sessions.settle(id, &monitor, outcome);
            drop(ended);
            if let Some(late) = late {
                late.finish().await;
            }
        });
    }

    /// Ends a run: its outcome becomes what the session is, and its one terminal event is told.
    fn settle(&self, id: SessionId, monitor: &Monitor, outcome: Outcome) {
        let ended = match &outcome {
            Outcome::Ready { .. } => {
                monitor.finish();
                RunOutcome::Ready
            }
            Outcome::Failed { .. } => RunOutcome::Failed,
            Outcome::Cancelled { .. } => RunOutcome::Cancelled,
        };
        let (phase, progress, _message) = monitor.snapshot();
        let timing = monitor.report(ended);
        let lesson = monitor.lesson();
        monitor.leave_pull();
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        entry.seq += 1;
        let (session_id, seq) = (id, entry.seq);
        entry.timing = Some(timing.clone());
        self.learn(id, &timing, lesson);
        let event = match outcome {
            Outcome::Ready { agent, user } => {
                let open = Arc::new(OpenSession {
                    agent,
                    user,
                    terminals: Mutex::default(),
                });
                self.watch(id, Arc::clone(&open));
                entry.activity = Activity::Ready {
                    open,
                    progress: progress.clone(),
                };
                let session = entry.session(id);
                SessionEvent::Ready(Box::new(ReadyEvent {
                    session_id,
                    seq,
                    session,
                    progress,
                    timing,
                }))
            }
            Outcome::Failed { error, undone } => {
                log::warn!("session {id} failed in {phase:?}: {error}");
                let error = error.report();
                entry.activity = Activity::Failed {
                    phase,
                    progress,
                    error: error.clone(),
                    undone: undone.clone(),
                };
                SessionEvent::Failed(FailedEvent {
                    session_id,
                    seq,
                    phase,
                    error,
                    undone,
                    timing,
                })
            }
            Outcome::Cancelled { undone } => {
                entry.activity = Activity::Cancelled {
                    phase,
                    progress,
                    undone: undone.clone(),
                };
                SessionEvent::Cancelled(CancelledEvent {
                    session_id,
                    seq,
                    phase,
                    undone,
                    timing,
                })
            }
        };
        self.shared.reporter.report(&event);
    }

    /// Keeps what a run has taught, if it was one that teaches, and where its time went.
    fn learn(&self, id: SessionId, timing: &TimingReport, lesson: Option<(RunKind, Lesson)>) {
        let mut history = self.shared.history();
        if let Some((kind, lesson)) = lesson.filter(|_| timing.outcome == RunOutcome::Ready) {
            history.learn(&kind, lesson);
        }
        history.keep_report(id.to_string(), timing.clone());
        (self.shared.keep_history)(&history);
    }

    /// Takes note when the connection to a ready session ends by itself.
    fn watch(&self, id: SessionId, open: Arc<OpenSession>) {
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            open.agent.closed().await;
            let mut entries = sessions.shared.entries();
            let Some(entry) = entries.get_mut(&id) else {
                return;
            };
            // The session may have been stopped and opened anew meanwhile.
            if entry
                .activity
                .ready()
                .is_some_and(|current| Arc::ptr_eq(current, &open))
            {
                entry.activity = Activity::Stopped;
            }
        });
    }

    async fn cancel_run(&self, id: SessionId) -> Result<(), Error> {
        let ended = self.with_entry(id, |entry| {
            let Activity::Provisioning { cancel, ended, .. } = &entry.activity else {
                return None;
            };
            cancel.cancel();
            Some(ended.clone())
        })?;
        if let Some(ended) = ended {
            ended.cancelled().await;
        }
        Ok(())
    }

    /// Ends the connection to a ready session, with its terminals.
    fn close(&self, id: SessionId) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        if let Some(open) = entry.activity.ready() {
            open.terminals().clear();
            open.agent.close();
            entry.activity = Activity::Stopped;
        }
    }

    fn with_entry<T>(&self, id: SessionId, read: impl FnOnce(&Entry) -> T) -> Result<T, Error> {
        let entries = self.shared.entries();
        let entry = entries.get(&id);
        entry
            .map(read)
            .ok_or_else(|| Error::SessionNotFound(id.to_string()))
    }
}

impl Shared {
    /// Tells progress. The lock is held while the reporter hears it: a snapshot that says `seq` 7
    /// includes what event 7 said.
    fn tell(&self, session_id: SessionId, phase: Phase, progress: Progress, message: String) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&session_id) else {
            return;
        };
        entry.seq += 1;
        let event = ProgressEvent {
            session_id,
            seq: entry.seq,
            phase,
            progress,
            message,
        };
        self.reporter.report(&SessionEvent::Progress(event));
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenSession {
    fn terminals(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Terminal>>> {
        self.terminals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn ready(&self) -> Option<&Arc<OpenSession>> {
        match self {
            Self::Ready { open, .. } => Some(open),
            Self::Provisioning { .. }
            | Self::Stopped
            | Self::Interrupted
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// Returns whether the engine alone knows what the session is: there is no run and no connection
    /// here, and no word of how a run has ended.
    fn is_on_engine_only(&self) -> bool {
        match self {
            Self::Stopped | Self::Interrupted => true,
            Self::Provisioning { .. }
            | Self::Ready { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => false,
        }
    }
}

impl Entry {
    fn state(&self) -> SessionState {
        match self.activity {
            Activity::Provisioning { .. } => SessionState::Provisioning,
            Activity::Ready { .. } => SessionState::Ready,
            Activity::Stopped => SessionState::Stopped,
            Activity::Interrupted => SessionState::Interrupted,
            Activity::Failed { .. } => SessionState::Failed,
            Activity::Cancelled { .. } => SessionState::Cancelled,
        }
    }

    fn session(&self, id: SessionId) -> Session {
        labels::session(id, &self.request, &self.created, self.state())
    }

    fn status(&self, id: SessionId) -> SessionStatus {
        let state = self.state();
        let idle = || {
            (
                Phase::Starting,
                Progress::none(),
                format!("The session is {}", state.as_str()),
            )
        };
        let (phase, progress, message) = match &self.activity {
            Activity::Provisioning { monitor, .. } => monitor.snapshot(),
            Activity::Ready { progress, .. } => {
                (Phase::Ready, progress.clone(), "Ready".to_owned())
            }
            Activity::Stopped | Activity::Interrupted => idle(),
            Activity::Failed {
                phase,
                progress,
                error,
                ..
            } => (*phase, progress.clone(), error.message.clone()),
            Activity::Cancelled {
                phase, progress, ..
            } => (*phase, progress.clone(), "Cancelled".to_owned()),
        };
        let (error, undone) = match &self.activity {
            Activity::Failed { error, undone, .. } => (Some(error.clone()), undone.clone()),
            Activity::Cancelled { undone, .. } => (None, undone.clone()),
            Activity::Provisioning { .. }
            | Activity::Ready { .. }
            | Activity::Stopped
            | Activity::Interrupted => (None, Vec::new()),
        };
        let terminals = self
            .activity
            .ready()
            .map(|open| open.terminals().keys().cloned().collect());
        SessionStatus {
            ok: true,
            session_id: id,
            ready: state == SessionState::Ready,
            phase,
            state,
            progress,
            error,
            message,
            seq: self.seq,
            session: self.session(id),
            terminals: terminals.unwrap_or_default(),
            undone,
            timing: self.timing.clone(),
        }
    }
}

//! The sessions of this app: what each one is, and what may be done with it when.
//!
//! The engine's labels are the truth about what exists; this registry adds what only a running
//! process can know: runs under way, connections to agents, terminals, and how the last run ended.
//! How a session comes to be is `provision.rs`.

mod entry;
mod exporting;
mod following;
mod lifecycle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::entry::{Activity, Entry, OpenSession};
use crate::assets::Assets;
use crate::engine::{Engine, EngineView, ImageView};
use crate::error::Error;
use crate::estimate::{History, Lesson, RunKind};
use crate::event::{
    CancelledEvent, FailedEvent, ProgressEvent, ReadyEvent, Reporter, SessionEvent,
};
use crate::files::{self, DirContent, Encoding, FileContent};
use crate::journal::{Journal, Record};
use crate::progress::{Phase, Progress};
use crate::provision::{Answered, Attempted, Monitor, Outcome, Pulls, Run, drop_replaced};
use crate::session::{CreateSession, Session, SessionId, SessionStatus, Source};
use crate::settings::Settings;
use crate::terminal::{Sink, Size, Terminal};
use crate::timing::{RunOutcome, TimingReport};

/// How long a shutdown waits for what is under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// What users call their sessions, where that is not what the labels say: labels cannot be changed.
pub type Names = BTreeMap<SessionId, String>;

/// Keeps across restarts what may be lost. Must not block.
pub trait Keep: Send + Sync + 'static {
    /// Keeps what runs have taught. Called at the end of a run.
    fn history(&self, history: &History);

    /// Keeps the names that sessions were given.
    fn names(&self, names: &Names);
}

/// Keeps nothing.
impl Keep for () {
    fn history(&self, _: &History) {}

    fn names(&self, _: &Names) {}
}

/// What a registry of sessions starts with.
pub struct Start {
    /// The engine that sessions are made on.
    pub engine: Arc<dyn Engine>,
    /// The agent and the built-in image.
    pub assets: Assets,
    /// Hears what happens.
    pub reporter: Box<dyn Reporter>,
    /// What the user has set.
    pub settings: Settings,
    /// What earlier runs took.
    pub history: History,
    /// The names that sessions were given.
    pub names: Names,
    /// Keeps what changes of these.
    pub keep: Box<dyn Keep>,
    /// Where runs write down what they do, and what the last process has left in it.
    pub journal: (Journal, Vec<Record>),
}

impl Start {
    /// Returns a start without anything from earlier, of which nothing is kept.
    #[must_use]
    pub fn fresh(engine: Arc<dyn Engine>, assets: Assets, reporter: Box<dyn Reporter>) -> Self {
        Self {
            engine,
            assets,
            reporter,
            settings: Settings::default(),
            history: History::default(),
            names: Names::default(),
            keep: Box::new(()),
            journal: (Journal::none(), Vec::new()),
        }
    }
}

/// All sessions. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    assets: Arc<Assets>,
    reporter: Box<dyn Reporter>,
    keep: Box<dyn Keep>,
    journal: Arc<Journal>,
    tracker: TaskTracker,
    /// Cancelled when the app shuts down.
    closing: CancellationToken,
    /// Whether the list is kept current by the engine's events.
    following: AtomicBool,
    /// How many sessions were deleted so far.
    deleted: AtomicU64,
    pulls: Arc<Pulls>,
    entries: Mutex<BTreeMap<SessionId, Entry>>,
    settings: watch::Sender<Settings>,
    history: Mutex<History>,
    names: Mutex<Names>,
}

impl Sessions {
    /// Returns a registry that knows of no session but those that the last process has left in the
    /// middle of a run.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let (journal, left) = start.journal;
        let entries = left.into_iter().filter_map(Entry::left).collect();
        Self {
            shared: Arc::new(Shared {
                engine: start.engine,
                assets: Arc::new(start.assets),
                reporter: start.reporter,
                keep: start.keep,
                journal: Arc::new(journal),
                tracker: TaskTracker::new(),
                closing: CancellationToken::new(),
                following: AtomicBool::new(false),
                deleted: AtomicU64::new(0),
                pulls: Arc::default(),
                entries: Mutex::new(entries),
                settings: watch::Sender::new(start.settings),
                history: Mutex::new(start.history),
                names: Mutex::new(start.names),
            }),
        }
    }

    /// Checks a request and starts provisioning. Returns before the engine is asked anything.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn create(&self, request: &Value) -> Result<SessionId, Error> {
        self.create_from(request, None)
    }

    /// Does what [`Self::create`] does, with files from somewhere.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn create_from(&self, request: &Value, source: Option<Source>) -> Result<SessionId, Error> {
        Ok(self.begin(CreateSession::from_json(request)?, source))
    }

    fn begin(&self, request: CreateSession, source: Option<Source>) -> SessionId {
        let id = SessionId::random();
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let created = now.format(&Rfc3339).unwrap_or_default();
        let mut entry = Entry::new(request, created, Activity::stopped());
        entry.source = source;
        let mut entries = self.shared.entries();
        let entry = entries.entry(id).or_insert(entry);
        self.start_run(id, entry, false);
        id
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
        let entry = lasting(&mut entries, id)?;
        match entry.activity {
            Activity::Provisioning { .. } => {}
            Activity::Ready { ref open, .. } if !open.is_paused() => {}
            Activity::Ready { .. }
            | Activity::Stopped { .. }
            | Activity::Interrupted
            | Activity::Failed { .. }
            | Activity::Cancelled { .. } => self.start_run(id, entry, false),
        }
        Ok(entry.status(id))
    }

    /// Returns how many runs are under way.
    #[must_use]
    pub fn running(&self) -> usize {
        let entries = self.shared.entries();
        let runs = |entry: &&Entry| matches!(entry.activity, Activity::Provisioning { .. });
        entries.values().filter(runs).count()
    }

    /// Ends all runs, waits for what is under way, at most 5 s, and closes all connections. What is not
    /// over then stays in the journal for the next start. Containers go on running.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        let ids: Vec<_> = {
            let entries = self.shared.entries();
            for entry in entries.values() {
                if let Activity::Provisioning { cancel, .. } = &entry.activity {
                    cancel.cancel();
                }
                if let Some(export) = &entry.export {
                    export.cancel.cancel();
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
        *self.shared.settings.borrow()
    }

    /// Changes the settings; what is under way goes on with those it began with.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn set_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let settings = settings.check()?;
        self.shared.settings.send_replace(settings);
        Ok(settings)
    }

    /// See [`files::list_dir`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn list_dir(&self, id: SessionId, path: &str) -> Result<DirContent, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::list_dir(&open.agent, path)).await
    }

    /// See [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file(&self, id: SessionId, path: &str) -> Result<FileContent, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::read_file(&open.agent, path))
            .await
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
        let open = self.ready(id).await?;
        let write = files::write_file(&open.agent, path, content, encoding, revision);
        open.unless_paused(write).await
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
        let sink = noticed(&open, sink);
        let opening = Terminal::open(engine, &open.container, &open.user, size, sink, tracker);
        let terminal = open.unless_paused(opening).await?;
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

    /// Shows a terminal in another window, or in the same one after it was reloaded.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::TerminalNotFound`].
    pub async fn attach_terminal(
        &self,
        id: SessionId,
        terminal_id: &str,
        size: Size,
        sink: Sink,
    ) -> Result<(), Error> {
        let open = self.ready(id).await?;
        let terminal = self.terminal(id, terminal_id).await?;
        terminal.attach(noticed(&open, sink));
        terminal.resize(size).await
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
            if let Some(open) = &open {
                open.touch();
            }
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

    /// Starts a run. What earlier runs may have left is this one's from now on.
    fn start_run(&self, id: SessionId, entry: &mut Entry, rebuild: bool) {
        let request = entry.request.clone();
        self.start_run_of(id, entry, request, rebuild);
    }

    fn start_run_of(
        &self,
        id: SessionId,
        entry: &mut Entry,
        request: CreateSession,
        rebuild: bool,
    ) {
        if let Some(open) = entry.activity.connected() {
            open.terminals().clear();
            open.agent.close();
        }
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
        let mut run = Run {
            engine: Arc::clone(&self.shared.engine),
            assets: Arc::clone(&self.shared.assets),
            pulls: Arc::clone(&self.shared.pulls),
            journal: Arc::clone(&self.shared.journal),
            tracker: self.shared.tracker.clone(),
            settings: self.settings(),
            history: self.shared.history().clone(),
            id,
            request,
            created: entry.created.clone(),
            source: entry.source.clone(),
            rebuild,
            inherited: Vec::new(),
            monitor: Arc::clone(&monitor),
            cancel: cancel.clone(),
            tell,
        };
        let (sessions, turn) = (self.clone(), Arc::clone(&entry.turn));
        self.shared.tracker.spawn(async move {
            // Whoever waits for the end of the run hears of it even if it ends badly.
            let ended = ended.drop_guard();
            let turn = match run.await_turn(&turn).await {
                Ok(turn) => turn,
                Err(error) => {
                    let undone = Vec::new();
                    let outcome = match error {
                        Error::Cancelled => Outcome::Cancelled { undone },
                        error => Outcome::Failed { error, undone },
                    };
                    return sessions.settle(id, &monitor, outcome);
                }
            };
            // The session may have been deleted while this run waited for its turn.
            let Ok(inherited) = sessions.with_entry(id, |entry| entry.leftovers.clone()) else {
                return;
            };
            run.inherited = inherited;
            let request = run.request.clone();
            let (outcome, late) = run.drive().await;
            let is_ready = matches!(outcome, Outcome::Ready(_));
            if is_ready {
                sessions.take_request(id, request);
            }
            sessions.settle(id, &monitor, outcome);
            drop(ended);
            if is_ready && rebuild {
                drop_replaced(&*sessions.shared.engine, id).await;
            }
            if let Some(late) = late {
                sessions.note_attempted(id, late.finish().await);
            }
            drop(turn);
            sessions.look_after_leftovers(id);
        });
    }

    /// Ends a run: its outcome becomes what the session is, and its one terminal event is told.
    fn settle(&self, id: SessionId, monitor: &Monitor, outcome: Outcome) {
        let ended = match &outcome {
            Outcome::Ready(_) => {
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
            Outcome::Ready(Answered {
                agent,
                user,
                container,
            }) => {
                let open = Arc::new(OpenSession::new(agent, user, container));
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
        self.shared.keep.history(&history);
    }

    /// The run is the session now: what it was asked to make is what there is.
    fn take_request(&self, id: SessionId, request: CreateSession) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get_mut(&id) {
            entry.request = request;
            entry.source = None;
            entry.leftovers.clear();
        }
    }

    /// Notes what came of undos that were attempted after the end of their run.
    fn note_attempted(&self, id: SessionId, attempted: Attempted) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        let before = entry.leftovers.len();
        entry.leftovers = attempted.left;
        let mut is_news = before != entry.leftovers.len();
        if let Activity::Failed { undone, .. } | Activity::Cancelled { undone, .. } =
            &mut entry.activity
        {
            for undo in &attempted.done {
                let what = undo.to_string();
                for told in undone.iter_mut().filter(|told| told.what == what) {
                    *told = undo.undone();
                    is_news = true;
                }
            }
        }
        drop(entries);
        if is_news {
            self.shared.reporter.list_changed();
        }
    }

    /// Takes note when the connection to a ready session ends by itself, and stops a session that
    /// nobody uses.
    fn watch(&self, id: SessionId, open: Arc<OpenSession>) {
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            tokio::select! {
                () = open.agent.closed() => sessions.lose(id, &open),
                () = sessions.left_alone(&open) => {
                    log::info!("session {id} is stopped: nobody uses it");
                    if let Err(error) = sessions.stop(id).await {
                        log::warn!("failed to stop session {id}: {error}");
                    }
                }
            }
        });
    }

    fn lose(&self, id: SessionId, open: &Arc<OpenSession>) {
        {
            let mut entries = self.shared.entries();
            let Some(entry) = entries.get_mut(&id) else {
                return;
            };
            // The session may have been stopped and opened anew meanwhile.
            let current = entry.activity.connected();
            if !current.is_some_and(|current| Arc::ptr_eq(current, open)) {
                return;
            }
            entry.activity = Activity::Stopped {
                lost: Some(Instant::now()),
            };
        }
        self.shared.reporter.list_changed();
    }

    /// Returns when the session has not been used for as long as the settings allow.
    async fn left_alone(&self, open: &OpenSession) {
        let mut settings = self.shared.settings.subscribe();
        loop {
            let limit = self.settings().idle_stop();
            let due = limit.map(|limit| open.used() + limit);
            if due.is_some_and(|due| due <= Instant::now()) {
                return;
            }
            let until_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until_due => {}
                changed = settings.changed() => if changed.is_err() {
                    return std::future::pending().await;
                }
            }
        }
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
        if let Some(open) = entry.activity.connected() {
            open.terminals().clear();
            open.agent.close();
            entry.activity = Activity::stopped();
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

/// Returns a session that is not about to be gone.
fn lasting(entries: &mut BTreeMap<SessionId, Entry>, id: SessionId) -> Result<&mut Entry, Error> {
    let entry = entries.get_mut(&id).filter(|entry| entry.deletions == 0);
    entry.ok_or_else(|| Error::SessionNotFound(id.to_string()))
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
        self.entries.lock()
    }

    /// Returns all sessions as the list shows them, by id.
    fn views(&self) -> Vec<Session> {
        let entries = self.entries();
        entries
            .iter()
            .map(|(id, entry)| entry.session(*id))
            .collect()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
}

/// Takes output for use: a session whose build still prints is not idle.
fn noticed(open: &Arc<OpenSession>, sink: Sink) -> Sink {
    let open = Arc::downgrade(open);
    Box::new(move |output| {
        if let Some(open) = open.upgrade() {
            open.touch();
        }
        sink(output);
    })
}

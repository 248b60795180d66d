//! What this process knows of one session: what it is doing, what the engine has of it, and the views of
//! it that leave the crate.

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arranging::Tabs;
use super::live::Asked;
use super::searching::Searches;
use crate::connection::Connection;
use crate::engine::ContainerState;
use crate::engines::{Engines, KnownEngine};
use crate::error::{Error, ErrorReport};
use crate::journal::{Record, Undo};
use crate::ports::Ports;
use crate::progress::{Phase, Progress, Undone};
use crate::provision::Monitor;
use crate::session::{
    CreateSession, ExportProgress, OutOfMemory, Session, SessionId, SessionState, SessionStatus,
    Source,
};
use crate::terminal::{Found, Terminal};
use crate::timing::TimingReport;

pub(super) struct Entry {
    /// The engine that it is on; absent for one of which nothing is on any engine yet, and for what the journal of
    /// an older version tells without saying where.
    pub(super) engine: Option<Arc<KnownEngine>>,
    pub(super) request: CreateSession,
    pub(super) created: String,
    /// Whether it was begun by this process, was never ready, and nothing of it was kept by a deletion.
    pub(super) is_new: bool,
    /// Whether it was on its engine when an earlier process looked, and nobody has looked since.
    pub(super) is_remembered: bool,
    /// Where the files of a session that was never ready come from.
    pub(super) source: Option<Source>,
    /// The `seq` of the last event.
    pub(super) seq: u64,
    pub(super) activity: Activity,
    /// What the engine has of it, as far as was last seen.
    pub(super) on_engine: OnEngine,
    /// What earlier runs may have left and nobody has taken back, oldest first.
    pub(super) leftovers: Vec<Undo>,
    pub(super) export: Option<Export>,
    /// While its programs are being ended: what ends the wait for them.
    pub(super) ending: Option<CancellationToken>,
    /// After how many minutes without use it was stopped, if that is how it ended last.
    pub(super) stopped_unused_minutes: Option<u64>,
    /// That programs of it were ended for want of memory, until the user knows.
    pub(super) out_of_memory: Option<OutOfMemory>,
    /// When that was told last, whether or not it was news.
    pub(super) out_of_memory_heard: Option<Instant>,
    /// How many deletions are under way: it is about to be gone, so that no run may begin.
    pub(super) deletions: u32,
    /// Where the time of the last run went.
    pub(super) timing: Option<TimingReport>,
    /// Held by whatever changes the session on the engine, so that this is one thing at a time.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// What the engine has of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OnEngine {
    pub(super) container: Option<ContainerState>,
    pub(super) volume: bool,
    /// Whether there is a container that its successor has replaced.
    pub(super) replaced: bool,
}

/// What a session is doing.
pub(super) enum Activity {
    Provisioning {
        monitor: Arc<Monitor>,
        cancel: CancellationToken,
        ended: CancellationToken,
    },
    Ready {
        open: Arc<OpenSession>,
        progress: Progress,
    },
    Stopped {
        /// When the connection to it was lost, if nobody had asked for that.
        lost: Option<Instant>,
    },
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

/// A ready session: its terminals, and the way to its files. It lasts as long as its container runs, and
/// the connection may break and heal meanwhile.
pub(super) struct OpenSession {
    pub(super) connection: Arc<Connection>,
    /// The container's id: it stays when somebody gives the container another name.
    pub(super) container: String,
    /// In the order in which they were opened.
    terminals: Mutex<Vec<Arc<Terminal>>>,
    /// How a window shows them.
    pub(super) tabs: Tabs,
    pub(super) searches: Searches,
    /// Asks for files to be watched, since the first were.
    pub(super) watched: OnceLock<mpsc::Sender<Asked>>,
    pub(super) ports: Arc<Ports>,
    used: watch::Sender<Instant>,
    /// When it is going to be stopped because nobody uses it, in milliseconds since 1970. Changed only while the lock of
    /// the entries is held, because it is part of what a session is.
    idle_stop_ms: Mutex<Option<i64>>,
    /// Changed only while the lock of the entries is held, because it is part of what a session is.
    reach: watch::Sender<Reach>,
}

/// How a ready session can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The agent answers.
    Connected,
    /// The connection broke, and is being made again.
    Reconnecting,
    /// Somebody holds up the container's processes.
    Paused,
}

/// An export that is under way.
pub(super) struct Export {
    pub(super) progress: ExportProgress,
    pub(super) cancel: CancellationToken,
}

impl OpenSession {
    /// Returns a session in which there are these terminals from an earlier run of the app.
    pub(super) fn new(
        connection: Connection,
        container: String,
        terminals: Found,
        tracker: &TaskTracker,
    ) -> Self {
        let connection = Arc::new(connection);
        let used = watch::Sender::new(Instant::now());
        let found = |id| Arc::new(Terminal::found(id, &connection, tracker));
        Self {
            terminals: Mutex::new(terminals.ids.into_iter().map(found).collect()),
            tabs: Tabs::new(terminals.tabs, &connection, tracker),
            ports: Ports::new(Arc::clone(&connection), used.clone(), tracker.clone()),
            connection,
            container,
            searches: Searches::default(),
            watched: OnceLock::new(),
            used,
            idle_stop_ms: Mutex::default(),
            reach: watch::Sender::new(Reach::Connected),
        }
    }

    pub(super) fn reach(&self) -> Reach {
        *self.reach.borrow()
    }

    /// Takes note of how it can be reached. Whoever calls holds the lock of the entries.
    pub(super) fn set_reach(&self, reach: Reach) {
        self.connection.set_held_up(reach == Reach::Paused);
        self.reach
            .send_if_modified(|now| std::mem::replace(now, reach) != reach);
    }

    /// Takes note that the container's processes go on after a pause, in which the connection may have broken.
    pub(super) fn go_on(&self) {
        self.set_reach(if self.connection.is_linked() {
            Reach::Connected
        } else {
            Reach::Reconnecting
        });
    }

    pub(super) fn is_paused(&self) -> bool {
        self.reach() == Reach::Paused
    }

    /// Ends the connection. What runs in the terminals is the container's to end.
    pub(super) fn close(&self) {
        self.terminals.lock().clear();
        self.connection.close();
    }

    /// Does what needs the session's processes, unless they are held up meanwhile: nobody answers then.
    pub(super) async fn unless_paused<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut reach = self.reach.subscribe();
        tokio::select! {
            result = work => result,
            _ = reach.wait_for(|reach| *reach == Reach::Paused) => {
                Err(Error::SessionNotReady(SessionState::Paused.as_str()))
            }
        }
    }

    pub(super) fn terminals(&self) -> MutexGuard<'_, Vec<Arc<Terminal>>> {
        self.terminals.lock()
    }

    /// Adds a terminal: in the place of one that has ended, or behind all others.
    pub(super) fn add_terminal(&self, terminal: Arc<Terminal>, replaced: Option<&str>) {
        let mut terminals = self.terminals();
        let place = replaced.and_then(|id| terminals.iter().position(|other| other.id() == id));
        match place.and_then(|place| terminals.get_mut(place)) {
            Some(place) => std::mem::replace(place, terminal).hang_up(),
            None => terminals.push(terminal),
        }
    }

    pub(super) fn terminal(&self, id: &str) -> Option<Arc<Terminal>> {
        let terminals = self.terminals();
        terminals
            .iter()
            .find(|terminal| terminal.id() == id)
            .cloned()
    }

    pub(super) fn remove_terminal(&self, id: &str) {
        let mut terminals = self.terminals();
        if let Some(place) = terminals.iter().position(|terminal| terminal.id() == id) {
            terminals.remove(place).hang_up();
        }
    }

    /// Takes note that somebody or something uses the session now.
    pub(super) fn touch(&self) {
        self.used.send_replace(Instant::now());
    }

    /// Returns when the session was last used, and tells of later uses.
    pub(super) fn uses(&self) -> watch::Receiver<Instant> {
        self.used.subscribe()
    }

    /// Returns when it is going to be stopped because nobody uses it, in milliseconds since 1970.
    pub(super) fn idle_stop_ms(&self) -> Option<i64> {
        *self.idle_stop_ms.lock()
    }

    /// Takes note of when it is going to be stopped. Whoever calls holds the lock of the entries.
    pub(super) fn set_idle_stop_ms(&self, at: Option<i64>) {
        *self.idle_stop_ms.lock() = at;
    }
}

impl Activity {
    pub(super) const fn stopped() -> Self {
        Self::Stopped { lost: None }
    }

    /// Returns the connection, whether or not the session's processes are held up.
    pub(super) fn connected(&self) -> Option<&Arc<OpenSession>> {
        match self {
            Self::Ready { open, .. } => Some(open),
            Self::Provisioning { .. }
            | Self::Stopped { .. }
            | Self::Interrupted
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    fn is_reconnecting(&self) -> bool {
        self.connected()
            .is_some_and(|open| open.reach() == Reach::Reconnecting)
    }

    fn state(&self) -> SessionState {
        match self {
            Self::Provisioning { .. } => SessionState::Provisioning,
            Self::Ready { open, .. } if open.is_paused() => SessionState::Paused,
            Self::Ready { .. } => SessionState::Ready,
            Self::Stopped { .. } => SessionState::Stopped,
            Self::Interrupted => SessionState::Interrupted,
            Self::Failed { .. } => SessionState::Failed,
            Self::Cancelled { .. } => SessionState::Cancelled,
        }
    }
}

impl Entry {
    pub(super) fn new(
        engine: Option<Arc<KnownEngine>>,
        request: CreateSession,
        created: String,
        activity: Activity,
    ) -> Self {
        Self {
            engine,
            is_new: false,
            is_remembered: false,
            request,
            created,
            source: None,
            seq: 0,
            activity,
            on_engine: OnEngine::default(),
            leftovers: Vec::new(),
            export: None,
            ending: None,
            stopped_unused_minutes: None,
            out_of_memory: None,
            out_of_memory_heard: None,
            deletions: 0,
            timing: None,
            turn: Arc::default(),
        }
    }

    /// Returns the entry of a session that an earlier process has left in the middle of a run, or with
    /// something to take back.
    pub(super) fn left(record: Record, engines: &Engines) -> Option<(SessionId, Self)> {
        let (id, request, created) = record.session()?;
        let activity = if record.ended {
            Activity::stopped()
        } else {
            Activity::Interrupted
        };
        let engine = record.engine.map(|engine| engines.remember(engine));
        let mut entry = Self::new(engine, request, created, activity);
        entry.source = record.source;
        entry.leftovers = record.undos;
        Some((id, entry))
    }

    /// Returns what the journal holds of the session's leftovers, if there are any.
    pub(super) fn leftover_record(&self, id: SessionId) -> Option<Record> {
        if self.leftovers.is_empty() {
            return None;
        }
        Some(self.record(id).ended(self.leftovers.clone()))
    }

    /// Returns what the journal holds of a session that no run is changing.
    pub(super) fn record(&self, id: SessionId) -> Record {
        let engine = self.engine.as_ref().map(|engine| engine.identity());
        let (request, source) = (&self.request, self.source.clone());
        let mut record = Record::new(engine, id, request, &self.created, source);
        record.undos.clone_from(&self.leftovers);
        record.ended = !matches!(self.activity, Activity::Interrupted);
        record
    }

    /// Returns whether it is on this engine.
    pub(super) fn is_on(&self, engine: &KnownEngine) -> bool {
        self.engine
            .as_ref()
            .is_some_and(|own| own.id() == engine.id())
    }

    pub(super) fn state(&self) -> SessionState {
        let is_away =
            self.is_remembered || self.engine.as_ref().is_some_and(|engine| engine.is_away());
        match self.activity.state() {
            SessionState::Ready
            | SessionState::Paused
            | SessionState::Stopped
            | SessionState::Interrupted
                if is_away =>
            {
                SessionState::Away
            }
            // A container may have been paused before this app came.
            SessionState::Stopped if self.on_engine.container == Some(ContainerState::Paused) => {
                SessionState::Paused
            }
            state => state,
        }
    }

    /// Says what a session is that has nothing to tell but that.
    fn idle_message(&self) -> String {
        match (&self.engine, self.state()) {
            (Some(engine), SessionState::Away) => {
                let engine = engine.identity();
                format!("{} at {} does not answer", engine.name, engine.address)
            }
            (_, state) => format!("The session is {}", state.as_str()),
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Session {
        let short = id.to_string().chars().take(8).collect();
        let request = &self.request;
        let about_to = matches!(
            self.activity,
            Activity::Provisioning { .. } | Activity::Ready { .. }
        );
        // What an interrupted run has left is not yet rubbish: it may be resumed.
        let is_interrupted = matches!(self.activity, Activity::Interrupted);
        let leftovers = self
            .leftovers
            .iter()
            .filter(|_| !is_interrupted && !about_to);
        Session {
            session_id: id,
            workspace_id: request.workspace_id.clone(),
            name: request.project_name.clone().unwrap_or(short),
            project_name: request.project_name.clone(),
            description: request.description.clone(),
            template: request.template.clone(),
            image: request.image.to_string(),
            image_name: request.image.familiar(),
            allow_privilege_gain: request.allow_privilege_gain,
            network: request.network,
            state: self.state(),
            engine: self.engine.as_ref().map(|engine| engine.id().clone()),
            created: self.created.clone(),
            reconnecting: self.activity.is_reconnecting(),
            ending: self.ending.is_some(),
            idle_stop_ms: self
                .activity
                .connected()
                .and_then(|open| open.idle_stop_ms()),
            stopped_unused_minutes: self.stopped_unused_minutes,
            out_of_memory: self.out_of_memory,
            has_container: about_to || self.on_engine.container.is_some(),
            leftovers: leftovers.map(ToString::to_string).collect(),
            export: self.export.as_ref().map(|export| export.progress),
            seq: self.seq,
        }
    }

    pub(super) fn status(&self, id: SessionId) -> SessionStatus {
        let state = self.state();
        let idle = || (Phase::Starting, Progress::none(), self.idle_message());
        let (phase, progress, message) = match &self.activity {
            Activity::Ready { .. } if state == SessionState::Away => idle(),
            Activity::Provisioning { monitor, .. } => monitor.snapshot(),
            Activity::Ready { open, .. } if open.is_paused() => idle(),
            Activity::Ready { progress, .. } => {
                (Phase::Ready, progress.clone(), "Ready".to_owned())
            }
            Activity::Stopped { .. } | Activity::Interrupted => idle(),
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
            | Activity::Stopped { .. }
            | Activity::Interrupted => (None, Vec::new()),
        };
        let terminals = self.activity.connected().map(|open| {
            let terminals = open.terminals();
            terminals
                .iter()
                .map(|terminal| terminal.id().to_owned())
                .collect()
        });
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

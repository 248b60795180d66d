//! What is told about a session while it is provisioned. How events travel is the business of whoever
//! implements [`Reporter`].

use serde::{Deserialize, Serialize};

use crate::engine::EngineView;
use crate::error::ErrorReport;
use crate::session::{PortList, Session, SessionId};
use crate::timing::TimingReport;

pub use crate::progress::{Eta, FinishedPhase, Phase, Progress, PullProgress, Undone};

/// What is said about a session. `seq` rises with every event of every session: the newer one holds. Exactly
/// one terminal event ends a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(untagged)]
pub enum SessionEvent {
    /// `session:progress`
    Progress(ProgressEvent),
    /// `session:ready`
    Ready(Box<ReadyEvent>),
    /// `session:failed`
    Failed(Box<FailedEvent>),
    /// `session:cancelled`
    Cancelled(Box<CancelledEvent>),
    /// `session:export`
    Export(ExportEvent),
    /// `session:changed`
    Changed(Box<ChangedEvent>),
    /// `session:transfer`
    Transfer(Box<TransferEvent>),
}

/// Payload of `session:changed`: a session is another than it was, whoever changed it. What another event
/// says already is not said again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ChangedEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// The session as it is now; `null` when it is gone.
    pub session: Option<Session>,
}

/// Payload of `session:progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ProgressEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// Where the run is.
    pub phase: Phase,
    /// How far it is.
    pub progress: Progress,
    /// What is going on, for people.
    pub message: String,
}

/// Payload of `session:ready`, a terminal event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ReadyEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// The session as it is now.
    pub session: Session,
    /// How far the run went: 100 percent, with the durations of its phases.
    pub progress: Progress,
    /// Where the time went.
    pub timing: TimingReport,
}

/// Payload of `session:failed`, a terminal event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FailedEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// Where the run failed.
    pub phase: Phase,
    /// The session as it is now.
    pub session: Session,
    /// Why it failed.
    pub error: ErrorReport,
    /// What was taken back.
    pub undone: Vec<Undone>,
    /// Where the time went.
    pub timing: TimingReport,
}

/// Payload of `session:cancelled`, a terminal event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct CancelledEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// The session as it is now.
    pub session: Session,
    /// Where the run was when it was cancelled.
    pub phase: Phase,
    /// What was taken back.
    pub undone: Vec<Undone>,
    /// Where the time went.
    pub timing: TimingReport,
}

/// Payload of `session:export`: files on their way into an archive. It belongs to no run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ExportEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes to write; `null` while nobody knows.
    pub total_bytes: Option<u64>,
    /// How it ended; `null` while it goes on.
    pub outcome: Option<ExportOutcome>,
    /// The archive's name, without its folder.
    pub file_name: String,
    /// Why it failed.
    pub error: Option<ErrorReport>,
}

/// Payload of `ports:changed`: the ports of a ready session are others than they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct PortsEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// The ports as they are now.
    #[serde(flatten)]
    pub list: PortList,
}

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum ExportOutcome {
    /// The archive is complete.
    Done,
    /// There is no archive.
    Failed,
    /// The user wanted no more; there is no archive.
    Cancelled,
}

/// Payload of `files:changed`: files that a window watches are not as they were. What they are now is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FilesChanged {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Of the paths that are watched, those that have changed.
    pub paths: Vec<String>,
    /// Whether there were more changes than are kept, so that all count as changed.
    pub overflowed: bool,
}

/// Payload of `session:transfer`: files on their way between a session and folders of this machine. It belongs to no
/// run, and comes at most five times a second while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TransferEvent {
    /// The session that this is about.
    pub session_id: SessionId,
    /// Position in the stream of all events.
    pub seq: u64,
    /// The transfer that this is about.
    pub transfer_id: String,
    /// Where the files go.
    pub direction: Direction,
    /// The name of the first thing that is copied, for display.
    pub name: String,
    /// How many things are copied; folders count as one.
    pub things: u64,
    /// The folder of the workspace into which files go; `null` for a download.
    pub folder: Option<String>,
    /// Files that have been copied so far.
    pub files: u64,
    /// Bytes of content that have been copied so far.
    pub bytes: u64,
    /// Bytes of content in all; `null` while nobody knows.
    pub total_bytes: Option<u64>,
    /// How it ended; `null` while it goes on.
    pub outcome: Option<TransferOutcome>,
    /// The names that are taken, for display; empty unless it asks.
    pub occupied: Vec<String>,
    /// Why it failed.
    pub error: Option<ErrorReport>,
}

/// Where files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Into the session.
    Upload,
    /// To this machine.
    Download,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum TransferOutcome {
    /// All is in place.
    Done,
    /// Nothing was kept; it may begin again.
    Failed,
    /// The user wanted no more; nothing was kept.
    Cancelled,
    /// Names are taken: nothing was copied until the user says what to do.
    Asks,
}

impl SessionEvent {
    /// Returns the name under which the UI listens for this event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Progress(_) => "session:progress",
            Self::Ready(_) => "session:ready",
            Self::Failed(_) => "session:failed",
            Self::Cancelled(_) => "session:cancelled",
            Self::Export(_) => "session:export",
            Self::Changed(_) => "session:changed",
            Self::Transfer(_) => "session:transfer",
        }
    }

    /// Returns the session that it is about.
    #[must_use]
    pub const fn session_id(&self) -> SessionId {
        match self {
            Self::Progress(event) => event.session_id,
            Self::Ready(event) => event.session_id,
            Self::Failed(event) => event.session_id,
            Self::Cancelled(event) => event.session_id,
            Self::Export(event) => event.session_id,
            Self::Changed(event) => event.session_id,
            Self::Transfer(event) => event.session_id,
        }
    }

    /// Returns whether this event ends its run.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        match self {
            Self::Progress(_) | Self::Export(_) | Self::Changed(_) | Self::Transfer(_) => false,
            Self::Ready(_) | Self::Failed(_) | Self::Cancelled(_) => true,
        }
    }
}

/// Hears the events of all sessions. Must not block: it is called from the run itself.
pub trait Reporter: Send + Sync + 'static {
    /// Takes one event, in order of `seq` within its session.
    fn report(&self, event: &SessionEvent);

    /// Hears that an engine has come or gone: `engine:changed`.
    fn engines_changed(&self, _engines: &[EngineView]) {}

    /// Hears that files have changed which are watched: `files:changed`.
    fn files_changed(&self, _changed: &FilesChanged) {}

    /// Hears that the ports of a session are others: `ports:changed`. In order of their `seq` within the session.
    fn ports_changed(&self, _event: &PortsEvent) {}
}

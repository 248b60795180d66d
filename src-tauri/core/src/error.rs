//! The one error of the crate, its code and hint, and the one shape in which every failure reaches
//! the UI. It does not know how an engine words its errors: that is `engine/docker/wording.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::progress::Phase;
use crate::words;

/// The most characters of a message that leave the crate.
const LONGEST_MESSAGE: usize = 2_000;

/// What went wrong, as data: the UI acts on the code and never reads the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// An argument is missing or not acceptable; `details.fields` names each one.
    ValidationError,
    /// The session id is absent, empty, or the word `undefined` or `null`.
    SessionIdMissing,
    /// No session has this id.
    SessionNotFound,
    /// The session exists and is not ready; `details.state` is what it is.
    SessionNotReady,
    /// No engine answers; `details.reason` says why.
    EngineUnavailable,
    /// The engine answered and refused; `details.status` is its HTTP status, where it gave one.
    EngineRefused,
    /// An engine that was there did not answer in time.
    EngineSilent,
    /// The engine answered something that Cove does not understand.
    EngineUnreadable,
    /// The volume cannot be removed: containers use it; `details.users` names them.
    VolumeInUse,
    /// Somebody removed the container meanwhile.
    ContainerGone,
    /// The engine cannot run a container of this image.
    ContainerRefused,
    /// The engine does not take a limit of the settings.
    LimitRefused,
    /// The engine has no network for the session; `details.reason` says why.
    NetworkUnavailable,
    /// The image is neither on the engine nor obtainable; `details.reason` says why.
    ImageUnavailable,
    /// A container or volume of this name exists and is not this session's.
    NameConflict,
    /// The engine's disk, or the container's, is full.
    DiskFull,
    /// There was no progress for longer than the limit.
    Timeout,
    /// The agent did not answer from inside the container, or answered nonsense.
    AgentUnavailable,
    /// The session's user cannot write in `/workspace`.
    WorkspaceReadOnly,
    /// The image has no such user or group as it wants to run as; `details.user` or `details.group` names it.
    ImageUserUnknown,
    /// The image has something at `/workspace` where no folder can be.
    WorkspaceUnusable,
    /// The session's processes are as many as it may have; `details.limit` and `details.running` say how many.
    ProcessLimit,
    /// The session has no terminal of this id.
    TerminalNotFound,
    /// There is no such file in the workspace.
    FileNotFound,
    /// The file exists and cannot be used in this way, or by the image's user.
    FileNotUsable,
    /// The path leads out of the workspace.
    PathOutsideWorkspace,
    /// The file changed since it was read, or there is something already where something new was to be.
    Conflict,
    /// An archive of a session's files could not be written on this machine.
    ExportFailed,
    /// A session's files could not be read whole, so that no copy of them was made.
    FilesIncomplete,
    /// Files could not be brought into a session; nothing was kept of the attempt.
    TransferFailed,
    /// The settings hold until the app ends, and could not be written down.
    SettingsNotSaved,
    /// Unsaved text could not be kept in the app's own folder.
    DraftNotKept,
    /// The desktop has nothing that shows a web page.
    NotOpened,
    /// No command has this name.
    UnknownCommand,
    /// The run was cancelled by the user.
    Cancelled,
    /// A defect in Cove.
    Internal,
}

/// Why an image could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum ImageReason {
    /// The registry does not know the image, or hides it from strangers.
    NotFound,
    /// The registry wants credentials, or refused those it got.
    Unauthorized,
    /// The registry limits how often one may pull.
    RateLimited,
    /// The registry could not be reached.
    Network,
    /// The registry's certificate is not trusted.
    Tls,
    /// The image does not exist for the engine's processor.
    Platform,
    /// The registry wants credentials, and the user's own could not be had.
    Credentials,
    /// What answered does not behave as a registry does.
    NotARegistry,
    /// The registry has something of this name that is no container image, or a damaged one.
    NotAnImage,
}

/// Why an engine has no network for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum NetworkReason {
    /// All of its addresses are given to networks, or to containers.
    NoAddresses,
    /// It cannot keep sessions apart.
    NotSeparated,
    /// It failed to write its firewall's rules.
    Firewall,
    /// Somebody has removed it meanwhile.
    Removed,
}

/// Why no engine can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum EngineReason {
    /// There is no socket or pipe where engines put theirs.
    NotInstalled,
    /// There is a socket and nobody answers on it.
    NotRunning,
    /// This user may not use the socket.
    NoPermission,
    /// The engine is older than the oldest API that Cove speaks.
    TooOld,
    /// The engine runs containers of another system than Linux.
    WrongSystem,
    /// What is configured is no address of an engine.
    BadAddress,
    /// The address that is configured is of a kind that Cove cannot use.
    UnsupportedAddress,
    /// The `docker` context that is chosen does not exist.
    NoContext,
    /// The configuration of `docker` that names the engine cannot be read.
    ConfigUnreadable,
    /// Nobody answers at the address that is configured.
    Unreachable,
    /// What answers at the address is no engine.
    NotAnEngine,
    /// The encrypted connection does not come about.
    Tls,
}

/// The command line that belongs to an engine: what a hint names when it tells the user to run something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineCommand {
    /// Docker's, which its relatives answer to as well.
    #[default]
    Docker,
    /// Podman's.
    Podman,
}

/// What on an engine bears a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedKind {
    /// A container.
    Container,
    /// A volume.
    Volume,
}

impl fmt::Display for NamedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Volume => "volume",
        })
    }
}

impl fmt::Display for EngineCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        })
    }
}

/// A failure of anything in this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Arguments that were refused: field → what is wrong with it.
    #[error("{}", problems(.0))]
    Validation(BTreeMap<String, String>),
    /// See [`ErrorCode::SessionIdMissing`].
    #[error("no session id was given")]
    SessionIdMissing,
    /// See [`ErrorCode::SessionNotFound`].
    #[error("there is no session `{0}`")]
    SessionNotFound(String),
    /// See [`ErrorCode::SessionNotReady`].
    #[error("the session is not ready: it is {0}")]
    SessionNotReady(&'static str),
    /// See [`ErrorCode::EngineUnavailable`].
    #[error("no container engine can be used: {message}")]
    EngineUnavailable {
        /// Why no engine can be used.
        reason: EngineReason,
        /// What was tried and what came of it.
        message: String,
    },
    /// The one engine that is meant does not answer; see [`ErrorCode::EngineUnavailable`].
    #[error("`{name}` at `{address}` does not answer: {message}")]
    EngineAway {
        /// What the engine calls itself.
        name: String,
        /// Where it was last reached.
        address: String,
        /// Why it does not answer.
        reason: EngineReason,
        /// What came of looking for it.
        message: String,
    },
    /// The engine refused an operation.
    #[error("failed to {operation}: {message}")]
    EngineRefused {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// The engine's HTTP status; `None` when it refused in the middle of an answer.
        status: Option<u16>,
        /// The engine's words.
        message: String,
    },
    /// See [`ErrorCode::EngineSilent`].
    #[error("failed to {operation}: the engine did not answer within {} s", .limit.as_secs())]
    EngineSilent {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// How long was waited.
        limit: Duration,
    },
    /// See [`ErrorCode::EngineUnreadable`].
    #[error("failed to {operation}: the engine's answer cannot be understood: {message}")]
    EngineUnreadable {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// What was not understood.
        message: String,
    },
    /// See [`ErrorCode::VolumeInUse`].
    #[error("failed to remove the volume `{volume}`: it is used by {}", named(.users))]
    VolumeInUse {
        /// The volume's name.
        volume: String,
        /// The names of the containers; none where the engine does not say.
        users: Vec<String>,
        /// The command line of the engine.
        command: EngineCommand,
    },
    /// See [`ErrorCode::ContainerGone`].
    #[error("failed to {operation}: the container is gone")]
    ContainerGone {
        /// What was attempted, as a verb phrase.
        operation: String,
    },
    /// See [`ErrorCode::ContainerRefused`].
    #[error("failed to {operation}: {message}")]
    ContainerRefused {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// See [`ErrorCode::LimitRefused`].
    #[error("failed to {operation}: {message}")]
    LimitRefused {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// See [`ErrorCode::NetworkUnavailable`].
    #[error("failed to {operation}: {message}")]
    NetworkUnavailable {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// Why there is none.
        reason: NetworkReason,
        /// The engine's words.
        message: String,
        /// The command line of the engine.
        command: EngineCommand,
    },
    /// Somebody removed the network that a container is on: there is another for it. See
    /// [`ErrorCode::NetworkUnavailable`].
    #[error("failed to {operation}: its network is gone")]
    NetworkGone {
        /// What was attempted, as a verb phrase.
        operation: String,
    },
    /// See [`ErrorCode::ImageUnavailable`].
    #[error("failed to pull image `{image}`: {message}")]
    ImageUnavailable {
        /// The normalised reference.
        image: String,
        /// Why the image cannot be pulled.
        reason: ImageReason,
        /// The engine's or registry's words.
        message: String,
        /// The command line by which the user logs in.
        command: EngineCommand,
    },
    /// See [`ErrorCode::NameConflict`].
    #[error("there is a {kind} `{name}` that is not this session's")]
    NameConflict {
        /// What bears the name.
        kind: NamedKind,
        /// The name.
        name: String,
        /// The command line of the engine.
        command: EngineCommand,
    },
    /// See [`ErrorCode::DiskFull`].
    #[error("failed to {operation}: no space left")]
    DiskFull {
        /// What was attempted, as a verb phrase.
        operation: String,
        /// The command line of the engine whose disk it is; `None` when the container said so.
        command: Option<EngineCommand>,
    },
    /// See [`ErrorCode::Timeout`].
    #[error("no progress for {} s while {}", .limit.as_secs(), .phase.doing())]
    Timeout {
        /// The phase that stood still.
        phase: Phase,
        /// The limit that was reached.
        limit: Duration,
    },
    /// See [`ErrorCode::AgentUnavailable`].
    #[error("the agent in the container did not answer: {0}")]
    AgentUnavailable(String),
    /// See [`ErrorCode::WorkspaceReadOnly`].
    #[error("failed to make `/workspace` writable for the image's user `{user}` ({uid}:{gid})")]
    WorkspaceReadOnly {
        /// The user's name, or its number.
        user: String,
        /// The user's number.
        uid: u32,
        /// Its group's number.
        gid: u32,
    },
    /// See [`ErrorCode::ImageUserUnknown`].
    #[error("the image runs as the user `{0}`, whom it does not have")]
    ImageUserUnknown(String),
    /// See [`ErrorCode::ImageUserUnknown`].
    #[error("the image runs as the group `{0}`, which it does not have")]
    ImageGroupUnknown(String),
    /// See [`ErrorCode::WorkspaceUnusable`].
    #[error("{0}")]
    WorkspaceUnusable(String),
    /// See [`ErrorCode::ProcessLimit`].
    #[error("the session may have {limit} processes, and {running} are running")]
    ProcessLimit {
        /// Processes and threads that are running.
        running: u64,
        /// The most that may run.
        limit: u64,
    },
    /// See [`ErrorCode::TerminalNotFound`].
    #[error("there is no terminal `{0}`")]
    TerminalNotFound(String),
    /// See [`ErrorCode::FileNotFound`].
    #[error("there is no file `{0}`")]
    FileNotFound(String),
    /// See [`ErrorCode::FileNotUsable`].
    #[error("failed to use `{path}`: {message}")]
    FileNotUsable {
        /// The path as it was given.
        path: String,
        /// What the container's kernel said.
        message: String,
    },
    /// See [`ErrorCode::PathOutsideWorkspace`].
    #[error("`{0}` is not inside `/workspace`")]
    PathOutsideWorkspace(String),
    /// See [`ErrorCode::Conflict`].
    #[error("`{path}` changed since it was read")]
    Conflict {
        /// The path as it was given.
        path: String,
        /// The revision that holds now.
        revision: String,
    },
    /// There is something where something new was to be; see [`ErrorCode::Conflict`].
    #[error("there is something at `{0}` already")]
    EntryExists(String),
    /// There is something again where what was deleted has to go back to; see [`ErrorCode::Conflict`].
    #[error("{0}")]
    NotRestored(String),
    /// What was deleted has left the trash; see [`ErrorCode::FileNotFound`].
    #[error("what was deleted is not in the trash any more")]
    NotInTrash,
    /// See [`ErrorCode::ExportFailed`].
    #[error("failed to write `{path}`: {message}")]
    Export {
        /// Where the archive was to be.
        path: String,
        /// What this machine said.
        message: String,
    },
    /// See [`ErrorCode::FilesIncomplete`].
    #[error("the session's files could not be read whole: {0}")]
    FilesIncomplete(String),
    /// See [`ErrorCode::TransferFailed`].
    #[error("{0}")]
    Transfer(String),
    /// See [`ErrorCode::SettingsNotSaved`].
    #[error("failed to save the settings, which hold until Cove ends: {0}")]
    SettingsNotSaved(String),
    /// See [`ErrorCode::DraftNotKept`].
    #[error("failed to keep the unsaved text of `{path}`: {message}")]
    DraftNotKept {
        /// The path of the file, as it was given.
        path: String,
        /// What this machine said.
        message: String,
    },
    /// See [`ErrorCode::NotOpened`].
    #[error("failed to open `{address}`: {message}")]
    NotOpened {
        /// The address of the page.
        address: String,
        /// What this machine said.
        message: String,
    },
    /// See [`ErrorCode::UnknownCommand`].
    #[error("there is no command `{0}`")]
    UnknownCommand(String),
    /// See [`ErrorCode::Cancelled`].
    #[error("the run was cancelled")]
    Cancelled,
    /// See [`ErrorCode::Internal`].
    #[error("{0}")]
    Internal(String),
}

/// The one shape in which a failure reaches the UI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ErrorReport {
    /// Always `false`.
    #[cfg_attr(test, ts(type = "false"))]
    pub ok: bool,
    /// What went wrong, for code.
    pub error: ErrorCode,
    /// What went wrong, for people.
    pub message: String,
    /// What to do next, in one sentence.
    pub hint: String,
    /// More for code: `fields` and `reason`, among others.
    #[cfg_attr(test, ts(type = "Record<string, unknown>"))]
    pub details: Map<String, Value>,
}

impl Error {
    /// Refuses one field.
    #[must_use]
    pub fn field(name: &str, problem: impl Into<String>) -> Self {
        Self::Validation(BTreeMap::from([(name.to_owned(), problem.into())]))
    }

    /// Returns the code under which the UI knows this error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Validation(_) => ErrorCode::ValidationError,
            Self::SessionIdMissing => ErrorCode::SessionIdMissing,
            Self::SessionNotFound(_) => ErrorCode::SessionNotFound,
            Self::SessionNotReady(_) => ErrorCode::SessionNotReady,
            Self::EngineUnavailable { .. } | Self::EngineAway { .. } => {
                ErrorCode::EngineUnavailable
            }
            Self::EngineRefused { .. } => ErrorCode::EngineRefused,
            Self::EngineSilent { .. } => ErrorCode::EngineSilent,
            Self::EngineUnreadable { .. } => ErrorCode::EngineUnreadable,
            Self::VolumeInUse { .. } => ErrorCode::VolumeInUse,
            Self::ContainerGone { .. } => ErrorCode::ContainerGone,
            Self::ContainerRefused { .. } => ErrorCode::ContainerRefused,
            Self::LimitRefused { .. } => ErrorCode::LimitRefused,
            Self::NetworkUnavailable { .. } | Self::NetworkGone { .. } => {
                ErrorCode::NetworkUnavailable
            }
            Self::ImageUnavailable { .. } => ErrorCode::ImageUnavailable,
            Self::NameConflict { .. } => ErrorCode::NameConflict,
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::AgentUnavailable(_) => ErrorCode::AgentUnavailable,
            Self::WorkspaceReadOnly { .. } => ErrorCode::WorkspaceReadOnly,
            Self::ImageUserUnknown(_) | Self::ImageGroupUnknown(_) => ErrorCode::ImageUserUnknown,
            Self::WorkspaceUnusable(_) => ErrorCode::WorkspaceUnusable,
            Self::ProcessLimit { .. } => ErrorCode::ProcessLimit,
            Self::TerminalNotFound(_) => ErrorCode::TerminalNotFound,
            Self::FileNotFound(_) | Self::NotInTrash => ErrorCode::FileNotFound,
            Self::FileNotUsable { .. } => ErrorCode::FileNotUsable,
            Self::PathOutsideWorkspace(_) => ErrorCode::PathOutsideWorkspace,
            Self::Conflict { .. } | Self::EntryExists(_) | Self::NotRestored(_) => {
                ErrorCode::Conflict
            }
            Self::Export { .. } => ErrorCode::ExportFailed,
            Self::FilesIncomplete(_) => ErrorCode::FilesIncomplete,
            Self::Transfer(_) => ErrorCode::TransferFailed,
            Self::SettingsNotSaved(_) => ErrorCode::SettingsNotSaved,
            Self::DraftNotKept { .. } => ErrorCode::DraftNotKept,
            Self::NotOpened { .. } => ErrorCode::NotOpened,
            Self::UnknownCommand(_) => ErrorCode::UnknownCommand,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Returns what the user can do next, in one sentence, with the facts of the case.
    #[must_use]
    pub fn hint(&self) -> String {
        let fixed = match self {
            Self::Validation(fields) => {
                return format!("Correct {}, then try again.", field_names(fields));
            }
            Self::SessionIdMissing => "Choose a session from the list, or create a new one.",
            Self::SessionNotFound(_) => {
                "It may have been deleted; choose another session from the list."
            }
            Self::SessionNotReady(_) => {
                "Open the session, or wait until it is ready, then try again."
            }
            Self::EngineUnavailable { reason, .. } => engine_hint(*reason),
            Self::EngineAway { name, address, .. } => {
                return format!(
                    "Start {name} at `{address}`; its sessions come back by themselves. For new sessions, another engine can be chosen in the engine's details."
                );
            }
            Self::EngineRefused { .. } => {
                "Retry; if it happens again, the engine's own log says more."
            }
            Self::EngineSilent { .. } => {
                "The engine may be busy or stuck: look at what it does, restart it if need be, then retry."
            }
            Self::EngineUnreadable { .. } => {
                "Update the engine or Cove, which do not understand each other, then retry."
            }
            Self::VolumeInUse { users, command, .. } => return in_use_hint(users, *command),
            Self::ContainerGone { .. } => {
                "Somebody removed it: open the session again, and it gets a new container around its files."
            }
            Self::ContainerRefused { .. } => {
                "Choose another image, or rebuild the session from another: the engine cannot run this one as it is."
            }
            Self::LimitRefused { .. } => {
                "Change the limits for new sessions in the settings, then retry."
            }
            Self::NetworkUnavailable {
                reason, command, ..
            } => return network_hint(*reason, *command),
            Self::NetworkGone { .. } => "Retry: a new network is made.",
            Self::ImageUnavailable {
                image,
                reason,
                command,
                ..
            } => return image_hint(*reason, image, *command),
            Self::NameConflict {
                kind,
                name,
                command,
            } => return conflict_hint(*kind, name, *command),
            Self::DiskFull { command, .. } => return disk_hint(*command),
            Self::Timeout { phase, .. } => timeout_hint(*phase),
            Self::AgentUnavailable(_) => {
                "Retry; if it happens again, the log of the session's container says more."
            }
            Self::WorkspaceReadOnly { user, .. } => return read_only_hint(user),
            Self::ImageUserUnknown(user) => return unknown_hint(user, "passwd", "as its `USER`"),
            Self::ImageGroupUnknown(group) => {
                return unknown_hint(group, "group", "as the group of its `USER`");
            }
            Self::WorkspaceUnusable(_) => {
                "Choose another image, or build this one without anything at `/workspace`, or with a folder there."
            }
            Self::ProcessLimit { .. } => {
                "End what is not needed in a terminal that is open, or end all processes; the limit for new sessions is in the settings."
            }
            Self::TerminalNotFound(_) => "Open a new terminal.",
            Self::FileNotFound(_) => "Refresh the file tree; it may have been moved or deleted.",
            Self::FileNotUsable { .. } => {
                "Check what the file is and who may read or write it, in the terminal."
            }
            Self::PathOutsideWorkspace(_) => "Use a path below `/workspace`.",
            Self::Conflict { .. } => {
                "Read the file again, then apply the change to what it holds now."
            }
            Self::EntryExists(_) => "Choose another name, or move what is there out of the way.",
            Self::NotInTrash => {
                "Only the last hundred deletes can be undone, for seven days, and each once."
            }
            Self::NotRestored(_) => "Move what is there out of the way, then undo again.",
            Self::Export { .. } => "Choose a place with enough room that you may write to.",
            Self::FilesIncomplete(_) => {
                "Stop what changes the files, or stop the session, then try again; nothing was kept of this attempt."
            }
            Self::Transfer(_) => "See to that, then try again: nothing was kept of it.",
            Self::SettingsNotSaved(_) => {
                "Make room on the disk, and let Cove write in its own folder, then save again."
            }
            Self::DraftNotKept { .. } => "Save the file: its text is in this window alone.",
            Self::NotOpened { .. } => "Open the address in a browser of this machine.",
            Self::UnknownCommand(_) => "Update Cove: its window and its backend do not match.",
            Self::Cancelled => "Retry when you are ready.",
            Self::Internal(_) => "This is a defect in Cove: copy the details and report it.",
        };
        fixed.to_owned()
    }

    /// Returns the error as the UI gets it.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let details = match self {
            Self::Validation(fields) => json!({ "fields": fields }),
            Self::EngineUnavailable { reason, .. } => json!({ "reason": reason }),
            Self::EngineAway {
                name,
                address,
                reason,
                ..
            } => json!({ "reason": reason, "engine": name, "address": address }),
            Self::EngineRefused { status, .. } => json!({ "status": status }),
            Self::ImageUnavailable { image, reason, .. } => {
                json!({ "image": image, "reason": reason })
            }
            Self::NetworkUnavailable { reason, .. } => json!({ "reason": reason }),
            Self::NetworkGone { .. } => json!({ "reason": NetworkReason::Removed }),
            Self::NameConflict { kind, name, .. } => {
                json!({ "kind": kind.to_string(), "name": name })
            }
            Self::VolumeInUse { volume, users, .. } => json!({ "volume": volume, "users": users }),
            Self::Timeout { phase, limit } => {
                json!({ "phase": phase, "limit_s": limit.as_secs() })
            }
            Self::SessionNotReady(state) => json!({ "state": state }),
            Self::ImageUserUnknown(user) => json!({ "user": user }),
            Self::ImageGroupUnknown(group) => json!({ "group": group }),
            Self::ProcessLimit { running, limit } => json!({ "running": running, "limit": limit }),
            Self::Conflict { path, revision } => json!({ "path": path, "revision": revision }),
            Self::EntryExists(path) => json!({ "path": path }),
            Self::NotRestored(_)
            | Self::NotInTrash
            | Self::SessionNotFound(_)
            | Self::SessionIdMissing
            | Self::DiskFull { .. }
            | Self::EngineSilent { .. }
            | Self::EngineUnreadable { .. }
            | Self::ContainerGone { .. }
            | Self::ContainerRefused { .. }
            | Self::LimitRefused { .. }
            | Self::AgentUnavailable(_)
            | Self::WorkspaceReadOnly { .. }
            | Self::WorkspaceUnusable(_)
            | Self::TerminalNotFound(_)
            | Self::FileNotFound(_)
            | Self::FileNotUsable { .. }
            | Self::PathOutsideWorkspace(_)
            | Self::Export { .. }
            | Self::FilesIncomplete(_)
            | Self::Transfer(_)
            | Self::SettingsNotSaved(_)
            | Self::DraftNotKept { .. }
            | Self::NotOpened { .. }
            | Self::UnknownCommand(_)
            | Self::Cancelled
            | Self::Internal(_) => json!({}),
        };
        let details = match details {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        ErrorReport {
            ok: false,
            error: self.code(),
            // Each part was made fit where it came from; this holds whatever comes from wherever else.
            message: words::fit(&self.to_string(), LONGEST_MESSAGE),
            hint: self.hint(),
            details,
        }
    }
}

const fn timeout_hint(phase: Phase) -> &'static str {
    match phase {
        Phase::PullingImage => {
            "Check the network, VPN and proxy, then retry; the limit is a setting."
        }
        Phase::Starting
        | Phase::CreatingVolume
        | Phase::CreatingContainer
        | Phase::StartingContainer
        | Phase::Ready => {
            "Look at what the engine does, restart it if need be, then retry; the limit is a setting."
        }
    }
}

fn network_hint(reason: NetworkReason, command: EngineCommand) -> String {
    let otherwise = "or create the session without a network";
    match reason {
        NetworkReason::NoAddresses => format!(
            "Remove networks that nothing uses, with `{command} network prune`, then retry, {otherwise}."
        ),
        NetworkReason::NotSeparated => format!(
            "Load the kernel's module by `modprobe br_netfilter` on the engine's machine, or update the engine, then retry, {otherwise}."
        ),
        NetworkReason::Firewall => {
            format!(
                "Restart the engine, which writes its firewall's rules anew, then retry, {otherwise}."
            )
        }
        NetworkReason::Removed => "Retry: a new network is made.".to_owned(),
    }
}

fn engine_hint(reason: EngineReason) -> &'static str {
    match reason {
        EngineReason::NotInstalled => {
            "Install Docker, Podman, Colima, OrbStack or Rancher Desktop, then start it."
        }
        EngineReason::NotRunning => "Start the container engine; Cove goes on by itself.",
        EngineReason::NoPermission => {
            "Add your user to the `docker` group and log in again, or use a rootless engine."
        }
        EngineReason::TooOld => "Update the container engine to Docker 20.10, Podman 4 or newer.",
        EngineReason::WrongSystem => "Switch the engine to Linux containers.",
        EngineReason::BadAddress => {
            "Correct the address where it is configured, or take it out there; after a change of the environment, start Cove again."
        }
        EngineReason::UnsupportedAddress => {
            "Configure an engine that is reached over a socket or TCP, or start Cove without that variable or context."
        }
        EngineReason::NoContext => {
            "Choose a context that exists with `docker context use`, or unset `DOCKER_CONTEXT` and start Cove again."
        }
        EngineReason::ConfigUnreadable => "Correct the file that is named.",
        EngineReason::Unreachable => {
            "Check the address where it is configured, and that the engine there is started and listens."
        }
        EngineReason::NotAnEngine => "Correct the address: something else answers there.",
        EngineReason::Tls => {
            "Check the certificates in `DOCKER_CERT_PATH` or in the context, and that the engine is the one they were made for."
        }
    }
}

fn image_hint(reason: ImageReason, image: &str, command: EngineCommand) -> String {
    let login = login_command(image, command);
    let fixed = match reason {
        ImageReason::NotFound => {
            return format!(
                "Check the spelling of the image and its tag; a private image needs `{login}` first."
            );
        }
        ImageReason::Unauthorized => {
            return format!("Log in to the registry with `{login}`, then retry.");
        }
        ImageReason::RateLimited => {
            return format!(
                "Wait for the registry's limit to pass, or log in with `{login}`, then retry."
            );
        }
        ImageReason::Network => {
            "Check the network, VPN and proxy, then retry; an image already on the engine needs none."
        }
        ImageReason::Tls => {
            "Make the engine trust the registry's certificate authority, then retry."
        }
        ImageReason::Platform => "Choose an image that exists for this machine's processor.",
        ImageReason::Credentials => {
            "Mend the credential helper or the file that the message names, then retry."
        }
        ImageReason::NotARegistry => {
            "Check whether the network wants a login in the browser first, and that the image's name begins with a registry; then retry."
        }
        ImageReason::NotAnImage => {
            "Choose another image or tag: what has this name there cannot be run as a container."
        }
    };
    fixed.to_owned()
}

/// Returns the command that logs in to an image's registry. Docker Hub is what `docker login` means by itself.
fn login_command(image: &str, command: EngineCommand) -> String {
    let registry = image.split_once('/').map(|(registry, _)| registry);
    match (registry, command) {
        (None | Some("docker.io"), EngineCommand::Docker) => format!("{command} login"),
        (registry, _) => format!("{command} login {}", registry.unwrap_or("docker.io")),
    }
}

fn read_only_hint(user: &str) -> String {
    format!(
        "Choose an image with another user, or look whether the engine keeps volumes where \
         `{user}` may write; a retry alone cannot help."
    )
}

fn unknown_hint(name: &str, file: &str, place: &str) -> String {
    format!(
        "Choose another image, or build this one with an entry for `{name}` in its `/etc/{file}`, or with a number up to \
         2147483647 {place}, which needs none."
    )
}

fn conflict_hint(kind: NamedKind, name: &str, command: EngineCommand) -> String {
    match kind {
        NamedKind::Container => {
            format!("Give it another name, with `{command} rename {name} NEW-NAME`, then retry.")
        }
        NamedKind::Volume => format!(
            "If nothing in it is needed, remove it with `{command} volume rm {name}`; then retry."
        ),
    }
}

fn disk_hint(command: Option<EngineCommand>) -> String {
    match command {
        Some(command) => format!(
            "Free disk space on the engine, for example with `{command} system prune`, then retry."
        ),
        None => "Free disk space in the session or on the engine, then retry.".to_owned(),
    }
}

/// Says what is wrong with each field.
fn problems(fields: &BTreeMap<String, String>) -> String {
    let problems = fields
        .iter()
        .map(|(name, problem)| format!("`{name}` {problem}"));
    problems.collect::<Vec<_>>().join("; ")
}

fn field_names(fields: &BTreeMap<String, String>) -> String {
    let names = fields.keys().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

fn named(users: &[String]) -> String {
    match users {
        [] => "another container".to_owned(),
        [one] => format!("the container `{one}`"),
        several => format!("the containers `{}`", several.join("`, `")),
    }
}

fn in_use_hint(users: &[String], command: EngineCommand) -> String {
    if users.is_empty() {
        return "Remove the container that uses the volume, then try again.".to_owned();
    }
    format!(
        "Remove what uses it, with `{command} rm --force {}`, then try again.",
        users.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_says_what_is_wrong_and_with_which_field() {
        let error = Error::field("archive", "cannot be read: it is not a file");
        assert_eq!(
            error.to_string(),
            "`archive` cannot be read: it is not a file"
        );
        assert_eq!(error.hint(), "Correct `archive`, then try again.");
    }

    #[test]
    fn hints_name_the_engines_own_command_and_the_registry_in_question() {
        let refused = |image: &str, command| {
            let error = Error::ImageUnavailable {
                image: image.to_owned(),
                reason: ImageReason::Unauthorized,
                message: String::new(),
                command,
            };
            error.hint()
        };
        for (image, command, login) in [
            (
                "docker.io/library/x:1",
                EngineCommand::Docker,
                "`docker login`",
            ),
            (
                "docker.io/library/x:1",
                EngineCommand::Podman,
                "`podman login docker.io`",
            ),
            (
                "ghcr.io/a/b:1",
                EngineCommand::Podman,
                "`podman login ghcr.io`",
            ),
        ] {
            let hint = refused(image, command);
            assert!(hint.contains(login), "{hint}");
        }
        let full = |command| Error::DiskFull {
            operation: "create the volume".to_owned(),
            command,
        };
        let hint = full(Some(EngineCommand::Podman)).hint();
        assert!(hint.contains("`podman system prune`"), "{hint}");
        assert!(!full(None).hint().contains('`'));
    }

    #[test]
    fn what_others_say_is_cut_before_it_is_shown() {
        let report = Error::AgentUnavailable("é".repeat(10_000_000)).report();
        assert_eq!(report.message.chars().count(), LONGEST_MESSAGE + 1);
        assert!(report.message.ends_with("é…"));
        let short = Error::Cancelled.report().message;
        assert_eq!(short, "the run was cancelled");
    }
}

//! The words of a session: its id, the request that creates it, its state, and the two views of it
//! that leave the crate. How a session comes to be is `provision.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::engine_id::EngineId;
use crate::error::{Error, ErrorReport};
use crate::image::ImageReference;
use crate::progress::{Phase, Progress, Undone};
use crate::template::{self, TemplateId};
use crate::timing::TimingReport;

pub(crate) const WORKSPACE_ID_MAX: usize = 128;
pub(crate) const PROJECT_NAME_MAX: usize = 80;
pub(crate) const DESCRIPTION_MAX: usize = 2_000;

/// Names a session, its container and its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export, type = "string"))]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Returns a fresh id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns the name that the session's container and volume bear on the engine.
    #[must_use]
    pub fn resource_name(self) -> String {
        format!("cove-{self}")
    }

    /// Returns the name of a volume for one of the folders below `/workspace` that an image declares.
    #[must_use]
    pub fn inner_volume_name(self, number: usize) -> String {
        format!("{}-{number}", self.resource_name())
    }

    /// Returns whether a volume of this name would be the session's.
    #[must_use]
    pub fn is_volume_name(self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.resource_name()) else {
            return false;
        };
        let is_number = |text: &str| text.parse::<usize>().is_ok_and(|n| n.to_string() == text);
        rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// # Errors
    /// [`Error::SessionIdMissing`] for the ids that a confused caller sends (empty, `undefined`,
    /// `null`), [`Error::SessionNotFound`] for what cannot be an id.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim() {
            "" | "undefined" | "null" => Err(Error::SessionIdMissing),
            id => Uuid::try_parse(id)
                .map(Self)
                .map_err(|_| Error::SessionNotFound(text.to_owned())),
        }
    }
}

/// What a session reaches over the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// All that the engine's machine reaches, but no other session.
    #[default]
    Own,
    /// Nothing.
    None,
}

impl Network {
    /// Returns the word that stands for it in requests and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::None => "none",
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// # Errors
    /// Which words there are.
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Own, Self::None];
        let found = all.into_iter().find(|network| network.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", all.map(Self::as_str).join(", ")))
    }
}

/// What the user asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSession {
    /// The caller's own grouping key.
    pub workspace_id: String,
    /// What the user calls it.
    pub project_name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The template that was chosen, if any.
    pub template: Option<TemplateId>,
    /// The image to use: the one named, else the template's, else the built-in one.
    pub image: ImageReference,
    /// Whether its programs may become root by `sudo` and the like, where the image has them.
    pub allow_privilege_gain: bool,
    /// What it reaches over the network.
    pub network: Network,
}

impl CreateSession {
    /// Checks a request and reports every field's problem at once.
    ///
    /// # Errors
    /// [`Error::Validation`], naming each field that was refused.
    pub fn from_json(request: &Value) -> Result<Self, Error> {
        let Value::Object(request) = request else {
            return Err(Error::field("request", "must be an object"));
        };
        let mut problems = BTreeMap::new();
        let known = [
            "workspace_id",
            "template",
            "image",
            "project_name",
            "description",
            "allow_privilege_gain",
            "network",
        ];
        for name in request
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            problems.insert(name.clone(), "is not a known field".to_owned());
        }

        let mut text = |name: &str, check: fn(&str) -> Result<(), String>| -> Option<String> {
            match optional_text(request, name).and_then(|value| {
                value.map_or(Ok(None), |value| check(&value).map(|()| Some(value)))
            }) {
                Ok(value) => value,
                Err(problem) => {
                    problems.insert(name.to_owned(), problem);
                    None
                }
            }
        };
        let workspace_id = text("workspace_id", |value| {
            one_line(value, WORKSPACE_ID_MAX).and_then(|()| not_blank(value))
        });
        let project_name = text("project_name", check_project_name);
        let description = text("description", |value| many_lines(value, DESCRIPTION_MAX));
        let template = text("template", |_| Ok(()));
        let image = text("image", |_| Ok(()));
        let network = text("network", |value| value.parse::<Network>().map(drop));

        let allow_privilege_gain = match request.get("allow_privilege_gain") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(allow)) => *allow,
            Some(_) => {
                let problem = "must be true or false".to_owned();
                problems.insert("allow_privilege_gain".to_owned(), problem);
                false
            }
        };

        if workspace_id.is_none() {
            problems
                .entry("workspace_id".to_owned())
                .or_insert_with(|| "is required".to_owned());
        }
        let template = template.filter(|id| !id.is_empty()).and_then(|id| {
            let found = template::find(&id);
            if found.is_none() {
                let known: Vec<_> = template::all()
                    .iter()
                    .map(|known| known.id.as_str())
                    .collect();
                problems.insert(
                    "template".to_owned(),
                    format!("must be one of {}", known.join(", ")),
                );
            }
            found
        });
        let image = match image.filter(|image| !image.trim().is_empty()) {
            Some(image) => image
                .parse()
                .map_err(|problem: crate::image::InvalidReference| {
                    problems.insert("image".to_owned(), problem.to_string());
                })
                .ok(),
            None => Some(
                template.map_or_else(ImageReference::built_in, |template| template.image.clone()),
            ),
        };

        match (workspace_id, image) {
            (Some(workspace_id), Some(image)) if problems.is_empty() => Ok(Self {
                workspace_id,
                project_name: project_name.filter(|name| !name.trim().is_empty()),
                description: description.filter(|text| !text.trim().is_empty()),
                template: template.map(|template| template.id.clone()),
                image,
                allow_privilege_gain,
                network: network
                    .and_then(|network| network.parse().ok())
                    .unwrap_or_default(),
            }),
            _ => Err(Error::Validation(problems)),
        }
    }
}

/// Where the files of a new session come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// Another session's workspace.
    Session {
        /// The session whose files are copied.
        id: SessionId,
    },
    /// A tar archive on this machine, compressed or not.
    Archive {
        /// Where it is.
        path: PathBuf,
    },
}

/// How far the writing of a session's files into an archive is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ExportProgress {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of content to write, to which some for each file are added; `null` while nobody knows.
    pub total_bytes: Option<u64>,
}

/// A TCP port that a program of a session listens on, or that is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Port {
    /// Its number in the session, from 1.
    pub port: u16,
    /// The address that somebody listens at; `null` when nobody does.
    pub address: Option<String>,
    /// The name of the program; `null` when it is not one of the session's user, or not known.
    pub process: Option<String>,
    /// Where it is on this machine; `null` when it is not forwarded.
    pub local: Option<LocalPlace>,
}

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct LocalPlace {
    /// Never another than `127.0.0.1`.
    pub host: String,
    /// The number of the port.
    pub port: u16,
}

/// The ports of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct PortList {
    /// By number; no more than a thousand that somebody listens on.
    pub ports: Vec<Port>,
    /// Whether there are more.
    pub truncated: bool,
    /// The place in the order of all that is told of ports, of any session: what has a higher one is newer.
    pub seq: u64,
}

/// An archive that the user chose; only its token goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ChosenArchive {
    /// Stands for the file in a request.
    pub token: String,
    /// The file's name.
    pub name: String,
    /// The file's size in bytes.
    pub size_bytes: u64,
}

/// What a session's workspace holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Usage {
    /// Bytes that reading its files would give; `null` when not known.
    pub size_bytes: Option<u64>,
    /// Bytes that they take on the engine's disk, which is less where files have holes; `null` when not known.
    pub stored_bytes: Option<u64>,
    /// Whether `size_bytes` is only a lower bound, because looking took too long.
    pub at_least: bool,
    /// The last change of any file, in milliseconds since 1970 UTC; `null` when not known.
    pub modified_ms: Option<i64>,
    /// Bytes that are free on the disk that they are on; `null` when not known.
    pub free_bytes: Option<u64>,
    /// Bytes that this disk has in all; `null` when not known.
    pub disk_bytes: Option<u64>,
    /// The folders outside `/workspace` that the image keeps in volumes of their own: they go with the container.
    pub other_volumes: Vec<String>,
}

/// Programs of a session were ended by the kernel, because the session had used up its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct OutOfMemory {
    /// Bytes that the session may use; `null` where it may use all that the engine has, or when not known.
    pub limit_bytes: Option<u64>,
    /// When the first was ended since this was last dismissed, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// What a session is, from the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// A run is under way.
    Provisioning,
    /// The agent has answered from inside the container.
    Ready,
    /// Somebody holds up the container's processes; its terminals go on with them.
    Paused,
    /// The container is there and does not run, or this app has not connected to it.
    Stopped,
    /// The last run failed and was unwound.
    Failed,
    /// The last run was cancelled and unwound.
    Cancelled,
    /// A run of an earlier process left something behind.
    Interrupted,
    /// Its engine does not answer. What it is shows when that comes back.
    Away,
}

impl SessionState {
    /// Returns the state's word, as it reads in a sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Away => "away",
        }
    }
}

/// A session in the list.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, as the window shows it"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// The caller's own grouping key.
    pub workspace_id: String,
    /// What to call it: the project name, else a short form of the id.
    pub name: String,
    /// What the user called it.
    pub project_name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The template it was made from.
    pub template: Option<TemplateId>,
    /// The normalised image reference.
    pub image: String,
    /// The image reference in its short, familiar form.
    pub image_name: String,
    /// Whether its programs may become root by `sudo` and the like.
    pub allow_privilege_gain: bool,
    /// What it reaches over the network.
    pub network: Network,
    /// What it is now.
    pub state: SessionState,
    /// The engine that it is on; `null` while nothing of it is on any.
    pub engine: Option<EngineId>,
    /// When it was created: RFC 3339, UTC.
    pub created: String,
    /// Whether the connection to it broke and is being made again. Its programs go on meanwhile.
    pub reconnecting: bool,
    /// Whether its programs are being ended, and have time to write what they hold.
    pub ending: bool,
    /// When it is going to be stopped because nobody uses it, in milliseconds since 1970 UTC; `null` when it is not.
    pub idle_stop_ms: Option<i64>,
    /// After how many minutes without use it was stopped, if that is how it ended last; `null` otherwise.
    pub stopped_unused_minutes: Option<u64>,
    /// Whether the kernel ended programs of it for want of memory; `null` when not, or when the user knows.
    pub out_of_memory: Option<OutOfMemory>,
    /// Whether it has a container, or is about to get one. A session that was deleted but for its files,
    /// or whose container somebody removed, is a volume alone; opening it makes a container again.
    pub has_container: bool,
    /// What earlier runs made and could not take back yet, for people. It is tried again by itself.
    pub leftovers: Vec<String>,
    /// How far the export under way is; `null` without one.
    pub export: Option<ExportProgress>,
    /// The last event that this includes: of two views of a session the one with the higher `seq` holds.
    pub seq: u64,
}

/// All sessions at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Listing {
    /// The sessions, by workspace and age.
    pub sessions: Vec<Session>,
    /// The last event of any session that this includes. One that was told earlier and is not in the list is
    /// gone.
    pub seq: u64,
}

/// A session after a command that was about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Seen {
    /// The last event that this includes.
    pub seq: u64,
    /// The session; `null` when it is gone.
    pub session: Option<Session>,
}

/// The snapshot of a session, for a window that opened late or was reloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct SessionStatus {
    /// Always `true`.
    #[cfg_attr(test, ts(type = "true"))]
    pub ok: bool,
    /// The session that this is about.
    pub session_id: SessionId,
    /// Whether files and terminals can be used.
    pub ready: bool,
    /// Where the current or last run is.
    pub phase: Phase,
    /// What the session is now.
    pub state: SessionState,
    /// How far the current or last run is.
    pub progress: Progress,
    /// Why the last run failed.
    pub error: Option<ErrorReport>,
    /// What is going on, for people.
    pub message: String,
    /// The last event that this snapshot includes.
    pub seq: u64,
    /// The session as the list shows it.
    pub session: Session,
    /// The ids of the terminals that are open.
    pub terminals: Vec<String>,
    /// What the last unwind took back.
    pub undone: Vec<Undone>,
    /// Where the time of the last run went; `null` when none is remembered.
    pub timing: Option<TimingReport>,
}

/// Checks what a user calls a session.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_project_name(value: &str) -> Result<(), String> {
    one_line(value, PROJECT_NAME_MAX)
}

fn optional_text(request: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match request.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(_) => Err("must be a text".to_owned()),
    }
}

fn not_blank(value: &str) -> Result<(), String> {
    if value.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(())
    }
}

fn one_line(value: &str, max: usize) -> Result<(), String> {
    if value.chars().any(is_unprintable) {
        return Err("must not contain control characters".to_owned());
    }
    at_most(value, max)
}

fn many_lines(value: &str, max: usize) -> Result<(), String> {
    if value
        .chars()
        .any(|c| is_unprintable(c) && !matches!(c, '\n' | '\r' | '\t'))
    {
        return Err(
            "must not contain control characters other than line breaks and tabs".to_owned(),
        );
    }
    at_most(value, max)
}

fn at_most(value: &str, max: usize) -> Result<(), String> {
    let count = value.chars().count();
    if count > max {
        return Err(format!(
            "must be at most {max} characters long, and has {count}"
        ));
    }
    Ok(())
}

/// Control characters, and the invisible ones that reorder or hide text in a list.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

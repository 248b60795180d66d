//! Files of a session's workspace, as the agent in the container sees them. Paths are opaque: what
//! the agent gave is passed back, and whether it stays inside `/workspace` is the agent's to decide.
//!
//! What answers may be anything that runs in the container. Every answer is held against what was asked
//! before it leaves here: see [`listing`], [`text`] and [`picture`].

mod listing;
mod picture;
mod text;

pub use self::picture::Picture;
pub use self::text::{Charset, WrittenCharset};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cove_agent::protocol::{
    Call, CallError, Entry, EntryKind, Failure, LIST_LIMIT, MAX_BODY, Reply, Revision,
    WriteCondition,
};
use serde::{Deserialize, Serialize};

use self::text::Text;
use crate::connection::{CallFailure, Connection};
use crate::error::Error;

/// Bytes of a file that are read for the viewer; the rest is left out, and said so.
const READ_LIMIT: u32 = 2 * 1024 * 1024;
/// The most bytes of a revision; the agent's own have less than a hundred.
const LONGEST_REVISION: usize = 1_024;

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device.
    Other,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FileEntry {
    /// The name for display; bytes that are not UTF-8 show as U+FFFD.
    pub name: String,
    /// The path to pass back; opaque.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// What a symbolic link leads to; `null` when it is none, or leads nowhere or out of the workspace.
    pub target_kind: Option<FileKind>,
    /// The size in bytes.
    pub size: u64,
    /// Milliseconds since 1970, UTC.
    pub modified_ms: i64,
    /// Permission bits.
    pub mode: u32,
}

/// How file content is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub enum Encoding {
    /// The content is UTF-8 and stands as it is.
    #[serde(rename = "utf-8")]
    Utf8,
    /// The content is binary.
    #[serde(rename = "base64")]
    Base64,
    /// The content is a text that the file has in another encoding, its charset.
    #[serde(rename = "decoded")]
    Decoded,
}

impl Encoding {
    /// Returns the bytes that `content`, the argument of this name, is written for.
    ///
    /// # Errors
    /// [`Error::Validation`] when it is not what it says, or would need a charset.
    pub fn bytes_of(self, name: &str, content: String) -> Result<Vec<u8>, Error> {
        match self {
            Self::Utf8 => Ok(content.into_bytes()),
            Self::Base64 => BASE64
                .decode(content)
                .map_err(|_| Error::field(name, "must be base64, as `encoding` says")),
            Self::Decoded => Err(Error::field("encoding", "must be `utf-8` or `base64` here")),
        }
    }
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct DirContent {
    /// Directories first, then by name.
    pub entries: Vec<FileEntry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FileContent {
    /// The content, or its beginning.
    pub content: String,
    /// How the content is written.
    pub encoding: Encoding,
    /// What the content was decoded from; `null` unless `encoding` says so.
    pub charset: Option<Charset>,
    /// What the content is a picture of; `null` when it is none.
    pub picture: Option<Picture>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Whether the file goes on.
    pub truncated: bool,
    /// The state of the file; passed back with a write, it keeps that from overwriting a change.
    pub revision: String,
}

/// Lists a directory.
///
/// # Errors
/// [`Error::FileNotFound`], [`Error::FileNotUsable`], [`Error::PathOutsideWorkspace`].
pub async fn list_dir(agent: &Connection, path: &str) -> Result<DirContent, Error> {
    let call = Call::List {
        path: path.to_owned(),
        limit: LIST_LIMIT,
    };
    match ask(agent, path, call, &[]).await? {
        (Reply::List { entries, truncated }, _) if listing::answers(path, &entries) => {
            Ok(DirContent {
                entries: entries.into_iter().map(FileEntry::from).collect(),
                truncated,
            })
        }
        _ => Err(nonsense()),
    }
}

/// Reads a regular file, up to 2 MiB of it. With a `charset`, by any of its names in the Encoding
/// Standard, the content is that text; without, it is what it looks like.
///
/// # Errors
/// [`Error::FileNotFound`], [`Error::FileNotUsable`], [`Error::PathOutsideWorkspace`];
/// [`Error::Validation`] when there is no such `charset`.
pub async fn read_file(
    agent: &Connection,
    path: &str,
    charset: Option<&str>,
) -> Result<FileContent, Error> {
    let chosen = match charset {
        None => None,
        Some(label) => Some(
            text::charset(label)
                .ok_or_else(|| Error::field("charset", "is not the name of an encoding"))?,
        ),
    };
    let call = Call::Read {
        path: path.to_owned(),
        offset: 0,
        limit: READ_LIMIT,
    };
    match ask(agent, path, call, &[]).await? {
        (
            Reply::Read {
                size,
                truncated,
                revision,
            },
            body,
        ) if body.len() <= READ_LIMIT as usize && revision.0.len() <= LONGEST_REVISION => {
            let picture = picture::picture(&body);
            let read = match (chosen, &picture) {
                (Some(encoding), _) => text::decode(&body, encoding, truncated),
                (None, Some(_)) => Text::Binary(body),
                (None, None) => text::recognise(body, truncated),
            };
            let (content, encoding, charset) = match read {
                Text::Plain(text) => (text, Encoding::Utf8, None),
                Text::Decoded(text, charset) => (text, Encoding::Decoded, Some(charset)),
                Text::Binary(bytes) => (BASE64.encode(bytes), Encoding::Base64, None),
            };
            Ok(FileContent {
                content,
                encoding,
                charset,
                picture,
                size,
                truncated,
                revision: revision.0,
            })
        }
        _ => Err(nonsense()),
    }
}

/// What a file is to hold.
#[derive(Debug, Clone)]
pub struct NewContent {
    /// The content, or how it is written.
    pub content: String,
    /// How the content is written.
    pub encoding: Encoding,
    /// The charset of a content that is [`Encoding::Decoded`], and of no other.
    pub charset: Option<WrittenCharset>,
}

impl NewContent {
    /// Returns the bytes that are meant.
    fn bytes(self, path: &str) -> Result<Vec<u8>, Error> {
        let (Encoding::Decoded, Some(WrittenCharset { name, marked })) =
            (self.encoding, self.charset)
        else {
            return self.encoding.bytes_of("content", self.content);
        };
        let encoding = text::charset(&name)
            .ok_or_else(|| Error::field("charset", "is not the name of an encoding"))?;
        text::encode(&self.content, encoding, marked).map_err(|character| Error::FileNotUsable {
            path: path.to_owned(),
            message: format!("the encoding {name} has no `{character}`"),
        })
    }
}

/// What a file must be for it to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteIf {
    /// Anything, or not there.
    Anything,
    /// Not there.
    Missing,
    /// As it was at this revision.
    Still(String),
}

impl WriteIf {
    /// Returns what a revision and the word that there is no file mean, of which at most one may be given.
    ///
    /// # Errors
    /// [`Error::Validation`] when both are.
    pub fn of(revision: Option<String>, missing: bool) -> Result<Self, Error> {
        match (revision, missing) {
            (None, false) => Ok(Self::Anything),
            (None, true) => Ok(Self::Missing),
            (Some(revision), false) => Ok(Self::Still(revision)),
            (Some(_), true) => Err(Error::field(
                "missing",
                "must not be true for a file that has a revision",
            )),
        }
    }
}

/// Makes this the whole content of a file, atomically, if the file is what it must be. Returns the new revision.
///
/// # Errors
/// [`Error::Conflict`] when the file is something else; [`Error::Validation`] when the content is not what it says or
/// is over 16 MiB; [`Error::FileNotUsable`] also when its charset does not have a character; [`Error::DiskFull`]; and
/// those of [`read_file`].
pub async fn write_file(
    agent: &Connection,
    path: &str,
    content: NewContent,
    condition: WriteIf,
) -> Result<String, Error> {
    let body = content.bytes(path)?;
    if body.len() > MAX_BODY {
        return Err(Error::field("content", "must be at most 16 MiB"));
    }
    let condition = match condition {
        WriteIf::Still(revision) => WriteCondition::Unchanged {
            revision: Revision(revision),
        },
        WriteIf::Missing => WriteCondition::Missing,
        WriteIf::Anything => WriteCondition::Anything,
    };
    let call = Call::Write {
        path: path.to_owned(),
        condition,
    };
    match ask(agent, path, call, &body).await? {
        (Reply::Write { revision }, _) => Ok(revision.0),
        _ => Err(nonsense()),
    }
}

async fn ask(
    agent: &Connection,
    path: &str,
    call: Call,
    body: &[u8],
) -> Result<(Reply, Vec<u8>), Error> {
    agent
        .call(call, body)
        .await
        .map_err(|failure| match failure {
            CallFailure::Refused(error) => refused(path, error),
            failure @ (CallFailure::Broken | CallFailure::NoAnswer(_)) => failure.into_error(),
        })
}

fn refused(path: &str, error: CallError) -> Error {
    let path = path.to_owned();
    match error.failure {
        Failure::NotFound => Error::FileNotFound(path),
        Failure::Outside => Error::PathOutsideWorkspace(path),
        Failure::Conflict { revision } => Error::Conflict {
            path,
            revision: revision.map(|revision| revision.0).unwrap_or_default(),
        },
        // Something is there where nothing was to be.
        Failure::Exists => Error::Conflict {
            path,
            revision: String::new(),
        },
        Failure::NoSpace => Error::DiskFull {
            command: None,
            operation: format!("write `{path}`"),
        },
        Failure::NotReady
        | Failure::NoUser { .. }
        | Failure::NoGroup { .. }
        | Failure::NoWorkspace
        | Failure::Preparing { .. }
        | Failure::UnsupportedProtocol { .. } => Error::AgentUnavailable(error.message),
        Failure::NotADirectory
        | Failure::IsADirectory
        | Failure::PermissionDenied
        | Failure::TooLarge
        | Failure::Invalid
        | Failure::Io => Error::FileNotUsable {
            path,
            message: error.message,
        },
    }
}

fn nonsense() -> Error {
    Error::AgentUnavailable("it answered something else than was asked".to_owned())
}

impl From<Entry> for FileEntry {
    fn from(entry: Entry) -> Self {
        Self {
            name: entry.name,
            path: entry.path,
            kind: entry.kind.into(),
            target_kind: entry.target_kind.map(FileKind::from),
            size: entry.size,
            modified_ms: entry.modified_ms,
            mode: entry.mode,
        }
    }
}

impl From<EntryKind> for FileKind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::File => Self::File,
            EntryKind::Dir => Self::Dir,
            EntryKind::Symlink => Self::Symlink,
            EntryKind::Other => Self::Other,
        }
    }
}

//! Files of a session's workspace, as the agent in the container sees them. Paths are opaque: what
//! the agent gave is passed back, and whether it stays inside `/workspace` is the agent's to decide. Only where the user
//! types a name does that become part of a path here, see [`NewPlace`].
//!
//! What answers may be anything that runs in the container. Every answer is held against what was asked
//! before it leaves here: see [`listing`], [`text`] and [`picture`].

mod listing;
mod picture;
mod text;

pub use self::picture::Picture;
pub use self::text::{Charset, WrittenCharset};
pub use cove_agent::protocol::NewEntry;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cove_agent::path::{PathError, ROOT, WorkspacePath};
use cove_agent::protocol::{
    Call, CallError, Entry, EntryKind, Failure, LIST_LIMIT, MAX_BODY, MOST_PATHS, Reply, Revision,
    WriteCondition,
};
use cove_agent::tree::TRASH;
use serde::{Deserialize, Serialize};

use self::text::Text;
use crate::connection::{CallFailure, Connection};
use crate::error::Error;
use crate::words;

/// Bytes of a file that are read for the viewer; the rest is left out, and said so.
const READ_LIMIT: u32 = 2 * 1024 * 1024;
/// The most bytes of a revision; the agent's own have less than a hundred.
const LONGEST_REVISION: usize = 1_024;
/// The most bytes of a name in Linux.
const LONGEST_NAME: usize = 255;
/// The most bytes of what stands for a delete; the agent's own have sixteen.
const LONGEST_TRASH: usize = 64;

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
    /// Whether Git ignores it, or a `.ignore` names it.
    pub ignored: bool,
    /// Whether nothing but its name can be known.
    pub unreadable: bool,
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

/// Where a new entry is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPlace {
    /// At a path that the agent gave.
    At(String),
    /// In a directory, under a name that the user typed.
    Named {
        /// The directory's path.
        directory: String,
        /// The name.
        name: String,
    },
    /// In a directory, under the name that it has.
    In(String),
}

impl NewPlace {
    /// Returns the path of the entry; `old` is the one whose name is kept.
    fn path(self, old: Option<&str>) -> Result<String, Error> {
        match self {
            Self::At(path) => Ok(path),
            Self::Named { directory, name } => {
                check_name(&name)?;
                Ok(parsed(&directory)?.join(name.as_bytes()).to_string())
            }
            Self::In(directory) => {
                let old = old.ok_or_else(|| Error::field("name", "is required"))?;
                let old = parsed(old)?;
                if old.components().is_empty() {
                    return Err(Error::field("from", "is the workspace itself"));
                }
                Ok(parsed(&directory)?.join(old.name()).to_string())
            }
        }
    }
}

/// Refuses what no name in a directory can be.
fn check_name(name: &str) -> Result<(), Error> {
    let problem = match name {
        "" => "must not be empty".to_owned(),
        "." | ".." => format!("must not be `{name}`, which means another folder"),
        _ if name.contains('/') => "must not hold a `/`".to_owned(),
        _ if name.contains('\0') => "must not hold a NUL character".to_owned(),
        _ if name.len() > LONGEST_NAME => format!(
            "must be at most {LONGEST_NAME} bytes long, and has {}",
            name.len()
        ),
        _ => return Ok(()),
    };
    Err(Error::field("name", problem))
}

fn parsed(path: &str) -> Result<WorkspacePath, Error> {
    WorkspacePath::parse(path).map_err(|error| match error {
        PathError::Outside(path) => Error::PathOutsideWorkspace(path),
        PathError::Invalid(path) => Error::FileNotFound(path),
    })
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

/// Makes an empty file or directory, and returns its path.
///
/// # Errors
/// [`Error::EntryExists`]; [`Error::Validation`] for a name that can be none; and those of [`write_file`].
pub async fn create_entry(
    agent: &Connection,
    place: NewPlace,
    entry: NewEntry,
) -> Result<String, Error> {
    let path = place.path(None)?;
    let call = Call::Create {
        path: path.clone(),
        entry,
    };
    match ask(agent, &path, call, &[]).await? {
        (Reply::Create, _) => Ok(path),
        _ => Err(nonsense()),
    }
}

/// Gives an entry another name or place, and returns its new path.
///
/// # Errors
/// [`Error::EntryExists`]; [`Error::Validation`] for a name that can be none, and for a folder that would be in itself;
/// and those of [`write_file`].
pub async fn move_entry(agent: &Connection, from: &str, to: NewPlace) -> Result<String, Error> {
    let to = to.path(Some(from))?;
    check_apart(from, &to)?;
    let call = Call::Move {
        from: from.to_owned(),
        to: to.clone(),
    };
    match ask_about(agent, from, &to, call).await? {
        Reply::Move => Ok(to),
        _ => Err(nonsense()),
    }
}

/// Copies an entry with all that is in it, whole or not at all, and returns the path of the copy. With `or_like_it`
/// that has another name where this one is taken.
///
/// # Errors
/// Those of [`move_entry`]; [`Error::FileNotUsable`] also when it takes longer than a minute.
pub async fn copy_entry(
    agent: &Connection,
    from: &str,
    to: NewPlace,
    or_like_it: bool,
) -> Result<String, Error> {
    let to = to.path(Some(from))?;
    // Beside itself a folder may be copied: under another name.
    if !(or_like_it && to == from) {
        check_apart(from, &to)?;
    }
    let call = Call::Copy {
        from: from.to_owned(),
        to: to.clone(),
        or_like_it,
    };
    match ask_about(agent, from, &to, call).await? {
        Reply::Copy { path } if is_copy(&path, &to, or_like_it) => Ok(path),
        _ => Err(nonsense()),
    }
}

/// Moves entries into the workspace's trash, all of them or none, and returns what stands for them.
///
/// # Errors
/// [`Error::FileNotFound`], [`Error::FileNotUsable`], [`Error::PathOutsideWorkspace`]; [`Error::Validation`] for none, or
/// for more than a thousand.
pub async fn delete_entries(agent: &Connection, paths: Vec<String>) -> Result<String, Error> {
    let first = match paths.first() {
        Some(first) if paths.len() <= MOST_PATHS => first.clone(),
        Some(_) => {
            let problem = format!("must be at most {MOST_PATHS}");
            return Err(Error::field("paths", problem));
        }
        None => return Err(Error::field("paths", "must be at least one")),
    };
    match ask(agent, &first, Call::Delete { paths }, &[]).await? {
        (Reply::Delete { trash }, _) if is_trash(&trash) => Ok(trash),
        _ => Err(nonsense()),
    }
}

/// Puts back what [`delete_entries`] has taken, all of it or nothing.
///
/// # Errors
/// [`Error::NotRestored`] when there is something again where an entry was, [`Error::NotInTrash`], and those of
/// [`delete_entries`].
pub async fn restore_entries(agent: &Connection, trash: String) -> Result<(), Error> {
    if !is_trash(&trash) {
        return Err(Error::field("trash", "is not what a delete answered"));
    }
    let refused = |error: CallError| match error.failure {
        Failure::Exists => Error::NotRestored(words::tamed(&error.message)),
        Failure::NotFound => Error::NotInTrash,
        _ => refused(&format!("{ROOT}/{TRASH}"), error),
    };
    match ask_or(agent, Call::Restore { trash }, &[], refused).await? {
        (Reply::Restore, _) => Ok(()),
        _ => Err(nonsense()),
    }
}

/// Refuses a place that is in the entry itself, as far as the paths tell: behind links the agent does.
fn check_apart(from: &str, to: &str) -> Result<(), Error> {
    let (from, to) = (parsed(from)?, parsed(to)?);
    let is_in = to.components().len() > from.components().len()
        && to.components().starts_with(from.components());
    if is_in {
        return Err(Error::field("to", "must not be in the folder itself"));
    }
    Ok(())
}

/// Returns whether a copy may have come to be at `path`.
fn is_copy(path: &str, to: &str, or_like_it: bool) -> bool {
    // Each byte takes at most nine in a path.
    if path.len() > to.len() + 9 * LONGEST_NAME {
        return false;
    }
    let (Ok(copy), Ok(to)) = (WorkspacePath::parse(path), WorkspacePath::parse(to)) else {
        return false;
    };
    let name = copy.name();
    let is_beside = name.len() <= LONGEST_NAME && to.beside(name) == copy;
    path == copy.to_string() && if or_like_it { is_beside } else { copy == to }
}

fn is_trash(trash: &str) -> bool {
    (1..=LONGEST_TRASH).contains(&trash.len())
        && trash.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Asks for something that is about two places.
async fn ask_about(agent: &Connection, from: &str, to: &str, call: Call) -> Result<Reply, Error> {
    let refused = |error: CallError| match error.failure {
        Failure::Exists => refused(to, error),
        _ => refused(from, error),
    };
    let (reply, _) = ask_or(agent, call, &[], refused).await?;
    Ok(reply)
}

async fn ask(
    agent: &Connection,
    path: &str,
    call: Call,
    body: &[u8],
) -> Result<(Reply, Vec<u8>), Error> {
    ask_or(agent, call, body, |error| refused(path, error)).await
}

/// Asks, and has a refusal made into an error.
async fn ask_or(
    agent: &Connection,
    call: Call,
    body: &[u8],
    refused: impl FnOnce(CallError) -> Error,
) -> Result<(Reply, Vec<u8>), Error> {
    let answer = agent.call(call, body).await;
    answer.map_err(|failure| match failure {
        CallFailure::Refused(error) => refused(error),
        failure @ (CallFailure::Broken | CallFailure::NoAnswer(_)) => failure.into_error(),
    })
}

pub(crate) fn refused(path: &str, error: CallError) -> Error {
    let path = path.to_owned();
    match error.failure {
        Failure::NotFound => Error::FileNotFound(path),
        Failure::Outside => Error::PathOutsideWorkspace(path),
        Failure::Conflict { revision } => Error::Conflict {
            path,
            revision: revision.map(|revision| revision.0).unwrap_or_default(),
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
        Failure::Exists => Error::EntryExists(path),
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
            ignored: entry.ignored,
            unreadable: entry.unreadable,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn named(directory: &str, name: &str) -> Result<String, Error> {
        let (directory, name) = (directory.to_owned(), name.to_owned());
        NewPlace::Named { directory, name }.path(None)
    }

    #[test]
    fn what_is_typed_becomes_one_name_in_the_folder_whatever_it_holds() {
        for (name, path) in [
            ("a.txt", "/workspace/d/a.txt"),
            (" two  words ", "/workspace/d/ two  words "),
            ("-rf", "/workspace/d/-rf"),
            ("a\nb", "/workspace/d/a\nb"),
            ("__proto__", "/workspace/d/__proto__"),
            ("...", "/workspace/d/..."),
            ("%2e%2e", "/workspace/d/%2e%2e"),
            (r"..\..", r"/workspace/d/..\.."),
            // What looks like an escape is the character that was typed.
            (
                "\u{FDD0}2f",
                "/workspace/d/\u{FDD0}ef\u{FDD0}b7\u{FDD0}902f",
            ),
        ] {
            assert_eq!(named("/workspace/d", name).unwrap(), path);
        }
        let longest = "é".repeat(127);
        assert!(named("/workspace", &longest).is_ok());
    }

    #[test]
    fn what_can_be_no_name_is_refused_and_says_why() {
        let too_long = "é".repeat(128);
        for (name, why) in [
            ("", "empty"),
            (".", "another folder"),
            ("..", "another folder"),
            ("/", "`/`"),
            ("a/b", "`/`"),
            ("../a", "`/`"),
            ("a\0b", "NUL"),
            (&too_long, "255 bytes"),
        ] {
            let error = named("/workspace", name).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ValidationError, "{name:?}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let outside = named("/etc", "passwd").unwrap_err();
        assert_eq!(outside.code(), ErrorCode::PathOutsideWorkspace);
    }

    #[test]
    fn a_name_of_any_bytes_is_kept_in_another_folder() {
        let place = NewPlace::In("/workspace/d".to_owned());
        let path = place.path(Some("/workspace/caf\u{FDD0}e9")).unwrap();
        assert_eq!(path, "/workspace/d/caf\u{FDD0}e9");
        let root = NewPlace::In("/workspace/d".to_owned()).path(Some("/workspace"));
        assert_eq!(root.unwrap_err().code(), ErrorCode::ValidationError);
    }

    #[test]
    fn a_folder_is_not_put_into_itself() {
        for to in ["/workspace/a/a", "/workspace/a/b/c", "/workspace//a/./b"] {
            let error = check_apart("/workspace/a", to).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ValidationError, "{to}");
        }
        for to in ["/workspace/ab", "/workspace/b/a", "/workspace/a"] {
            assert!(check_apart("/workspace/a", to).is_ok(), "{to}");
        }
    }

    #[test]
    fn where_a_copy_is_said_to_be_is_believed_only_beside_what_was_asked_for() {
        let asked = "/workspace/d/a";
        assert!(is_copy(asked, asked, false));
        assert!(!is_copy("/workspace/d/b", asked, false));
        assert!(is_copy("/workspace/d/a copy", asked, true));
        for path in [
            "/workspace/d",
            "/workspace/a",
            "/workspace/d/b/c",
            "/etc/a",
            "/workspace/d/../a",
            "/workspace/d//a",
            "",
        ] {
            assert!(!is_copy(path, asked, true), "{path}");
        }
        let long = format!("/workspace/d/{}", "x".repeat(256));
        assert!(!is_copy(&long, asked, true));
    }
}

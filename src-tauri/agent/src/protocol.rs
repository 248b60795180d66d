//! What the app and the agent say to each other on a stream of their connection (see [`crate::streams`]).
//!
//! A frame is a `u32` (big endian) with the length of what follows, a `u32` with the length of the
//! header, the header as JSON, and the body: the raw bytes of a file, so that content is never made
//! into text. The app opens a stream for each [`Call`], and the agent answers with one [`Response`], a search with
//! several. Both finish it then, but for a terminal and a watch, which go on in the frames of [`crate::terminal`] and
//! [`crate::watch`]. A stream ends at the first frame that breaks
//! these rules: there is no way to find the next one.
//!
//! This module does no I/O: [`encode`] makes the bytes of a frame and a [`Decoder`] takes frames out of
//! bytes, however they were cut on the way.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::search::{FoundFile, FoundName, MOST_MATCHES, MOST_NAMES, Query, Searched};
use crate::terminal::{Begins, Tab};

/// The version of the protocol. Both sides must speak the same one: they find out before the first stream, and from
/// [`Call::Hello`].
pub const VERSION: u32 = crate::streams::VERSION as u32;

/// The most bytes of a request's header: far more than the longest path, encoded and escaped.
pub const MAX_REQUEST_HEADER: usize = 1 << 20;

/// The most bytes of a response's header: ten thousand entries with long paths.
pub const MAX_RESPONSE_HEADER: usize = 16 << 20;

/// The most bytes of a body. Longer files are read in pieces; they are not written.
pub const MAX_BODY: usize = 16 << 20;

/// How many entries the app asks for unless it has a reason.
pub const LIST_LIMIT: u32 = 10_000;

/// How long the agent works on a [`Call::Copy`] before it gives up and takes back what it made.
pub const COPY_LIMIT: Duration = Duration::from_secs(60);

/// The most paths of a call that takes several.
pub const MOST_PATHS: usize = 1_000;

/// The most bytes of a body that shows a screen as it is.
pub const MOST_SHOWN: usize = 8 << 20;

/// The most programs of a terminal that are named.
pub const MOST_PROGRAMS: usize = 8;

/// The most terminals of a container, those whose shell has ended among them.
pub const MOST_TERMINALS: usize = 64;

/// The most ports that are told.
pub const MOST_PORTS: usize = 1_000;

/// The most TCP connections into a container over one connection of the app.
pub const MOST_FORWARDS: usize = 256;

/// The agent's answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// What became of it; a success answers with the [`Reply`] of the same name as the call.
    pub result: Result<Reply, CallError>,
}

/// What can be asked for. Paths are encoded, see [`crate::path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Call {
    /// Is the container ready? Answered when process 1 has finished its setup; after a moment by
    /// [`Failure::Preparing`] while that says how far it is; at the latest after 10 s.
    Hello {
        /// The [`VERSION`] that the app speaks.
        protocol: u32,
    },
    /// What is in the directory `path`?
    List {
        /// The directory; a symlink to one is followed.
        path: String,
        /// The most entries to answer with.
        limit: u32,
    },
    /// Reads a piece of a regular file into the body of the answer.
    Read {
        /// The file; symlinks are followed.
        path: String,
        /// The first byte.
        offset: u64,
        /// The most bytes, at most [`MAX_BODY`].
        limit: u32,
    },
    /// Makes the body of this frame the whole content of a regular file.
    Write {
        /// The file; symlinks are followed and stay.
        path: String,
        /// What must hold for the write to happen.
        condition: WriteCondition,
    },
    /// Makes an empty file or a directory; [`Failure::Exists`] when there is something.
    Create {
        /// The new entry.
        path: String,
        /// What it is to be.
        entry: NewEntry,
    },
    /// Gives an entry another name or place; [`Failure::Exists`] when there is something. A symlink is moved itself.
    Move {
        /// The entry.
        from: String,
        /// Where it is to be.
        to: String,
    },
    /// Copies an entry with all that is in it, whole or not at all, for [`COPY_LIMIT`] at most. A symlink is copied itself.
    Copy {
        /// The entry.
        from: String,
        /// Where the copy is to be.
        to: String,
        /// Whether a name like it is taken when there is something; [`Failure::Exists`] otherwise.
        or_like_it: bool,
    },
    /// Moves entries into the trash of the workspace, all of them or none.
    Delete {
        /// At least one, at most [`MOST_PATHS`].
        paths: Vec<String>,
    },
    /// Puts what one [`Call::Delete`] has taken back to where it was; [`Failure::Exists`] when there is something.
    Restore {
        /// What the delete answered.
        trash: String,
    },
    /// Which files have names that are most like this?
    Find {
        /// What is typed of the name.
        query: String,
        /// The most names to answer with, at most [`MOST_NAMES`].
        limit: u32,
        /// Whether names do not count that were read before.
        fresh: bool,
        /// How many milliseconds names may be read before the answer, at least one folder.
        patience_ms: u32,
    },
    /// Where is this in files? Answered by several [`Reply::Search`], the last of which says what was searched; a
    /// reset of the stream ends it.
    Search {
        /// What is searched for.
        query: Query,
        /// The most matches, at most [`MOST_MATCHES`](crate::search::MOST_MATCHES).
        limit: u32,
    },
    /// How many processes does the container have, and how many may it have?
    Processes,
    /// What have the programs of the container done so far?
    Work,
    /// Ends all processes of the container, but for process 1 and the agent's own.
    EndProcesses,
    /// Which terminals are there?
    Terminals,
    /// Begins a terminal with a new shell, and shows it on this stream.
    OpenTerminal {
        /// Its name, chosen by the app; [`Failure::Exists`] when there is one of that name.
        id: String,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
        /// In which folder the shell begins; in the workspace where it is not said, and where that is no longer there: the
        /// terminal says so then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begins: Option<Begins>,
    },
    /// Shows a terminal on this stream, and no longer on the one where it was.
    AttachTerminal {
        /// Its name; [`Failure::NotFound`] when there is none.
        id: String,
        /// How much of its output the app has already, in bytes from its beginning.
        from: u64,
    },
    /// Hangs up a terminal, and forgets it. There may be none.
    CloseTerminal {
        /// Its name.
        id: String,
    },
    /// What has the shell of a terminal begun that goes on?
    TerminalPrograms {
        /// The terminal's name; [`Failure::NotFound`] when there is none.
        id: String,
    },
    /// Tells on this stream when files change; what follows is in [`crate::watch`].
    Watch,
    /// Tells entries with all that is in them, as [`crate::tree`] says, behind the answer on this stream.
    Pack {
        /// At least one, at most [`MOST_PATHS`]. A symlink is told itself.
        paths: Vec<String>,
        /// Where to go on with a single file of which a part was told before.
        resume: Option<Resume>,
    },
    /// Makes what is told behind the call on this stream, as [`crate::tree`] says, in a folder: each of the entries in
    /// the root of that tree gets its name when all are whole. Behind the answer comes how that ended.
    Unpack {
        /// The folder; a symlink to one is followed.
        folder: String,
        /// The names of the entries, encoded; at most [`MOST_PATHS`].
        names: Vec<String>,
        /// What becomes of what has one of the names already.
        taken: Taken,
    },
    /// Which TCP ports does somebody listen on? Answered by a [`Reply::WatchPorts`] now and whenever it is another, until the
    /// stream is reset.
    WatchPorts,
    /// Connects to a program that listens in the container; behind the call and its answer, the stream is what is written
    /// to it and what it writes. A finish ends one half, and a reset breaks the connection off.
    Connect {
        /// Where it listens: an address of the container's own, [`Failure::Outside`] otherwise.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Keeps with the terminals how a window shows them, for the next that does; [`Failure::Invalid`] for what
    /// [`crate::terminal::is_fit`] refuses.
    ArrangeTerminals {
        /// The tabs, in their order.
        tabs: Vec<Tab>,
    },
}

/// Where a [`Call::Pack`] goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The first byte that is missing.
    pub offset: u64,
    /// The state of the file when it was told first; [`Failure::Conflict`] when it has another.
    pub revision: Revision,
}

/// What becomes of what has the name of an entry that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// It stays, and nothing is made.
    Refuse,
    /// It stays, and what comes gets a name like it.
    KeepBoth,
    /// It goes into the trash when all that comes is whole.
    Replace,
}

/// What a [`Call::Create`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewEntry {
    /// An empty file.
    File,
    /// An empty directory.
    Dir,
}

/// What must hold for a [`Call::Write`] to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "expect", rename_all = "snake_case")]
pub enum WriteCondition {
    /// Nothing: a missing file is made, an existing one is overwritten.
    Anything,
    /// There is nothing yet at the path; [`Failure::Exists`] otherwise.
    Missing,
    /// The file is still the one that was read; [`Failure::Conflict`] otherwise.
    Unchanged {
        /// What the read or the last write answered.
        revision: Revision,
    },
}

/// A success. Each is the answer to the call of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", try_from = "ReadReply")]
pub enum Reply {
    /// The container is ready.
    Hello(Hello),
    /// What is in the directory.
    List {
        /// Directories first, then by name without regard to ASCII case.
        entries: Vec<Entry>,
        /// Whether there is more than was asked for or fits in a frame.
        truncated: bool,
    },
    /// The body holds the piece.
    Read {
        /// Bytes of the whole file.
        size: u64,
        /// Whether the file goes on behind the piece.
        truncated: bool,
        /// The state of the file before the read: if it changed meanwhile, a write finds out.
        revision: Revision,
    },
    /// The content is in place.
    Write {
        /// The state of the file now.
        revision: Revision,
    },
    /// The entry is there.
    Create,
    /// The entry is in its new place.
    Move,
    /// The copy is whole and in place.
    Copy {
        /// Where the copy is: its path.
        path: String,
    },
    /// The entries are in the trash.
    Delete {
        /// Stands for them in a [`Call::Restore`].
        trash: String,
    },
    /// The entries are back.
    Restore,
    /// The files whose names are most like what was typed.
    Find {
        /// The best first.
        names: Vec<FoundName>,
        /// How many are like it.
        total: u64,
        /// Whether all names have been read; if not, asking again reads on.
        settled: bool,
        /// Whether there are more names than are kept.
        truncated: bool,
    },
    /// What was found since the last answer.
    Search {
        /// In these files.
        files: Vec<FoundFile>,
        /// What was searched; `null` while it goes on.
        searched: Option<Searched>,
    },
    /// How many processes there are.
    Processes {
        /// Processes and threads, as the kernel counts them for the limit; the agent's own are among them.
        running: u64,
        /// The most that there may be; `null` when there is no limit, or none that can be read.
        limit: Option<u64>,
    },
    /// What programs have done; the agent's own doing is not in it. It is for comparing: it falls when a program ends whose
    /// end nobody has waited for.
    Work {
        /// Processor time in milliseconds.
        processor_ms: u64,
        /// Bytes written to disks, by processes of the image's user.
        written_bytes: u64,
    },
    /// The processes have been ended.
    EndProcesses {
        /// So many were ended.
        ended: u64,
        /// So many are still there: those of another user, who may not be told to end.
        left: u64,
    },
    /// The terminals that are there.
    Terminals {
        /// Their names, in the order in which they were opened.
        terminals: Vec<String>,
        /// The tabs that they were in when a window said so last. There may be others meanwhile, and fewer.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tabs: Vec<Tab>,
    },
    /// The terminal has begun; its output follows.
    OpenTerminal,
    /// The terminal's output follows. Where it does not go on from where was asked for, because that is not kept any more,
    /// the body holds what shows the screen as it is.
    AttachTerminal {
        /// Where the output goes on, in bytes from the beginning of all.
        from: u64,
        /// How much has been written so far, in bytes from the beginning of all output.
        written: u64,
        /// How many bytes have been typed into it.
        typed: u64,
    },
    /// The terminal is gone.
    CloseTerminal,
    /// What goes on in the terminal.
    TerminalPrograms {
        /// Their commands, cut short, at most [`MOST_PROGRAMS`]: those of the job in front first.
        programs: Vec<String>,
    },
    /// What is to be watched may be said.
    Watch,
    /// The tree follows.
    Pack {
        /// The state of a single file, with which a later call can go on; absent for anything else, and for a file that
        /// has changed so short a time ago that another change could not be told.
        revision: Option<Revision>,
    },
    /// What was refused, or nothing: then the tree may come.
    Unpack {
        /// The names that are taken, encoded; nothing is made if there are any.
        occupied: Vec<String>,
    },
    /// The ports that somebody listens on now.
    WatchPorts {
        /// By number and address; at most [`MOST_PORTS`].
        ports: Vec<ListeningPort>,
        /// Whether there are more.
        truncated: bool,
    },
    /// It is connected.
    Connect,
    /// It is kept.
    ArrangeTerminals,
}

/// A TCP port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// Its number.
    pub port: u16,
    /// The address that it listens at; unspecified for all that there are.
    pub address: IpAddr,
    /// The program's name, in whatever words it has; `null` when it is another user's and may not be known.
    pub process: Option<String>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The [`VERSION`] that the agent speaks.
    pub protocol: u32,
    /// The version of the agent.
    pub agent_version: String,
    /// The user id that the agent serves as: the image's user.
    pub uid: u32,
    /// The group id that the agent serves as.
    pub gid: u32,
    /// The name of the user, if the image knows one.
    pub user: Option<String>,
    /// Whether this user may make files in the root of the workspace.
    pub workspace_writable: bool,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// For showing.
    pub name: String,
    /// For passing back.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// For a symlink that leads to something inside the workspace, what that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_kind: Option<EntryKind>,
    /// The size in bytes.
    pub size: u64,
    /// When the content last changed, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Whether `.gitignore`, `.ignore` or `.git/info/exclude` names it, or something that it is in.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignored: bool,
    /// Whether nothing but its name can be known: the rest is made up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unreadable: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device.
    Other,
}

/// The state of a file at one moment; opaque, to be compared and passed back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReadCallError")]
pub struct CallError {
    /// What to act on.
    #[serde(flatten)]
    pub failure: Failure,
    /// What to show, for example ``failed to open `/workspace/a`: Permission denied``.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Failure {
    /// There is nothing at the path.
    NotFound,
    /// A file stands where a directory is needed.
    NotADirectory,
    /// A directory stands where a file is needed.
    IsADirectory,
    /// The path, or a symlink on the way, leads out of the workspace.
    Outside,
    /// The image's user may not do this, or the file system is read-only.
    PermissionDenied,
    /// The file is not the one that was read.
    Conflict {
        /// Its state now; `null` if it is gone.
        revision: Option<Revision>,
    },
    /// There is something at the path already.
    Exists,
    /// The volume is full, or a quota is.
    NoSpace,
    /// More than a frame can carry, or than the file system takes.
    TooLarge,
    /// The agent speaks another version.
    UnsupportedProtocol {
        /// The version that it speaks.
        protocol: u32,
    },
    /// The container is not ready: its setup failed, or process 1 is not the agent.
    NotReady,
    /// The container is not ready and never will be: its image has no such user.
    NoUser {
        /// The user that the image names.
        user: String,
    },
    /// The container is not ready and never will be: its image has no such group.
    NoGroup {
        /// The group that the image names.
        group: String,
    },
    /// The container is not ready and never will be: `/workspace` of its image is no folder of its own.
    NoWorkspace,
    /// The container is not ready yet: files are being given to their user. Ask again.
    Preparing {
        /// So many files have been looked at.
        seen: u64,
    },
    /// The request makes no sense for what is at the path, for example reading a pipe.
    Invalid,
    /// Everything else; the message tells.
    Io,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

/// A [`Reply`] as it is read: field by field. Whoever answers can put anything beside them, and as many entries as fit
/// into a frame; a tag, whose fields serde gathers first, would have all of it kept, in several times the memory.
#[derive(Deserialize)]
struct ReadReply {
    kind: ReplyKind,
    entries: Option<Bounded<Entry, { LIST_LIMIT as usize }>>,
    truncated: Option<bool>,
    size: Option<u64>,
    revision: Option<Revision>,
    path: Option<String>,
    trash: Option<String>,
    protocol: Option<u32>,
    agent_version: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<String>,
    workspace_writable: Option<bool>,
    running: Option<u64>,
    limit: Option<u64>,
    processor_ms: Option<u64>,
    written_bytes: Option<u64>,
    ended: Option<u64>,
    left: Option<u64>,
    terminals: Option<Bounded<String, MOST_TERMINALS>>,
    tabs: Option<Bounded<Tab, MOST_TERMINALS>>,
    programs: Option<Bounded<String, MOST_PROGRAMS>>,
    from: Option<u64>,
    written: Option<u64>,
    typed: Option<u64>,
    names: Option<Bounded<FoundName, { MOST_NAMES as usize }>>,
    total: Option<u64>,
    settled: Option<bool>,
    files: Option<Bounded<FoundFile, { MOST_MATCHES as usize }>>,
    searched: Option<Searched>,
    occupied: Option<Bounded<String, MOST_PATHS>>,
    ports: Option<Bounded<ListeningPort, MOST_PORTS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReplyKind {
    Hello,
    List,
    Read,
    Write,
    Create,
    Move,
    Copy,
    Delete,
    Restore,
    Find,
    Search,
    Processes,
    Work,
    EndProcesses,
    Terminals,
    OpenTerminal,
    AttachTerminal,
    CloseTerminal,
    TerminalPrograms,
    Watch,
    Pack,
    Unpack,
    WatchPorts,
    Connect,
    ArrangeTerminals,
}

impl TryFrom<ReadReply> for Reply {
    type Error = &'static str;

    fn try_from(read: ReadReply) -> Result<Self, Self::Error> {
        let reply =
            match read.kind {
                ReplyKind::Hello => read.hello().map(Self::Hello),
                ReplyKind::List => read
                    .entries
                    .zip(read.truncated)
                    .map(|(Bounded(entries), truncated)| Self::List { entries, truncated }),
                ReplyKind::Read => read.size.zip(read.truncated).zip(read.revision).map(
                    |((size, truncated), revision)| Self::Read {
                        size,
                        truncated,
                        revision,
                    },
                ),
                ReplyKind::Write => read.revision.map(|revision| Self::Write { revision }),
                ReplyKind::Create => Some(Self::Create),
                ReplyKind::Move => Some(Self::Move),
                ReplyKind::Copy => read.path.map(|path| Self::Copy { path }),
                ReplyKind::Delete => read.trash.map(|trash| Self::Delete { trash }),
                ReplyKind::Restore => Some(Self::Restore),
                ReplyKind::Find => read.find(),
                ReplyKind::Search => {
                    let searched = read.searched;
                    let search = |Bounded(files)| Self::Search { files, searched };
                    read.files.map(search)
                }
                ReplyKind::Processes => read.running.map(|running| Self::Processes {
                    running,
                    limit: read.limit,
                }),
                ReplyKind::Work => read.processor_ms.zip(read.written_bytes).map(
                    |(processor_ms, written_bytes)| Self::Work {
                        processor_ms,
                        written_bytes,
                    },
                ),
                ReplyKind::EndProcesses => read
                    .ended
                    .zip(read.left)
                    .map(|(ended, left)| Self::EndProcesses { ended, left }),
                ReplyKind::Terminals => read.terminals.map(|Bounded(terminals)| Self::Terminals {
                    terminals,
                    tabs: read.tabs.map(|Bounded(tabs)| tabs).unwrap_or_default(),
                }),
                ReplyKind::OpenTerminal => Some(Self::OpenTerminal),
                ReplyKind::AttachTerminal => {
                    read.from
                        .zip(read.written)
                        .zip(read.typed)
                        .map(|((from, written), typed)| Self::AttachTerminal {
                            from,
                            written,
                            typed,
                        })
                }
                ReplyKind::CloseTerminal => Some(Self::CloseTerminal),
                ReplyKind::TerminalPrograms => read
                    .programs
                    .map(|Bounded(programs)| Self::TerminalPrograms { programs }),
                ReplyKind::Watch => Some(Self::Watch),
                ReplyKind::Pack => Some(Self::Pack {
                    revision: read.revision,
                }),
                ReplyKind::Unpack => read
                    .occupied
                    .map(|Bounded(occupied)| Self::Unpack { occupied }),
                ReplyKind::WatchPorts => read
                    .ports
                    .zip(read.truncated)
                    .map(|(Bounded(ports), truncated)| Self::WatchPorts { ports, truncated }),
                ReplyKind::Connect => Some(Self::Connect),
                ReplyKind::ArrangeTerminals => Some(Self::ArrangeTerminals),
            };
        reply.ok_or("a reply without all of its fields")
    }
}

impl ReadReply {
    fn find(self) -> Option<Reply> {
        let Bounded(names) = self.names?;
        Some(Reply::Find {
            names,
            total: self.total?,
            settled: self.settled?,
            truncated: self.truncated?,
        })
    }

    fn hello(self) -> Option<Hello> {
        Some(Hello {
            protocol: self.protocol?,
            agent_version: self.agent_version?,
            uid: self.uid?,
            gid: self.gid?,
            user: self.user,
            workspace_writable: self.workspace_writable?,
        })
    }
}

/// A list of which no more is kept than one over the limit.
pub(crate) struct Bounded<T, const LIMIT: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for Bounded<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept<T, const LIMIT: usize>(PhantomData<fn() -> T>);
        impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Kept<T, LIMIT> {
            type Value = Bounded<T, LIMIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() <= LIMIT {
                    let Some(next) = list.next_element()? else {
                        return Ok(Bounded(kept));
                    };
                    kept.push(next);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Bounded(kept))
            }
        }
        deserializer.deserialize_seq(Kept(PhantomData))
    }
}

/// A [`CallError`] as it is read, for the same reason as [`ReadReply`].
#[derive(Deserialize)]
struct ReadCallError {
    code: FailureCode,
    message: String,
    revision: Option<Revision>,
    protocol: Option<u32>,
    seen: Option<u64>,
    user: Option<String>,
    group: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FailureCode {
    NotFound,
    NotADirectory,
    IsADirectory,
    Outside,
    PermissionDenied,
    Conflict,
    Exists,
    NoSpace,
    TooLarge,
    UnsupportedProtocol,
    NotReady,
    NoUser,
    NoGroup,
    NoWorkspace,
    Preparing,
    Invalid,
    Io,
}

impl TryFrom<ReadCallError> for CallError {
    type Error = &'static str;

    fn try_from(read: ReadCallError) -> Result<Self, Self::Error> {
        let missing = "a failure without all of its fields";
        let failure = match read.code {
            FailureCode::NotFound => Failure::NotFound,
            FailureCode::NotADirectory => Failure::NotADirectory,
            FailureCode::IsADirectory => Failure::IsADirectory,
            FailureCode::Outside => Failure::Outside,
            FailureCode::PermissionDenied => Failure::PermissionDenied,
            FailureCode::Conflict => Failure::Conflict {
                revision: read.revision,
            },
            FailureCode::Exists => Failure::Exists,
            FailureCode::NoSpace => Failure::NoSpace,
            FailureCode::TooLarge => Failure::TooLarge,
            FailureCode::UnsupportedProtocol => Failure::UnsupportedProtocol {
                protocol: read.protocol.ok_or(missing)?,
            },
            FailureCode::NotReady => Failure::NotReady,
            FailureCode::NoUser => Failure::NoUser {
                user: read.user.ok_or(missing)?,
            },
            FailureCode::NoGroup => Failure::NoGroup {
                group: read.group.ok_or(missing)?,
            },
            FailureCode::NoWorkspace => Failure::NoWorkspace,
            FailureCode::Preparing => Failure::Preparing {
                seen: read.seen.ok_or(missing)?,
            },
            FailureCode::Invalid => Failure::Invalid,
            FailureCode::Io => Failure::Io,
        };
        Ok(Self {
            failure,
            message: read.message,
        })
    }
}

/// The header of a frame: a [`Call`] in one direction, a [`Response`] in the other.
pub trait Header: Serialize + DeserializeOwned {
    /// The most bytes of it as JSON.
    const MAX: usize;
}

impl Header for Call {
    const MAX: usize = MAX_REQUEST_HEADER;
}

impl Header for Response {
    const MAX: usize = MAX_RESPONSE_HEADER;
}

/// A header and the bytes that come with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<H> {
    /// The call or response.
    pub header: H,
    /// The content of a file; empty for most frames.
    pub body: Vec<u8>,
}

/// How a stream or a frame breaks the rules.
#[derive(Debug)]
pub enum ProtocolError {
    /// A header of this many bytes is over the limit.
    HeaderTooLong(usize),
    /// A body of this many bytes is over the limit.
    BodyTooLong(usize),
    /// The lengths of a frame contradict each other.
    Malformed,
    /// The header is not the JSON of what it should be.
    Header(serde_json::Error),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderTooLong(length) => {
                write!(f, "a frame header of {length} bytes is too long")
            }
            Self::BodyTooLong(length) => write!(f, "a frame body of {length} bytes is too long"),
            Self::Malformed => f.write_str("the lengths of a frame contradict each other"),
            Self::Header(_) => f.write_str("failed to read a frame header"),
        }
    }
}

impl std::error::Error for ProtocolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Header(cause) => Some(cause),
            Self::HeaderTooLong(_) | Self::BodyTooLong(_) | Self::Malformed => None,
        }
    }
}

/// Returns the bytes of a frame.
///
/// # Errors
/// [`ProtocolError`] when the header or the body is over its limit: such a frame is never sent.
pub fn encode<H: Header>(header: &H, body: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let mut frame = vec![0; LENGTHS];
    serde_json::to_writer(&mut frame, header).map_err(ProtocolError::Header)?;
    let header_length = frame.len() - LENGTHS;
    if header_length > H::MAX {
        return Err(ProtocolError::HeaderTooLong(header_length));
    }
    if body.len() > MAX_BODY {
        return Err(ProtocolError::BodyTooLong(body.len()));
    }
    frame.extend_from_slice(body);
    let lengths = [frame.len() - FIRST_LENGTH, header_length];
    for (place, length) in frame.chunks_exact_mut(FIRST_LENGTH).zip(lengths) {
        let length = u32::try_from(length).map_err(|_| ProtocolError::Malformed)?;
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(frame)
}

/// Takes the frames of one direction out of a stream of bytes.
///
/// It holds no more than what was pushed: a frame that announces an absurd length is refused when its
/// first bytes are there.
#[derive(Debug)]
pub struct Decoder<H> {
    buffer: Vec<u8>,
    /// How much of `buffer` has been taken.
    taken: usize,
    /// The most bytes of a body.
    max_body: usize,
    header: PhantomData<fn() -> H>,
}

impl<H> Default for Decoder<H> {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            max_body: MAX_BODY,
            header: PhantomData,
        }
    }
}

impl<H: Header> Decoder<H> {
    /// Returns a decoder for the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses frames with longer bodies than this.
    #[must_use]
    pub fn with_bodies_up_to(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// Returns a decoder for what follows the frames of one kind, if another kind follows.
    #[must_use]
    pub fn followed_by<N: Header>(mut self) -> Decoder<N> {
        let mut next = Decoder::new();
        next.buffer = self.buffer.split_off(self.taken);
        next
    }

    /// Returns the bytes behind the frames that were taken.
    #[must_use]
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.taken)
    }

    /// Adds bytes that came in. Take all frames before the next push: nothing is freed earlier.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or `None` if it is not there yet.
    ///
    /// # Errors
    /// [`ProtocolError`], from then on every time: the stream cannot be used any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame<H>>, ProtocolError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((total, rest)) = split_length(rest) else {
            return Ok(None);
        };
        let too_long = FIRST_LENGTH + H::MAX + self.max_body;
        if total < FIRST_LENGTH {
            return Err(ProtocolError::Malformed);
        }
        if total > too_long {
            return Err(ProtocolError::BodyTooLong(total));
        }
        let Some((header_length, rest)) = split_length(rest) else {
            return Ok(None);
        };
        let body_length = total
            .checked_sub(FIRST_LENGTH + header_length)
            .ok_or(ProtocolError::Malformed)?;
        if header_length > H::MAX {
            return Err(ProtocolError::HeaderTooLong(header_length));
        }
        if body_length > self.max_body {
            return Err(ProtocolError::BodyTooLong(body_length));
        }
        let frame = rest.split_at_checked(header_length);
        let Some((header, body)) =
            frame.and_then(|(header, rest)| Some((header, rest.get(..body_length)?)))
        else {
            // Growing in doubles would take up to twice as much of what is to come.
            let missing = (FIRST_LENGTH + total).saturating_sub(self.buffer.len() - self.taken);
            self.buffer.reserve_exact(missing);
            return Ok(None);
        };
        let header = serde_json::from_slice(header).map_err(ProtocolError::Header)?;
        let frame = Frame {
            header,
            body: body.to_vec(),
        };
        self.taken += FIRST_LENGTH + total;
        Ok(Some(frame))
    }

    /// Returns whether the stream may end here: no frame has begun.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.taken == self.buffer.len()
    }
}

/// Bytes of the first length, and of each.
const FIRST_LENGTH: usize = size_of::<u32>();
/// Bytes of both lengths.
const LENGTHS: usize = 2 * FIRST_LENGTH;

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    // On a target where it does not fit it is too long as well.
    Some((
        usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX),
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Pane;

    fn list(limit: u32) -> Call {
        Call::List {
            path: "/workspace".into(),
            limit,
        }
    }

    fn write() -> Call {
        let revision = Revision("1-2-3".into());
        Call::Write {
            path: "/workspace/a".into(),
            condition: WriteCondition::Unchanged { revision },
        }
    }

    fn frames_of(pieces: &[&[u8]]) -> Vec<Frame<Call>> {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert!(decoder.is_between_frames());
        frames
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let expected = vec![
            Frame {
                header: list(1),
                body: vec![],
            },
            Frame {
                header: write(),
                body: vec![0, 255, 10, 13],
            },
            Frame {
                header: list(u32::MAX),
                body: vec![],
            },
        ];
        let stream: Vec<u8> = expected
            .iter()
            .flat_map(|frame| encode(&frame.header, &frame.body).unwrap())
            .collect();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(frames_of(&pieces), expected, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames_of(&bytes), expected);
    }

    fn lengths(total: u32, header: u32) -> Vec<u8> {
        [total.to_be_bytes(), header.to_be_bytes()].concat()
    }

    fn check_refused(stream: &[u8]) {
        let mut decoder = Decoder::<Call>::new();
        decoder.push(stream);
        assert!(decoder.next_frame().is_err(), "{stream:x?}");
        assert!(decoder.next_frame().is_err(), "still refused: {stream:x?}");
        assert!(
            decoder.buffer.capacity() < 1 << 10,
            "nothing is set aside for a refused frame"
        );
    }

    #[test]
    fn an_absurd_length_is_refused_before_anything_is_set_aside() {
        check_refused(&u32::MAX.to_be_bytes());
        check_refused(&lengths(u32::MAX, 4));
        check_refused(&lengths(8 << 20, 2 << 20));
        check_refused(&lengths((16 << 20) + 5 + 10, 10));
        check_refused(&lengths(10, u32::MAX));
    }

    #[test]
    fn a_malformed_frame_ends_the_stream() {
        check_refused(&lengths(0, 0));
        check_refused(&lengths(3, 0));
        check_refused(&lengths(8, 5));
        check_refused(&[lengths(6, 2), b"{}".to_vec()].concat());
        check_refused(&[lengths(6, 2), b"\xff\xff".to_vec()].concat());
        check_refused(&[lengths(4 + 15, 15), br#"{"kind":"burn"}"#.to_vec()].concat());
    }

    #[test]
    fn of_entries_without_end_no_more_are_kept_than_it_takes_to_refuse_them() {
        let entry = r#"{"name":"a","path":"/workspace/a","kind":"file","size":1,"modified_ms":0,"mode":420},"#;
        let mut entries = entry.repeat(2 * LIST_LIMIT as usize);
        entries.pop();
        let json = format!(
            r#"{{"result":{{"Ok":{{"junk":[[0]],"kind":"list","entries":[{entries}],"truncated":false}}}}}}"#
        );
        let response: Response = serde_json::from_str(&json).unwrap();
        let Ok(Reply::List { entries, .. }) = response.result else {
            panic!("{:?}", response.result);
        };
        assert_eq!(entries.len(), LIST_LIMIT as usize + 1);
    }

    #[test]
    fn a_frame_over_the_limits_is_not_made() {
        assert!(matches!(
            encode(&list(1), &vec![0; MAX_BODY + 1]),
            Err(ProtocolError::BodyTooLong(_))
        ));
        let long = Call::List {
            path: "a".repeat(MAX_REQUEST_HEADER),
            limit: 1,
        };
        assert!(matches!(
            encode(&long, &[]),
            Err(ProtocolError::HeaderTooLong(_))
        ));
    }

    #[test]
    fn a_body_of_the_greatest_size_passes() {
        let body = vec![7; MAX_BODY];
        let stream = encode(&write(), &body).unwrap();
        assert_eq!(
            frames_of(&[&stream]),
            vec![Frame {
                header: write(),
                body
            }]
        );
    }

    fn check_json<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: &T, json: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), json);
        assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
    }

    #[test]
    fn requests_are_written_as_documented() {
        let path = || "/workspace/a".to_owned();
        check_json(
            &Call::Hello { protocol: 1 },
            r#"{"kind":"hello","protocol":1}"#,
        );
        check_json(&list(5), r#"{"kind":"list","path":"/workspace","limit":5}"#);
        check_json(
            &Call::Read {
                path: path(),
                offset: 0,
                limit: 9,
            },
            r#"{"kind":"read","path":"/workspace/a","offset":0,"limit":9}"#,
        );
        check_json(
            &write(),
            r#"{"kind":"write","path":"/workspace/a","condition":{"expect":"unchanged","revision":"1-2-3"}}"#,
        );
        check_json(
            &Call::Write {
                path: path(),
                condition: WriteCondition::Anything,
            },
            r#"{"kind":"write","path":"/workspace/a","condition":{"expect":"anything"}}"#,
        );
        check_json(
            &Call::Write {
                path: path(),
                condition: WriteCondition::Missing,
            },
            r#"{"kind":"write","path":"/workspace/a","condition":{"expect":"missing"}}"#,
        );
        check_json(
            &Call::Create {
                path: path(),
                entry: NewEntry::Dir,
            },
            r#"{"kind":"create","path":"/workspace/a","entry":"dir"}"#,
        );
        check_json(
            &Call::Move {
                from: path(),
                to: "/workspace/b".into(),
            },
            r#"{"kind":"move","from":"/workspace/a","to":"/workspace/b"}"#,
        );
        check_json(
            &Call::Copy {
                from: path(),
                to: path(),
                or_like_it: true,
            },
            r#"{"kind":"copy","from":"/workspace/a","to":"/workspace/a","or_like_it":true}"#,
        );
        check_json(
            &Call::Delete {
                paths: vec![path()],
            },
            r#"{"kind":"delete","paths":["/workspace/a"]}"#,
        );
        check_json(
            &Call::Restore { trash: "0f".into() },
            r#"{"kind":"restore","trash":"0f"}"#,
        );
        check_json(&Call::Processes, r#"{"kind":"processes"}"#);
        check_json(&Call::Work, r#"{"kind":"work"}"#);
        check_json(&Call::EndProcesses, r#"{"kind":"end_processes"}"#);
    }

    #[test]
    fn responses_about_whole_entries_are_written_as_documented() {
        let ok = |reply| Response { result: Ok(reply) };
        check_json(&ok(Reply::Create), r#"{"result":{"Ok":{"kind":"create"}}}"#);
        check_json(&ok(Reply::Move), r#"{"result":{"Ok":{"kind":"move"}}}"#);
        check_json(
            &ok(Reply::Copy {
                path: "/workspace/a copy".into(),
            }),
            r#"{"result":{"Ok":{"kind":"copy","path":"/workspace/a copy"}}}"#,
        );
        check_json(
            &ok(Reply::Delete { trash: "0f".into() }),
            r#"{"result":{"Ok":{"kind":"delete","trash":"0f"}}}"#,
        );
        check_json(
            &ok(Reply::Restore),
            r#"{"result":{"Ok":{"kind":"restore"}}}"#,
        );
    }

    fn tab() -> Tab {
        Tab {
            name: "n".into(),
            stacked: true,
            panes: vec![Pane {
                id: "t".into(),
                share: 40,
            }],
        }
    }

    #[test]
    fn requests_about_terminals_are_written_as_documented() {
        let open = |begins| Call::OpenTerminal {
            id: "t".into(),
            cols: 80,
            rows: 24,
            begins,
        };
        // As an app wrote it that knows nothing of folders.
        check_json(
            &open(None),
            r#"{"kind":"open_terminal","id":"t","cols":80,"rows":24}"#,
        );
        check_json(
            &open(Some(Begins::At { path: "/a".into() })),
            r#"{"kind":"open_terminal","id":"t","cols":80,"rows":24,"begins":{"where":"at","path":"/a"}}"#,
        );
        check_json(
            &open(Some(Begins::Like { id: "s".into() })),
            r#"{"kind":"open_terminal","id":"t","cols":80,"rows":24,"begins":{"where":"like","id":"s"}}"#,
        );
        check_json(
            &Call::ArrangeTerminals { tabs: vec![tab()] },
            r#"{"kind":"arrange_terminals","tabs":[{"name":"n","stacked":true,"panes":[{"id":"t","share":40}]}]}"#,
        );
    }

    #[test]
    fn responses_about_terminals_are_written_as_documented() {
        let ok = |reply| Response { result: Ok(reply) };
        check_json(
            &ok(Reply::Terminals {
                terminals: vec!["t".to_owned()],
                tabs: vec![],
            }),
            r#"{"result":{"Ok":{"kind":"terminals","terminals":["t"]}}}"#,
        );
        check_json(
            &ok(Reply::Terminals {
                terminals: vec!["t".to_owned()],
                tabs: vec![tab()],
            }),
            r#"{"result":{"Ok":{"kind":"terminals","terminals":["t"],"tabs":[{"name":"n","stacked":true,"panes":[{"id":"t","share":40}]}]}}}"#,
        );
        check_json(
            &ok(Reply::ArrangeTerminals),
            r#"{"result":{"Ok":{"kind":"arrange_terminals"}}}"#,
        );
        check_json(
            &ok(Reply::OpenTerminal),
            r#"{"result":{"Ok":{"kind":"open_terminal"}}}"#,
        );
        check_json(
            &ok(Reply::AttachTerminal {
                from: 7,
                written: 9,
                typed: 2,
            }),
            r#"{"result":{"Ok":{"kind":"attach_terminal","from":7,"written":9,"typed":2}}}"#,
        );
    }

    #[test]
    fn answers_about_names_and_searches_are_written_as_documented() {
        let ok = |reply| Response { result: Ok(reply) };
        check_json(
            &ok(Reply::Find {
                names: vec![crate::search::FoundName {
                    path: "/workspace/a".into(),
                    marks: vec![(0, 1)],
                    ignored: false,
                }],
                total: 1,
                settled: true,
                truncated: false,
            }),
            r#"{"result":{"Ok":{"kind":"find","names":[{"path":"/workspace/a","marks":[[0,1]],"ignored":false}],"total":1,"settled":true,"truncated":false}}}"#,
        );
        check_json(
            &ok(Reply::Search {
                files: vec![],
                searched: None,
            }),
            r#"{"result":{"Ok":{"kind":"search","files":[],"searched":null}}}"#,
        );
        check_json(
            &ok(Reply::Search {
                files: vec![],
                searched: Some(Searched {
                    files: 3,
                    truncated: false,
                    unread: 1,
                }),
            }),
            r#"{"result":{"Ok":{"kind":"search","files":[],"searched":{"files":3,"truncated":false,"unread":1}}}}"#,
        );
    }

    #[test]
    fn responses_are_written_as_documented() {
        let ok = |reply| Response { result: Ok(reply) };
        let error = |failure| Response {
            result: Err(CallError {
                failure,
                message: "no".into(),
            }),
        };
        let revision = || Revision("r".into());
        let entry = || Entry {
            name: "a".into(),
            path: "/workspace/a".into(),
            kind: EntryKind::Symlink,
            target_kind: Some(EntryKind::Dir),
            size: 3,
            modified_ms: -1,
            mode: 0o777,
            ignored: false,
            unreadable: false,
        };
        let entry_json = r#"{"name":"a","path":"/workspace/a","kind":"symlink","target_kind":"dir","size":3,"modified_ms":-1,"mode":511}"#;
        check_json(
            &ok(Reply::Hello(Hello {
                protocol: 1,
                agent_version: "0.1.0".into(),
                uid: 1000,
                gid: 1000,
                user: None,
                workspace_writable: true,
            })),
            r#"{"result":{"Ok":{"kind":"hello","protocol":1,"agent_version":"0.1.0","uid":1000,"gid":1000,"user":null,"workspace_writable":true}}}"#,
        );
        check_json(
            &ok(Reply::List {
                entries: vec![entry()],
                truncated: false,
            }),
            &format!(
                r#"{{"result":{{"Ok":{{"kind":"list","entries":[{entry_json}],"truncated":false}}}}}}"#
            ),
        );
        check_json(
            &ok(Reply::Read {
                size: 3,
                truncated: true,
                revision: revision(),
            }),
            r#"{"result":{"Ok":{"kind":"read","size":3,"truncated":true,"revision":"r"}}}"#,
        );
        check_json(
            &ok(Reply::Write {
                revision: revision(),
            }),
            r#"{"result":{"Ok":{"kind":"write","revision":"r"}}}"#,
        );
        check_json(
            &ok(Reply::Processes {
                running: 64,
                limit: None,
            }),
            r#"{"result":{"Ok":{"kind":"processes","running":64,"limit":null}}}"#,
        );
        check_json(
            &ok(Reply::Work {
                processor_ms: 10,
                written_bytes: 4096,
            }),
            r#"{"result":{"Ok":{"kind":"work","processor_ms":10,"written_bytes":4096}}}"#,
        );
        check_json(
            &ok(Reply::EndProcesses { ended: 60, left: 1 }),
            r#"{"result":{"Ok":{"kind":"end_processes","ended":60,"left":1}}}"#,
        );
        check_json(
            &error(Failure::NotFound),
            r#"{"result":{"Err":{"code":"not_found","message":"no"}}}"#,
        );
        check_json(
            &error(Failure::Conflict {
                revision: Some(revision()),
            }),
            r#"{"result":{"Err":{"code":"conflict","revision":"r","message":"no"}}}"#,
        );
        check_json(
            &error(Failure::Conflict { revision: None }),
            r#"{"result":{"Err":{"code":"conflict","revision":null,"message":"no"}}}"#,
        );
        check_json(
            &error(Failure::UnsupportedProtocol { protocol: 1 }),
            r#"{"result":{"Err":{"code":"unsupported_protocol","protocol":1,"message":"no"}}}"#,
        );
    }
}

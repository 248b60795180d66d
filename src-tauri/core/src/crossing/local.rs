//! Files of this machine, told as the agent is told them. What was chosen is followed if it is a link; what lies in it is
//! told as it is. Pipes, sockets and devices are left out: they are nothing without what is behind them.
//!
//! A file that changes while it is read is read again; one that never holds still is named, and there is no end then.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cove_agent::path;
use cove_agent::protocol::encode;
use cove_agent::tree::{Facts, PIECE, Piece};
use tokio::sync::mpsc;

use super::Done;
use crate::error::Error;

/// Frames that are handed over at once, unless one alone is longer.
const AT_ONCE: usize = 64 * 1024;
/// Pieces that may wait for the connection.
const QUEUE: usize = 4;
/// How often a file that changes is read before it is given up.
const ATTEMPTS: u32 = 4;
/// How long a file that changed is left alone, times the number of attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Files with several names that are remembered; more are told as files of their own.
const MOST_LINKS: usize = 1 << 20;

/// What is told next, and how far that is.
pub(crate) struct Told {
    /// Whole frames of a tree.
    pub(crate) frames: Vec<u8>,
    pub(crate) done: Done,
}

/// Something that was chosen, and its name.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) path: PathBuf,
    /// Encoded, see [`cove_agent::path`].
    pub(crate) name: String,
}

/// Takes paths as what is to be told, each under its own name.
///
/// # Errors
/// [`Error::Transfer`] for one that has no name, or the name of another.
pub(crate) fn chosen(paths: &[PathBuf]) -> Result<Vec<Chosen>, Error> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for path in paths {
        let name = path.file_name().ok_or_else(|| {
            Error::Transfer(format!(
                "`{}` is a whole disk; choose a folder",
                path.display()
            ))
        })?;
        let name = name_of(path, name)?;
        if chosen.iter().any(|other| other.name == name) {
            return Err(Error::Transfer(format!(
                "two of them are called `{name}`; upload one after the other"
            )));
        }
        let path = path.clone();
        chosen.push(Chosen { path, name });
    }
    Ok(chosen)
}

/// Tells what was chosen, to its end. Dropping the receiver ends the reading.
pub(crate) fn tell(chosen: Vec<Chosen>) -> mpsc::Receiver<Result<Told, Error>> {
    let (sender, told) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut teller = Teller {
            sender: sender.clone(),
            frames: Vec::new(),
            done: Done::default(),
            names: HashMap::new(),
        };
        if let Err(Stop::Failed(error)) = teller.tell_all(&chosen) {
            // Nobody may wait for it any more.
            let _ = sender.blocking_send(Err(error));
        }
    });
    told
}

/// Why the telling ends early.
enum Stop {
    /// Nobody listens any more.
    Gone,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Teller {
    sender: mpsc::Sender<Result<Told, Error>>,
    frames: Vec<u8>,
    done: Done,
    /// Files that have several names, and the first path to each.
    names: HashMap<(u64, u64), Vec<String>>,
}

/// A directory on the way down.
struct Level {
    path: PathBuf,
    /// What is still to be told of it, the next at the end.
    names: Vec<std::ffi::OsString>,
}

impl Level {
    fn of(path: PathBuf) -> Result<Self, Error> {
        let failed = |error: io::Error| failed("read", &path, &error);
        let entries = fs::read_dir(&path).map_err(failed)?;
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let mut names = names.map_err(failed)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { path, names })
    }
}

impl Teller {
    fn tell_all(&mut self, chosen: &[Chosen]) -> Result<(), Stop> {
        self.count(chosen)?;
        for Chosen { path, name } in chosen {
            let facts = fs::metadata(path).map_err(|error| failed("read", path, &error))?;
            self.tell_tree(path, name.clone(), &facts)?;
        }
        self.tell(&Piece::End, &[])?;
        self.hand_over()
    }

    fn count(&mut self, chosen: &[Chosen]) -> Result<(), Stop> {
        let mut linked = HashSet::new();
        let mut total = 0_u64;
        let mut note = |facts: &Metadata| {
            let is_counted = identity_of(facts)
                .is_some_and(|identity| linked.len() < MOST_LINKS && !linked.insert(identity));
            if facts.is_file() && !is_counted {
                total = total.saturating_add(content_of(facts));
            }
        };
        let mut levels = Vec::new();
        for Chosen { path, .. } in chosen {
            let facts = fs::metadata(path).map_err(|error| failed("read", path, &error))?;
            if facts.is_dir() {
                levels.push(Level::of(path.clone())?);
            } else {
                note(&facts);
            }
        }
        while let Some(Level { path, names }) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                continue;
            };
            let path = path.join(name);
            // What cannot be looked at is found out, and told, when it is read.
            let Ok(facts) = fs::symlink_metadata(&path) else {
                continue;
            };
            if facts.is_dir() {
                levels.extend(Level::of(path));
            } else {
                note(&facts);
            }
            if self.sender.is_closed() {
                return Err(Stop::Gone);
            }
        }
        self.done.total_bytes = Some(total);
        self.hand_over()
    }

    /// Tells something and all that is in it.
    fn tell_tree(&mut self, path: &Path, name: String, facts: &Metadata) -> Result<(), Stop> {
        let mut names = vec![name];
        let Some(first) = self.tell_entry(path, facts, &names)? else {
            return Ok(());
        };
        let mut levels = vec![first];
        while let Some(Level { path, names: left }) = levels.last_mut() {
            let Some(next) = left.pop() else {
                levels.pop();
                names.pop();
                self.tell(&Piece::Leave, &[])?;
                continue;
            };
            let path = path.join(&next);
            let facts = match fs::symlink_metadata(&path) {
                Ok(facts) => facts,
                // What is gone meanwhile was never there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &path, &error).into()),
            };
            names.push(name_of(&path, &next)?);
            match self.tell_entry(&path, &facts, &names)? {
                Some(entered) => levels.push(entered),
                None => drop(names.pop()),
            }
        }
        Ok(())
    }

    /// Tells what lies at a path, and returns the level of a directory.
    fn tell_entry(
        &mut self,
        path: &Path,
        facts: &Metadata,
        names: &[String],
    ) -> Result<Option<Level>, Stop> {
        let name = names.last().cloned().unwrap_or_default();
        let kind = facts.file_type();
        if kind.is_dir() {
            let level = Level::of(path.to_owned())?;
            let facts = Some(facts_of(facts));
            self.tell(&Piece::Enter { name, facts }, &[])?;
            return Ok(Some(level));
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|error| failed("read", path, &error))?;
            let link = Piece::Symlink {
                name,
                facts: facts_of(facts),
                target: name_of(path, target.as_os_str())?,
            };
            self.tell(&link, &[])?;
        } else if kind.is_file() {
            self.tell_file(path, facts, names)?;
        }
        Ok(None)
    }

    fn tell_file(&mut self, path: &Path, facts: &Metadata, names: &[String]) -> Result<(), Stop> {
        let identity = identity_of(facts);
        let name = names.last().cloned().unwrap_or_default();
        if let Some(first) = identity.and_then(|identity| self.names.get(&identity)) {
            let path = first.clone();
            self.done.files += 1;
            return self.tell(&Piece::HardLink { name, path }, &[]);
        }
        for attempt in 1..=ATTEMPTS {
            let before = self.done;
            if self.attempt(path, &name)? {
                if let Some(identity) = identity.filter(|_| self.names.len() < MOST_LINKS) {
                    self.names.insert(identity, names.to_vec());
                }
                self.done.files += 1;
                return self.tell(&Piece::Whole, &[]);
            }
            self.done = before;
            self.tell(&Piece::Void, &[])?;
            std::thread::sleep(PAUSE * attempt);
        }
        let shown = path.display();
        Err(Error::Transfer(format!("`{shown}` changed whenever it was read")).into())
    }

    /// Tells a file as it is now; `false` when it changed meanwhile.
    fn attempt(&mut self, path: &Path, name: &str) -> Result<bool, Stop> {
        let failed = |error: io::Error| failed("read", path, &error);
        let mut file = open(path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        let size = before.len();
        let extents = extents_of(&file, &before).map_err(failed)?;
        let begun = Piece::File {
            name: name.to_owned(),
            facts: facts_of(&before),
            size,
            extents: extents.clone(),
        };
        self.tell(&begun, &[])?;
        let mut buffer = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
        for (begin, length) in extents.unwrap_or_else(|| vec![(0, size)]) {
            file.seek(SeekFrom::Start(begin)).map_err(failed)?;
            let mut at = begin;
            while at < begin + length {
                let left = usize::try_from(begin + length - at).unwrap_or(PIECE);
                let piece = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
                let count = match file.read(piece) {
                    Ok(0) => return Ok(false),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(failed(error).into()),
                };
                let content = piece.get(..count).unwrap_or_default();
                self.done.bytes += count as u64;
                self.tell(&Piece::Content { offset: at }, content)?;
                at += count as u64;
            }
        }
        let after = file.metadata().map_err(failed)?;
        Ok((before.len(), before.modified().ok()) == (after.len(), after.modified().ok()))
    }

    fn tell(&mut self, piece: &Piece, body: &[u8]) -> Result<(), Stop> {
        let frame = encode(piece, body).map_err(|error| Error::Transfer(error.to_string()))?;
        if self.frames.is_empty() {
            self.frames = frame;
        } else {
            self.frames.extend_from_slice(&frame);
        }
        if self.frames.len() >= AT_ONCE {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        let told = Told {
            frames: std::mem::take(&mut self.frames),
            done: self.done,
        };
        self.sender
            .blocking_send(Ok(told))
            .map_err(|_gone| Stop::Gone)
    }
}

/// Opens a file without waiting for what may have come in its place.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file any more"));
    }
    Ok(file)
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> Error {
    Error::Transfer(format!(
        "failed to {operation} `{}`: {error}",
        path.display()
    ))
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "elsewhere there are names that cannot be told"
)]
fn name_of(_path: &Path, name: &std::ffi::OsStr) -> Result<String, Error> {
    use std::os::unix::ffi::OsStrExt;
    Ok(path::encode(name.as_bytes()))
}

#[cfg(not(unix))]
fn name_of(path: &Path, name: &std::ffi::OsStr) -> Result<String, Error> {
    let text = name.to_str().ok_or_else(|| {
        Error::Transfer(format!(
            "the name of `{}` is not Unicode; rename it",
            path.display()
        ))
    })?;
    Ok(path::encode(text.replace('\\', "/").as_bytes()))
}

fn facts_of(facts: &Metadata) -> Facts {
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&facts.permissions()) & 0o777;
    #[cfg(not(unix))]
    let mode = match (facts.is_dir(), facts.permissions().readonly()) {
        (true, _) => 0o755,
        (false, true) => 0o444,
        (false, false) => 0o644,
    };
    let modified = facts.modified().map_or((0, 0), since_1970);
    Facts {
        mode,
        modified,
        ..Facts::default()
    }
}

fn since_1970(time: SystemTime) -> (i64, u32) {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (whole(after), after.subsec_nanos()),
        Err(before) => match before.duration() {
            before if before.subsec_nanos() == 0 => (-whole(before), 0),
            before => (-whole(before) - 1, 1_000_000_000 - before.subsec_nanos()),
        },
    }
}

/// Returns by what a file with several names is known.
#[cfg(unix)]
fn identity_of(facts: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    (facts.nlink() > 1).then(|| (facts.dev(), facts.ino()))
}

#[cfg(not(unix))]
fn identity_of(_facts: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Returns how many bytes of a file are about to be told.
fn content_of(facts: &Metadata) -> u64 {
    #[cfg(unix)]
    let stored = std::os::unix::fs::MetadataExt::blocks(facts).saturating_mul(512);
    #[cfg(not(unix))]
    let stored = facts.len();
    facts.len().min(stored)
}

/// Returns where a file with holes has content; `None` for one without, or that does not say.
#[cfg(unix)]
fn extents_of(file: &File, facts: &Metadata) -> io::Result<Option<Vec<(u64, u64)>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    let size = facts.len();
    if content_of(facts) >= size {
        return Ok(None);
    }
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            // There is nothing but a hole from here on.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return Ok(None),
        };
        let end = seek(file, SeekFrom::Hole(begin))?.min(size).max(begin + 1);
        // A file with more is told whole.
        if extents.len() >= cove_agent::tree::MOST_EXTENTS {
            return Ok(None);
        }
        extents.push((begin, end - begin));
        at = end;
    }
    Ok(Some(extents))
}

#[cfg(not(unix))]
fn extents_of(_file: &File, _facts: &Metadata) -> io::Result<Option<Vec<(u64, u64)>>> {
    Ok(None)
}

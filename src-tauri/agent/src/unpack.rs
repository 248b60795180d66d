//! `agent unpack`: makes the files that the app tells, in the workspace of a new session. The daemon makes them in the
//! same way in a folder, as the session's user.
//!
//! The command runs as root and gives what it makes to whom it belongs: to the session's user, or with `--keep-owners` to
//! the owners that are told. What comes is a stranger's: every name is a single one, made in a directory that was
//! reached from the root by descriptors without following a link, so that nothing is ever made outside. Nothing
//! that it makes runs as somebody else: set-user-id does not come along.
//!
//! The session is not ready before [`crate::tree::Piece::End`] has come and all is in place; until then a file in
//! the agent's directory says so, also after the container was stopped in the middle.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, chownat,
    fchmod, fchown, fstat, fstatvfs, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::protocol::{self, Decoder, MOST_PATHS};
use crate::tree::{self, Facts, Failed, Piece, UNFILLED, Why};
use crate::workspace::temporary_name;
use crate::{accounts, pack, path, readiness};

/// How long to wait for the setup of the container.
const SETUP_LIMIT: Duration = Duration::from_secs(60);
/// How much is written between looks at the room that is left.
const LOOK_EVERY: u64 = 64 << 20;
/// What is left free on the disk: it is the engine's, and more than this session lives there. At most this, and
/// at most a twentieth of the disk.
const RESERVE: u64 = 1 << 30;

/// Whose the files become.
#[derive(Debug, Clone, Copy)]
enum Owners {
    /// Whose they were.
    Keep,
    /// One user's.
    One(u32, u32),
    /// Those of who makes them.
    Maker,
}

/// An entry of the root that is made under a name that nobody can guess.
pub(crate) struct Staged {
    /// The name that it is to have.
    pub(crate) name: Vec<u8>,
    /// The name that it has.
    pub(crate) temporary: String,
    pub(crate) is_folder: bool,
}

/// Makes what comes on stdin, and answers on stdout. `owner` is the image's user as the engine writes it; without
/// one, files keep their owners, and the workspace is emptied first.
#[must_use]
pub fn run(owner: Option<&str>, directory: &Path, workspace: &Path) -> ExitCode {
    pack::allow_depth();
    let unpacked = unpack(owner, directory, workspace);
    let (answer, code) = match unpacked {
        Ok(()) => (Piece::End, ExitCode::SUCCESS),
        Err(failed) => (Piece::Failed(failed), ExitCode::FAILURE),
    };
    let answer = protocol::encode(&answer, &[]).unwrap_or_default();
    let mut output = io::stdout();
    // Without a stdout there is nobody to tell.
    let _ = output.write_all(&answer).and_then(|()| output.flush());
    code
}

fn unpack(owner: Option<&str>, directory: &Path, workspace: &Path) -> Result<(), Failed> {
    let invalid = |message| Failed {
        why: Why::Invalid,
        message,
    };
    readiness::wait_to_the_end(directory, SETUP_LIMIT).map_err(invalid)?;
    let owners = match owner {
        None => Owners::Keep,
        Some(owner) => {
            let found = accounts::resolve_owner(owner, &accounts::passwd(), &accounts::group());
            let (uid, gid) = found.map_err(|error| invalid(error.message))?;
            Owners::One(uid, gid)
        }
    };
    let root = openat(
        CWD,
        workspace,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed(&[], "open", errno))?;
    if matches!(owners, Owners::Keep) {
        empty(&root).map_err(|errno| failed(&[], "empty", errno))?;
    }
    Unpacker::new(root, owners)?.take_all(io::stdin().lock())?;
    let unfilled = directory.join(UNFILLED);
    match std::fs::remove_file(&unfilled) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed {
            why: Why::Io,
            message: format!("failed to remove `{}`: {error}", unfilled.display()),
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) struct Unpacker {
    owners: Owners,
    /// The entries of the root, if they do not have their own names yet.
    staged: Option<Vec<Staged>>,
    levels: Vec<Level>,
    /// The names down to where it is, for people.
    path: Vec<String>,
    file: Option<Begun>,
    /// Bytes that may be written before the next look at the room.
    room: u64,
}

/// A directory on the way down.
struct Level {
    directory: OwnedFd,
    /// What it is to be when all is in it.
    facts: Facts,
    owner: Owners,
}

/// A file that is being written.
struct Begun {
    file: File,
    name: Vec<u8>,
    facts: Facts,
    size: u64,
    has_holes: bool,
}

impl Unpacker {
    fn new(root: OwnedFd, owners: Owners) -> Result<Self, Failed> {
        let level = as_it_is(root).map_err(|errno| failed(&[], "look at", errno))?;
        Ok(Self {
            owners,
            staged: None,
            levels: vec![level],
            path: Vec::new(),
            file: None,
            room: 0,
        })
    }

    /// Returns what makes entries in a folder, each under a name that nobody can guess. They belong to who makes them.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    pub(crate) fn staging(folder: OwnedFd) -> Result<Self, Failed> {
        Ok(Self {
            staged: Some(Vec::new()),
            ..Self::new(folder, Owners::Maker)?
        })
    }

    /// Returns the entries that were made, also when not all came.
    pub(crate) fn into_staged(self) -> Vec<Staged> {
        self.staged.unwrap_or_default()
    }

    /// Returns the name under which an entry of the directory that it is in is made.
    fn name_here(&mut self, text: &str, is_folder: bool) -> Result<Vec<u8>, Failed> {
        let name = tree::name(text).ok_or_else(|| nonsense("a name is none"))?;
        let Some(staged) = self.staged.as_mut().filter(|_| self.levels.len() == 1) else {
            return Ok(name);
        };
        if let Some(before) = staged.iter().find(|staged| staged.name == name) {
            return Ok(before.temporary.clone().into_bytes());
        }
        if staged.len() >= MOST_PATHS {
            return Err(nonsense("there are too many entries"));
        }
        let temporary = temporary_name().map_err(|errno| failed(&[], "name", errno))?;
        staged.push(Staged {
            name,
            temporary: temporary.clone(),
            is_folder,
        });
        Ok(temporary.into_bytes())
    }

    /// # Errors
    /// Says what was not told, or could not be made.
    pub(crate) fn take_all(&mut self, mut input: impl Read) -> Result<(), Failed> {
        let mut decoder = Decoder::<Piece>::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return Err(nonsense("the files end before their end")),
                Ok(count) => count,
            };
            decoder.push(buffer.get(..count).unwrap_or_default());
            while let Some(frame) = decoder
                .next_frame()
                .map_err(|error| nonsense(&error.to_string()))?
            {
                if frame.header == Piece::End {
                    if self.file.is_some() {
                        return Err(nonsense("the files end within a file"));
                    }
                    while self.levels.len() > 1 {
                        self.leave()?;
                    }
                    return self.settle_root();
                }
                self.take(frame.header, &frame.body)?;
            }
        }
    }

    fn take(&mut self, piece: Piece, body: &[u8]) -> Result<(), Failed> {
        let continues_file = matches!(
            piece,
            Piece::Content { .. } | Piece::Whole | Piece::Void | Piece::Total(_)
        );
        if self.file.is_some() != continues_file && !matches!(piece, Piece::Total(_)) {
            return Err(nonsense("a file ends before its end"));
        }
        match piece {
            Piece::Total(_) | Piece::End => Ok(()),
            Piece::Failed(failed) => Err(failed),
            Piece::Root { facts } => {
                if let (Owners::Keep, Some(root)) = (self.owners, self.levels.first_mut()) {
                    root.facts = facts;
                    root.owner = Owners::Keep;
                }
                Ok(())
            }
            Piece::Enter { name, facts } => self.enter(name, facts),
            Piece::Leave => self.leave(),
            Piece::File {
                name,
                facts,
                size,
                extents,
            } => self.begin(name, facts, size, extents.as_deref()),
            Piece::Content { offset } => self.write(offset, body),
            Piece::Whole => self.finish(),
            Piece::Void => self.void(),
            Piece::Symlink {
                name,
                facts,
                target,
            } => {
                let target = path::decode(&target).ok_or_else(|| nonsense("a link has no text"))?;
                let owners = self.owners;
                self.make(&name, "make link", |directory, name| {
                    symlinkat(&*target, directory, name)?;
                    settle_entry(directory, name, &facts, owners)
                })
            }
            Piece::HardLink { name, path } => {
                let names: Option<Vec<_>> = path.iter().map(|name| tree::name(name)).collect();
                let mut names = names.ok_or_else(|| nonsense("a name is none"))?;
                let staged = self.staged.as_ref().zip(names.first_mut());
                if let Some((staged, first)) = staged
                    && let Some(of) = staged.iter().find(|staged| staged.name == *first)
                {
                    *first = of.temporary.clone().into_bytes();
                }
                let (last, above) = names
                    .split_last()
                    .ok_or_else(|| nonsense("a name is none"))?;
                let root = self.levels.first().map(|level| &level.directory);
                let root = root.ok_or_else(|| nonsense("there is no root"))?;
                let wrong = |errno| failed(&path, "find", errno);
                let mut at = root
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|_| wrong(Errno::MFILE))?;
                for name in above {
                    at = open_directory(&at, name).map_err(wrong)?;
                }
                let is = statat(&at, &**last, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
                if kind_of(&is) != FileType::RegularFile {
                    return Err(wrong(Errno::INVAL));
                }
                self.make(&name, "link", |directory, name| {
                    linkat(&at, &**last, directory, name, AtFlags::empty())
                })
            }
            Piece::Pipe { name, facts } => {
                let owners = self.owners;
                self.make(&name, "make pipe", |directory, name| {
                    mknodat(
                        directory,
                        name,
                        FileType::Fifo,
                        Mode::from_raw_mode(0o600),
                        0,
                    )?;
                    settle_entry(directory, name, &facts, owners)
                })
            }
        }
    }

    fn here(&self) -> Result<&OwnedFd, Failed> {
        let level = self.levels.last();
        level
            .map(|level| &level.directory)
            .ok_or_else(|| nonsense("there is no root"))
    }

    fn failed(&self, name: &str, operation: &str, errno: Errno) -> Failed {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        failed(&path, operation, errno)
    }

    /// Makes something that has no content, in place of what is there.
    fn make(
        &mut self,
        text: &str,
        operation: &str,
        make: impl Fn(&OwnedFd, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), Failed> {
        let name = self.name_here(text, false)?;
        let directory = self.here()?;
        let outcome = match make(directory, &name) {
            Err(Errno::EXIST) => remove(directory, &name).and_then(|()| make(directory, &name)),
            outcome => outcome,
        };
        outcome.map_err(|errno| self.failed(text, operation, errno))
    }

    fn enter(&mut self, text: String, facts: Option<Facts>) -> Result<(), Failed> {
        let name = self.name_here(&text, true)?;
        let directory = self.here()?;
        let is_new = match mkdirat(directory, &*name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.failed(&text, "make", errno)),
        };
        let entered = open_directory(directory, &name).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => {
                let mut path = self.path.clone();
                path.push(text.clone());
                nonsense(&format!(
                    "`{}` is to hold files and is no directory",
                    pack::shown(&path)
                ))
            }
            errno => self.failed(&text, "open", errno),
        })?;
        let mut level = as_it_is(entered).map_err(|errno| self.failed(&text, "look at", errno))?;
        if is_new {
            level.facts.mode = 0o755;
            level.owner = self.owners;
        }
        if let Some(facts) = facts {
            level.facts = facts;
            level.owner = self.owners;
        }
        self.levels.push(level);
        self.path.push(text);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Failed> {
        if self.levels.len() < 2 {
            return Err(nonsense("it leads out of the root"));
        }
        let settled = self.levels.pop().map_or(Ok(()), |level| settle(&level));
        settled.map_err(|errno| failed(&self.path, "finish", errno))?;
        self.path.pop();
        Ok(())
    }

    fn settle_root(&self) -> Result<(), Failed> {
        // A folder into which something comes is nothing that comes.
        let root = self.levels.first().filter(|_| self.staged.is_none());
        let settled = root.map_or(Ok(()), settle);
        settled.map_err(|errno| failed(&[], "finish", errno))
    }

    fn begin(
        &mut self,
        text: String,
        facts: Facts,
        size: u64,
        extents: Option<&[(u64, u64)]>,
    ) -> Result<(), Failed> {
        let name = self.name_here(&text, false)?;
        let content = extents.map_or(size, |extents| {
            extents.iter().map(|(_, length)| *length).sum()
        });
        self.look_for_room(content, &text)?;
        let directory = self.here()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(directory, &*name, flags, Mode::from_raw_mode(0o600));
        let opened = match open() {
            Err(Errno::EXIST) => remove(directory, &name).and_then(|()| open()),
            opened => opened,
        };
        let file = opened.map_err(|errno| self.failed(&text, "make", errno))?;
        self.path.push(text);
        self.file = Some(Begun {
            file: file.into(),
            name,
            facts,
            size,
            has_holes: extents.is_some(),
        });
        Ok(())
    }

    fn write(&mut self, offset: u64, content: &[u8]) -> Result<(), Failed> {
        let length = content.len() as u64;
        if self.room < length {
            self.look_for_room(length, "")?;
        }
        self.room = self.room.saturating_sub(length);
        let Some(begun) = &self.file else {
            return Ok(());
        };
        if offset
            .checked_add(length)
            .is_none_or(|end| end > begun.size)
        {
            return Err(nonsense("a file has more content than it says"));
        }
        begun.file.write_all_at(content, offset).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            failed(&self.path, "write", errno)
        })
    }

    fn finish(&mut self) -> Result<(), Failed> {
        let Some(begun) = self.file.take() else {
            return Ok(());
        };
        let settle = || {
            if begun.has_holes {
                rustix::fs::ftruncate(&begun.file, begun.size)?;
            }
            if fstat(&begun.file)?.st_size != i64::try_from(begun.size).unwrap_or(i64::MAX) {
                return Err(Errno::INVAL);
            }
            if let Some((uid, gid)) = owner_of(&begun.facts, self.owners) {
                fchown(&begun.file, Some(uid), Some(gid))?;
            }
            fchmod(&begun.file, Mode::from_raw_mode(begun.facts.mode & 0o777))?;
            futimens(&begun.file, &times(&begun.facts))
        };
        settle().map_err(|errno| failed(&self.path, "finish", errno))?;
        self.path.pop();
        Ok(())
    }

    fn void(&mut self) -> Result<(), Failed> {
        if let Some(begun) = self.file.take() {
            let removed = unlinkat(self.here()?, &*begun.name, AtFlags::empty());
            removed.map_err(|errno| failed(&self.path, "remove", errno))?;
            self.path.pop();
        }
        Ok(())
    }

    fn look_for_room(&mut self, content: u64, name: &str) -> Result<(), Failed> {
        if content <= self.room {
            return Ok(());
        }
        // A file system that does not say is found out by its writes.
        let Ok(disk) = fstatvfs(self.here()?) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20);
        let is_known = disk.f_blocks > 0;
        if is_known && free < content.saturating_add(reserve) {
            let mut path = self.path.clone();
            path.extend((!name.is_empty()).then(|| name.to_owned()));
            return Err(Failed {
                why: Why::NoSpace,
                message: format!(
                    "`{}` needs {} MB, and {} MB are free",
                    pack::shown(&path),
                    content / 1_000_000,
                    free / 1_000_000
                ),
            });
        }
        self.room = content.max(LOOK_EVERY).min(free);
        Ok(())
    }
}

/// Takes a directory as it is: that is how it is left too, unless something else is told of it.
fn as_it_is(directory: OwnedFd) -> rustix::io::Result<Level> {
    let stat = fstat(&directory)?;
    Ok(Level {
        facts: pack::facts_of(&stat),
        owner: Owners::Keep,
        directory,
    })
}

fn settle(level: &Level) -> rustix::io::Result<()> {
    let is = fstat(&level.directory)?;
    let mut mode = 0o7777;
    match owner_of(&level.facts, level.owner) {
        Some((uid, gid)) if (is.st_uid, is.st_gid) != (uid.as_raw(), gid.as_raw()) => {
            fchown(&level.directory, Some(uid), Some(gid))?;
        }
        Some(_) => {}
        // Whose group new files get is for this folder's place to say.
        None => mode = 0o1777,
    }
    fchmod(
        &level.directory,
        Mode::from_raw_mode(level.facts.mode & mode),
    )?;
    futimens(&level.directory, &times(&level.facts))
}

/// Gives an entry that cannot be opened to its owner.
fn settle_entry(
    directory: &OwnedFd,
    name: &[u8],
    facts: &Facts,
    owners: Owners,
) -> rustix::io::Result<()> {
    if let Some((uid, gid)) = owner_of(facts, owners) {
        let kept = AtFlags::SYMLINK_NOFOLLOW;
        chownat(directory, name, Some(uid), Some(gid), kept)?;
    }
    utimensat(directory, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW)
}

fn owner_of(facts: &Facts, owners: Owners) -> Option<(Uid, Gid)> {
    let (uid, gid) = match owners {
        Owners::Keep => (facts.uid, facts.gid),
        Owners::One(uid, gid) => (uid, gid),
        Owners::Maker => return None,
    };
    Some((Uid::from_raw(uid), Gid::from_raw(gid)))
}

pub(crate) fn times(facts: &Facts) -> Timestamps {
    let (seconds, nanoseconds) = facts.modified;
    let modified = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds.min(999_999_999)),
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// Removes what is in the way of something new. A directory that holds anything stays, which is a failure.
fn remove(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        removed => removed,
    }
}

/// Removes everything in a directory. What is mounted there stays, and is emptied.
fn empty(root: &OwnedFd) -> rustix::io::Result<()> {
    let mut levels = vec![(
        root.as_fd()
            .try_clone_to_owned()
            .map_err(|_| Errno::MFILE)?,
        Vec::new(),
    )];
    let mut is_listed = false;
    while let Some((directory, folders)) = levels.last_mut() {
        if !is_listed {
            *folders = remove_files(directory)?;
            is_listed = true;
        }
        if let Some(name) = folders.last().cloned() {
            let entered = open_directory(directory, &name)?;
            levels.push((entered, Vec::new()));
            is_listed = false;
            continue;
        }
        levels.pop();
        if let Some((above, folders)) = levels.last_mut()
            && let Some(name) = folders.pop()
        {
            match unlinkat(&*above, &*name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Removes the files of a directory, and returns the names of its directories.
pub(crate) fn remove_files(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&*name, b"." | b"..") {
            names.push(name);
        }
    }
    let mut folders = Vec::new();
    for name in names {
        match unlinkat(directory, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => folders.push(name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(folders)
}

fn open_directory(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn nonsense(message: &str) -> Failed {
    Failed {
        why: Why::Invalid,
        message: message.to_owned(),
    }
}

pub(crate) fn failed(path: &[String], operation: &str, errno: Errno) -> Failed {
    let why = match errno {
        Errno::NOSPC | Errno::DQUOT => Why::NoSpace,
        Errno::INVAL
        | Errno::NAMETOOLONG
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::EXIST
        | Errno::NOTEMPTY
        | Errno::NOENT => Why::Invalid,
        _ => Why::Io,
    };
    Failed {
        why,
        message: format!("failed to {operation} `{}`: {errno}", pack::shown(path)),
    }
}

#[cfg(test)]
mod tests;

//! The files of the workspace: list, read, write. What is done to whole entries is in [`entries`], `copying` and `trash`; finding
//! and searching them is in `finding` and `searching`; what comes and goes in `transferring`.
//!
//! # How a file is written
//! The new content goes to a temporary file in the same directory, is synced, and takes the place of the
//! old file by a rename: a reader sees the old content or the new one, and a write that fails leaves the
//! old one. The new file has the old one's permission bits and owner.
//!
//! Some files cannot be replaced without breaking something. Then the content is written **in place**,
//! after the space for it was set aside, so that a full disk does no harm; only a crash in mid-write can:
//! - it has several names (hard links): all of them keep naming the same file;
//! - it belongs to someone else and the user may not give files away;
//! - its directory is not writable or sticky, or the file is itself a mount.
//!
//! A symlink stays, its target is written, if that is inside. A file that the user may not write is
//! refused even where a rename would succeed. Extended attributes do not survive a replacement.

mod copying;
mod entries;
mod finding;
mod halves;
mod removing;
mod searching;
mod transferring;
mod trash;
mod walking;
mod watching;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    Access, AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec,
    Timestamps, UTIME_OMIT, Uid, accessat, fallocate, fchmod, fchown, fstat, fsync, futimens,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::path::{PathError, WorkspacePath, display_name};
use crate::protocol::{
    CallError, Entry, EntryKind, Failure, MAX_BODY, MAX_RESPONSE_HEADER, Revision, WriteCondition,
};
use crate::resolve::{LastLink, Place, ResolveError, Root};
use crate::tree::TRASH;
use crate::workspace::entries::rename_new;
use crate::workspace::finding::Finding;
pub(crate) use crate::workspace::finding::Wanted;
pub(crate) use crate::workspace::halves::{is_temporary, temporary_name};
use crate::workspace::walking::Ignored;

/// The workspace as the image's user may use it.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: Root,
    /// Held from the look at a file to the end of the write: of two writes that expect the same state
    /// one must find the other's.
    writing: Mutex<()>,
    /// Held while entries go into the trash or come out of it.
    trash: Mutex<()>,
    /// Held while what was deleted long ago is removed.
    emptying: Mutex<()>,
    finding: Mutex<Finding>,
}

/// A piece of a file.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) size: u64,
    pub(crate) truncated: bool,
    pub(crate) revision: Revision,
    pub(crate) content: Vec<u8>,
}

/// Room for the rest of a list's header.
const LIST_BUDGET: usize = MAX_RESPONSE_HEADER - 1024;

/// What may be done with files that are made here; the umask takes from it.
const NEW_FILE: Mode = Mode::from_raw_mode(0o644);

/// The bits that a replacement takes over: as after any write, there is no set-user-id among them.
const KEPT_MODE: u32 = 0o777;

impl Workspace {
    pub(crate) fn open(path: &Path) -> Result<Self, CallError> {
        let root =
            Root::open(path).map_err(|errno| failed("open", &path.display().to_string(), errno))?;
        Ok(Self {
            root,
            writing: Mutex::new(()),
            trash: Mutex::new(()),
            emptying: Mutex::new(()),
            finding: Mutex::default(),
        })
    }

    /// Returns whether files can be made in the root.
    pub(crate) fn is_writable(&self) -> bool {
        self.root
            .resolve(&WorkspacePath::default(), LastLink::Follow)
            .is_ok_and(|place| {
                accessat(
                    &place.directory,
                    ".",
                    Access::WRITE_OK | Access::EXEC_OK,
                    AtFlags::empty(),
                )
                .is_ok()
            })
    }

    /// Returns up to `limit` entries of a directory, and whether there are more.
    pub(crate) fn list(&self, path: &str, limit: u32) -> Result<(Vec<Entry>, bool), CallError> {
        let (path, place) = self.place(path, LastLink::Follow)?;
        let failed = |errno| failed("list", &path.to_string(), errno);
        let directory = place
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed)?;
        let mut names = names_in(&directory).map_err(failed)?;
        let is_root = path.components().is_empty();
        let is_ours = |name: &[u8]| is_temporary(name) || (is_root && name == TRASH.as_bytes());
        names.retain(|(_, name)| !is_ours(name));
        names.sort_unstable_by(|(a_kind, a), (b_kind, b)| {
            (*b_kind == EntryKind::Dir)
                .cmp(&(*a_kind == EntryKind::Dir))
                .then_with(|| {
                    a.iter()
                        .map(u8::to_ascii_lowercase)
                        .cmp(b.iter().map(u8::to_ascii_lowercase))
                })
                .then_with(|| a.cmp(b))
        });
        let ignored = Ignored::at(&self.root, &path);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut truncated = names.len() > limit;
        let mut budget = LIST_BUDGET;
        let mut entries = Vec::new();
        for (kind, name) in names.into_iter().take(limit) {
            let place = path.join(&name);
            let mut entry = match statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.entry(&place, &stat),
                // Removed since its name was read.
                Err(Errno::NOENT) => continue,
                // In a folder that may be read and not entered, names are all that can be known.
                Err(_) => name_alone(&place, kind),
            };
            entry.ignored = ignored.names(&name, entry.kind == EntryKind::Dir);
            let Some(rest) = budget.checked_sub(length_as_json(&entry)) else {
                truncated = true;
                break;
            };
            budget = rest;
            entries.push(entry);
        }
        Ok((entries, truncated))
    }

    /// Returns up to `limit` bytes of a regular file.
    pub(crate) fn read(&self, path: &str, offset: u64, limit: u32) -> Result<Piece, CallError> {
        let (path, place) = self.place(path, LastLink::Follow)?;
        let path = path.to_string();
        let (mut file, stat) = open_regular(&place, &path, OFlags::RDONLY)?;
        let failed = |error: io::Error| failed("read", &path, errno_of(&error));
        let limit = u64::from(limit).min(MAX_BODY as u64);
        let mut content = Vec::new();
        // Behind the end there is nothing to seek to.
        if offset < size_of_file(&stat) {
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let expected = (size_of_file(&stat) - offset).min(limit);
            content.reserve_exact(usize::try_from(expected).unwrap_or(MAX_BODY));
            (&mut file)
                .take(limit)
                .read_to_end(&mut content)
                .map_err(failed)?;
        }
        let end = offset.saturating_add(content.len() as u64);
        // It may have grown under the read.
        let size = file.metadata().map_err(failed)?.len();
        Ok(Piece {
            size,
            truncated: end < size,
            revision: revision_of(&stat),
            content,
        })
    }

    /// Makes `content` the whole content of a regular file.
    pub(crate) fn write(
        &self,
        path: &str,
        condition: &WriteCondition,
        content: &[u8],
    ) -> Result<Revision, CallError> {
        // A panic in another write left nothing half done that matters here.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match condition {
            // A symlink is something, even a broken one.
            WriteCondition::Missing => LastLink::Keep,
            WriteCondition::Anything | WriteCondition::Unchanged { .. } => LastLink::Follow,
        };
        let (path, place) = self.place(path, last)?;
        let path = path.to_string();
        let failed = |errno| failed("write", &path, errno);
        match (place.stat(), condition) {
            (Err(Errno::NOENT), WriteCondition::Unchanged { .. }) => Err(conflict(&path, None)),
            (Err(Errno::NOENT), WriteCondition::Anything) => {
                let new = Temporary::write(&place.directory, NEW_FILE, content).map_err(failed)?;
                new.replace(&place.name).map_err(failed)
            }
            (Err(Errno::NOENT), WriteCondition::Missing) => {
                let new = Temporary::write(&place.directory, NEW_FILE, content).map_err(failed)?;
                new.create(&place.name).map_err(failed)
            }
            (Err(errno), _) => Err(failed(errno)),
            (Ok(_), WriteCondition::Missing) => Err(failed(Errno::EXIST)),
            (Ok(_), WriteCondition::Unchanged { revision }) => {
                replace(&place, &path, Some(revision), content)
            }
            (Ok(_), WriteCondition::Anything) => replace(&place, &path, None, content),
        }
    }

    fn place(&self, path: &str, last: LastLink) -> Result<(WorkspacePath, Place), CallError> {
        let path = WorkspacePath::parse(path).map_err(|error| CallError {
            failure: match error {
                PathError::Outside(_) => Failure::Outside,
                PathError::Invalid(_) => Failure::Invalid,
            },
            message: error.to_string(),
        })?;
        let place = self
            .root
            .resolve(&path, last)
            .map_err(|error| match error {
                ResolveError::Outside => CallError {
                    failure: Failure::Outside,
                    message: format!("`{path}` leads out of the workspace"),
                },
                ResolveError::Refused(errno) => failed("open", &path.to_string(), errno),
            })?;
        Ok((path, place))
    }

    fn entry(&self, path: &WorkspacePath, stat: &Stat) -> Entry {
        let kind = kind_of(FileType::from_raw_mode(stat.st_mode));
        let target_kind = if kind == EntryKind::Symlink {
            let target = self
                .root
                .resolve(path, LastLink::Follow)
                .ok()
                .and_then(|target| target.stat().ok());
            target.map(|target| kind_of(FileType::from_raw_mode(target.st_mode)))
        } else {
            None
        };
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Entry {
            name: display_name(path.name()),
            path: path.to_string(),
            kind,
            target_kind,
            size: size_of_file(stat),
            modified_ms: stat
                .st_mtime
                .saturating_mul(1000)
                .saturating_add(nanoseconds / 1_000_000),
            mode: stat.st_mode & 0o7777,
            ignored: false,
            unreadable: false,
        }
    }
}

/// Returns the entry of something of which nothing but its name and kind can be known.
fn name_alone(path: &WorkspacePath, kind: EntryKind) -> Entry {
    Entry {
        name: display_name(path.name()),
        path: path.to_string(),
        kind,
        target_kind: None,
        size: 0,
        modified_ms: 0,
        mode: 0,
        ignored: false,
        unreadable: true,
    }
}

/// Overwrites the file at `place`, which exists.
fn replace(
    place: &Place,
    path: &str,
    expected: Option<&Revision>,
    content: &[u8],
) -> Result<Revision, CallError> {
    let (file, before) = open_regular(place, path, OFlags::WRONLY)?;
    let check = |now: &Stat| match expected {
        Some(expected) if *expected != revision_of(now) => {
            Err(conflict(path, Some(revision_of(now))))
        }
        Some(_) | None => Ok(()),
    };
    check(&before)?;
    let failed = |errno| failed("write", path, errno);
    if before.st_nlink == 1 {
        let replaced = Temporary::write(&place.directory, Mode::from_raw_mode(0o600), content)
            .and_then(|new| new.take_over(&before));
        match replaced {
            Ok(new) => {
                match place.stat() {
                    Ok(now) => check(&now)?,
                    Err(Errno::NOENT) if expected.is_some() => return Err(conflict(path, None)),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                match new.replace(&place.name) {
                    Ok(revision) => return Ok(revision),
                    Err(errno) if needs_writing_in_place(errno) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            Err(errno) if needs_writing_in_place(errno) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    write_in_place(&file, &before, content).map_err(failed)
}

fn needs_writing_in_place(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ACCESS | Errno::PERM | Errno::BUSY | Errno::XDEV
    )
}

fn write_in_place(file: &File, before: &Stat, content: &[u8]) -> rustix::io::Result<Revision> {
    if !content.is_empty() {
        // Not every file system can set space aside; only a refusal for want of space counts.
        if let Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) =
            fallocate(file, FallocateFlags::KEEP_SIZE, 0, content.len() as u64)
        {
            return Err(errno);
        }
    }
    let write = || {
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    };
    write().map_err(|error| errno_of(&error))?;
    let after = fstat(file)?;
    if revision_of(&after) != revision_of(before) {
        return Ok(revision_of(&after));
    }
    // The same size within one tick of the clock: move the time on, or nobody can tell the two apart.
    let later = Timespec {
        tv_sec: after.st_mtime,
        tv_nsec: i64::try_from(after.st_mtime_nsec).unwrap_or_default() + 1,
    };
    let unchanged = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    // Failing that, the revision stays: it is no worse than the clock.
    let _ = futimens(
        file,
        &Timestamps {
            last_access: unchanged,
            last_modification: later,
        },
    );
    Ok(revision_of(&fstat(file)?))
}

/// A synced file under a name that nobody can guess. Dropped, it is removed.
struct Temporary<'a> {
    directory: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Temporary<'a> {
    fn write(directory: &'a OwnedFd, mode: Mode, content: &[u8]) -> rustix::io::Result<Self> {
        let name = temporary_name()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, &*name, flags, mode)?.into();
        let mut temporary = Self {
            directory,
            name,
            file,
        };
        temporary
            .file
            .write_all(content)
            .map_err(|error| errno_of(&error))?;
        Ok(temporary)
    }

    /// Takes over the owner and the permission bits of the file that it will replace.
    fn take_over(self, old: &Stat) -> rustix::io::Result<Self> {
        let own = fstat(&self.file)?;
        if (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid) {
            fchown(
                &self.file,
                Some(Uid::from_raw(old.st_uid)),
                Some(Gid::from_raw(old.st_gid)),
            )?;
        }
        fchmod(&self.file, Mode::from_raw_mode(old.st_mode & KEPT_MODE))?;
        Ok(self)
    }

    /// Becomes the file `name`, in place of what is there.
    fn replace(self, name: &[u8]) -> rustix::io::Result<Revision> {
        fsync(&self.file)?;
        renameat(self.directory, &*self.name, self.directory, name)?;
        self.settled()
    }

    /// Becomes the file `name`, unless there is something.
    fn create(self, name: &[u8]) -> rustix::io::Result<Revision> {
        fsync(&self.file)?;
        rename_new(self.directory, self.name.as_bytes(), self.directory, name)?;
        self.settled()
    }

    /// The renaming has changed the status time, so the revision is taken only now.
    fn settled(self) -> rustix::io::Result<Revision> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The content is in place and safe. A directory that cannot be synced may still lose the new name
        // in a power cut and show the old file, whole: no reason to call the write failed.
        let _ = openat(self.directory, ".", flags, Mode::empty()).and_then(fsync);
        Ok(revision_of(&fstat(&self.file)?))
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = unlinkat(self.directory, &*self.name, AtFlags::empty());
    }
}

fn random() -> rustix::io::Result<u64> {
    let mut random = [0_u8; 8];
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(random))
}

fn open_regular(place: &Place, path: &str, flags: OFlags) -> Result<(File, Stat), CallError> {
    let check = |stat: &Stat| match kind_of(FileType::from_raw_mode(stat.st_mode)) {
        EntryKind::File => Ok(()),
        EntryKind::Dir => Err(failed("open", path, Errno::ISDIR)),
        EntryKind::Symlink | EntryKind::Other => Err(CallError {
            failure: Failure::Invalid,
            message: format!("`{path}` is not a regular file"),
        }),
    };
    let failed = |errno| failed("open", path, errno);
    // Opening a device may already do something, so look first; and look again at what was opened.
    check(&place.stat().map_err(failed)?)?;
    let file = place.open(flags).map_err(failed)?;
    let stat = fstat(&file).map_err(failed)?;
    check(&stat)?;
    Ok((file.into(), stat))
}

fn names_in(directory: &OwnedFd) -> rustix::io::Result<Vec<(EntryKind, Vec<u8>)>> {
    let mut names = Vec::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say; one that is gone meanwhile is dropped later.
            FileType::Unknown => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| {
                    FileType::from_raw_mode(stat.st_mode)
                }),
            known => known,
        };
        names.push((kind_of(kind), name.to_vec()));
    }
    Ok(names)
}

fn kind_of(kind: FileType) -> EntryKind {
    match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => EntryKind::Other,
    }
}

/// Every write of ours makes a new inode or moves a time, so no two states have the same text.
fn revision_of(stat: &Stat) -> Revision {
    Revision(format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec
    ))
}

fn size_of_file(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// An upper bound of what an entry takes in a list.
fn length_as_json(entry: &Entry) -> usize {
    let escaped = |text: &str| -> usize {
        text.bytes()
            .map(|byte| match byte {
                0..0x20 => r"\u0000".len(),
                b'"' | b'\\' => r"\\".len(),
                _ => 1,
            })
            .sum()
    };
    let rest = r#"{"name":"","path":"","kind":"symlink","target_kind":"symlink","size":,"modified_ms":,"mode":4095,"ignored":true,"unreadable":true},"#;
    rest.len() + 2 * "-9223372036854775808".len() + escaped(&entry.name) + escaped(&entry.path)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn conflict(path: &str, revision: Option<Revision>) -> CallError {
    let what = if revision.is_some() {
        "changed"
    } else {
        "removed"
    };
    CallError {
        failure: Failure::Conflict { revision },
        message: format!("`{path}` was {what} since it was read"),
    }
}

fn failed(operation: &str, path: &str, errno: Errno) -> CallError {
    let failure = match errno {
        Errno::NOENT => Failure::NotFound,
        Errno::NOTDIR => Failure::NotADirectory,
        Errno::ISDIR => Failure::IsADirectory,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Failure::PermissionDenied,
        Errno::EXIST => Failure::Exists,
        Errno::NOSPC | Errno::DQUOT => Failure::NoSpace,
        Errno::FBIG => Failure::TooLarge,
        Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => Failure::Invalid,
        _ => Failure::Io,
    };
    CallError {
        failure,
        message: format!("failed to {operation} `{path}`: {errno}"),
    }
}

#[cfg(test)]
mod tests;

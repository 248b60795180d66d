//! New entries, and entries that get another name or place. Nothing here takes the place of anything: what is there stays,
//! and the call is refused.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, fstat, linkat, mkdirat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::{NEW_FILE, Workspace, failed};
use crate::path::WorkspacePath;
use crate::protocol::{CallError, Failure, NewEntry};
use crate::resolve::{LastLink, Place};
use crate::tree::TRASH;

/// What may be done with directories that are made here; the umask takes from it.
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o755);

impl Workspace {
    /// Makes an empty file or a directory where nothing is.
    pub(crate) fn create(&self, path: &str, entry: NewEntry) -> Result<(), CallError> {
        let (path, place) = self.new_place(path)?;
        let made = match entry {
            NewEntry::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                openat(&place.directory, &*place.name, flags, NEW_FILE).map(drop)
            }
            NewEntry::Dir => mkdirat(&place.directory, &*place.name, NEW_DIRECTORY),
        };
        made.map_err(|errno| failed("make", &path.to_string(), errno))
    }

    /// Gives an entry another name or place, where nothing is.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), CallError> {
        let (from, source) = self.entry_place(from)?;
        let (to, target) = self.new_place(to)?;
        self.check_apart(("moved", &from), &source, &target)?;
        rename_new(
            &source.directory,
            &source.name,
            &target.directory,
            &target.name,
        )
        .map_err(|errno| match errno {
            Errno::XDEV => CallError {
                failure: Failure::Invalid,
                message: format!(
                    "`{from}` and `{to}` are on different volumes: copy it there, then delete it here"
                ),
            },
            Errno::EXIST => failed("make", &to.to_string(), errno),
            errno => failed("move", &from.to_string(), errno),
        })
    }

    /// Returns the place of an entry that may be moved, copied or deleted: not the root, and nothing of the trash.
    pub(super) fn entry_place(&self, path: &str) -> Result<(WorkspacePath, Place), CallError> {
        let (path, place) = self.place(path, LastLink::Keep)?;
        let refused = |why| CallError {
            failure: Failure::Invalid,
            message: format!("`{path}` {why}"),
        };
        match path.components().first() {
            None => Err(refused("is the workspace itself")),
            Some(first) if first == TRASH.as_bytes() => Err(refused("is the trash")),
            Some(_) => Ok((path, place)),
        }
    }

    /// Returns the place of an entry that is to be made.
    pub(super) fn new_place(&self, path: &str) -> Result<(WorkspacePath, Place), CallError> {
        self.entry_place(path).map_err(|error| match error.failure {
            // What is missing is the folder, and not what was asked for.
            Failure::NotFound => CallError {
                failure: Failure::NotADirectory,
                ..error
            },
            _ => error,
        })
    }

    /// Refuses what would put a directory into itself. The kernel refuses to move it so; a copy would have no end.
    pub(super) fn check_apart(
        &self,
        (done, from): (&str, &WorkspacePath),
        source: &Place,
        target: &Place,
    ) -> Result<(), CallError> {
        let failed = |errno| failed("look at", &from.to_string(), errno);
        let stat = source.stat().map_err(failed)?;
        if is_directory(&stat) && self.is_within(&target.directory, &stat).map_err(failed)? {
            return Err(CallError {
                failure: Failure::Invalid,
                message: format!("`{from}` cannot be {done} into itself"),
            });
        }
        Ok(())
    }

    /// Returns whether a directory of the workspace is this one, or in it at any depth.
    fn is_within(&self, directory: &OwnedFd, of: &Stat) -> rustix::io::Result<bool> {
        let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let root = self.root.stat()?;
        let mut here = fcntl_dupfd_cloexec(directory, 0)?;
        let mut stat = fstat(&here)?;
        loop {
            if same(&stat, of) {
                return Ok(true);
            }
            if same(&stat, &root) {
                return Ok(false);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = openat(&here, "..", flags, Mode::empty())?;
            let above = fstat(&here)?;
            // It was moved out of the workspace meanwhile.
            if same(&above, &stat) {
                return Ok(false);
            }
            stat = above;
        }
    }
}

/// Gives an entry another name or place, unless there is something.
pub(super) fn rename_new(
    directory: &OwnedFd,
    name: &[u8],
    new_directory: &OwnedFd,
    new_name: &[u8],
) -> rustix::io::Result<()> {
    let no_replace = RenameFlags::NOREPLACE;
    match renameat_with(directory, name, new_directory, new_name, no_replace) {
        // Not every file system has it.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        outcome => return outcome,
    }
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if is_directory(&stat) {
        // A rename replaces an empty directory, and no other: one that somebody has put something into stays.
        mkdirat(new_directory, new_name, Mode::from_raw_mode(0o700))?;
        return renameat(directory, name, new_directory, new_name).inspect_err(|_| {
            // It is empty, or not ours any more.
            let _ = unlinkat(new_directory, new_name, AtFlags::REMOVEDIR);
        });
    }
    // Hard links do the same in two steps.
    linkat(directory, name, new_directory, new_name, AtFlags::empty())?;
    unlinkat(directory, name, AtFlags::empty()).inspect_err(|_| {
        // One of the two names is too many; the old one stays.
        let _ = unlinkat(new_directory, new_name, AtFlags::empty());
    })
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

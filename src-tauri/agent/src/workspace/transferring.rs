//! Entries on their way out of the workspace, and into a folder of it.
//!
//! What comes in is made under names that nobody can guess and gets its own when all of it is whole, so that half of it
//! is never under the names that were asked for. Set-user-id does not come along. See [`crate::pack`] and [`crate::unpack`].

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, statat};
use rustix::io::Errno;

use super::copying::rename_like;
use super::removing::remove_tree;
use super::{Workspace, failed, revision_of};
use crate::pack::{Level, Packer, would_show_a_change};
use crate::path::WorkspacePath;
use crate::protocol::{CallError, Failure, MOST_PATHS, Resume, Revision, Taken};
use crate::resolve::{LastLink, Place};
use crate::tree::{self, Failed, TRASH, Why};
use crate::unpack::{Staged, Unpacker};

/// Entries that are to be told.
pub(crate) struct Outgoing {
    places: Vec<Place>,
    skipped: u64,
    /// The state of a single file, if a later change of it would be seen.
    pub(crate) revision: Option<Revision>,
}

impl Outgoing {
    /// Tells the entries, and how that ended.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub(crate) fn tell(&self, output: impl Write) -> io::Result<()> {
        let levels = || {
            let levels = self.places.iter().rev().map(|place| {
                Ok(Level {
                    directory: place.directory.as_fd().try_clone_to_owned()?,
                    names: vec![place.name.clone()],
                })
            });
            levels.collect()
        };
        Packer::new(output).tell_some(levels, self.skipped)
    }
}

/// What comes into a folder.
pub(crate) struct Incoming {
    path: WorkspacePath,
    folder: OwnedFd,
    taken: Taken,
    /// The names that are taken and must not be.
    pub(crate) occupied: Vec<String>,
}

/// Entries that do not have their own names yet. Dropped, they are removed.
struct Halves<'a> {
    folder: &'a OwnedFd,
    left: Vec<Staged>,
}

impl Drop for Halves<'_> {
    fn drop(&mut self) {
        for half in &self.left {
            // What cannot be removed shows by its name what it is.
            let _ = remove_tree(self.folder, half.temporary.as_bytes());
        }
    }
}

impl Workspace {
    /// Looks for entries that are to be told.
    pub(crate) fn outgoing(
        &self,
        paths: &[String],
        resume: Option<&Resume>,
    ) -> Result<Outgoing, CallError> {
        check_count(paths)?;
        let found: Result<Vec<_>, _> = paths.iter().map(|path| self.entry_place(path)).collect();
        let found = found?;
        let mut revision = None;
        for (path, place) in &found {
            let stat = place
                .stat()
                .map_err(|errno| failed("read", &path.to_string(), errno))?;
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if found.len() == 1 && is_file && would_show_a_change(&stat) {
                revision = Some(revision_of(&stat));
            }
        }
        if let (Some(resume), Some((path, _))) = (resume, found.first())
            && revision.as_ref() != Some(&resume.revision)
        {
            return Err(super::conflict(&path.to_string(), revision));
        }
        Ok(Outgoing {
            places: found.into_iter().map(|(_, place)| place).collect(),
            skipped: resume.map_or(0, |resume| resume.offset),
            revision,
        })
    }

    /// Looks at a folder into which entries of these names are to come.
    pub(crate) fn incoming(
        &self,
        folder: &str,
        names: &[String],
        taken: Taken,
    ) -> Result<Incoming, CallError> {
        check_count(names)?;
        let (path, place) = self.place(folder, LastLink::Follow)?;
        let text = path.to_string();
        let is_trash = |name: &Vec<u8>| name == TRASH.as_bytes();
        if path.components().first().is_some_and(is_trash) {
            return Err(invalid(format!("`{text}` is the trash")));
        }
        let directory = place
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| failed("open", &text, errno))?;
        let mut occupied = Vec::new();
        for name in names {
            let bytes = tree::name(name).ok_or_else(|| invalid(format!("`{name}` is no name")))?;
            if path.components().is_empty() && is_trash(&bytes) {
                return Err(invalid(format!("`{name}` is the trash")));
            }
            match statat(&directory, &*bytes, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) if taken == Taken::Refuse => occupied.push(name.clone()),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("make", &path.join(&bytes).to_string(), errno)),
            }
        }
        Ok(Incoming {
            path,
            folder: directory,
            taken,
            occupied,
        })
    }

    /// Makes what is told, and gives it its names when all of it has come.
    pub(crate) fn receive(&self, incoming: &Incoming, input: impl Read) -> Result<(), Failed> {
        let Incoming {
            path,
            folder,
            taken,
            ..
        } = incoming;
        let root = folder.as_fd().try_clone_to_owned();
        let root = root.map_err(|error| io_failed(&error.to_string()))?;
        let mut unpacker = Unpacker::staging(root)?;
        let made = unpacker.take_all(input);
        let mut halves = Halves {
            folder,
            left: unpacker.into_staged(),
        };
        made?;
        while let Some(half) = halves.left.last() {
            let place = path.join(&half.name);
            // Something may have come to be there meanwhile, which stays, too.
            let is_there = || statat(folder, &*half.name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            if *taken == Taken::Replace && is_there() {
                self.delete(&[place.to_string()])
                    .map_err(|error| io_failed(&error.message))?;
            }
            rename_like(
                (folder, half.temporary.as_bytes(), &half.name),
                *taken == Taken::KeepBoth,
                half.is_folder,
            )
            .map_err(|errno| crate::unpack::failed(&[place.to_string()], "make", errno))?;
            halves.left.pop();
        }
        Ok(())
    }
}

fn check_count(list: &[String]) -> Result<(), CallError> {
    if (1..=MOST_PATHS).contains(&list.len()) {
        return Ok(());
    }
    let problem = format!("{} entries are not from 1 to {MOST_PATHS}", list.len());
    Err(invalid(problem))
}

fn invalid(message: String) -> CallError {
    CallError {
        failure: Failure::Invalid,
        message,
    }
}

fn io_failed(message: &str) -> Failed {
    Failed {
        why: Why::Io,
        message: message.to_owned(),
    }
}

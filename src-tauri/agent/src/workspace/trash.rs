//! The trash of the workspace: what was deleted lies there for a while and can be put back.
//!
//! It is a folder in the root of the workspace, so that a delete is a rename: at once, whole, and whatever its size. Each
//! delete has a folder of its own there, with its entries by number and a record that says where each was. The record
//! is written before anything is moved, so that an agent that is killed in between loses nothing.
//!
//! What lies on a volume of its own inside the workspace is refused: it would have to be copied.
//!
//! Programs of the session can write there as well. So the record is read like any word of a stranger, and no link is
//! followed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::entries::rename_new;
use super::removing::remove_tree;
use super::{Workspace, errno_of, failed, names_in, random};
use crate::path::{ROOT, WorkspacePath};
use crate::protocol::{CallError, Failure, MAX_REQUEST_HEADER, MOST_PATHS};
use crate::resolve::{LastLink, Place};
use crate::tree::TRASH;

/// How long what was deleted can be put back.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many deletes can be put back.
const MOST_KEPT: usize = 100;
/// The file that says where the entries of a delete were.
const RECORD: &str = "where.json";
/// What is behind the name of a delete that is being removed.
const GONE: &str = ".gone";

const PRIVATE: Mode = Mode::from_raw_mode(0o700);

/// Where the entries of a delete were; each lies beside it under its number.
#[derive(Serialize, Deserialize)]
struct Record {
    paths: Vec<String>,
}

/// An entry, where it lies or has to go back to.
struct Kept {
    /// Its name in the folder of the delete.
    number: String,
    path: WorkspacePath,
    place: Place,
}

impl Workspace {
    /// Moves entries into the trash, all of them or none, and returns what stands for them.
    pub(crate) fn delete(&self, paths: &[String]) -> Result<String, CallError> {
        if paths.is_empty() || paths.len() > MOST_PATHS {
            return Err(CallError {
                failure: Failure::Invalid,
                message: format!("{} paths are not from 1 to {MOST_PATHS}", paths.len()),
            });
        }
        let _moving = self.trash.lock().unwrap_or_else(PoisonError::into_inner);
        let found = paths.iter().map(|path| self.entry_place(path));
        let found = outermost(found.collect::<Result<Vec<_>, _>>()?);
        let entries: Vec<Kept> = (0..)
            .zip(found)
            .map(|(number, (path, place))| Kept {
                number: u32::to_string(&number),
                path,
                place,
            })
            .collect();
        for entry in &entries {
            let failed = |errno| failed("delete", &entry.path.to_string(), errno);
            entry.place.stat().map_err(failed)?;
        }
        let trash = self.open_trash(true).map_err(in_trash)?;
        let id = format!("{:016x}", random().map_err(in_trash)?);
        let folder = begin(&trash, &id, &entries).map_err(in_trash)?;
        for (index, entry) in entries.iter().enumerate() {
            let place = &entry.place;
            let moved = renameat(&place.directory, &*place.name, &folder, &*entry.number);
            let Err(errno) = moved else { continue };
            let mut error = not_deleted(&entry.path, errno);
            let before = entries.get(..index).unwrap_or_default();
            let stuck = before.iter().filter(|entry| {
                let place = &entry.place;
                let number = entry.number.as_bytes();
                rename_new(&folder, number, &place.directory, &place.name).is_err()
            });
            match *stuck.collect::<Vec<_>>() {
                // Whatever is left of an empty folder is removed with the rest some day.
                [] => drop(remove_tree(&trash, id.as_bytes())),
                [entry, ..] => {
                    error.message = format!("{}; `{}` is in the trash", error.message, entry.path);
                }
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Puts the entries of a delete back to where they were, all of them or none.
    pub(crate) fn restore(&self, id: &str) -> Result<(), CallError> {
        let _moving = self.trash.lock().unwrap_or_else(PoisonError::into_inner);
        let not_there = || CallError {
            failure: Failure::NotFound,
            message: "what was deleted is not in the trash any more".to_owned(),
        };
        if !is_id(id.as_bytes()) {
            return Err(not_there());
        }
        let gone = |errno| match errno {
            Errno::NOENT => not_there(),
            errno => in_trash(errno),
        };
        let trash = self.open_trash(false).map_err(gone)?;
        let folder = open_directory(&trash, id.as_bytes()).map_err(gone)?;
        let record = read_record(&folder).map_err(gone)?;
        let mut entries = Vec::new();
        for (number, path) in (0..).zip(&record.paths) {
            let number = u32::to_string(&number);
            match statat(&folder, &*number, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => {}
                // It was never moved.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(in_trash(errno)),
            }
            let (path, place) = self.new_place(path)?;
            if place.stat().is_ok() {
                return Err(not_restored(&path, Errno::EXIST));
            }
            entries.push(Kept {
                number,
                path,
                place,
            });
        }
        if entries.is_empty() {
            return Err(not_there());
        }
        for (index, entry) in entries.iter().enumerate() {
            let place = &entry.place;
            let number = entry.number.as_bytes();
            let Err(errno) = rename_new(&folder, number, &place.directory, &place.name) else {
                continue;
            };
            for entry in entries.get(..index).unwrap_or_default() {
                let place = &entry.place;
                // One that cannot go back into the trash is where it was wanted.
                let _ = renameat(&place.directory, &*place.name, &folder, &*entry.number);
            }
            return Err(not_restored(&entry.path, errno));
        }
        // What is left of it is removed with the rest some day.
        let _ = remove_tree(&trash, id.as_bytes());
        Ok(())
    }

    /// Removes what was deleted long ago, and the oldest where there is too much. What cannot be removed is tried again
    /// the next time.
    pub(crate) fn empty_trash(&self, now: SystemTime) {
        let Ok(_emptying) = self.emptying.try_lock() else {
            return;
        };
        let Ok(trash) = self.open_trash(false) else {
            return;
        };
        // Under another name nobody puts it back meanwhile, and whoever deletes something does not wait.
        let moving = self.trash.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names_in(&trash).unwrap_or_default();
        let mut kept: Vec<(SystemTime, Vec<u8>)> = Vec::new();
        let mut gone = Vec::new();
        for (_, name) in names {
            if is_id(&name) {
                let stat = statat(&trash, &*name, AtFlags::SYMLINK_NOFOLLOW).ok();
                let seconds = stat.and_then(|stat| u64::try_from(stat.st_mtime).ok());
                let deleted = UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or_default());
                kept.push((deleted, name));
            } else if name.ends_with(GONE.as_bytes()) {
                gone.push(name);
            }
        }
        kept.sort_unstable_by(|a, b| b.cmp(a));
        for (index, (deleted, name)) in kept.into_iter().enumerate() {
            let is_old = now.duration_since(deleted).is_ok_and(|age| age > KEPT_FOR);
            if index >= MOST_KEPT || is_old {
                let removed = [&*name, GONE.as_bytes()].concat();
                if renameat(&trash, &*name, &trash, &*removed).is_ok() {
                    gone.push(removed);
                }
            }
        }
        drop(moving);
        for name in gone {
            let _ = remove_tree(&trash, &name);
        }
    }

    fn open_trash(&self, make: bool) -> rustix::io::Result<OwnedFd> {
        let root = self
            .root
            .resolve(&WorkspacePath::default(), LastLink::Follow)
            .map_err(|_| Errno::NOENT)?;
        match make.then(|| mkdirat(&root.directory, TRASH, PRIVATE)) {
            None | Some(Err(Errno::EXIST)) => open_directory(&root.directory, TRASH.as_bytes()),
            Some(Err(errno)) => Err(errno),
            Some(Ok(())) => {
                let trash = open_directory(&root.directory, TRASH.as_bytes())?;
                // Where the workspace is a repository, this is none of its files. It works without as well.
                let _ = write_new(&trash, ".gitignore", b"*\n");
                Ok(trash)
            }
        }
    }
}

/// Makes the folder of a delete, with its record.
fn begin(trash: &OwnedFd, id: &str, entries: &[Kept]) -> rustix::io::Result<OwnedFd> {
    let paths = entries.iter().map(|entry| entry.path.to_string()).collect();
    let record = serde_json::to_vec(&Record { paths }).map_err(|_| Errno::INVAL)?;
    mkdirat(trash, id, PRIVATE)?;
    let begun = open_directory(trash, id.as_bytes())
        .and_then(|folder| write_new(&folder, RECORD, &record).map(|()| folder));
    begun.inspect_err(|_| {
        // A folder without entries is removed with the rest some day.
        let _ = remove_tree(trash, id.as_bytes());
    })
}

fn read_record(folder: &OwnedFd) -> rustix::io::Result<Record> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = openat(folder, RECORD, flags, Mode::empty())?.into();
    let mut text = Vec::new();
    file.take(MAX_REQUEST_HEADER as u64)
        .read_to_end(&mut text)
        .map_err(|error| errno_of(&error))?;
    let record: Record = serde_json::from_slice(&text).map_err(|_| Errno::INVAL)?;
    if record.paths.len() > MOST_PATHS {
        return Err(Errno::INVAL);
    }
    Ok(record)
}

fn write_new(directory: &OwnedFd, name: &str, content: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file: File = openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into();
    file.write_all(content).map_err(|error| errno_of(&error))
}

fn open_directory(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Leaves out what is in another of the entries, or there twice: it goes with that one.
fn outermost(mut entries: Vec<(WorkspacePath, Place)>) -> Vec<(WorkspacePath, Place)> {
    entries.sort_by(|(a, _), (b, _)| a.components().cmp(b.components()));
    let mut outer: Vec<(WorkspacePath, Place)> = Vec::new();
    for entry in entries {
        let is_in = |(above, _): &(WorkspacePath, Place)| {
            entry.0.components().starts_with(above.components())
        };
        if !outer.last().is_some_and(is_in) {
            outer.push(entry);
        }
    }
    outer
}

fn is_id(name: &[u8]) -> bool {
    name.len() == 16
        && name
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn not_deleted(path: &WorkspacePath, errno: Errno) -> CallError {
    match errno {
        Errno::XDEV => CallError {
            failure: Failure::Invalid,
            message: format!(
                "`{path}` is on a volume of its own, which has no trash: delete it in a terminal"
            ),
        },
        Errno::BUSY => CallError {
            failure: Failure::Invalid,
            message: format!("`{path}` is where a volume is, which stays"),
        },
        errno => failed("delete", &path.to_string(), errno),
    }
}

fn not_restored(path: &WorkspacePath, errno: Errno) -> CallError {
    match errno {
        Errno::EXIST => CallError {
            failure: Failure::Exists,
            message: format!("there is something at `{path}` again"),
        },
        errno => failed("restore", &path.to_string(), errno),
    }
}

fn in_trash(errno: Errno) -> CallError {
    failed("use", &format!("{ROOT}/{TRASH}"), errno)
}

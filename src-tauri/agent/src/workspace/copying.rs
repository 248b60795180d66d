//! Copies of entries with all that is in them: whole, or not at all.
//!
//! A copy is made under a name that nobody can guess and gets its own when it is whole, so that half of it is never under
//! the name that was asked for. Modes and times are kept, symlinks are copied as they are, holes stay holes. The copy
//! belongs to the session's user, and nothing in it has set-user-id. Sockets are left out: they are nothing without the program
//! behind them. A file that has several names becomes one for each.
//!
//! It goes down by descriptors, one name at a time, following no link. What takes too long is given up and taken back:
//! somebody waits for it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, copy_file_range, fchmod, fstat, ftruncate, futimens, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::entries::rename_new;
use super::removing::remove_tree;
use super::{
    KEPT_MODE, Workspace, errno_of, failed, is_temporary, names_in, size_of_file, temporary_name,
};
use crate::path::{WorkspacePath, encode};
use crate::protocol::{COPY_LIMIT, CallError, Failure};
use crate::tree::{Facts, PIECE};
use crate::{pack, unpack};

/// The most bytes that the kernel copies between two looks at the clock.
const STEP: u64 = 8 << 20;
/// The most names that are tried when others are taken.
const MOST_NAMES: u32 = 1_000;
/// The most bytes of a name.
const LONGEST_NAME: usize = 255;

/// Why a copy ends early.
enum Stop {
    Failed(Errno),
    TookTooLong,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// A copy that is not whole yet. Dropped, it is removed.
struct Half<'a> {
    directory: &'a OwnedFd,
    name: String,
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove; what cannot be removed shows by its name what it is.
        let _ = remove_tree(self.directory, self.name.as_bytes());
    }
}

/// A directory on the way down.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    /// What is still to be copied of it.
    names: Vec<Vec<u8>>,
    facts: Facts,
}

struct Copier {
    until: Instant,
    /// Whether the kernel copies between these files.
    by_kernel: bool,
    buffer: Vec<u8>,
    /// The names from the entry down to where it is, for people.
    path: Vec<String>,
}

impl Workspace {
    /// Copies an entry to a path where nothing is, or with `or_like_it` to one like it, and returns which.
    pub(crate) fn copy(&self, from: &str, to: &str, or_like_it: bool) -> Result<String, CallError> {
        self.copy_within(from, to, or_like_it, COPY_LIMIT)
    }

    pub(super) fn copy_within(
        &self,
        from: &str,
        to: &str,
        or_like_it: bool,
        limit: Duration,
    ) -> Result<String, CallError> {
        let (from, source) = self.entry_place(from)?;
        let (to, target) = self.new_place(to)?;
        self.check_apart(("copied", &from), &source, &target)?;
        let exists = || failed("make", &to.to_string(), Errno::EXIST);
        // Before a long copy that would be for nothing.
        if !or_like_it && target.stat().is_ok() {
            return Err(exists());
        }
        let failed_to_make = |errno| failed("make", &to.to_string(), errno);
        let half = Half {
            directory: &target.directory,
            name: temporary_name().map_err(failed_to_make)?,
        };
        let mut copier = Copier {
            until: Instant::now() + limit,
            by_kernel: true,
            buffer: Vec::new(),
            path: Vec::new(),
        };
        let new = (&target.directory, half.name.as_bytes());
        let is_folder = copier
            .copy_all((&source.directory, &source.name), new)
            .map_err(|stop| copier.error(&from, &stop, limit))?;
        let place = (&target.directory, half.name.as_bytes(), &*target.name);
        match rename_like(place, or_like_it, is_folder) {
            Ok(name) => Ok(to.beside(&name).to_string()),
            Err(Errno::EXIST) => Err(exists()),
            Err(errno) => Err(failed_to_make(errno)),
        }
    }
}

impl Copier {
    /// Copies an entry and all that is in it; returns whether it is a directory.
    fn copy_all(&mut self, from: (&OwnedFd, &[u8]), to: (&OwnedFd, &[u8])) -> Result<bool, Stop> {
        let mut levels = Vec::from_iter(self.copy_entry(from, to)?);
        let is_folder = !levels.is_empty();
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                settle(level)?;
                levels.pop();
                self.path.pop();
                continue;
            };
            self.path.push(encode(&name));
            match self.copy_entry((&level.from, &name), (&level.to, &name)) {
                Ok(Some(entered)) => {
                    levels.push(entered);
                    continue;
                }
                // What is gone meanwhile was never there.
                Ok(None) | Err(Stop::Failed(Errno::NOENT)) => {}
                Err(stop) => return Err(stop),
            }
            self.path.pop();
        }
        Ok(is_folder)
    }

    /// Copies what a name stands for, and returns the level of a directory.
    fn copy_entry(
        &mut self,
        (from, name): (&OwnedFd, &[u8]),
        (to, new_name): (&OwnedFd, &[u8]),
    ) -> Result<Option<Level>, Stop> {
        self.look_at_clock()?;
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let facts = pack::facts_of(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let only = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = |at: &OwnedFd, name: &[u8]| {
                    openat(at, name, OFlags::RDONLY | only, Mode::empty())
                };
                let from = open(from, name)?;
                let names = names_in(&from)?.into_iter().map(|(_, name)| name);
                let names = names.filter(|name| !is_temporary(name)).collect();
                mkdirat(to, new_name, Mode::from_raw_mode(0o700))?;
                let to = open(to, new_name)?;
                return Ok(Some(Level {
                    from,
                    to,
                    names,
                    facts,
                }));
            }
            FileType::RegularFile => self.copy_file((from, name), (to, new_name))?,
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                symlinkat(&*target, to, new_name)?;
                set_times(to, new_name, &facts)?;
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(stat.st_mode & KEPT_MODE);
                mknodat(to, new_name, FileType::Fifo, mode, 0)?;
                set_times(to, new_name, &facts)?;
            }
            FileType::Socket => {}
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                return Err(Errno::INVAL.into());
            }
        }
        Ok(None)
    }

    fn copy_file(
        &mut self,
        (from, name): (&OwnedFd, &[u8]),
        (to, new_name): (&OwnedFd, &[u8]),
    ) -> Result<(), Stop> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let from: File = openat(from, name, flags, Mode::empty())?.into();
        let stat = fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to: File = openat(to, new_name, flags, Mode::from_raw_mode(0o600))?.into();
        let size = size_of_file(&stat);
        let extents = if pack::stored_of(&stat) < size {
            pack::extents_of(&from, size)?
        } else {
            None
        };
        for (offset, length) in extents.as_deref().unwrap_or(&[(0, size)]) {
            self.copy_range(&from, &to, *offset, offset + length)?;
        }
        if extents.is_some() {
            ftruncate(&to, size)?;
        }
        fchmod(&to, Mode::from_raw_mode(stat.st_mode & KEPT_MODE))?;
        futimens(&to, &unpack::times(&pack::facts_of(&stat)))?;
        Ok(())
    }

    fn copy_range(&mut self, from: &File, to: &File, mut at: u64, end: u64) -> Result<(), Stop> {
        while at < end {
            self.look_at_clock()?;
            let copied = if self.by_kernel {
                let (mut read, mut written) = (at, at);
                let length = usize::try_from((end - at).min(STEP)).unwrap_or(PIECE);
                match copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
                    Err(Errno::INTR) => continue,
                    // Between these files it cannot.
                    Err(
                        Errno::INVAL | Errno::NOSYS | Errno::XDEV | Errno::OPNOTSUPP | Errno::PERM,
                    ) => {
                        self.by_kernel = false;
                        continue;
                    }
                    copied => copied?,
                }
            } else {
                self.buffer.resize(PIECE, 0);
                let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let buffer = self.buffer.get_mut(..length).unwrap_or_default();
                let count = pack::read_at(from, buffer, at)?;
                let content = buffer.get(..count).unwrap_or_default();
                to.write_all_at(content, at)
                    .map_err(|error| errno_of(&error))?;
                count
            };
            // It became shorter meanwhile.
            if copied == 0 {
                break;
            }
            at += copied as u64;
        }
        Ok(())
    }

    fn look_at_clock(&self) -> Result<(), Stop> {
        if Instant::now() >= self.until {
            return Err(Stop::TookTooLong);
        }
        Ok(())
    }

    fn error(&self, from: &WorkspacePath, stop: &Stop, limit: Duration) -> CallError {
        match stop {
            Stop::TookTooLong => CallError {
                failure: Failure::TooLarge,
                message: format!(
                    "`{from}` could not be copied within {} s, so nothing was: copy it in a terminal",
                    limit.as_secs()
                ),
            },
            Stop::Failed(errno) => {
                let mut path = vec![from.to_string()];
                path.extend(self.path.iter().cloned());
                failed("copy", &pack::shown(&path), *errno)
            }
        }
    }
}

/// Gives the copy of a directory what the directory has, when all is in it.
fn settle(level: &Level) -> rustix::io::Result<()> {
    fchmod(&level.to, Mode::from_raw_mode(level.facts.mode & 0o1777))?;
    futimens(&level.to, &unpack::times(&level.facts))
}

fn set_times(directory: &OwnedFd, name: &[u8], facts: &Facts) -> rustix::io::Result<()> {
    let times = unpack::times(facts);
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives what is whole its own name in a directory, or with `or_like_it` one like it when there is something; returns which.
pub(super) fn rename_like(
    (directory, half, wanted): (&OwnedFd, &[u8], &[u8]),
    or_like_it: bool,
    is_folder: bool,
) -> rustix::io::Result<Vec<u8>> {
    let names = (0..MOST_NAMES).map(|number| match number {
        0 => wanted.to_vec(),
        number => name_like(wanted, number, is_folder),
    });
    for name in names.take(if or_like_it { usize::MAX } else { 1 }) {
        match rename_new(directory, half, directory, &name) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// Returns a name for one more copy: `a copy.txt`, then `a copy 2.txt`, also of one that is called like that.
fn name_like(name: &[u8], number: u32, is_folder: bool) -> Vec<u8> {
    let dot = name.iter().rposition(|byte| *byte == b'.');
    let (stem, extension) = match dot {
        Some(dot) if dot > 0 && !is_folder => name.split_at(dot),
        Some(_) | None => (name, &[][..]),
    };
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let digits = stem.iter().rev().take_while(|byte| is_digit(byte)).count();
    let (before, counted) = stem.split_at(stem.len() - digits);
    let stem = match before.strip_suffix(b" ") {
        Some(before) if !counted.is_empty() => before.strip_suffix(b" copy").unwrap_or(stem),
        Some(_) | None => stem.strip_suffix(b" copy").unwrap_or(stem),
    };
    let suffix = match number {
        1 => " copy".to_owned(),
        number => format!(" copy {number}"),
    };
    let mut room = LONGEST_NAME.saturating_sub(suffix.len() + extension.len());
    // Not in the middle of a character.
    while room < stem.len() && stem.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) && room > 0 {
        room -= 1;
    }
    let stem = stem.get(..room).unwrap_or(stem);
    [stem, suffix.as_bytes(), extension].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &[u8], number: u32, expected: &[u8]) {
        assert_eq!(name_like(name, number, false), expected);
    }

    #[test]
    fn a_copy_is_called_like_what_it_was_made_of() {
        check(b"a.txt", 1, b"a copy.txt");
        check(b"a.txt", 2, b"a copy 2.txt");
        check(b"a copy.txt", 3, b"a copy 3.txt");
        check(b"a copy 12.txt", 3, b"a copy 3.txt");
        check(b"a 12.txt", 1, b"a 12 copy.txt");
        check(b"photocopy 2", 1, b"photocopy 2 copy");
        check(b".env", 1, b".env copy");
        check(b"caf\xe9.md", 1, b"caf\xe9 copy.md");
        assert_eq!(name_like(b"v1.2", 1, true), b"v1.2 copy");
    }

    #[test]
    fn the_name_of_a_copy_is_not_too_long_and_cut_between_characters() {
        let name = format!("{}.txt", "é".repeat(125));
        let copy = name_like(name.as_bytes(), 1, false);
        assert!(copy.len() <= LONGEST_NAME, "{}", copy.len());
        let copy = String::from_utf8(copy).unwrap();
        assert!(copy.ends_with("é copy.txt"), "{copy}");
        assert!(name_like(&[b'x'; 255], 9, false).len() == LONGEST_NAME);
    }
}

//! Removing an entry with all that is in it, for good: what was deleted long ago, and half a copy.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, chmod, fchmod, openat, unlinkat};
use rustix::io::Errno;

use crate::unpack;

const USABLE: Mode = Mode::from_raw_mode(0o700);

/// Removes an entry and all that is in it, following no link. What is gone already counts as removed.
pub(super) fn remove_tree(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    // The directories from the first one down to where it is, and the names of those that are left in each.
    let mut levels = vec![without_files(directory, name)?];
    while let Some((here, folders)) = levels.last() {
        if let Some(next) = folders.last() {
            let next = without_files(here, next)?;
            levels.push(next);
            continue;
        }
        levels.pop();
        match levels.last_mut() {
            Some((above, folders)) => {
                if let Some(emptied) = folders.pop() {
                    unlinkat(&*above, &*emptied, AtFlags::REMOVEDIR)?;
                }
            }
            None => unlinkat(directory, name, AtFlags::REMOVEDIR)?,
        }
    }
    Ok(())
}

/// Opens a directory, removes its files, and returns the names of its directories.
fn without_files(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<(OwnedFd, Vec<Vec<u8>>)> {
    let opened = open_directory(directory, name)?;
    // One that belongs to somebody else may be usable all the same.
    let _ = fchmod(&opened, USABLE);
    let folders = unpack::remove_files(&opened)?;
    Ok((opened, folders))
}

fn open_directory(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let only = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(directory, name, OFlags::RDONLY | only, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            // By its descriptor, so that no link is followed that somebody puts in its place.
            let found = openat(directory, name, OFlags::PATH | only, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), USABLE)?;
            open()
        }
        opened => opened,
    }
}

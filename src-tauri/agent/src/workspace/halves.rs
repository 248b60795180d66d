//! The names of what is not whole yet, and the end of what never will be.
//!
//! What is made in the workspace is made beside its place, under a name that is shown nowhere. A daemon that is killed in the
//! middle, with its container or without, leaves that there, and the next one removes it. A name says which process made
//! it, so that nothing has to be written down before, and no clock has to be right: what is another's is nobody's any
//! more, because a workspace has one daemon.
//!
//! `.git` and the trash are passed over, and no link is followed.

use std::sync::OnceLock;

use super::removing::remove_tree;
use super::walking::Folder;
use super::{Workspace, random};

/// How many folders are looked through, at most. What lies in others stays, and shows by its name what it is.
const MOST_FOLDERS: usize = 200_000;

/// The hexadecimal digits that say which process made something, of all that are in a name, and how many there are in
/// those that earlier agents gave.
const DIGITS: (usize, usize, usize) = (8, 24, 16);

/// Returns a name that nobody can guess, for what is not whole yet.
pub(crate) fn temporary_name() -> rustix::io::Result<String> {
    Ok(format!(".cove-{}{:016x}.tmp", own()?, random()?))
}

/// Returns the digits that stand for this process.
fn own() -> rustix::io::Result<&'static str> {
    static OWN: OnceLock<String> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let new = format!("{:016x}", random()?);
    Ok(OWN.get_or_init(|| new.chars().take(DIGITS.0).collect()))
}

/// Returns whether a name is one of [`temporary_name`], of whatever process.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    digits_of(name).is_some()
}

fn digits_of(name: &[u8]) -> Option<&[u8]> {
    let digits = name.strip_prefix(b".cove-")?.strip_suffix(b".tmp")?;
    let is_ours = [DIGITS.1, DIGITS.2].contains(&digits.len());
    (is_ours && digits.iter().all(u8::is_ascii_hexdigit)).then_some(digits)
}

/// Returns whether another process gave the name.
fn is_left_behind(name: &[u8], own: &str) -> bool {
    digits_of(name).is_some_and(|digits| !digits.starts_with(own.as_bytes()))
}

impl Workspace {
    /// Removes what daemons before this one left that is not whole. What cannot be removed stays.
    pub(crate) fn remove_halves(&self) {
        let Ok(own) = own() else {
            return;
        };
        let mut folders = vec![Folder::root()];
        let mut looked_through = 0;
        while let Some(folder) = folders.pop()
            && looked_through < MOST_FOLDERS
        {
            looked_through += 1;
            let Ok(contents) = folder.read(&self.root, false) else {
                continue;
            };
            let halves = contents.halves.iter();
            for half in halves.filter(|half| is_left_behind(half, own)) {
                let _ = remove_tree(&contents.directory, half);
            }
            let room = MOST_FOLDERS.saturating_sub(folders.len());
            folders.extend(contents.folders.into_iter().take(room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_and_who_gave_it() {
        let name = temporary_name().unwrap();
        let is_left_behind = |name: &str| is_left_behind(name.as_bytes(), own().unwrap());
        assert!(is_temporary(name.as_bytes()) && !is_left_behind(&name));
        assert_ne!(name, temporary_name().unwrap());
        for left in [
            ".cove-0123456789abcdef.tmp",
            ".cove-ffffffff0123456789abcdef.tmp",
        ] {
            // One in four thousand million is this process's.
            assert!(is_temporary(left.as_bytes()), "{left}");
            assert!(is_left_behind(left), "{left}");
        }
        for other in [
            ".cove-trash",
            ".cove-.tmp",
            ".cove-0123456789abcdeg.tmp",
            ".cove-0123456789abcdef0.tmp",
            "cove-0123456789abcdef.tmp",
            ".cove-0123456789abcdef.part",
        ] {
            assert!(!is_temporary(other.as_bytes()), "{other}");
        }
    }
}

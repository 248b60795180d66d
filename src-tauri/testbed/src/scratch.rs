//! Scratch folders with short paths (a socket's path holds 107 bytes), named after the process that owns them so
//! that the next run can sweep up after one that was killed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use anyhow::{Context as _, Result};

const PREFIX: &str = "cove-test-";

/// A folder that is removed with its guard.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new, empty folder, after removing those of processes that are gone.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent().join(format!("{PREFIX}{}-{count}", process::id()));
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to make `{}`", path.display()))?;
        Ok(Self { path })
    }

    /// Returns the folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a folder of this name was made by a process that is gone.
    pub(crate) fn owner_has_gone(name: &OsStr) -> bool {
        owner(&name.to_string_lossy()).is_some_and(|pid| !crate::process::is_alive(pid))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its processes may take a moment to let go of their mounts.
        for _ in 0..50 {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
    }
}

fn parent() -> PathBuf {
    if cfg!(unix) {
        PathBuf::from("/tmp")
    } else {
        env::temp_dir()
    }
}

fn sweep() {
    let Ok(entries) = fs::read_dir(parent()) else {
        return;
    };
    for entry in entries.flatten() {
        if Scratch::owner_has_gone(&entry.file_name()) {
            // What cannot be removed now is tried again by the next run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_names_its_owner_and_goes_with_its_guard() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        assert!(path.is_dir());
        assert_eq!(
            owner(path.file_name().unwrap().to_str().unwrap()),
            Some(process::id())
        );
        drop(scratch);
        assert!(!path.exists());
    }
}

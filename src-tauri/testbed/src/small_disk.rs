//! A file system of a chosen size in a file, for engines that run out of room.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::scratch::Scratch;

const FOLDER: &str = "disk";
const BALLAST: &str = "ballast";

/// How much a file system holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSize {
    /// Mebibytes.
    pub megabytes: u64,
    /// Files and folders; as many as the size suggests when absent.
    pub inodes: Option<u64>,
}

/// A mounted ext4; it is unmounted with its guard, and must outlive the engine that uses it.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
    _scratch: Scratch,
}

impl SmallDisk {
    /// Makes and mounts an empty file system.
    ///
    /// # Errors
    /// When [`Self::cannot_mount`] has a reason, or the kernel has no loop device left.
    pub fn new(size: DiskSize) -> Result<Self> {
        if let Some(reason) = Self::cannot_mount() {
            bail!("failed to make a small disk: {reason}");
        }
        sweep();
        let scratch = Scratch::new()?;
        let image = scratch.path().join("disk.img");
        let failed = || "failed to make a small disk";
        fs::File::create(&image)
            .and_then(|file| file.set_len(size.megabytes << 20))
            .with_context(failed)?;
        let mut mkfs = Command::new("mkfs.ext4");
        // Nothing is kept back for root, whose engine this is.
        mkfs.args(["-q", "-m", "0"]);
        if let Some(inodes) = size.inodes {
            mkfs.args(["-N", &inodes.to_string()]);
        }
        run(mkfs.arg(&image))?;
        let mount = scratch.path().join(FOLDER);
        fs::create_dir(&mount).with_context(failed)?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount))?;
        Ok(Self {
            mount,
            _scratch: scratch,
        })
    }

    /// Returns why no file system can be mounted here, or `None` when one can.
    #[must_use]
    pub fn cannot_mount() -> Option<&'static str> {
        if !cfg!(target_os = "linux") {
            Some("a file system in a file can be mounted on Linux only")
        } else if !process::is_root() {
            Some("mounting a file system needs root")
        } else if !process::on_path("mkfs.ext4") {
            Some("`mkfs.ext4` is not installed")
        } else if !Path::new("/dev/loop-control").exists() {
            Some("the kernel has no loop devices")
        } else {
            None
        }
    }

    /// Returns the folder where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Lets nobody write from now on.
    ///
    /// # Errors
    /// When somebody is writing.
    pub fn make_read_only(&self) -> Result<()> {
        run(Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.mount))
    }

    /// Takes all room but this many bytes.
    ///
    /// # Errors
    /// When the file system fails in another way than by being full.
    pub fn fill(&self, left: u64) -> Result<()> {
        let file =
            fs::File::create(self.mount.join(BALLAST)).context("failed to fill a small disk")?;
        let mut size = 0;
        // Blocks are taken without being written; smaller and smaller pieces find the last of them.
        for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            loop {
                match allocate(&file, size, piece) {
                    Ok(()) => size += piece,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("failed to fill a small disk"),
                }
            }
        }
        file.set_len(size.saturating_sub(left))
            .context("failed to fill a small disk")
    }

    /// Takes all inodes but this many.
    ///
    /// # Errors
    /// When the file system fails in another way than by being full.
    pub fn fill_inodes(&self, left: usize) -> Result<()> {
        let folder = self.mount.join(format!("{BALLAST}.d"));
        fs::create_dir_all(&folder).context("failed to fill a small disk")?;
        let mut count: usize = 0;
        loop {
            match fs::File::create_new(folder.join(count.to_string())) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("failed to fill a small disk"),
            }
        }
        for number in count.saturating_sub(left)..count {
            fs::remove_file(folder.join(number.to_string()))
                .context("failed to fill a small disk")?;
        }
        Ok(())
    }

    /// Gives back what was taken.
    ///
    /// # Errors
    /// When the file system does not let go.
    pub fn free(&self) -> Result<()> {
        for path in [BALLAST.to_owned(), format!("{BALLAST}.d")].map(|name| self.mount.join(name)) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("failed to empty a small disk");
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount)).is_ok() {
                return;
            }
            // An engine's last process may take a moment to let go.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        unmount_when_unused(&self.mount);
    }
}

/// Unmounts what processes have left that were killed.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let place = Path::new(line.split(' ').nth(1).unwrap_or_default());
        let folder = place.parent().and_then(Path::file_name);
        if place.file_name() == Some(OsStr::new(FOLDER))
            && folder.is_some_and(Scratch::owner_has_gone)
        {
            unmount_when_unused(place);
        }
    }
}

fn unmount_when_unused(place: &Path) {
    // The next run tries again.
    let _ = run(Command::new("umount").arg("--lazy").arg(place));
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, at: u64, size: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, size)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &fs::File, _at: u64, _size: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn run(command: &mut Command) -> Result<()> {
    let failed = format!("failed to run `{}`", command.get_program().display());
    let output = command.output().with_context(|| failed.clone())?;
    if !output.status.success() {
        bail!(
            "{failed}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_full_when_it_is_told_so_and_empty_again_after() {
        if let Some(reason) = SmallDisk::cannot_mount() {
            return crate::skip(reason);
        }
        let disk = SmallDisk::new(DiskSize {
            megabytes: 16,
            inodes: Some(200),
        })
        .unwrap();
        let full = |name: &str, size: usize| {
            let written = fs::write(disk.path().join(name), vec![1; size]);
            written.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
        };
        disk.fill(1 << 20).unwrap();
        assert!(!full("small", 100_000));
        assert!(full("big", 2 << 20));
        disk.free().unwrap();
        assert!(!full("big", 2 << 20));
        disk.fill_inodes(1).unwrap();
        assert!(!full("one", 0));
        assert!(full("two", 0));
        disk.free().unwrap();
        assert!(!full("two", 0));
        let place = disk.path().to_owned();
        drop(disk);
        assert!(!place.exists());
    }
}

//! How a path becomes a place on disk without ever leaving the workspace.
//!
//! [`Root::resolve`] walks one name at a time from a descriptor of the root, never follows a symlink in
//! the kernel, and resolves the text of each by hand: `..` goes back to the descriptor that the walk came
//! from, and an absolute target counts from the workspace if it points there. Everything that is opened
//! is thus one plain name in a directory that was reached from the root; swapping a symlink in mid-walk
//! makes the walk fail or go elsewhere *inside*.
//!
//! The answers are those of `openat2` with `RESOLVE_BENEATH`, which the tests hold it against. It is not
//! used here: it refuses absolute symlinks that stay inside, it cannot tell where to put the temporary
//! file of an atomic write, and the seccomp profiles of older engines refuse it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::path::WorkspacePath;

/// As many symlinks as the kernel follows on one path.
const MAX_LINKS: usize = 40;

/// The root of the workspace.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// What absolute symlinks inside begin with.
    path: Vec<u8>,
}

/// One name in a directory that is inside the workspace.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    /// No slash in it; `.` for the directory itself.
    pub(crate) name: Vec<u8>,
}

/// What becomes of a symlink that is the last name of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResolveError {
    /// A symlink leads out of the workspace.
    Outside,
    /// The disk says no.
    Refused(Errno),
}

impl From<Errno> for ResolveError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

const DIRECTORY_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    pub(crate) fn open(path: &Path) -> rustix::io::Result<Self> {
        let directory = openat(CWD, path, DIRECTORY_ONLY, Mode::empty())?;
        Ok(Self {
            directory,
            path: path.as_os_str().as_bytes().to_vec(),
        })
    }

    pub(crate) fn stat(&self) -> rustix::io::Result<Stat> {
        fstat(&self.directory)
    }

    /// Returns the place of `path`. All directories on the way exist; the last name may be missing.
    pub(crate) fn resolve(
        &self,
        path: &WorkspacePath,
        last: LastLink,
    ) -> Result<Place, ResolveError> {
        let mut links = 0;
        // What is still to walk, the next name at the end.
        let mut ahead: Vec<Vec<u8>> = path.components().iter().rev().cloned().collect();
        // The directories between the root and where the walk is.
        let mut behind: Vec<OwnedFd> = Vec::new();
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    behind.pop().ok_or(ResolveError::Outside)?;
                    continue;
                }
                _ => {}
            }
            let here = behind.last().unwrap_or(&self.directory);
            let target = if ahead.is_empty() {
                let link = match last {
                    LastLink::Follow => readlinkat(here, &*name, Vec::new()),
                    LastLink::Keep => Err(Errno::INVAL),
                };
                match link {
                    Ok(target) => target,
                    // No symlink, or nothing at all: the walk is at its end.
                    Err(Errno::INVAL | Errno::NOENT) => return self.place(behind, name),
                    Err(errno) => return Err(errno.into()),
                }
            } else {
                match openat(
                    here,
                    &*name,
                    DIRECTORY_ONLY | OFlags::NOFOLLOW,
                    Mode::empty(),
                ) {
                    Ok(directory) => {
                        behind.push(directory);
                        continue;
                    }
                    Err(not_directory @ Errno::NOTDIR) => {
                        match readlinkat(here, &*name, Vec::new()) {
                            Ok(target) => target,
                            Err(Errno::INVAL) => return Err(not_directory.into()),
                            Err(errno) => return Err(errno.into()),
                        }
                    }
                    Err(errno) => return Err(errno.into()),
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let mut target = target.as_bytes();
            if target.starts_with(b"/") {
                target = target
                    .strip_prefix(&*self.path)
                    .ok_or(ResolveError::Outside)?;
                if !target.is_empty() && !target.starts_with(b"/") {
                    return Err(ResolveError::Outside);
                }
                behind.clear();
            }
            // A slash at the end leaves an empty name behind the last: that one must be a directory.
            ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
        }
        self.place(behind, b".".to_vec())
    }

    fn place(&self, mut behind: Vec<OwnedFd>, name: Vec<u8>) -> Result<Place, ResolveError> {
        let directory = match behind.pop() {
            Some(directory) => directory,
            None => fcntl_dupfd_cloexec(&self.directory, 0)?,
        };
        Ok(Place { directory, name })
    }
}

impl Place {
    /// Returns what is at the place; a symlink is described, not followed.
    pub(crate) fn stat(&self) -> rustix::io::Result<Stat> {
        statat(&self.directory, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens what is at the place. A pipe does not block, a terminal is not taken over, and a symlink
    /// that was put here meanwhile is refused.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let always = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(&self.directory, &*self.name, flags | always, Mode::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{ResolveFlags, openat2};

    use super::*;

    /// A workspace, and beside it a directory with a `secret`.
    fn fixture() -> (tempfile::TempDir, Root) {
        let top = tempfile::tempdir().unwrap();
        let workspace = top.path().join("workspace");
        let outside = top.path().join("outside");
        fs::create_dir_all(workspace.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(workspace.join("file"), "file").unwrap();
        fs::write(workspace.join("a/b/deep"), "deep").unwrap();
        let link = |target: &str, name: &str| symlink(target, workspace.join(name)).unwrap();
        link("file", "to_file");
        link("a", "to_a");
        link("a/b/", "to_b_slash");
        link("file/", "to_file_slash");
        link("to_a/b/../../to_file", "around");
        link("../..", "a/b/to_root");
        link(".", "to_here");
        link("missing", "broken");
        link("loop_2", "loop_1");
        link("loop_1", "loop_2");
        link("..", "up");
        link("../outside/secret", "out");
        link("../workspace/file", "out_and_back");
        link("a/../../outside", "out_dir");
        link(outside.to_str().unwrap(), "absolute_out");
        link("/proc/self/root", "magic");
        link("/proc/self/cwd", "magic_cwd");
        for step in 0..45 {
            let target = if step == 0 {
                "file".to_owned()
            } else {
                format!("chain_{}", step - 1)
            };
            link(&target, &format!("chain_{step}"));
        }
        (top, Root::open(&workspace).unwrap())
    }

    fn ours(root: &Root, path: &str) -> Result<(u64, u64), ResolveError> {
        let path = WorkspacePath::parse(&format!("/workspace/{path}")).unwrap();
        let place = root.resolve(&path, LastLink::Follow)?;
        let stat = fstat(place.open(OFlags::PATH)?)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn kernels(root: &Root, path: &str) -> Result<(u64, u64), ResolveError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        let open = || openat2(&root.directory, path, OFlags::PATH, Mode::empty(), resolve);
        let mut opened = open();
        // While anything is renamed or mounted on the machine the kernel cannot tell where `..` leads, and says so.
        while matches!(opened, Err(Errno::AGAIN)) {
            opened = open();
        }
        let stat = fstat(opened.map_err(|errno| match errno {
            Errno::XDEV => ResolveError::Outside,
            errno => ResolveError::Refused(errno),
        })?)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    #[test]
    fn the_walk_answers_what_the_kernel_answers() {
        let (_top, root) = fixture();
        if kernels(&root, "") == Err(ResolveError::Refused(Errno::NOSYS)) {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: this kernel has no openat2");
            return;
        }
        let names = [
            "",
            "file",
            "a",
            "a/b",
            "a/b/deep",
            "to_file",
            "to_a",
            "to_a/b/deep",
            "to_b_slash",
            "to_b_slash/deep",
            "to_file_slash",
            "around",
            "a/b/to_root",
            "a/b/to_root/file",
            "a/b/to_root/a/b/to_root/to_file",
            "to_here",
            "to_here/to_here/file",
            "broken",
            "broken/x",
            "missing",
            "missing/x",
            "a/missing",
            "loop_1",
            "loop_1/x",
            "loop_2",
            "up",
            "up/outside",
            "up/outside/secret",
            "up/workspace/file",
            "out",
            "out_and_back",
            "out_dir",
            "out_dir/secret",
            "absolute_out",
            "absolute_out/secret",
            "magic",
            "magic/etc",
            "magic_cwd",
            "file/x",
            "to_file/x",
            "to_a/../x",
            "chain_0",
            "chain_38",
            "chain_39",
            "chain_40",
            "chain_44",
            "chain_44/x",
        ];
        for name in names {
            // The protocol knows no `..`.
            if !name.contains("..") {
                assert_eq!(ours(&root, name), kernels(&root, name), "{name}");
            }
        }
        let long = "n".repeat(256);
        assert_eq!(ours(&root, &long), kernels(&root, &long));
    }

    #[test]
    fn what_leads_out_is_outside() {
        let (_top, root) = fixture();
        for name in [
            "up",
            "up/outside/secret",
            "out",
            "out_dir/secret",
            "absolute_out/secret",
            "magic/etc",
            "magic_cwd",
        ] {
            assert_eq!(ours(&root, name), Err(ResolveError::Outside), "{name}");
        }
    }

    #[test]
    fn an_absolute_symlink_that_stays_inside_is_followed() {
        let (top, root) = fixture();
        let workspace = top.path().join("workspace");
        let file = ours(&root, "file");
        symlink(workspace.join("file"), workspace.join("absolute")).unwrap();
        symlink(&workspace, workspace.join("a/absolute_root")).unwrap();
        symlink(workspace.join("../outside"), workspace.join("absolute_up")).unwrap();
        symlink(
            format!("{}s/file", workspace.display()),
            workspace.join("sibling"),
        )
        .unwrap();
        assert_eq!(ours(&root, "absolute"), file);
        assert_eq!(ours(&root, "a/absolute_root/to_file"), file);
        assert_eq!(
            ours(&root, "absolute_up/secret"),
            Err(ResolveError::Outside)
        );
        assert_eq!(ours(&root, "sibling"), Err(ResolveError::Outside));
    }

    #[test]
    fn a_last_symlink_can_be_kept() {
        let (_top, root) = fixture();
        let place = root
            .resolve(&WorkspacePath::default().join(b"out"), LastLink::Keep)
            .unwrap();
        assert_eq!(place.name, b"out");
        assert!(
            place.open(OFlags::RDONLY).is_err(),
            "a symlink is never opened through"
        );
    }

    #[test]
    fn a_symlink_swapped_in_mid_walk_never_leads_out() {
        let (top, root) = fixture();
        let workspace = top.path().join("workspace");
        let secret = fs::metadata(top.path().join("outside/secret")).unwrap();
        let secret = std::os::unix::fs::MetadataExt::ino(&secret);
        // `swap` is by turns a directory with its own `secret` and a symlink to the one outside.
        fs::create_dir(workspace.join("inside")).unwrap();
        fs::write(workspace.join("inside/secret"), "").unwrap();
        symlink("../outside", workspace.join("leak")).unwrap();
        fs::rename(workspace.join("inside"), workspace.join("swap")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = rustix::fs::RenameFlags::EXCHANGE;
                while !done.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(
                        CWD,
                        workspace.join("swap"),
                        CWD,
                        workspace.join("leak"),
                        swap,
                    )
                    .unwrap();
                }
            });
            let mut seen = [0, 0];
            for _ in 0..20_000 {
                match ours(&root, "swap/secret") {
                    Ok((_, inode)) if inode != secret => seen = [seen[0] + 1, seen[1]],
                    Err(ResolveError::Outside) => seen = [seen[0], seen[1] + 1],
                    // Swapped between the look and the reading of the symlink.
                    Err(ResolveError::Refused(Errno::NOTDIR)) => {}
                    other => panic!("{other:?}"),
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(
                seen.iter().all(|count| *count > 0),
                "both states were met: {seen:?}"
            );
        });
    }
}

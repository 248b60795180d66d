//! Giving the workspace to the session's user.
//!
//! The files that a session starts with belong to its user, whoever owned them before: an archive says who
//! that was on another machine, an image who it was when it was built, and a volume who it was under the
//! last image. The rule is the caller's ([`Give`]); it does not depend on what the engine has put into the
//! volume. It is followed once in the life of a container: what its user does later stays.
//!
//! The walk goes from descriptor to descriptor and follows no link, so that it stays below the workspace
//! whatever else runs, and it has no limit but the tree's end: it says how far it is, and goes on from the
//! beginning if the container is stopped in the middle. What is the user's already costs one look.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, Uid, chownat, fchown, fstat, openat, statat,
};
use rustix::io::Errno;

use crate::pack;
use crate::protocol::{CallError, Failure};

/// What of the workspace is given to the session's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Give {
    /// Everything: the session is new, and so are its files.
    All,
    /// What belongs to the owner of the workspace itself, if that is another user: the workspace is that of an
    /// earlier container. Files that its user gave to others stay theirs.
    Former,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// All that was to be given is given.
    Finished,
    /// The container is being stopped.
    Stopped,
}

/// After how many names the walk says how far it is.
const STEP: u64 = 512;

/// The file in the agent's directory that says for which container the rule has been followed.
const DONE: &str = "handed-over";

/// Refuses a workspace that an image's link has put into the agent's own directory, or around it: what is given to
/// the session's user there would be the agent's.
///
/// # Errors
/// Names where the link leads.
pub(crate) fn is_apart(directory: &Path, workspace: &Path) -> Result<(), CallError> {
    // What cannot be resolved is no folder, and is refused when it is opened.
    let (Ok(own), Ok(place)) = (directory.canonicalize(), workspace.canonicalize()) else {
        return Ok(());
    };
    if !place.starts_with(&own) && !own.starts_with(&place) {
        return Ok(());
    }
    Err(CallError {
        failure: Failure::NoWorkspace,
        message: format!(
            "`{}` of the image is a link to `{}`, where the agent lives",
            workspace.display(),
            place.display()
        ),
    })
}

/// Follows the rule, unless that has been done in this container: `token` names it.
///
/// `tell` hears how many names have been looked at, and may break the walk off.
///
/// # Errors
/// Names what could not be given.
pub(crate) fn once(
    (directory, token): (&Path, &str),
    workspace: &Path,
    owner: (u32, u32),
    give: Give,
    tell: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<HandOver, String> {
    let done = directory.join(DONE);
    let failed = |what: &Path, error: &dyn std::fmt::Display| {
        format!("failed to prepare `{}`: {error}", what.display())
    };
    // A link or a pipe that an image brings along says nothing.
    let is_file = std::fs::symlink_metadata(&done).is_ok_and(|found| found.is_file());
    if is_file && std::fs::read_to_string(&done).is_ok_and(|for_token| for_token == token) {
        return Ok(HandOver::Finished);
    }
    let outcome = hand_over(workspace, owner, give, tell)?;
    if outcome == HandOver::Finished {
        forget(&done).map_err(|error| failed(&done, &error))?;
        let mut file = File::create_new(&done).map_err(|error| failed(&done, &error))?;
        io::Write::write_all(&mut file, token.as_bytes()).map_err(|error| failed(&done, &error))?;
    }
    Ok(outcome)
}

fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whose files become whose.
struct Rule {
    /// The only former owner whose files are given; `None` for all.
    from: Option<u32>,
    uid: u32,
    gid: u32,
}

fn hand_over(
    workspace: &Path,
    (uid, gid): (u32, u32),
    give: Give,
    tell: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<HandOver, String> {
    let failed = |errno: Errno| format!("failed to prepare `{}`: {errno}", workspace.display());
    // The engine follows a link when it mounts the volume, so a link is followed here too.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, workspace, flags, Mode::empty()).map_err(failed)?;
    let is = fstat(&root).map_err(failed)?;
    let from = match give {
        Give::All => None,
        Give::Former if is.st_uid == uid => return Ok(HandOver::Finished),
        Give::Former => Some(is.st_uid),
    };
    let rule = Rule { from, uid, gid };
    let root_again = root
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())?;
    let outcome = walk(root_again, &rule, tell)
        .map_err(|error| format!("failed to prepare `{}`: {error}", workspace.display()))?;
    // Last, because it says that all is done.
    if outcome == HandOver::Finished && (is.st_uid, is.st_gid) != (uid, gid) {
        fchown(&root, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
    }
    Ok(outcome)
}

/// A folder on the way down, and those of its folders that are still to be walked.
struct Level {
    directory: OwnedFd,
    folders: Vec<CString>,
}

fn walk(
    root: OwnedFd,
    rule: &Rule,
    mut tell: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<HandOver, String> {
    // The walk holds one descriptor for each level.
    pack::allow_depth();
    let mut seen = 0;
    let mut levels = Vec::new();
    let mut next = Some(root);
    loop {
        if let Some(directory) = next.take() {
            let Some(folders) = give_entries(&directory, rule, &mut seen, &mut tell)? else {
                return Ok(HandOver::Stopped);
            };
            levels.push(Level { directory, folders });
        }
        let Some(level) = levels.last_mut() else {
            return Ok(HandOver::Finished);
        };
        let Some(name) = level.folders.pop() else {
            levels.pop();
            continue;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&level.directory, &*name, flags, Mode::empty()) {
            Ok(directory) => next = Some(directory),
            // Removed or replaced since its name was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(naming(&name, errno)),
        }
    }
}

/// Gives what one folder holds, and returns the folders in it; `None` when the walk is broken off.
fn give_entries(
    directory: &OwnedFd,
    rule: &Rule,
    seen: &mut u64,
    tell: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Vec<CString>>, String> {
    let mut folders = Vec::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| errno.to_string())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *seen += 1;
        if seen.is_multiple_of(STEP) && tell(*seen).is_break() {
            return Ok(None);
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(naming(name, errno)),
        };
        let is_due = rule.from.is_none_or(|from| from == stat.st_uid)
            && (stat.st_uid, stat.st_gid) != (rule.uid, rule.gid);
        if is_due {
            let owner = (Some(Uid::from_raw(rule.uid)), Some(Gid::from_raw(rule.gid)));
            match chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(naming(name, errno)),
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            folders.push(name.to_owned());
        }
    }
    Ok(Some(folders))
}

fn naming(name: &std::ffi::CStr, errno: Errno) -> String {
    format!("`{}`: {errno}", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    use super::*;

    /// Owners of a tree before and after a hand-over, by path below the workspace; `""` is the workspace.
    fn check(
        owner: (u32, u32),
        give: Give,
        tree: &[(&str, (u32, u32))],
        expected: &[(&str, (u32, u32))],
    ) {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "skipped: only root can change owners");
            return;
        }
        let workspace = tempfile::tempdir().unwrap();
        for (path, (uid, gid)) in tree {
            let path = workspace.path().join(path);
            if path.extension().is_some() {
                std::fs::write(&path, "").unwrap();
            } else {
                std::fs::create_dir_all(&path).unwrap();
            }
            lchown(&path, Some(*uid), Some(*gid)).unwrap();
        }
        let outcome = hand_over(workspace.path(), owner, give, |_| ControlFlow::Continue(()));
        assert_eq!(outcome, Ok(HandOver::Finished));
        for (path, owner) in expected {
            let found = workspace.path().join(path).symlink_metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), *owner, "`{path}`");
        }
    }

    #[test]
    fn a_workspace_that_is_a_link_to_the_agent_is_refused_and_any_other_is_not() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join(".cove");
        std::fs::create_dir_all(own.join("inner")).unwrap();
        std::fs::create_dir(top.path().join("home")).unwrap();
        let workspace = top.path().join("workspace");
        for (target, is_apart_from_it) in [
            ("home", true),
            (".cove", false),
            (".cove/inner", false),
            (".", false),
            ("nowhere", true),
        ] {
            symlink(target, &workspace).unwrap();
            let found = is_apart(&own, &workspace).map_err(|error| error.failure);
            let expected = if is_apart_from_it {
                Ok(())
            } else {
                Err(Failure::NoWorkspace)
            };
            assert_eq!(found, expected, "{target}");
            std::fs::remove_file(&workspace).unwrap();
        }
    }

    #[test]
    fn a_new_session_owns_all_its_files_whatever_the_engine_has_put_there() {
        let user = (1000, 1001);
        let node = (1000, 1000);
        let tree = [
            ("", (0, 0)),
            ("a", node),
            ("a/b.txt", (0, 0)),
            ("c.txt", (501, 20)),
        ];
        let given = [("", user), ("a", user), ("a/b.txt", user), ("c.txt", user)];
        check(user, Give::All, &tree, &given);
        // The image's own workspace was the user's before the archive was unpacked into it.
        check(
            user,
            Give::All,
            &[&[("", user)], &tree[1..]].concat(),
            &given,
        );
        let root = (0, 0);
        let to_root = [("", root), ("a", root), ("a/b.txt", root), ("c.txt", root)];
        check(root, Give::All, &tree, &to_root);
    }

    #[test]
    fn another_user_gets_what_was_the_last_ones_and_nothing_else() {
        let (old, new, postgres) = ((1000, 1000), (1500, 1500), (999, 999));
        let tree = [("", old), ("a", old), ("a/b.txt", old), ("data", postgres)];
        let given = [("", new), ("a", new), ("a/b.txt", new), ("data", postgres)];
        check(new, Give::Former, &tree, &given);
        check(
            (0, 0),
            Give::Former,
            &tree,
            &[("", (0, 0)), ("a/b.txt", (0, 0)), ("data", postgres)],
        );
        // The same user: whatever is there was done by it or in its name.
        let own = [("", new), ("root.txt", (0, 0)), ("data", postgres)];
        check(new, Give::Former, &own, &own);
    }

    #[test]
    fn nothing_outside_is_given_and_a_deep_tree_is_no_limit() {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "skipped: only root can change owners");
            return;
        }
        let (workspace, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "").unwrap();
        symlink(outside.path(), workspace.path().join("link")).unwrap();
        // Longer than any path that the kernel takes.
        let name = "d".repeat(200);
        let mut folder = openat(CWD, workspace.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..100 {
            rustix::fs::mkdirat(&folder, &*name, Mode::RWXU).unwrap();
            folder = openat(&folder, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let go_on = |_| ControlFlow::Continue(());
        hand_over(workspace.path(), (1000, 1000), Give::All, go_on).unwrap();
        assert_eq!(fstat(&folder).unwrap().st_uid, 1000);
        let owner_of = |path: &Path| path.symlink_metadata().unwrap().uid();
        assert_eq!(owner_of(&workspace.path().join("link")), 1000);
        assert_eq!(owner_of(outside.path()), 0);
        assert_eq!(owner_of(&outside.path().join("secret")), 0);
    }

    #[test]
    fn a_hand_over_that_was_stopped_goes_on_at_the_next_start_and_a_finished_one_is_not_done_again()
    {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "skipped: only root can change owners");
            return;
        }
        let (own, workspace) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..2 * STEP {
            std::fs::write(workspace.path().join(number.to_string()), "").unwrap();
        }
        let owner_of = |path: &Path| path.symlink_metadata().unwrap().uid();
        let count = || {
            let entries = std::fs::read_dir(workspace.path()).unwrap().flatten();
            entries
                .filter(|entry| owner_of(&entry.path()) == 1000)
                .count() as u64
        };
        let run = |give, answer: fn(u64) -> ControlFlow<()>| {
            once(
                (own.path(), "token"),
                workspace.path(),
                (1000, 1000),
                give,
                answer,
            )
            .unwrap()
        };
        assert_eq!(
            run(Give::Former, |_| ControlFlow::Break(())),
            HandOver::Stopped
        );
        assert!((1..2 * STEP).contains(&count()), "{}", count());
        assert_eq!(
            run(Give::Former, |_| ControlFlow::Continue(())),
            HandOver::Finished
        );
        assert_eq!(count(), 2 * STEP);

        let file = workspace.path().join("7");
        lchown(&file, Some(7), None).unwrap();
        assert_eq!(
            run(Give::All, |_| ControlFlow::Continue(())),
            HandOver::Finished
        );
        assert_eq!(owner_of(&file), 7, "what its user did later stays");
        let other = once(
            (own.path(), "another"),
            workspace.path(),
            (1000, 1000),
            Give::All,
            |_| ControlFlow::Continue(()),
        );
        assert_eq!(other, Ok(HandOver::Finished));
        assert_eq!(
            owner_of(&file),
            1000,
            "a container of another session begins anew"
        );
    }
}

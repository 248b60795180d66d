//! `agent init`: process 1 of a session's container.
//!
//! It makes a fresh volume, or the files of an archive, writable for the image's user, says that it has
//! done so, and then does what process 1 must: it takes in orphans and ends everything when the container
//! is stopped. It stays root, so it listens to nobody but the kernel: no sockets, no files that a
//! session's user can write.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, test_kill_process_group,
    wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::{accounts, processes, readiness};

/// How long the others have to end by themselves.
const GRACE: Duration = Duration::from_millis(700);

const LOOK_AGAIN: Duration = Duration::from_millis(5);

const SIGPWR: c_int = 30;

/// `SIGRTMIN+3`, with which images of systemd ask to be stopped.
const SIGRTMIN_3: c_int = 37;

/// Everything that images name as their stop signal. Only root in the container and the engine can send it.
const STOP: [c_int; 9] = [
    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPWR, SIGUSR1, SIGUSR2, SIGWINCH, SIGRTMIN_3,
];

/// What of the workspace is given to the image's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Give {
    /// The root of a fresh volume; what holds anything, or is anyone's already, stays.
    Fresh,
    /// Everything, once: an archive says who owned its files where it was made, and that is nobody here.
    Everything,
}

/// Is process 1 until the container is stopped.
///
/// `owner` is the image's user as the engine writes it. A setup that fails is announced like one that
/// succeeds: only `agent serve` can tell the app.
#[must_use]
pub fn run(owner: &str, give: Give, directory: &Path, workspace: &Path) -> ExitCode {
    if getpid() != Pid::INIT {
        complain("`agent init` must be process 1 of a container");
        return ExitCode::FAILURE;
    }
    // Before anything else: process 1 gets only the signals that it has asked for.
    let mut signals = match Signals::new(STOP.iter().chain(&[SIGCHLD])) {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("failed to ask for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = set_up(owner, give, directory, workspace) {
        complain(&error);
    }
    for signal in signals.forever() {
        if signal == SIGCHLD {
            reap();
        } else {
            end_all();
            break;
        }
    }
    ExitCode::SUCCESS
}

fn set_up(owner: &str, give: Give, directory: &Path, workspace: &Path) -> Result<(), String> {
    let own = |error| format!("failed to prepare `{}`: {error}", directory.display());
    let start_time = processes::stat_of(Pid::INIT)
        .ok_or("/proc is not mounted in this container")?
        .start_time;
    readiness::prepare(directory).map_err(own)?;
    let outcome =
        accounts::resolve_owner(owner, &accounts::passwd(), &accounts::group()).and_then(|owner| {
            hand_over(workspace, owner, give)
                .map_err(|error| format!("failed to prepare `{}`: {error}", workspace.display()))
        });
    readiness::announce(directory, start_time, &outcome).map_err(own)?;
    outcome
}

/// Gives the workspace to its user. Root needs no gift.
fn hand_over(workspace: &Path, (uid, gid): (u32, u32), give: Give) -> io::Result<()> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(workspace)?;
    let is = opened.metadata()?.uid();
    let is_due = match give {
        Give::Fresh => is == 0 && is_fresh(workspace)?,
        Give::Everything => is != uid,
    };
    if uid == 0 || !is_due {
        return Ok(());
    }
    if give == Give::Everything {
        give_content(workspace, uid, gid)?;
    }
    // Last, because it says that all is done.
    fchown(opened, Some(uid), Some(gid))
}

fn is_fresh(workspace: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(workspace)? {
        // The file system of a fresh volume may come with it.
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nothing else runs in the container yet, so no name can be exchanged for a link meanwhile.
fn give_content(folder: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            lchown(entry.path(), Some(uid), Some(gid))?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Takes in every process that has ended, ours or an orphan.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Asks all others to end and waits for them. Who is left when process 1 exits is killed by the kernel.
fn end_all() {
    let begin = Instant::now();
    // `kill(-1)`: everything in the container except ourselves. None left is no failure.
    let _ = kill_process_group(Pid::INIT, Signal::TERM);
    // Interactive shells ignore SIGTERM. Their terminal is about to go, so they get what it would send:
    // they save their history and end.
    for pid in processes::all() {
        if pid != Pid::INIT && processes::stat_of(pid).is_some_and(|stat| stat.leads_terminal) {
            // Gone meanwhile is no failure.
            let _ = kill_process(pid, Signal::HUP);
        }
    }
    // What is stopped would not see the signals.
    let _ = kill_process_group(Pid::INIT, Signal::CONT);
    while begin.elapsed() < GRACE {
        reap();
        if test_kill_process_group(Pid::INIT).is_err() {
            return;
        }
        // Processes that the engine has started are not our children: nothing tells when they end.
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn complain(message: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "cove-agent: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case is a workspace, and whether it ends up as the user's. Chowning needs root.
    fn check_hand_over(owner: (u32, u32), fill: impl Fn(&Path), expected: (u32, u32)) {
        let workspace = tempfile::tempdir().unwrap();
        fill(workspace.path());
        hand_over(workspace.path(), owner, Give::Fresh).unwrap();
        let found = workspace.path().metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), expected);
    }

    #[test]
    fn only_a_fresh_volume_is_handed_over() {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "skipped: only root can change owners");
            return;
        }
        check_hand_over((1000, 1001), |_| {}, (1000, 1001));
        check_hand_over(
            (1000, 1001),
            |path| std::fs::create_dir(path.join("lost+found")).unwrap(),
            (1000, 1001),
        );
        check_hand_over((0, 0), |_| {}, (0, 0));
        check_hand_over(
            (1000, 1001),
            |path| std::fs::write(path.join(".hidden"), "").unwrap(),
            (0, 0),
        );
        check_hand_over(
            (1000, 1001),
            |path| std::os::unix::fs::chown(path, Some(7), Some(8)).unwrap(),
            (7, 8),
        );
    }

    #[test]
    fn the_files_of_an_archive_are_handed_over_once_and_nothing_outside() {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "skipped: only root can change owners");
            return;
        }
        let (workspace, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = workspace.path().join("a/b/file");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        let link = workspace.path().join("a/link");
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        let owner_of = |path: &Path| path.symlink_metadata().unwrap().uid();
        hand_over(workspace.path(), (1000, 1000), Give::Everything).unwrap();
        let given = [workspace.path(), file.parent().unwrap(), &file, &link].map(owner_of);
        assert_eq!(given, [1000; 4]);
        assert_eq!(owner_of(outside.path()), 0);

        lchown(&file, Some(7), None).unwrap();
        hand_over(workspace.path(), (1000, 1000), Give::Everything).unwrap();
        assert_eq!(owner_of(&file), 7, "what its user did later stays");
    }

    #[test]
    fn init_refuses_to_be_any_other_process() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(run("", Give::Fresh, nowhere, nowhere), ExitCode::FAILURE);
    }
}

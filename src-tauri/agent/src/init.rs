//! `agent init`: process 1 of a session's container.
//!
//! It makes a fresh volume writable for the image's user, says that it has done so, and then does what
//! process 1 must: it takes in orphans and ends everything when the container is stopped. It stays root,
//! so it listens to nobody but the kernel: no sockets, no files that a session's user can write.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
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

/// Is process 1 until the container is stopped.
///
/// `owner` is the image's user as the engine writes it. A setup that fails is announced like one that
/// succeeds: only `agent serve` can tell the app.
#[must_use]
pub fn run(owner: &str, directory: &Path, workspace: &Path) -> ExitCode {
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
    if let Err(error) = set_up(owner, directory, workspace) {
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

fn set_up(owner: &str, directory: &Path, workspace: &Path) -> Result<(), String> {
    let own = |error| format!("failed to prepare `{}`: {error}", directory.display());
    let start_time = processes::stat_of(Pid::INIT)
        .ok_or("/proc is not mounted in this container")?
        .start_time;
    readiness::prepare(directory).map_err(own)?;
    let outcome =
        accounts::resolve_owner(owner, &accounts::passwd(), &accounts::group()).and_then(|owner| {
            hand_over(workspace, owner)
                .map_err(|error| format!("failed to prepare `{}`: {error}", workspace.display()))
        });
    readiness::announce(directory, start_time, &outcome).map_err(own)?;
    outcome
}

/// Gives the root of a fresh volume to its user; what holds anything, or is anyone's already, stays.
fn hand_over(workspace: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(workspace)?;
    let is_roots = opened.metadata()?.uid() == 0;
    if uid == 0 || !is_roots {
        return Ok(());
    }
    for entry in std::fs::read_dir(workspace)? {
        // The file system of a fresh volume may come with it.
        if entry?.file_name() != "lost+found" {
            return Ok(());
        }
    }
    fchown(opened, Some(uid), Some(gid))
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
        hand_over(workspace.path(), owner).unwrap();
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
    fn init_refuses_to_be_any_other_process() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(run("", nowhere, nowhere), ExitCode::FAILURE);
    }
}

//! How the daemon learns that `agent init` has finished its setup.
//!
//! Init leaves a small file, [`STATE`], that holds the start time of process 1 and how far the setup is. A
//! file of an earlier start of the container has another start time and counts as not there. The file and
//! its directory belong to root: who talks to the agent as the image's user cannot forge it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, inotify};
use rustix::process::Pid;

use crate::processes;
use crate::protocol::{CallError, Failure};

/// The name of the file in the agent's directory.
pub(crate) const STATE: &str = "state";

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a setup that says how far it is may go on before that is answered.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// How far the setup of the container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setup {
    /// The container is ready.
    Finished,
    /// It never will be, for this reason.
    Failed(CallError),
    /// Files are being given to their user; so many have been looked at.
    At(u64),
}

/// Why the container is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// It never will be, for this reason.
    Failed(CallError),
    /// Files are being given to their user; so many have been looked at.
    At(u64),
}

/// Returns the failure of a setup that has no kind of its own.
pub(crate) fn not_ready(message: String) -> CallError {
    CallError {
        failure: Failure::NotReady,
        message,
    }
}

/// Leaves what is known of the setup for [`wait`].
pub(crate) fn announce(directory: &Path, start_time: u64, setup: &Setup) -> io::Result<()> {
    let setup = match setup {
        Setup::Finished => "ok".to_owned(),
        Setup::Failed(reason) => {
            let reason = serde_json::to_string(reason).map_err(io::Error::other)?;
            format!("failed {reason}")
        }
        Setup::At(seen) => format!("at {seen}"),
    };
    let new = directory.join(format!("{STATE}.new"));
    forget(&new)?;
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(&new)?;
    // The umask may have taken from the mode.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.write_all(format!("{start_time}\n{setup}").as_bytes())?;
    std::fs::rename(&new, directory.join(STATE))
}

/// Makes the agent's directory one that only root can write to, and drops what an earlier start left.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(directory)?;
    fchown(&opened, Some(0), Some(0))?;
    opened.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    forget(&directory.join(STATE))
}

/// Waits until the setup of this start of the container has finished.
///
/// # Errors
/// Says why the container is not ready: the setup failed, has said nothing within `limit`, or process 1 is not
/// the agent; or how far the setup is.
pub(crate) fn wait(directory: &Path, limit: Duration) -> Result<(), NotReady> {
    let Some(init) = processes::stat_of(Pid::INIT) else {
        let reason = "/proc is not mounted in this container, or hides process 1";
        return Err(NotReady::Failed(not_ready(reason.to_owned())));
    };
    let begin = Instant::now();
    let mut changes = None;
    loop {
        let (limit, not_yet) = match setup_in(directory, init.start_time) {
            Some(Setup::Finished) => return Ok(()),
            Some(Setup::Failed(reason)) => return Err(NotReady::Failed(reason)),
            Some(Setup::At(seen)) => (limit.min(TELL_AFTER), NotReady::At(seen)),
            None => {
                let reason = format!("{}, and has not finished its setup", process_1());
                (limit, NotReady::Failed(not_ready(reason)))
            }
        };
        let rest = limit.saturating_sub(begin.elapsed());
        if rest.is_zero() {
            return Err(not_yet);
        }
        match &changes {
            // The watch begins only now: look once more before waiting for it.
            None => changes = Some(watch(directory)),
            Some(Ok(changes)) => await_change(changes, rest),
            // The user has no watches left on this machine.
            Some(Err(_)) => std::thread::sleep(rest.min(LOOK_AGAIN)),
        }
    }
}

/// Does the same, also through a setup that says how far it is, for as long as it moves.
///
/// # Errors
/// Says why the container will not be ready.
pub(crate) fn wait_to_the_end(directory: &Path, limit: Duration) -> Result<(), String> {
    let (mut last, mut moved) = (None, Instant::now());
    loop {
        match wait(directory, limit) {
            Ok(()) => return Ok(()),
            Err(NotReady::Failed(reason)) => return Err(reason.message),
            Err(NotReady::At(seen)) if last != Some(seen) => {
                (last, moved) = (Some(seen), Instant::now());
            }
            Err(NotReady::At(_)) if moved.elapsed() < limit => {}
            Err(NotReady::At(seen)) => return Err(format!("the setup stands still at {seen}")),
        }
    }
}

fn setup_in(directory: &Path, start_time: u64) -> Option<Setup> {
    let state = std::fs::read_to_string(directory.join(STATE)).ok()?;
    let (written_for, setup) = state.split_once('\n')?;
    if written_for.parse() != Ok(start_time) {
        return None;
    }
    match setup.split_once(' ') {
        None if setup == "ok" => Some(Setup::Finished),
        Some(("at", seen)) => Some(Setup::At(seen.parse().ok()?)),
        // An agent of another version may have other words: what it said is still the reason.
        Some(("failed", reason)) => Some(Setup::Failed(
            serde_json::from_str(reason).unwrap_or_else(|_| not_ready(reason.to_owned())),
        )),
        Some(_) | None => None,
    }
}

fn watch(directory: &Path) -> rustix::io::Result<File> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&changes, directory, inotify::WatchFlags::MOVED_TO)?;
    Ok(changes.into())
}

fn await_change(mut changes: &File, limit: Duration) {
    let Ok(limit) = Timespec::try_from(limit) else {
        return;
    };
    // Whatever ends the wait, the caller looks at the file and at the clock.
    let _ = poll(&mut [PollFd::new(changes, PollFlags::IN)], Some(&limit));
    let _ = changes.read(&mut [0; 4096]);
}

fn process_1() -> String {
    let command = std::fs::read("/proc/1/cmdline").unwrap_or_default();
    let words: Vec<_> = command
        .split(|byte| *byte == 0)
        .take(2)
        .map(String::from_utf8_lossy)
        .collect();
    format!("process 1 of this container is `{}`", words.join(" "))
}

fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn start_time() -> u64 {
        processes::stat_of(Pid::INIT).unwrap().start_time
    }

    #[test]
    fn a_finished_setup_is_ready_at_once() {
        let directory = tempfile::tempdir().unwrap();
        announce(directory.path(), start_time(), &Setup::Finished).unwrap();
        assert_eq!(wait(directory.path(), Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_failed_setup_tells_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let no_user = CallError {
            failure: Failure::NoUser {
                user: "a b".to_owned(),
            },
            message: "the image has no user `a b`".to_owned(),
        };
        for reason in [not_ready("no\nluck at 5".to_owned()), no_user] {
            let setup = Setup::Failed(reason.clone());
            announce(directory.path(), start_time(), &setup).unwrap();
            assert_eq!(wait(directory.path(), LIMIT), Err(NotReady::Failed(reason)));
        }
    }

    #[test]
    fn a_setup_that_takes_long_tells_how_far_it_is() {
        let directory = tempfile::tempdir().unwrap();
        announce(directory.path(), start_time(), &Setup::At(512)).unwrap();
        let begin = Instant::now();
        assert_eq!(wait(directory.path(), LIMIT), Err(NotReady::At(512)));
        assert!(begin.elapsed() < LIMIT);
    }

    #[test]
    fn the_outcome_of_an_earlier_start_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        announce(directory.path(), start_time() + 1, &Setup::Finished).unwrap();
        let Err(NotReady::Failed(reason)) = wait(directory.path(), Duration::ZERO) else {
            panic!("ready");
        };
        assert!(
            reason.message.ends_with("has not finished its setup"),
            "{reason}"
        );
        prepare(directory.path()).unwrap();
        assert!(!directory.path().join(STATE).exists());
    }

    #[test]
    fn a_setup_that_finishes_later_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(directory.path(), LIMIT));
            announce(directory.path(), 0, &Setup::Finished).unwrap();
            announce(directory.path(), start_time(), &Setup::Finished).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_change_ends_the_wait_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let changes = watch(directory.path()).unwrap();
        announce(directory.path(), 0, &Setup::Finished).unwrap();
        let begin = Instant::now();
        await_change(&changes, LIMIT);
        assert!(begin.elapsed() < LIMIT);
    }
}

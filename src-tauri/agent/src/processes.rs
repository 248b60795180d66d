//! What runs in the container, read from `/proc`, and how it is ended.
//!
//! A process belongs to a terminal if the environment that it was started with says so: `agent shell`
//! sets [`TERMINAL`], everything that runs below inherits it, and neither `nohup` nor a new session
//! takes it away. Which processes may be looked at and signalled is the kernel's decision, not made here.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// The environment variable that tells the terminal.
pub(crate) const TERMINAL: &str = "COVE_TERMINAL";

/// How long a process has between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// How long SIGKILL may take to show.
const KILL_GRACE: Duration = Duration::from_millis(500);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// Whether it leads the session of a terminal.
    pub(crate) leads_terminal: bool,
    /// When it started, in clock ticks since the machine did: no later process 1 has the same.
    pub(crate) start_time: u64,
}

/// Returns what `/proc` tells of a process, or `None` if it is gone or `/proc` is not mounted.
pub(crate) fn stat_of(pid: Pid) -> Option<ProcessStat> {
    parse_stat(&fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// Returns all processes that `/proc` shows.
pub(crate) fn all() -> Vec<Pid> {
    // Without /proc there is nothing to find.
    let Ok(directory) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    directory
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Ends the processes of all terminals that `is_meant` picks, and returns how many there were.
///
/// Returns when they are gone, at the latest after 1.5 s.
pub(crate) fn hang_up(is_meant: impl Fn(&[u8]) -> bool) -> u32 {
    let mut ended = 0;
    for pid in in_terminals(&is_meant) {
        // A process that went by itself meanwhile, or that the user may not signal, is no failure.
        if kill_process(pid, Signal::HUP).is_ok() {
            ended += 1;
            // A stopped job gets the signal only when it goes on.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    if !gone_within(GRACE, &is_meant, |_| {}) {
        gone_within(KILL_GRACE, &is_meant, |pid| {
            // As above.
            let _ = kill_process(pid, Signal::KILL);
        });
    }
    ended
}

fn gone_within(
    limit: Duration,
    is_meant: &impl Fn(&[u8]) -> bool,
    on_survivor: impl Fn(Pid),
) -> bool {
    let begin = Instant::now();
    loop {
        let survivors = in_terminals(is_meant);
        if survivors.is_empty() {
            return true;
        }
        if begin.elapsed() >= limit {
            return false;
        }
        survivors.into_iter().for_each(&on_survivor);
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn in_terminals(is_meant: &impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    let mut pids = all();
    pids.retain(|pid| {
        *pid != getpid()
            && *pid != Pid::INIT
            // Unreadable: of another user, or gone.
            && fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()))
                .is_ok_and(|environment| terminal_in(&environment).is_some_and(is_meant))
    });
    pids
}

fn terminal_in(environment: &[u8]) -> Option<&[u8]> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        variable
            .strip_prefix(TERMINAL.as_bytes())?
            .strip_prefix(b"=")
    })
}

/// The second field is the name in parentheses and may hold anything, so fields count from the last `)`.
fn parse_stat(stat: &[u8]) -> Option<ProcessStat> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = stat.split(|byte| *byte == b' ').next()?;
    let fields: Vec<&str> = str::from_utf8(stat.get(end_of_name + 1..)?)
        .ok()?
        .split_ascii_whitespace()
        .collect();
    // The first of `fields` is the third of the file: the state.
    let session = fields.get(3)?;
    let terminal = fields.get(4)?;
    Some(ProcessStat {
        leads_terminal: session.as_bytes() == pid && *terminal != "0",
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn a_process_name_cannot_pose_as_fields() {
        let stat = b"42 (a) S 1 1 1 0) R 1 42 42 34816 42 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                leads_terminal: true,
                start_time: 777
            })
        );
        let stat = b"42 (sh) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 778 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                leads_terminal: false,
                start_time: 778
            })
        );
        assert_eq!(parse_stat(b"42 (sh) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn the_own_start_time_is_found() {
        assert!(stat_of(getpid()).unwrap().start_time > 0);
    }

    fn in_terminal(terminal: &str, script: &str) -> Child {
        Command::new("sh")
            .args(["-c", script])
            .env(TERMINAL, terminal)
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_hang_up_ends_even_what_ignores_it_and_nothing_else() {
        let mine = format!("test-{}-mine", getpid().as_raw_nonzero());
        let other = format!("test-{}-other", getpid().as_raw_nonzero());
        let mut polite = in_terminal(&mine, "exec sleep 60");
        let mut stubborn = in_terminal(&mine, "trap '' HUP; sleep 60 & wait; sleep 60");
        let mut bystander = in_terminal(&other, "exec sleep 60");
        while in_terminals(&|terminal| terminal == mine.as_bytes()).len() < 3 {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        // The children are waited for only afterwards: a zombie counts as gone.
        hang_up(|terminal| terminal == mine.as_bytes());
        assert!(begin.elapsed() < GRACE + KILL_GRACE);
        assert!(polite.wait().unwrap().code().is_none());
        assert!(stubborn.wait().unwrap().code().is_none());
        assert_eq!(bystander.try_wait().unwrap(), None);
        assert_eq!(hang_up(|terminal| terminal == other.as_bytes()), 1);
        bystander.wait().unwrap();
    }
}

//! What runs in the container, read from `/proc`.

use std::fs;

use rustix::process::Pid;

use crate::AGENT_PATH;

/// Bit 14 of a mask of signals is signal 15.
const TERM: u64 = 1 << 14;

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// Whether it has ended, and only its parent has not yet heard of that.
    pub(crate) has_ended: bool,
    /// Who began it; 0 for one that the engine has put into the container.
    pub(crate) parent: i32,
    /// Whether it has a terminal.
    pub(crate) has_terminal: bool,
    /// When it started, in clock ticks since the machine did: no later process 1 has the same.
    pub(crate) start_time: u64,
}

/// What a process is when a container is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of the agent's own, begun by the engine: it ends when its work is over.
    Agent,
    /// An interactive shell: it ignores SIGTERM, and ends when its terminal hangs up.
    Shell,
    /// A program that does what a user wants done.
    Program,
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

/// Returns the processes beside process 1 that have not ended, and what each is.
pub(crate) fn others() -> Vec<(Pid, Role)> {
    let others = all().into_iter().filter(|pid| *pid != Pid::INIT);
    others
        .filter_map(|pid| {
            let stat = stat_of(pid)?;
            (!stat.has_ended).then(|| (pid, role_of(pid, &stat)))
        })
        .collect()
}

fn role_of(pid: Pid, stat: &ProcessStat) -> Role {
    let read = |what: &str| fs::read(format!("/proc/{}/{what}", pid.as_raw_nonzero()));
    // A program can take any name; that the engine has begun it, it cannot.
    if stat.parent == 0
        && let Ok(command) = read("cmdline")
        && command.split(|byte| *byte == 0).next() == Some(AGENT_PATH.as_bytes())
    {
        return Role::Agent;
    }
    if stat.has_terminal && read("status").is_ok_and(|status| ignores_term(&status)) {
        return Role::Shell;
    }
    Role::Program
}

fn ignores_term(status: &[u8]) -> bool {
    let mask = status.split(|byte| *byte == b'\n').find_map(|line| {
        let mask = line.strip_prefix(b"SigIgn:")?;
        u64::from_str_radix(str::from_utf8(mask).ok()?.trim(), 16).ok()
    });
    mask.is_some_and(|mask| mask & TERM != 0)
}

/// The second field is the name in parentheses and may hold anything, so fields count from the last `)`.
fn parse_stat(stat: &[u8]) -> Option<ProcessStat> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = str::from_utf8(stat.get(end_of_name + 1..)?)
        .ok()?
        .split_ascii_whitespace()
        .collect();
    // The first of `fields` is the third of the file: the state.
    Some(ProcessStat {
        has_ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        has_terminal: *fields.get(4)? != "0",
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn a_process_name_cannot_pose_as_fields() {
        let stat = b"42 (a) S 1 1 1 0) R 1 42 42 34816 42 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                has_ended: false,
                parent: 1,
                has_terminal: true,
                start_time: 777
            })
        );
        let stat = b"42 (sh) Z 0 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 778 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                has_ended: true,
                parent: 0,
                has_terminal: false,
                start_time: 778
            })
        );
        assert_eq!(parse_stat(b"42 (sh) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_shell_at_its_prompt_is_told_from_a_program_that_catches_the_signal() {
        // As bash and dash have it, and a script with a trap.
        assert!(ignores_term(
            b"Name:\tbash\nSigIgn:\t0000000000384004\nSigCgt:\t0\n"
        ));
        assert!(ignores_term(b"SigIgn:\t0000000001285004\n"));
        assert!(!ignores_term(
            b"SigIgn:\t0000000000000000\nSigCgt:\t0000000000004002\n"
        ));
        assert!(!ignores_term(b""));
    }

    #[test]
    fn the_own_start_time_is_found() {
        assert!(stat_of(getpid()).unwrap().start_time > 0);
    }
}

//! What runs in the container, read from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};

use crate::AGENT_PATH;
use crate::protocol::{MOST_PROGRAMS, Reply};

/// Bit 14 of a mask of signals is signal 15.
const TERM: u64 = 1 << 14;

/// A tick as `/proc` has it: the kernel tells a hundred of them to a second on every machine.
const TICK_MS: u64 = 10;

/// The most bytes of a command that are read.
const LONGEST_COMMAND: u64 = 400;

/// How often processes are looked for that are to be ended. More often finds those that make new ones faster than
/// they are found.
const ROUNDS: u32 = 20;

/// How long it is waited until processes that were ended are gone.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How long until it is looked again whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// Whether it has ended, and only its parent has not yet heard of that.
    pub(crate) has_ended: bool,
    /// Whether it waits for something, as a shell at its prompt does.
    pub(crate) sleeps: bool,
    /// Who began it; 0 for one that the engine has put into the container.
    pub(crate) parent: i32,
    /// The group that it is in: a job of its shell.
    pub(crate) group: i32,
    /// The session that it is in: that of the shell of a terminal, if it began there.
    pub(crate) session: i32,
    /// Whether it has a terminal.
    pub(crate) has_terminal: bool,
    /// Processor time of its own, in ticks.
    pub(crate) own_ticks: u64,
    /// Processor time of its children whose end it has waited for, and of theirs, in ticks.
    pub(crate) children_ticks: u64,
    /// When it started, in clock ticks since the machine did: no later process 1 has the same.
    pub(crate) start_time: u64,
}

/// What a process is when a container is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of the agent's own, begun by the engine or the session's daemon: it ends when its work is over.
    Agent,
    /// An interactive shell that waits: it ignores SIGTERM, and ends when its terminal hangs up.
    Shell,
    /// A program that does what a user wants done, or a shell that goes on to its next command.
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

/// Returns the processes beside process 1 that have not ended, and what each is, to whom this is the daemon.
pub(crate) fn others(daemon: Option<Pid>) -> Vec<(Pid, Role)> {
    let others = all().into_iter().filter(|pid| *pid != Pid::INIT);
    let (ended, others): (Vec<_>, Vec<_>) = others
        .filter_map(|pid| Some((pid, stat_of(pid)?)))
        .partition(|(_, stat)| stat.has_ended);
    // A shell whose command has ended, and that has not heard of it, is not at its prompt.
    let goes_on = |pid: Pid, stat: &ProcessStat| {
        let is_parent =
            |(_, child): &(Pid, ProcessStat)| child.parent == pid.as_raw_nonzero().get();
        !stat.sleeps || ended.iter().any(is_parent)
    };
    let role = |(pid, stat): (Pid, ProcessStat)| match role_of(pid, &stat, daemon) {
        Role::Shell if goes_on(pid, &stat) => (pid, Role::Program),
        role => (pid, role),
    };
    others.into_iter().map(role).collect()
}

/// Says how many processes and threads the container has, and the most that it may have.
pub(crate) fn count() -> Reply {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let counted = counted_in(&groups, Path::new("/sys/fs/cgroup"));
    let (running, limit) = counted.unwrap_or_else(|| (threads(), None));
    Reply::Processes { running, limit }
}

/// Reads the kernel's own count. A container may see its group as the root of all, or where the machine has it.
fn counted_in(groups: &str, root: &Path) -> Option<(u64, Option<u64>)> {
    let places = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let top = match controllers {
            "" => root.to_owned(),
            several if several.split(',').any(|one| one == "pids") => root.join("pids"),
            _ => return None,
        };
        Some([top.join(path.trim_start_matches('/')), top])
    });
    let read = |place: &PathBuf, file: &str| fs::read_to_string(place.join(file)).ok();
    places.flatten().find_map(|place| {
        let running = read(&place, "pids.current")?.trim().parse().ok()?;
        // The word for no limit is no number.
        let limit = read(&place, "pids.max")?.trim().parse().ok();
        Some((running, limit))
    })
}

fn threads() -> u64 {
    let count = |pid: Pid| fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok();
    let threads = all().into_iter().filter_map(count).map(Iterator::count);
    threads.map(|count| count as u64).sum()
}

/// Says what programs have done so far; the daemon asks.
pub(crate) fn work() -> Reply {
    let (mut ticks, mut written_bytes) = (0_u64, 0_u64);
    for pid in all() {
        let Some(stat) = stat_of(pid) else { continue };
        // What began in a terminal or was left to process 1 is a program's, also when it has ended.
        ticks = ticks.saturating_add(stat.children_ticks);
        if pid != Pid::INIT && role_of(pid, &stat, Some(getpid())) != Role::Agent {
            ticks = ticks.saturating_add(stat.own_ticks);
            written_bytes = written_bytes.saturating_add(written_by(pid).unwrap_or_default());
        }
    }
    Reply::Work {
        processor_ms: ticks.saturating_mul(TICK_MS),
        written_bytes,
    }
}

/// Returns what a process and those of its children that have ended wrote to disks; `None` when this may not be known.
fn written_by(pid: Pid) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let written = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    written?.trim().parse().ok()
}

/// Ends all processes but process 1 and the agent's own, and says how many. The daemon asks. It needs no new process and no
/// thread.
pub(crate) fn end() -> Reply {
    let mut ended = BTreeSet::new();
    let begin = Instant::now();
    let mut rounds = 0;
    let left = loop {
        let programs = programs();
        let before = ended.len();
        for pid in &programs {
            if kill_process(*pid, Signal::KILL).is_ok() {
                ended.insert(pid.as_raw_nonzero());
            }
        }
        // What the engine is just about to start, or is ending, is root's and soon gone.
        if programs.is_empty() || begin.elapsed() > END_LIMIT {
            break programs.len();
        }
        rounds += u32::from(ended.len() > before);
        if rounds > ROUNDS {
            // Everything at once, which nothing can outrun; the daemon, who asks for it, is spared.
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    Reply::EndProcesses {
        ended: ended.len() as u64,
        left: left as u64,
    }
}

/// Returns the commands that a shell has begun and that go on, those of the job in front first. Reads of each process of the
/// container what it is.
pub(crate) fn of_shell(shell: Pid, in_front: Option<Pid>) -> Vec<String> {
    let number = |pid: Pid| pid.as_raw_nonzero().get();
    let mut found: Vec<(bool, Pid)> = all()
        .into_iter()
        .filter(|pid| *pid != shell)
        .filter_map(|pid| Some((pid, stat_of(pid)?)))
        .filter(|(_, stat)| stat.session == number(shell) && !stat.has_ended)
        .map(|(pid, stat)| {
            (
                in_front.is_none_or(|group| stat.group != number(group)),
                pid,
            )
        })
        .collect();
    found.sort_by_key(|(is_behind, pid)| (*is_behind, pid.as_raw_nonzero()));
    let found = found.into_iter().take(MOST_PROGRAMS);
    found.filter_map(|(_, pid)| command_of(pid)).collect()
}

/// Returns the folder that a process is in; `None` if it is gone, or another user's.
pub(crate) fn folder_of(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()
}

/// Returns a process's command as one line, or its name if it hides that.
fn command_of(pid: Pid) -> Option<String> {
    let read = |what: &str| {
        let mut bytes = Vec::new();
        let file = fs::File::open(format!("/proc/{}/{what}", pid.as_raw_nonzero())).ok()?;
        file.take(LONGEST_COMMAND).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    read("cmdline").or_else(|| read("comm"))
}

/// Returns the processes that are neither process 1 nor the agent's own.
fn programs() -> Vec<Pid> {
    let others = others(Some(getpid())).into_iter();
    others
        .filter(|(_, role)| *role != Role::Agent)
        .map(|(pid, _)| pid)
        .collect()
}

fn role_of(pid: Pid, stat: &ProcessStat, daemon: Option<Pid>) -> Role {
    if Some(pid) == daemon {
        return Role::Agent;
    }
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
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // The first of `fields` is the third of the file: the state.
    Some(ProcessStat {
        has_ended: matches!(*fields.first()?, "Z" | "X"),
        sleeps: *fields.first()? == "S",
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        has_terminal: *fields.get(4)? != "0",
        own_ticks: number(11)?.saturating_add(number(12)?),
        children_ticks: number(13)?.saturating_add(number(14)?),
        start_time: number(19)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_pose_as_fields() {
        let stat = b"42 (a) S 1 1 1 0) R 1 42 42 34816 42 0 0 0 0 0 1 2 3 4 20 0 1 0 777 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                has_ended: false,
                sleeps: false,
                parent: 1,
                group: 42,
                session: 42,
                has_terminal: true,
                own_ticks: 3,
                children_ticks: 7,
                start_time: 777
            })
        );
        let stat = b"42 (sh) Z 0 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 778 1 2 3\n";
        assert_eq!(
            parse_stat(stat),
            Some(ProcessStat {
                has_ended: true,
                sleeps: false,
                parent: 0,
                group: 42,
                session: 42,
                has_terminal: false,
                own_ticks: 0,
                children_ticks: 0,
                start_time: 778
            })
        );
        assert_eq!(parse_stat(b"42 (sh) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn what_a_shell_has_begun_is_named_the_job_in_front_first() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut shell = Command::new("setsid")
            .args([
                "sh",
                "-c",
                "sleep 1001 & sleep 1002 & setsid sleep 1003 & echo; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It has begun all of them, but they may not have become what they are.
        shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = Pid::from_child(&shell);
        let begin = Instant::now();
        let mut found = Vec::new();
        while found != ["sleep 1001", "sleep 1002"] {
            assert!(begin.elapsed() < Duration::from_secs(10), "{found:?}");
            found = of_shell(pid, None);
            found.sort();
        }
        // In a script that has no terminal all are one group: the shell's own.
        assert_eq!(of_shell(pid, Some(pid)).len(), 2);
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        for pid in all() {
            let command = command_of(pid);
            if command.is_some_and(|command| command.starts_with("sleep 100")) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
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
    fn processes_are_counted_where_the_container_sees_its_group() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, running: &str, most: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("pids.current"), running).unwrap();
            fs::write(folder.join("pids.max"), most).unwrap();
        };
        let one =
            "12:cpu,cpuacct:/docker/a\n8:pids:/docker/a\n1:name=systemd:/docker/a\n0::/docker/a\n";
        let two = "0::/\n";
        let from_outside = "0::/machine/a\n";
        assert_eq!(counted_in(one, root.path()), None);
        // The first version mounts the container's own group, the second shows it as the root or under its name.
        write("pids", "20\n", "64\n");
        assert_eq!(counted_in(one, root.path()), Some((20, Some(64))));
        write("", "7\n", "max\n");
        assert_eq!(counted_in(two, root.path()), Some((7, None)));
        write("machine/a", "9\n", "10\n");
        assert_eq!(counted_in(from_outside, root.path()), Some((9, Some(10))));
        assert_eq!(counted_in("", root.path()), None);
    }

    #[test]
    fn the_own_start_time_is_found() {
        assert!(stat_of(getpid()).unwrap().start_time > 0);
    }
}

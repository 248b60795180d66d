//! What runs in the container, read from `/proc`.

use std::fs;

use rustix::process::Pid;

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
    use rustix::process::getpid;

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
}

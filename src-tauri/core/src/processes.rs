//! The processes of a ready session: how many there are of how many there may be, what they have done, and the end of
//! them all.
//!
//! All is asked over the connection that is there: when a session has used up its process limit, nothing new
//! can be started in it.

use std::time::Duration;

use cove_agent::protocol::{Call, Failure, Reply};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::connection::{CallFailure, Connection};
use crate::error::Error;
use crate::words;

/// A terminal is the agent's process with its TTY, and the shell.
const OF_A_TERMINAL: u64 = 2;
/// How long a terminal waits to hear whether there is room for it.
const COUNT_LIMIT: Duration = Duration::from_secs(1);

/// The most characters of a program's command that are shown.
const LONGEST_PROGRAM: usize = 80;

/// What became of a session's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ProcessesEnded {
    /// So many were ended.
    pub ended: u64,
    /// So many are still there: those of another user than the session's, who may not end them.
    pub left: u64,
}

/// What a session's programs have done so far, for comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Processor time.
    pub processor: Duration,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

/// Returns what the session's programs have done.
///
/// # Errors
/// [`Error::AgentUnavailable`].
pub(crate) async fn work(agent: &Connection) -> Result<Work, Error> {
    let answer = agent.call(Call::Work, &[]).await;
    match answer.map_err(CallFailure::into_error)? {
        (
            Reply::Work {
                processor_ms,
                written_bytes,
            },
            _,
        ) => Ok(Work {
            processor: Duration::from_millis(processor_ms),
            written_bytes,
        }),
        _ => Err(nonsense()),
    }
}

/// Names what the shell of a terminal has begun and goes on, the job in front first; nothing of a terminal that is gone.
///
/// # Errors
/// [`Error::AgentUnavailable`].
pub(crate) async fn of_terminal(agent: &Connection, id: &str) -> Result<Vec<String>, Error> {
    let call = Call::TerminalPrograms { id: id.to_owned() };
    match agent.call(call, &[]).await {
        Ok((Reply::TerminalPrograms { programs }, _)) => {
            let named = programs
                .iter()
                .map(|program| words::fit(program, LONGEST_PROGRAM));
            Ok(named.filter(|name| !name.is_empty()).collect())
        }
        Ok(_) => Err(nonsense()),
        Err(CallFailure::Refused(error)) if error.failure == Failure::NotFound => Ok(Vec::new()),
        Err(failure) => Err(failure.into_error()),
    }
}

/// Looks whether a terminal can be opened.
///
/// # Errors
/// [`Error::ProcessLimit`]. Where nobody answers in time, the engine is to find out.
pub(crate) async fn check_room(agent: &Connection) -> Result<(), Error> {
    match timeout(COUNT_LIMIT, agent.call(Call::Processes, &[])).await {
        Ok(Ok((
            Reply::Processes {
                running,
                limit: Some(limit),
            },
            _,
        ))) if running.saturating_add(OF_A_TERMINAL) > limit => {
            Err(Error::ProcessLimit { running, limit })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Ends everything that runs in the session, its terminals' shells included, but the agent.
///
/// # Errors
/// [`Error::AgentUnavailable`].
pub(crate) async fn end_all(agent: &Connection) -> Result<ProcessesEnded, Error> {
    let answer = agent.call(Call::EndProcesses, &[]).await;
    match answer.map_err(CallFailure::into_error)? {
        (Reply::EndProcesses { ended, left }, _) => Ok(ProcessesEnded { ended, left }),
        _ => Err(nonsense()),
    }
}

fn nonsense() -> Error {
    Error::AgentUnavailable("it answered something else than was asked".to_owned())
}

//! Files that go over the connection of a ready session: single entries, out of its workspace and into it.

use cove_agent::path::WorkspacePath;
use cove_agent::protocol::{Call, Decoder, Reply, Resume, Revision, Taken};
use cove_agent::tree::{Failed, PIECE, Piece, Why};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::local::Told;
use super::told::{self, Pieces};
use super::{Done, Files, STANDSTILL, stands_still};
use crate::archive::shown;
use crate::connection::{CallFailure, Connection, Stream};
use crate::error::Error;
use crate::files;

/// How long a connection is waited for that is just being made anew.
const LINK_LIMIT: Duration = Duration::from_secs(60);

/// What became of files that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// They are in place.
    Done,
    /// Nothing was made: these names are taken.
    Occupied(Vec<String>),
}

/// Returns the name of each path, which are to be different.
///
/// # Errors
/// [`Error::Validation`], [`Error::PathOutsideWorkspace`].
pub(crate) fn names_of(paths: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        let parsed = WorkspacePath::parse(path);
        let parsed = parsed.map_err(|_| Error::PathOutsideWorkspace(path.clone()))?;
        let name = parsed.components().last();
        let name = name.ok_or_else(|| Error::field("paths", "must lie in the workspace"))?;
        if names.contains(name) {
            let problem = format!(
                "two of them are called `{}`: download one after the other",
                shown(name)
            );
            return Err(Error::field("paths", problem));
        }
        names.push(name.clone());
    }
    if names.is_empty() {
        return Err(Error::field("paths", "must be at least one"));
    }
    Ok(names)
}

/// Begins to fetch entries, and returns them with the state of a single file, with which a later fetch can go on where
/// this one breaks off. The files end well only when all have come.
///
/// # Errors
/// What the agent refuses; [`Error::AgentUnavailable`] when the connection breaks, then and later.
pub(crate) async fn fetch(
    agent: &Connection,
    paths: &[String],
    resume: Option<Resume>,
) -> Result<(Files, Option<Revision>), Error> {
    let call = Call::Pack {
        paths: paths.to_vec(),
        resume,
    };
    let first = paths.first().map_or("", String::as_str);
    let (reply, stream, decoder) = converse(agent, &call, first).await?;
    match reply {
        Reply::Pack { revision } => Ok((told::events(pieces(stream, decoder)), revision)),
        _ => Err(nonsense()),
    }
}

/// Sends files into a folder of the workspace, and returns when they are in place; `tell` hears how far they are.
///
/// # Errors
/// What they end with; what the agent refuses; [`Error::AgentUnavailable`] when the connection breaks.
pub(crate) async fn send(
    agent: &Connection,
    (folder, names, taken): (&str, Vec<String>, Taken),
    files: impl FnOnce() -> mpsc::Receiver<Result<Told, Error>>,
    tell: impl Fn(Done),
) -> Result<Sent, Error> {
    let call = Call::Unpack {
        folder: folder.to_owned(),
        names,
        taken,
    };
    let (reply, stream, mut decoder) = converse(agent, &call, folder).await?;
    match reply {
        Reply::Unpack { occupied } if occupied.is_empty() => {}
        Reply::Unpack { occupied } => return Ok(Sent::Occupied(occupied)),
        _ => return Err(nonsense()),
    }
    let feeding = async {
        let mut told = files();
        while let Some(told) = told.recv().await {
            let Told { frames, done } = told?;
            tell(done);
            let sent = timeout(STANDSTILL, stream.send(&frames)).await;
            if !sent.map_err(|_elapsed| stands_still(COPY_IN))? {
                // What the agent has said about it is still to be heard.
                break;
            }
        }
        Ok::<_, Error>(())
    };
    let answer = async {
        loop {
            match decoder.next_frame().map_err(|_| nonsense())? {
                Some(frame) => return Ok(frame.header),
                None => match stream.next().await {
                    Some(bytes) => decoder.push(&bytes),
                    None => return Err(broken()),
                },
            }
        }
    };
    let mut answer = std::pin::pin!(answer);
    let answered = tokio::select! {
        answered = &mut answer => answered?,
        outcome = feeding => {
            outcome?;
            match timeout(STANDSTILL, answer).await {
                Ok(answered) => answered?,
                Err(_elapsed) => return Err(stands_still(COPY_IN)),
            }
        }
    };
    match answered {
        Piece::End => Ok(Sent::Done),
        Piece::Failed(Failed { why, message }) => {
            let message = shown(message.as_bytes());
            Err(match why {
                Why::NoSpace => Error::DiskFull {
                    operation: format!("upload the files ({message})"),
                    command: None,
                },
                Why::Changed | Why::Invalid | Why::Io => Error::Transfer(message),
            })
        }
        _ => Err(nonsense()),
    }
}

const COPY_IN: &str = "copy files into the container";

async fn converse(
    agent: &Connection,
    call: &Call,
    path: &str,
) -> Result<(Reply, Stream, Decoder<Piece>), Error> {
    let begun = timeout(LINK_LIMIT, agent.converse(call)).await;
    let begun = begun.map_err(|_elapsed| broken())?;
    let (reply, _, stream, decoder) = begun.map_err(|failure| match failure {
        CallFailure::Refused(error) => files::refused(path, error),
        failure @ (CallFailure::Broken | CallFailure::NoAnswer(_)) => failure.into_error(),
    })?;
    Ok((reply, stream, decoder.with_bodies_up_to(PIECE)))
}

fn pieces(stream: Stream, decoder: Decoder<Piece>) -> Pieces {
    stream::try_unfold((stream, decoder), async |(stream, mut decoder)| {
        loop {
            if let Some(frame) = decoder.next_frame().map_err(|_| nonsense())? {
                if let Piece::Failed(Failed {
                    why: Why::Io | Why::Invalid,
                    message,
                }) = &frame.header
                {
                    return Err(Error::Transfer(shown(message.as_bytes())));
                }
                return Ok(Some((frame, (stream, decoder))));
            }
            let bytes = timeout(STANDSTILL, stream.next()).await;
            let bytes = bytes.map_err(|_elapsed| stands_still(super::COPY_OUT))?;
            decoder.push(&bytes.ok_or_else(broken)?);
        }
    })
    .boxed()
}

fn broken() -> Error {
    Error::AgentUnavailable("the connection to the container broke".to_owned())
}

fn nonsense() -> Error {
    Error::FilesIncomplete("the agent in the container answered something else".to_owned())
}

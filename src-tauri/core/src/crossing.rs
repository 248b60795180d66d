//! Files on their way between a session and the outside: whole, or not at all. Whether they came to their end is
//! known from how they are told, never taken from the end of a stream.
//!
//! In a container that runs, the agent tells its files and makes them: it sees every tree that the kernel allows,
//! holes and all, reads a file again that changed meanwhile, and leads nothing out of the workspace. Where no
//! agent answers, nothing runs that could change the files, and the engine's own archive is followed instead.
//! Single entries of a ready session go over its connection, between the workspace and folders of this machine.

mod carried;
mod chosen;
mod local;
mod placed;
mod told;

use std::time::Duration;

use bytes::Bytes;
use cove_agent::tree::{Failed, Total, Why};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

pub(crate) use self::carried::{Sent, fetch, names_of, send};
pub(crate) use self::chosen::{Chosen, open_chosen};
pub(crate) use self::local::{
    Chosen as ChosenEntry, chosen as chosen_entries, tell as tell_entries,
};
pub use self::placed::Destination;
pub(crate) use self::placed::Placer;
use self::told::Telling;
use crate::archive::{ArchiveError, Event, Kind, Member, Reader, shown};
use crate::engine::Engine;
use crate::error::Error;

/// A folder's content without the folder itself, as engines read it.
const WORKSPACE_CONTENT: &str = concat!("/workspace", "/.");
/// How long files may stand still on their way.
const STANDSTILL: Duration = Duration::from_secs(60);
/// An engine names files by their whole path, and leaves out what is longer than the kernel takes at once, 4,095
/// bytes, without a word. With room for where it sees the folder and for one more name.
const DEEPEST: usize = 3_500;

/// How far files on their way are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Files that are through.
    pub(crate) files: u64,
    /// Bytes of content that are through.
    pub(crate) bytes: u64,
    /// Bytes of content in all; absent while nobody knows.
    pub(crate) total_bytes: Option<u64>,
}

/// Files on their way.
pub(crate) type Files = BoxStream<'static, Result<Event, Error>>;

/// Returns the files of a container's workspace, which ends well only when they have all come. Dropping it ends
/// the reading.
///
/// # Errors
/// [`Error::FilesIncomplete`]; what the engine answers; [`Error::EngineSilent`] when nothing comes for a minute.
pub(crate) async fn files_of(engine: &dyn Engine, container: &str) -> Result<Files, Error> {
    match told::pack(engine, container, &["pack"]).await {
        Some(pieces) => Ok(told::events(pieces)),
        None => archive_of(engine, container).await,
    }
}

/// Returns the counts of what is in a container's workspace as they grow, or `None` if its agent does not answer.
pub(crate) async fn totals_of(
    engine: &dyn Engine,
    container: &str,
) -> Option<BoxStream<'static, Result<Total, Error>>> {
    let pieces = told::pack(engine, container, &["pack", "--measure"]).await?;
    Some(told::totals(pieces))
}

/// Makes files in the workspace of a container that runs, and returns when all are in place. They become `owner`'s,
/// who is written as the image does; without one they keep their owners, and what was there before goes.
///
/// # Errors
/// What the files end with; what `refuse` makes of files that cannot be made; [`Error::DiskFull`]; what the engine
/// answers; [`Error::EngineSilent`] when nothing moves for a minute.
pub(crate) async fn fill(
    engine: &dyn Engine,
    container: &str,
    owner: Option<&str>,
    mut files: Files,
    refuse: impl Fn(String) -> Error,
) -> Result<(), Error> {
    let arguments: &[&str] = match owner {
        Some(owner) => &["unpack", "--owner", owner],
        None => &["unpack", "--keep-owners"],
    };
    let exec = told::run(engine, container, arguments).await?;
    let mut input = exec.input;
    let feeding = async {
        let mut telling = Telling::default();
        while let Some(event) = files.try_next().await? {
            let frames = telling.tell(event).map_err(&refuse)?;
            if !in_motion(input.write_all(&frames)).await? {
                // Who reads has ended, and says why.
                return Ok(());
            }
        }
        let end = telling.end().map_err(&refuse)?;
        if in_motion(input.write_all(&end)).await? {
            in_motion(input.flush()).await?;
        }
        Ok::<_, Error>(())
    };
    let answer = told::answer(exec.output);
    let mut answer = std::pin::pin!(answer);
    let answered = tokio::select! {
        // A failure in the container ends the feeding at once.
        answered = &mut answer => answered?,
        outcome = feeding => {
            outcome?;
            match tokio::time::timeout(STANDSTILL, answer).await {
                Ok(answered) => answered?,
                Err(_elapsed) => return Err(stands_still("copy files into the container")),
            }
        }
    };
    answered.map_err(|Failed { why, message }| match why {
        Why::NoSpace => Error::DiskFull {
            operation: format!("copy the files ({})", shown(message.as_bytes())),
            command: None,
        },
        Why::Invalid => refuse(shown(message.as_bytes())),
        Why::Changed | Why::Io => Error::FilesIncomplete(shown(message.as_bytes())),
    })
}

/// Waits for a write, but not for ever; `false` when nobody reads any more.
async fn in_motion(write: impl Future<Output = std::io::Result<()>>) -> Result<bool, Error> {
    let written = tokio::time::timeout(STANDSTILL, write).await;
    let written = written.map_err(|_elapsed| stands_still("copy files into the container"))?;
    Ok(written.is_ok())
}

async fn archive_of(engine: &dyn Engine, container: &str) -> Result<Files, Error> {
    let pieces = engine.download(container, WORKSPACE_CONTENT);
    let pieces = tokio::time::timeout(STANDSTILL, pieces)
        .await
        .map_err(|_elapsed| stands_still(COPY_OUT))??;
    let files = members(pieces).map_err(|error| match error {
        Failure::Stream(error) => error,
        Failure::Archive(error) => Error::FilesIncomplete(error.to_string()),
    });
    Ok(files
        .and_then(|event| async { not_too_deep(event) })
        .boxed())
}

const COPY_OUT: &str = "copy files out of the container";

/// Why the members of an archive end before their end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What carries the archive failed.
    Stream(Error),
    /// The archive itself is not whole, or not one.
    Archive(ArchiveError),
}

/// Follows an archive that comes in pieces.
pub(crate) fn members(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
) -> BoxStream<'static, Result<Event, Failure>> {
    let start = (pieces, Reader::default());
    stream::try_unfold(start, async |(mut pieces, mut reader)| {
        loop {
            if let Some(event) = reader.next().map_err(Failure::Archive)? {
                return Ok(Some((event, (pieces, reader))));
            }
            // What follows the end is none of the archive's.
            if reader.is_at_end() {
                return Ok(None);
            }
            let piece = tokio::time::timeout(STANDSTILL, pieces.next()).await;
            let piece = piece.map_err(|_elapsed| Failure::Stream(stands_still(COPY_OUT)))?;
            let Some(piece) = piece else {
                reader.finish().map_err(Failure::Archive)?;
                return Ok(None);
            };
            reader.push(&piece.map_err(Failure::Stream)?);
        }
    })
    .boxed()
}

fn not_too_deep(event: Event) -> Result<Event, Error> {
    match &event {
        Event::Member(Member {
            path,
            kind: Kind::Directory,
            ..
        }) if path.len() > DEEPEST => Err(Error::FilesIncomplete(format!(
            "`{}` lies deeper than the engine can read; open the session, and Cove can",
            shown(path)
        ))),
        Event::Member(Member {
            path,
            kind: Kind::Device,
            ..
        }) => Err(Error::FilesIncomplete(
            ArchiveError::Device(path.clone()).to_string(),
        )),
        Event::Total(_) | Event::Void | Event::Member(_) | Event::Data { .. } => Ok(event),
    }
}

fn stands_still(operation: &str) -> Error {
    Error::EngineSilent {
        operation: operation.to_owned(),
        limit: STANDSTILL,
    }
}

//! Files on their way out of a session: read whole, or not at all. What comes is a tree of members, whoever packs
//! it; whether it came to its end is known from its framing, never taken from the end of a stream.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

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

/// Files on their way.
pub(crate) type Files = BoxStream<'static, Result<Event, Error>>;

/// Returns the files of a container's workspace, which ends well only when they have all come.
///
/// # Errors
/// [`Error::FilesIncomplete`]; what the engine answers; [`Error::EngineSilent`] when nothing comes for a minute.
pub(crate) async fn files_of(engine: &dyn Engine, container: &str) -> Result<Files, Error> {
    let pieces = engine.download(container, WORKSPACE_CONTENT);
    let pieces = tokio::time::timeout(STANDSTILL, pieces)
        .await
        .map_err(|_elapsed| stands_still())??;
    let files = members(pieces).map_err(|error| match error {
        Failure::Stream(error) => error,
        Failure::Archive(error) => Error::FilesIncomplete(error.to_string()),
    });
    Ok(files
        .and_then(|event| async { not_too_deep(event) })
        .boxed())
}

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
            let piece = tokio::time::timeout(STANDSTILL, pieces.next()).await;
            let piece = piece.map_err(|_elapsed| Failure::Stream(stands_still()))?;
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
            "`{}` lies deeper than the engine can read",
            shown(path)
        ))),
        Event::Member(Member {
            path,
            kind: Kind::Device,
            ..
        }) => Err(Error::FilesIncomplete(
            ArchiveError::Device(path.clone()).to_string(),
        )),
        Event::Member(_) | Event::Data { .. } => Ok(event),
    }
}

fn stands_still() -> Error {
    Error::EngineSilent {
        operation: "copy files out of the container".to_owned(),
        limit: STANDSTILL,
    }
}
